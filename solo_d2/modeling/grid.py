"""The grid pyramid: which cells exist, how they are numbered, which objects they may claim.

Shapes: L levels, S_l cells a side on level l, T = sum of S_l² cells in all. A cell is known by one
flat index: level by level, row-major inside a level, so that cell (i, j) of level l is
``start_l + i * S_l + j`` (paper §3.1.2: k = i · S + j).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from ..layers import exporting

# P2 is halved and P6 is enlarged before the heads see them, as in the published models.
MIN_STRIDE, MAX_STRIDE = 8, 32


@dataclass(frozen=True)
class GridSpec:
    """Grids of all pyramid levels.

    Attributes:
        num_grids: S_l, cells a side of every level.
        scale_ranges: (low, high) of every level in network-input pixels, both ends inclusive:
            the object sizes sqrt(w · h) that the level is responsible for. Ranges overlap.
        strides: stride of the features that every level predicts from, in input pixels.

    Example:
        >>> grid = GridSpec.build([4, 2], [[1, 64], [32, 128]], [8, 16])
        >>> grid.num_cells
        20
    """

    num_grids: tuple[int, ...]
    scale_ranges: tuple[tuple[float, ...], ...]
    strides: tuple[int, ...]

    def __post_init__(self) -> None:
        if not len(self.num_grids) == len(self.scale_ranges) == len(self.strides) > 0:
            raise ValueError(
                "expected one grid, one scale range and one input feature per level, got "
                f"MODEL.SOLO.NUM_GRIDS with {len(self.num_grids)}, MODEL.SOLO.SCALE_RANGES with "
                f"{len(self.scale_ranges)} and MODEL.SOLO.IN_FEATURES with {len(self.strides)} "
                "entries"
            )
        if min(self.num_grids) < 1:
            raise ValueError(f"MODEL.SOLO.NUM_GRIDS must be positive, got {self.num_grids}")
        for bounds in self.scale_ranges:
            if len(bounds) != 2 or bounds[0] > bounds[1]:
                raise ValueError(f"MODEL.SOLO.SCALE_RANGES expects (low, high) pairs, got {bounds}")

    @classmethod
    def build(
        cls,
        num_grids: Sequence[int],
        scale_ranges: Sequence[Sequence[float]],
        feature_strides: Sequence[int],
    ) -> GridSpec:
        """Make a spec from config values and the strides of the backbone's features."""
        return cls(
            num_grids=tuple(int(size) for size in num_grids),
            scale_ranges=tuple(tuple(float(bound) for bound in r) for r in scale_ranges),
            strides=tuple(min(max(s, MIN_STRIDE), MAX_STRIDE) for s in feature_strides),
        )

    @property
    def num_levels(self) -> int:
        """L."""
        return len(self.num_grids)

    @property
    def mask_strides(self) -> tuple[int, ...]:
        """Stride of masks at twice the size of every level's features."""
        return tuple(stride // 2 for stride in self.strides)

    @cached_property
    def level_sizes(self) -> tuple[int, ...]:
        """Number of cells S_l² of every level."""
        return tuple(size * size for size in self.num_grids)

    @property
    def num_cells(self) -> int:
        """T, the cells of all levels together."""
        return sum(self.level_sizes)

    @cached_property
    def starts(self) -> tuple[int, ...]:
        """Flat index of the first cell of every level."""
        return tuple(sum(self.level_sizes[:level]) for level in range(self.num_levels))

    def levels(self, cells: Tensor) -> Tensor:
        """Level (K,) of flat cell indices (K,)."""
        ends = torch.tensor(self.starts[1:], device=cells.device, dtype=cells.dtype)
        return torch.bucketize(cells, ends, right=True)

    def split(self, cells: Tensor, levels: Sequence[int]) -> list[tuple[int, Tensor]]:
        """Sort cells by level, with one host synchronisation.

        Args:
            cells: flat indices (K,), in any order, K may be 0.
            levels: the levels that they may lie on.

        Returns:
            For each of `levels`, the positions in `cells` of the cells that lie on it.

        Raises:
            ValueError: a cell lies on none of `levels`.
        """
        if exporting():  # without the example's numbers of cells, and without the check
            level_of = self.levels(cells)
            return [(level, (level_of == level).nonzero().squeeze(1)) for level in levels]
        ordered, order = cells.sort()
        starts = torch.tensor(self.starts, device=cells.device, dtype=cells.dtype)
        bounds = [*torch.searchsorted(ordered, starts).tolist(), len(cells)]
        parts = [(level, order[bounds[level] : bounds[level + 1]]) for level in levels]
        if sum(len(positions) for _, positions in parts) != len(cells):
            raise ValueError(f"expected cells of the levels {list(levels)} only")
        return parts

    def flatten(self, level: int, row: int, column: int) -> int:
        """Flat index of one cell; rows and columns count from 0."""
        size = self.num_grids[level]
        if not (0 <= row < size and 0 <= column < size):
            raise ValueError(f"level {level} has {size}x{size} cells, got ({row}, {column})")
        return self.starts[level] + row * size + column

    def locate(self, cells: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Level, row and column (K,) of flat cell indices (K,); the inverse of `flatten`."""
        levels = self.levels(cells)
        size = torch.tensor(self.num_grids, device=cells.device)[levels]
        inside = cells - torch.tensor(self.starts, device=cells.device)[levels]
        return levels, inside // size, inside % size
