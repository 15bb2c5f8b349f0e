"""Training loss (paper §3.3.2): focal loss on cells, a mask loss on those that are positive."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from itertools import groupby

import torch
import torch.distributed as dist
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from ..layers import (
    binary_mask_loss,
    budgets,
    category_focal_loss,
    dice_loss,
    focal_mask_loss,
    mae_loss,
    mask_areas,
    matte_loss,
    quality_focal_loss,
)
from .structures import MaskProbs, SOLOPredictions, SOLOTargets

MASK_LOSSES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "dice": dice_loss,
    "bce": binary_mask_loss,
    "focal": focal_mask_loss,
    "mae": mae_loss,
    "matte": matte_loss,
}
"""The values of `MODEL.SOLO.MASK_LOSS` (paper Tables 4c and S4b); a function can be added.

Each is called as ``f(probs, targets)`` with soft masks (K, H, W) in [0, 1] and their targets of the
same shape, boolean, or in [0, 1] for mattes; it returns one loss per mask (K,), differentiable in
`probs`, also for K = 0.
"""

CATEGORY_LOSSES = ("focal", "quality_focal")
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
            is the IoU of its mask instead of 1.
        category_weight: weight of the category loss.
        mask_loss: one of `MASK_LOSSES`.
        mask_weight: λ, weight of the mask loss; in the paper 3 with "dice", 10 with "bce" and 20
            with "focal".
        focal_alpha: weight of positive against negative cells; of "focal" alone.
        focal_gamma: focusing exponent.
        mask_strides: stride of the masks that the head makes, per level.
        by_level: request masks one level at a time. Use it for heads with mask features of every
            level: batching levels would sort the cells, with a host synchronisation.

    Raises:
        ValueError: unknown loss.
    """

    def __init__(
        self,
        *,
        num_classes: int,
        category_loss: str = "focal",
        category_weight: float,
        mask_loss: str = "dice",
        mask_weight: float,
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
        self.by_quality = category_loss == "quality_focal"
        self.category_weight = category_weight
        self.mask_loss = MASK_LOSSES[mask_loss]
        self.mask_weight = mask_weight
        self.focal_alpha = focal_alpha
        self.focal_gamma = focal_gamma
        # Neighbouring levels whose masks have one size are handled in one call: (stride, levels).
        levels = groupby(
            range(len(mask_strides)), key=lambda level: (mask_strides[level], by_level * level)
        )
        self.mask_groups = [(stride, list(group)) for (stride, _), group in levels]

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
        num_positives = self._num_positives(targets)
        mask_loss, ious = self._mask_loss(predictions, targets, mask_probs)
        category_loss = self._category_loss(predictions, targets, ious)
        return {
            "loss_category": self.category_weight * category_loss / num_positives,
            "loss_mask": self.mask_weight * mask_loss / num_positives,
        }

    def _num_positives(self, targets: SOLOTargets) -> Tensor:
        count = torch.tensor(float(len(targets.cells)), device=targets.labels.device)
        if dist.is_available() and dist.is_initialized():
            dist.all_reduce(count)
            count /= dist.get_world_size()
        return count.clamp(min=1)

    def _category_loss(
        self, predictions: SOLOPredictions, targets: SOLOTargets, ious: Tensor
    ) -> Tensor:
        sizes = [level.shape[-2] * level.shape[-1] for level in predictions.category_logits]
        labels = targets.labels.split(sizes, dim=1)
        levels = zip(predictions.category_logits, labels, strict=True)
        if not self.by_quality:
            losses = [category_focal_loss(*x, self.focal_alpha, self.focal_gamma) for x in levels]
            return torch.stack(losses).sum()
        quality = ious.new_zeros(targets.labels.shape)
        quality[targets.images[targets.instances], targets.cells] = ious
        parts = zip(levels, quality.split(sizes, dim=1), strict=True)
        losses = [quality_focal_loss(*x, part, self.focal_gamma) for x, part in parts]
        return torch.stack(losses).sum()

    def _mask_loss(
        self, predictions: SOLOPredictions, targets: SOLOTargets, mask_probs: MaskProbs
    ) -> tuple[Tensor, Tensor]:
        """Sum of the mask losses of all positive cells, and the IoU of every mask (P,)."""
        total, ious = [], []
        start = 0
        for image, counts in enumerate(targets.counts):
            for stride, levels in self.mask_groups:
                stop = start + sum(counts[level] for level in levels)
                probs_of = partial(mask_probs, predictions, image, levels=levels)
                piece = partial(self._chunk_loss, probs_of, targets.masks[stride])
                cells, rows = targets.cells[start:stop], targets.instances[start:stop]
                for loss, found in _in_chunks(
                    piece, cells, rows, targets.masks[stride][:1].numel()
                ):
                    total.append(loss)
                    ious.append(found)
                start = stop
        return torch.stack(total).sum(), torch.cat(ious)

    def _chunk_loss(
        self, probs_of: Callable[[Tensor], Tensor], masks: Tensor, cells: Tensor, rows: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Sum of the losses of some masks, and their IoU; none but for the quality focal loss."""
        probs, wanted = probs_of(cells), masks[rows]
        return self.mask_loss(probs, wanted).sum(), (
            _ious(probs.detach(), wanted) if self.by_quality else probs.new_zeros(0)
        )


def _ious(probs: Tensor, targets: Tensor) -> Tensor:
    """IoU (K,) of masks, foreground being above 1/2."""
    found, wanted = probs > 0.5, targets if targets.dtype == torch.bool else targets > 0.5
    overlap = mask_areas(found & wanted)
    union = mask_areas(found) + mask_areas(wanted) - overlap
    return overlap.float() / union.clamp(min=1)


def _in_chunks(
    piece: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]],
    cells: Tensor,
    rows: Tensor,
    pixels: int,
) -> list[tuple[Tensor, Tensor]]:
    """Call `piece` on all cells at once, or in parts where their masks are too many pixels.

    Without cells it is still called: an empty sum keeps every parameter in the graph, without
    which distributed training would wait for its gradient forever.
    """
    length = max(1, budgets.MASK_LOSS_PIXELS // max(1, pixels))
    if len(cells) <= length:
        return [piece(cells, rows)]
    parts = zip(cells.split(length), rows.split(length), strict=True)
    return [
        checkpoint(piece, *part, use_reentrant=False, preserve_rng_state=False) for part in parts
    ]
