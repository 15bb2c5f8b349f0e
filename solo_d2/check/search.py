"""Find grids and scale ranges that give objects cells of their own, by exact counts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from ..modeling.grid import GridSpec
from ..modeling.targets import SOLOTargetAssigner
from .claims import Frames, claim, with_grid
from .measure import Objects

__all__ = ["Search", "opened_ranges"]

SHIFTS = (1.0, 0.5, 0.25, 0.125, 2.0)
"""Factors of all scale ranges that are tried, in this order: which levels have which sizes."""

FINER = (1.0, 1.25, 1.5, 2.0, 2.5, 3.0, 4.0)
COARSER = (0.5, 0.625, 0.75, 0.875, 1.0)
"""Factors of the config's grids that are tried."""

Ranges = tuple[tuple[float, ...], ...]
_Level = tuple[int, tuple[float, ...]]


def opened_ranges(ranges: Ranges, shift: float, smallest: float, largest: float) -> Ranges:
    """Move ranges by a factor, and open the first and the last one for all sizes that occur.

    Example:
        >>> opened_ranges(((1, 96), (48, 2048)), 0.5, 3.0, 700.0)
        ((1, 48), (24, 1024))
    """
    low = [round(a * shift) for a, _ in ranges]
    high = [round(b * shift) for _, b in ranges]
    low[0] = max(1, low[0])
    if smallest < low[0]:
        low[0] = 1 if smallest >= 1 else 0
    last = high[-1]
    while last < largest:
        last *= 2
    high[-1] = last
    return tuple(zip(low, high, strict=True))


@dataclass
class Search:
    """Counts how many objects own a cell in any combination of the levels' grids.

    Levels do not compete: an object owns a cell if it does on any level. So every level is counted
    once for each of its grids, and combinations cost nothing.

    Args:
        objects: of the dataset, or of a sample.
        frames: of their images in the network's input.
        assigner: of the model, with the config's grid.
    """

    objects: Objects
    frames: Frames
    assigner: SOLOTargetAssigner
    _owned: dict[_Level, np.ndarray] = field(default_factory=dict)

    def best(self, target: float, factors: Sequence[float], *, move: bool) -> GridSpec | None:
        """Find the fewest cells with which a share of the objects own one.

        Args:
            target: share of all objects.
            factors: of the config's grids that are tried, ascending.
            move: whether the scale ranges may be moved.

        Returns:
            The grid; None where no combination reaches the target.
        """
        found = []
        for ranges in self.ranges() if move else self.ranges()[:1]:
            grids = self._grids(ranges, target, factors)
            if grids is not None:
                found.append(GridSpec(tuple(grids), ranges, self.assigner.grid.strides))
        return min(found, key=lambda grid: grid.num_cells, default=None)

    def ranges(self) -> list[Ranges]:
        """Return the scale ranges that are tried; the first are the config's, opened.

        Moved ranges give no level objects that are smaller than its stride.
        """
        scales, grid = self._scales(), self.assigner.grid
        ends = (float(scales.min(initial=np.inf)), float(scales.max(initial=0)))
        tried = [opened_ranges(grid.scale_ranges, shift, *ends) for shift in SHIFTS]
        fit = [
            ranges
            for ranges in tried
            if all(low >= s for (low, _), s in zip(ranges[1:], grid.strides[1:], strict=True))
        ]
        return list(dict.fromkeys([tried[0], *fit]))

    def finest_share(self) -> float:
        """Return the largest share of objects with a cell that finer grids can reach."""
        return max(self._share(r, [x[-1] for x in self._sizes(FINER)]) for r in self.ranges())

    def _scales(self) -> np.ndarray:
        scales = claim(self.objects, self.frames, self.assigner).scales
        return scales[scales > 0]  # an empty mask has no size

    def _sizes(self, factors: Sequence[float]) -> list[list[int]]:
        """Grids of every level that are tried: no finer than the features below them."""
        longest = float(np.median(self.frames.canvases.max(1)))
        grid = self.assigner.grid
        tried = []
        for size, stride in zip(grid.num_grids, grid.strides, strict=True):
            most = max(size, int(longest / stride))
            tried.append(sorted({max(1, min(round(size * f), most)) for f in factors}))
        return tried

    def _grids(self, ranges: Ranges, target: float, factors: Sequence[float]) -> list[int] | None:
        """Refine where a cell helps most objects, then coarsen where none needs it."""
        sizes = self._sizes(factors)
        grids = [x[0] for x in sizes]
        while self._share(ranges, grids) < target:
            step = max(self._steps(ranges, grids, sizes), default=(0.0, 0, 0))
            if step[0] <= 0:
                return None
            grids[step[1]] = step[2]
        for level in sorted(range(len(grids)), key=lambda k: -grids[k]):
            for size in sizes[level]:
                fewer = [*grids[:level], size, *grids[level + 1 :]]
                if size < grids[level] and self._share(ranges, fewer) >= target:
                    grids = fewer
                    break
        return grids

    def _steps(
        self, ranges: Ranges, grids: list[int], sizes: list[list[int]]
    ) -> list[tuple[float, int, int]]:
        """Objects that every finer grid of one level would add, by cell; with level and grid."""
        steps = []
        for level, options in enumerate(sizes):
            rest = self._union(ranges, grids)
            for size in options:
                if size > grids[level]:
                    gain = (self._level(size, ranges[level]) & ~rest).sum()
                    steps.append((float(gain) / (size**2 - grids[level] ** 2), level, size))
        return steps

    def _share(self, ranges: Ranges, grids: Sequence[int]) -> float:
        owned = self._union(ranges, grids)
        return float(owned.mean()) if len(owned) else 1.0

    def _union(self, ranges: Ranges, grids: Sequence[int]) -> np.ndarray:
        levels = [self._level(s, r) for s, r in zip(grids, ranges, strict=True)]
        owned: np.ndarray = np.logical_or.reduce(levels)
        return owned

    def _level(self, size: int, bounds: tuple[float, ...]) -> np.ndarray:
        """Which objects own a cell of one level alone."""
        if (size, bounds) not in self._owned:
            level = with_grid(self.assigner, GridSpec((size,), (bounds,), (8,)))
            self._owned[size, bounds] = ~claim(self.objects, self.frames, level).lost
        return self._owned[size, bounds]
