"""Dynamic soft assignment: what is predicted decides which cells learn an object (RTMDet).

Shapes: N images, I objects of the whole batch, T cells in all, C classes, Q candidates, i.e. pairs
of a cell and an object.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from detectron2.structures import Instances
from torch import Tensor

from ..layers import budgets
from .grid import GridSpec
from .lost_objects import LostObjects
from .mask_pieces import group_levels, group_masks, mask_ious
from .structures import MaskProbs, SOLOPredictions, SOLOTargets
from .targets import SOLOTargetAssigner, measure

# Of RTMDet: weight of a mask's cost, distance in cells that costs 1, and how many of the best masks
# of an object tell how many cells it gets.
MASK_WEIGHT = 3.0
CENTER_RADIUS = 3.0
BEST_MASKS = 13

_EPS = 1e-7


@dataclass
class Candidates(SOLOTargets):
    """Pairs of a cell and an object that may become positive.

    ``cells``, ``instances`` (Q,) and ``counts`` are those of all pairs, so that a cell may stand in
    several; ``labels`` are of the background.

    Attributes:
        distances: from the middle of the cell to the object's centre of mass, in cells (Q,).
    """

    distances: Tensor


class DynamicSoftAssigner(SOLOTargetAssigner):
    """Assign objects to the cells that predict them best, whatever their level.

    Candidates of an object are, on every level, those of the 3x3 cells around its centre of mass
    that its box touches. A candidate costs how far its scores are off the IoU of its mask (a focal
    cross entropy), ``-MASK_WEIGHT · log IoU``, and ``10^(distance - CENTER_RADIUS)``. An object
    gets as many of its cheapest candidates as the IoUs of its `BEST_MASKS` best masks add up to,
    one at least. A cell that several objects want goes to the one to which it is cheapest.

    Args:
        grid: the grid pyramid; its scale ranges are not used.
        num_classes: C, which is also the label of the background.
        mask_strides: strides for which mask targets are needed.
        mask_targets: as for `SOLOTargetAssigner`.
        level_strides: stride of the masks that the head makes, per level.
        by_level: make masks one level at a time, as for `SOLOCriterion`.
    """

    def __init__(
        self,
        grid: GridSpec,
        num_classes: int,
        mask_strides: Sequence[int],
        mask_targets: str = "binary",
        *,
        level_strides: Sequence[int],
        by_level: bool = False,
    ) -> None:
        super().__init__(grid, num_classes, 1.0, mask_strides, mask_targets)
        self.groups = group_levels(level_strides, by_level)
        self.lost_objects = LostObjects(
            cause="other objects have all of their cells; finer MODEL.SOLO.NUM_GRIDS help"
        )

    def _assign(
        self, instances: list[Instances], canvas: tuple[int, int], device: torch.device
    ) -> Candidates:
        objects = self._gather(instances, canvas, device)
        measures = measure(objects, canvas)
        claims, valid = self._claims(measures, (measures.areas > 0)[:, None])
        keys, order = claims[valid].sort(stable=True)
        images, cells = keys // self.grid.num_cells, keys % self.grid.num_cells
        chosen = valid.nonzero()[order, 0]
        levels, rows, columns = self.grid.locate(cells)
        sizes = torch.tensor(self.grid.num_grids, device=device)[levels, None]
        centers = measures.centers[chosen] * sizes / measures.canvases
        shape = (len(instances), self.grid.num_cells)
        return Candidates(
            labels=torch.full(shape, self.num_classes, device=device),
            cells=cells,
            instances=chosen,
            counts=self._count(images, cells, len(instances)),
            classes=objects.classes,
            images=objects.images,
            masks=objects.masks,
            distances=(centers - torch.stack([columns, rows], 1) - 0.5).norm(dim=1).float(),
        )

    @torch.no_grad()
    def match(
        self, targets: SOLOTargets, predictions: SOLOPredictions, mask_probs: MaskProbs
    ) -> SOLOTargets:
        """Choose the positive cells among the candidates.

        Args:
            targets: `Candidates` of a call.
            predictions: of the head, for the same images.
            mask_probs: the head's, turns cells into soft masks.

        Returns:
            Targets of the cells that are positive, each once.
        """
        assert isinstance(targets, Candidates)
        images = targets.images[targets.instances]
        ious = self._ious(targets, predictions, mask_probs)
        logits = torch.cat([x.flatten(2) for x in predictions.category_logits], dim=2)
        logits = logits[images, :, targets.cells].float()
        cost = costs(logits, targets.classes[targets.instances], ious, targets.distances)
        keys = images * self.grid.num_cells + targets.cells
        count = len(targets.classes)
        chosen = cheapest(targets.instances, count, keys, ious, cost).nonzero()[:, 0]
        images, cells, objects = (x[chosen] for x in (images, targets.cells, targets.instances))
        owner = torch.full_like(targets.labels, -1)
        owner[images, cells] = objects
        self.lost_objects.add(owner, count)
        labels = targets.labels.clone()
        labels[images, cells] = targets.classes[objects]
        return SOLOTargets(
            labels=labels,
            cells=cells,
            instances=objects,
            counts=self._count(images, cells, len(labels)),
            classes=targets.classes,
            images=targets.images,
            masks=targets.masks,
        )

    def _ious(
        self, targets: Candidates, predictions: SOLOPredictions, mask_probs: MaskProbs
    ) -> Tensor:
        """IoU (Q,) of the masks of all candidates, of which few exist at a time."""
        ious = torch.zeros_like(targets.distances)
        for stride, pieces in group_masks(self.groups, predictions, targets, mask_probs).items():
            masks = targets.masks[stride]
            length = max(1, budgets.MASK_LOSS_PIXELS // max(1, masks[:1].numel()))
            for part in (x for piece in pieces for x in piece.split(length)):
                found = mask_ious(part.probs_of(part.cells), masks[part.rows])
                ious[part.start : part.start + len(found)] = found
        return ious


def costs(logits: Tensor, classes: Tensor, ious: Tensor, distances: Tensor) -> Tensor:
    """Compute what candidates cost.

    Args:
        logits: of the cells (Q, C).
        classes: of the objects (Q,).
        ious: of the masks (Q,).
        distances: in cells (Q,).

    Returns:
        (Q,).
    """
    wanted = torch.zeros_like(logits).scatter_(1, classes[:, None], ious[:, None])
    entropy = F.binary_cross_entropy_with_logits(logits, wanted, reduction="none")
    scores = (entropy * (wanted - logits.sigmoid()).square()).sum(1)
    return scores - MASK_WEIGHT * (ious + _EPS).log() + 10 ** (distances - CENTER_RADIUS)


def cheapest(
    objects: Tensor, num_objects: int, cells: Tensor, ious: Tensor, cost: Tensor
) -> Tensor:
    """Choose among candidates; see `DynamicSoftAssigner`.

    Args:
        objects: of the candidates (Q,).
        num_objects: I.
        cells: of the candidates (Q,), different numbers for the cells of different images.
        ious: of their masks (Q,).
        cost: of them (Q,).

    Returns:
        Which become positive, boolean (Q,).
    """
    best = torch.where(_places(objects, -ious) < BEST_MASKS, ious, 0)
    numbers = best.new_zeros(num_objects).index_add_(0, objects, best).long().clamp(min=1)
    wanted = _places(objects, cost) < numbers[objects]
    return wanted & (_places(cells, cost.masked_fill(~wanted, torch.inf)) == 0)


def _places(groups: Tensor, values: Tensor) -> Tensor:
    """Place (Q,) of every value among those of its group, the smallest first."""
    order = values.argsort(stable=True)
    order = order[groups[order].argsort(stable=True)]
    ordered = groups[order]
    places = torch.empty_like(order)
    places[order] = torch.arange(len(order), device=order.device) - torch.searchsorted(
        ordered, ordered
    )
    return places
