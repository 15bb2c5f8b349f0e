"""Masks as points of a coarse grid: overlaps of moved masks cost what they cover, not the image.

Shapes: K masks, P other ones, (H, W) image in pixels, (h, w) grid cells, N points of all masks.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from scipy import sparse
from torch import Tensor

__all__ = ["PointMasks", "grid_step"]

_LONGEST_SIDE = 160
"""Cells of the grid's longer side: stride 4 of an image of 640 pixels."""


def grid_step(size: tuple[int, int]) -> int:
    """Return the pixels between two points of the grid of an image (H, W)."""
    return max(1, round(max(size) / _LONGEST_SIDE))


@dataclass(frozen=True)
class PointMasks:
    """K masks, each as those of its pixels that lie on a grid.

    Attributes:
        size: (h, w) of the grid.
        starts: first point of every mask, and the number of points (K + 1,).
        points: y and x of every point in cells, mask by mask (N, 2).
    """

    size: tuple[int, int]
    starts: np.ndarray
    points: np.ndarray

    @classmethod
    def sample(cls, masks: Tensor, boxes: np.ndarray) -> PointMasks:
        """Sample masks: of each the middle pixel of every cell.

        Args:
            masks: boolean (K, H, W), on any device; only what lies in the boxes is read.
            boxes: that hold them (K, 4), XYXY in pixels, right and bottom edge exclusive.
        """
        step = grid_step((masks.shape[1], masks.shape[2]))
        first = step // 2
        size = tuple(max(0, -(-(side - first) // step)) for side in masks.shape[1:])
        corners = -(-(boxes.astype(np.int32) - first) // step)
        corners = np.clip(corners, 0, np.array([*size[::-1]] * 2, np.int32))
        owners, points = _cells(corners)
        rows, columns = points[:, 0] * step + first, points[:, 1] * step + first
        flat = (owners.astype(np.int64) * masks.shape[1] + rows) * masks.shape[2] + columns
        inside = masks.reshape(-1)[torch.from_numpy(flat).to(masks.device)].cpu().numpy()
        starts = np.searchsorted(owners[inside], np.arange(len(boxes) + 1)).astype(np.int32)
        return cls((size[0], size[1]), starts, points[inside])

    def __len__(self) -> int:
        return len(self.starts) - 1

    @property
    def areas(self) -> np.ndarray:
        """Points of every mask (K,)."""
        return np.diff(self.starts)

    def take(self, rows: np.ndarray) -> PointMasks:
        """Return the masks of rows (M,), in this order."""
        if np.array_equal(rows, np.arange(len(self))):
            return self
        counts = self.areas[rows]
        starts = np.zeros(len(rows) + 1, np.int32)
        np.cumsum(counts, out=starts[1:])
        places = np.arange(starts[-1]) + np.repeat(self.starts[rows] - starts[:-1], counts)
        return PointMasks(self.size, starts, self.points[places])

    def join(self, other: PointMasks) -> PointMasks:
        """Return these masks and those of another set on the same grid."""
        if not len(other):
            return self
        starts = np.concatenate([self.starts, other.starts[1:] + self.starts[-1]])
        return PointMasks(self.size, starts, np.concatenate([self.points, other.points]))

    def move(self, cells: np.ndarray) -> PointMasks:
        """Move every mask by whole cells (K, 2), y and x; what leaves the grid is cut off."""
        points = self.points + np.repeat(cells.astype(np.int32), self.areas, axis=0)
        # One comparison for both ends: what is below 0 is large without a sign.
        unsigned = points.view(np.uint32)
        inside = (unsigned[:, 0] < self.size[0]) & (unsigned[:, 1] < self.size[1])
        if inside.all():
            return PointMasks(self.size, self.starts, points)
        before = np.zeros(len(inside) + 1, np.int32)
        np.cumsum(inside, out=before[1:])
        return PointMasks(self.size, before[self.starts], points[inside])

    def iou(self, others: PointMasks) -> np.ndarray:
        """IoU (K, P) float with other masks on the same grid; 0 where both are empty."""
        common = self._common(others)
        union = self.areas[:, None] + others.areas[None, :] - common
        return common / np.maximum(union, 1)

    def shared(self, others: PointMasks) -> np.ndarray:
        """Share (K, P) of the smaller mask of two that the other one covers; 0 of empty ones."""
        smaller = np.minimum(self.areas[:, None], others.areas[None, :])
        return self._common(others) / np.maximum(smaller, 1)

    def _common(self, others: PointMasks) -> np.ndarray:
        return (self._matrix() @ others._matrix().T).toarray()

    def _matrix(self) -> sparse.csr_matrix:
        """The masks as 0 and 1 (K, h · w)."""
        cells = self.points[:, 0] * self.size[1] + self.points[:, 1]
        ones = np.ones(len(cells), np.float32)
        return sparse.csr_matrix(
            (ones, cells, self.starts), shape=(len(self), self.size[0] * self.size[1])
        )


def _cells(corners: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Box (N,) and place (N, 2), y and x, of every cell of boxes (K, 4), box by box."""
    widths, heights = (np.maximum(corners[:, i + 2] - corners[:, i], 0) for i in (0, 1))
    counts = widths * heights
    owners = np.repeat(np.arange(len(corners), dtype=np.int32), counts)
    before = np.cumsum(counts, dtype=np.int32) - counts
    inside = np.arange(len(owners), dtype=np.int32) - before[owners]
    points = np.stack(np.divmod(inside, widths[owners]), axis=1)
    points += corners[owners, 1::-1]
    return owners, points
