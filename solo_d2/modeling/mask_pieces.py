"""Masks of many cells, made piece by piece, and how they compare with their targets."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from itertools import groupby
from typing import NamedTuple

import torch
from torch import Tensor

from ..layers import mask_areas
from .structures import MaskProbs, SOLOPredictions, SOLOTargets


class MaskPiece(NamedTuple):
    """Cells of one image whose masks are made in one call.

    Attributes:
        start: of the first, among all cells of the targets.
        cells: flat indices (K,), K may be 0.
        rows: of the mask targets (K,).
        probs_of: makes soft masks of cells.
    """

    start: int
    cells: Tensor
    rows: Tensor
    probs_of: Callable[[Tensor], Tensor]

    def split(self, length: int) -> list[MaskPiece]:
        """Split into pieces of at most so many cells, one piece at least."""
        starts = range(self.start, self.start + max(1, len(self.cells)), length)
        parts = zip(starts, self.cells.split(length), self.rows.split(length), strict=True)
        return [MaskPiece(*part, self.probs_of) for part in parts]


def group_levels(mask_strides: Sequence[int], by_level: bool) -> list[tuple[int, list[int]]]:
    """Group neighbouring levels whose masks have one size.

    Args:
        mask_strides: of the masks that a head makes, per level.
        by_level: keep every level by itself.

    Returns:
        Stride and levels of every group.
    """
    levels = groupby(
        range(len(mask_strides)), key=lambda level: (mask_strides[level], by_level * level)
    )
    return [(stride, list(group)) for (stride, _), group in levels]


def group_masks(
    groups: Sequence[tuple[int, list[int]]],
    predictions: SOLOPredictions,
    targets: SOLOTargets,
    mask_probs: MaskProbs,
) -> dict[int, list[MaskPiece]]:
    """Group the cells of targets by the stride of their masks, and by image and levels.

    Args:
        groups: of `group_levels`.
        predictions: of the head, for the images of the targets.
        targets: with cells sorted by image, then by cell.
        mask_probs: the head's, turns cells into soft masks.

    Returns:
        By stride, the pieces of every image.
    """
    pieces: dict[int, list[MaskPiece]] = {}
    start = 0
    for image, counts in enumerate(targets.counts):
        for stride, levels in groups:
            stop = start + sum(counts[level] for level in levels)
            probs_of = partial(mask_probs, predictions, image, levels=levels)
            chosen = targets.cells[start:stop], targets.instances[start:stop]
            pieces.setdefault(stride, []).append(MaskPiece(start, *chosen, probs_of))
            start = stop
    return pieces


def mask_ious(probs: Tensor, targets: Tensor) -> Tensor:
    """IoU (K,) of soft masks (K, H, W) with their targets, foreground being above 1/2."""
    found, wanted = probs > 0.5, targets if targets.dtype == torch.bool else targets > 0.5
    overlap = mask_areas(found & wanted)
    union = mask_areas(found) + mask_areas(wanted) - overlap
    return overlap.float() / union.clamp(min=1)
