"""Training loss (paper §3.3.2): focal loss on cells, a mask loss on those that are positive."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import torch
import torch.distributed as dist
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from ..layers import (
    binary_mask_loss,
    budgets,
    category_focal_loss,
    dice_bce_loss,
    dice_loss,
    focal_mask_loss,
    mae_loss,
    matte_loss,
    quality_focal_loss,
    rank_sort_loss,
    sample_points,
)
from .mask_pieces import MaskPiece, group_levels, group_masks, mask_ious
from .structures import MaskProbs, SOLOPredictions, SOLOTargets

MASK_LOSSES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "dice": dice_loss,
    "bce": binary_mask_loss,
    "dice_bce": dice_bce_loss,
    "focal": focal_mask_loss,
    "mae": mae_loss,
    "matte": matte_loss,
}
"""The values of `MODEL.SOLO.MASK_LOSS` (paper Tables 4c and S4b); a function can be added.

Each is called as ``f(probs, targets)`` with soft masks (K, H, W) in [0, 1] and their targets of the
same shape, boolean or float32 in [0, 1]; it returns one loss per mask (K,), differentiable in
`probs`, also for K = 0. With `MODEL.SOLO.MASK_LOSS_POINTS` masks are points, (K, 1, points).
"""

BINARY_MASK_LOSSES = {"focal"}
"""Values of `MODEL.SOLO.MASK_LOSS` that are defined for boolean targets alone."""

CATEGORY_LOSSES = ("focal", "quality_focal", "rank_sort")
"""The values of `MODEL.SOLO.CATEGORY_LOSS`."""


class SOLOCriterion:
    """L = category_weight · L_cate + mask_weight · L_mask (Eq. 4 and 5).

    Both terms are divided by the number of positive cells, averaged over all processes and at
    least 1, so that the gradient of several processes is that of one with the whole batch. That is
    Eq. 5; the text of §A.3.2 divides the losses of mattes by the number of instances, which would
    need another weight for every size of object: a large one has up to nine cells a level.

    Args:
        num_classes: C; the label C means background.
        category_loss: one of `CATEGORY_LOSSES`; with "quality_focal" the target of a positive cell
            is the IoU of its mask instead of 1, with "rank_sort" that IoU is its place among the
            others. The batch is ranked as a whole, of several processes each its own part.
        category_weight: weight of the category loss.
        mask_loss: one of `MASK_LOSSES`.
        mask_weight: λ, weight of the mask loss; in the paper 3 with "dice", 10 with "bce" and 20
            with "focal".
        mask_points: pixels of every mask that its loss is computed on; 0 for all, which it is as
            well where a mask has no more. See `sample_points`.
        focal_alpha: weight of positive against negative cells; of "focal" alone.
        focal_gamma: focusing exponent; not of "rank_sort".
        mask_strides: stride of the masks that the head makes, per level.
        by_level: request masks one level at a time. Use it for heads with mask features of every
            level: batching levels would sort the cells, with a host synchronisation.

    Attributes:
        num_positives: the number that the latest losses should be divided by, a scalar >= 0; they
            were divided by it, or by 1 where it is less.

    Raises:
        ValueError: unknown loss.
    """

    num_positives: Tensor

    def __init__(
        self,
        *,
        num_classes: int,
        category_loss: str = "focal",
        category_weight: float,
        mask_loss: str = "dice",
        mask_weight: float,
        mask_points: int = 0,
        focal_alpha: float,
        focal_gamma: float,
        mask_strides: Sequence[int],
        by_level: bool = False,
    ) -> None:
        if mask_loss not in MASK_LOSSES:
            raise ValueError(
                f"MODEL.SOLO.MASK_LOSS must be one of {tuple(MASK_LOSSES)}, got {mask_loss!r}"
            )
        if category_loss not in CATEGORY_LOSSES:
            raise ValueError(
                f"MODEL.SOLO.CATEGORY_LOSS must be one of {CATEGORY_LOSSES}, got {category_loss!r}"
            )
        self.num_classes = num_classes
        self.category_loss = category_loss
        self.by_quality = category_loss != "focal"
        self.category_weight = category_weight
        self.mask_loss = MASK_LOSSES[mask_loss]
        self.mask_weight = mask_weight
        self.mask_points = mask_points
        self.focal_alpha = focal_alpha
        self.focal_gamma = focal_gamma
        self.groups = group_levels(mask_strides, by_level)

    def __call__(
        self, predictions: SOLOPredictions, targets: SOLOTargets, mask_probs: MaskProbs
    ) -> dict[str, Tensor]:
        """Compute the losses of a batch.

        Args:
            predictions: of the head, for N images.
            targets: of the assigner, for the same images.
            mask_probs: the head's, turns cells into soft masks.

        Returns:
            ``loss_category`` and ``loss_mask``, scalars, weighted. Without any object both are
            finite and every parameter of the head receives a (zero) gradient.
        """
        self.num_positives = self._num_positives(targets)
        divisor = self.num_positives.clamp(min=1)
        mask_loss, ious = self._mask_loss(predictions, targets, mask_probs)
        category_loss = self._category_loss(predictions, targets, ious)
        return {
            "loss_category": self.category_weight * category_loss / divisor,
            "loss_mask": self.mask_weight * mask_loss / divisor,
        }

    def _num_positives(self, targets: SOLOTargets) -> Tensor:
        # No `torch.tensor`, which copies from the host.
        count = torch.full((), float(len(targets.cells)), device=targets.labels.device)
        if dist.is_available() and dist.is_initialized():
            dist.all_reduce(count)
            count /= dist.get_world_size()
        return count

    def _category_loss(
        self, predictions: SOLOPredictions, targets: SOLOTargets, ious: Tensor
    ) -> Tensor:
        # All levels as one map of one column.
        logits = torch.cat([x.flatten(2) for x in predictions.category_logits], dim=2)[..., None]
        if not self.by_quality:
            return category_focal_loss(logits, targets.labels, self.focal_alpha, self.focal_gamma)
        images = targets.images[targets.instances]
        if self.category_loss == "rank_sort":
            _, classes, cells = logits.shape[:3]
            rows = images * classes + targets.classes[targets.instances]
            return rank_sort_loss(logits, rows * cells + targets.cells, ious)
        quality = ious.new_zeros(targets.labels.shape)
        quality[images, targets.cells] = ious
        return quality_focal_loss(logits, targets.labels, quality, self.focal_gamma)

    def _mask_loss(
        self, predictions: SOLOPredictions, targets: SOLOTargets, mask_probs: MaskProbs
    ) -> tuple[Tensor, Tensor]:
        """Sum of the mask losses of all positive cells, and the IoU of every mask (P,)."""
        total: list[Tensor] = []
        ious: dict[int, Tensor] = {}  # by the first of their positives
        for stride, pieces in group_masks(self.groups, predictions, targets, mask_probs).items():
            masks = targets.masks[stride]
            length = max(1, budgets.MASK_LOSS_PIXELS // max(1, masks[:1].numel()))
            # All images at once, as a GPU wants it, unless their masks are too many pixels.
            few = sum(len(piece.cells) for piece in pieces) <= length
            for group in [pieces] if few else [[part] for x in pieces for part in x.split(length)]:
                run = partial(self._loss_of, group, masks)
                # A part is made anew in the backward pass, from the same random points.
                random = self.mask_points > 0
                loss, found = (
                    run()
                    if few
                    else checkpoint(run, use_reentrant=False, preserve_rng_state=random)
                )
                total.append(loss)
                if self.by_quality:
                    parts = found.split([len(piece.cells) for piece in group])
                    ious.update((x.start, y) for x, y in zip(group, parts, strict=True) if len(y))
        in_order = [ious[start] for start in sorted(ious)]
        return torch.stack(total).sum(), torch.cat(in_order) if in_order else total[0].new_zeros(0)

    def _loss_of(self, pieces: list[MaskPiece], masks: Tensor) -> tuple[Tensor, Tensor]:
        """Sum of the losses of some masks, and their IoU if the category loss has a use for it.

        Without cells masks are still made: an empty sum keeps every parameter in the graph, without
        which distributed training would wait for its gradient forever.
        """
        probs = torch.cat([piece.probs_of(piece.cells) for piece in pieces])
        wanted = masks[torch.cat([piece.rows for piece in pieces])]
        wanted = wanted if wanted.dtype == torch.bool else wanted.float()
        ious = mask_ious(probs.detach(), wanted) if self.by_quality else probs.new_zeros(0)
        if 0 < self.mask_points < probs[:1].numel():
            points = sample_points(probs, wanted, self.mask_points)
            probs, wanted = (x.flatten(1).gather(1, points)[:, None] for x in (probs, wanted))
        return self.mask_loss(probs, wanted).sum(), ious
