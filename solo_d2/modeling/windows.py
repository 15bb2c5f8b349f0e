"""Windows over a large image, of growing sizes, and which objects belong to which of them.

At level l windows have 2**l times the side of those of level 0; at the last level one window is
the whole image. Windows of a level overlap, so that an object no larger than the overlap is whole
in one of them; what is larger is whole in a window of a later level.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

_BOTH = 1 / 8
"""How far beyond the middle of what two windows share an object belongs to both, as a share of the
overlap: they may see its centre some pixels apart. There NMS between windows decides.
"""

_LARGE = 3 / 4
"""Size from which on a window looks for objects, as a share of the overlap of the level before.

All objects up to that overlap are whole in a window there; the rest is for sizes that two levels
see differently.
"""


class Window(NamedTuple):
    """Part of an image, in pixels; right and bottom edge exclusive."""

    x0: int
    y0: int
    x1: int
    y1: int


@dataclass(frozen=True)
class Level:
    """The windows of one size over an image.

    Attributes:
        image: (height, width) in pixels.
        scale: 2**l, the size of a window relative to level 0.
        overlap: pixels that windows side by side share at least.
        smallest: size in pixels from which on objects belong to this level.
        rows: first pixel of the windows from top to bottom.
        columns: first pixel of the windows from left to right.
        size: (height, width) of every window.
    """

    image: tuple[int, int]
    scale: int
    overlap: int
    smallest: float
    rows: tuple[int, ...]
    columns: tuple[int, ...]
    size: tuple[int, int]

    @property
    def windows(self) -> list[Window]:
        """All windows, row by row."""
        height, width = self.size
        return [Window(x, y, x + width, y + height) for y in self.rows for x in self.columns]

    @property
    def _insets(self) -> list[float]:
        """Distance of centres from borders within the image, horizontal and vertical."""
        insets = []
        for starts, length in ((self.columns, self.size[1]), (self.rows, self.size[0])):
            # Windows that are evenly spread over the image may share more than the overlap.
            step = max((b - a for a, b in itertools.pairwise(starts)), default=0)
            insets.append((length - step) / 2 - _BOTH * self.overlap)
        return insets

    def owned(self, boxes: Tensor, window: Window, margin: tuple[float, float]) -> Tensor:
        """Find the objects in a window that belong to it: whole, and not another window's.

        An object at a border within the image may be cut off there. A window next to this one, or
        a larger one, sees all of it.

        Args:
            boxes: (K, 4) XYXY in the pixels of the window.
            window: of this level.
            margin: horizontal and vertical distance in pixels up to which a mask is at a border.

        Returns:
            Boolean (K,).
        """
        height, width = self.size
        x0, y0, x1, y1 = boxes.unbind(1)
        distance = torch.stack([x0, y0, width - x1, height - y1], dim=1)
        x, y = (x0 + x1) / 2, (y0 + y1) / 2
        centre = torch.stack([x, y, width - x, height - y], dim=1)
        inner = distance.new_tensor(
            [window.x0 > 0, window.y0 > 0, window.x1 < self.image[1], window.y1 < self.image[0]]
        )
        whole = (distance >= distance.new_tensor([*margin, *margin])) | (inner == 0)
        nearest = (centre >= distance.new_tensor(self._insets * 2)) | (inner == 0)
        large = torch.maximum(x1 - x0, y1 - y0) >= self.smallest
        return whole.all(1) & nearest.all(1) & large


def plan_levels(image: tuple[int, int], side: int, overlap: float) -> Iterator[Level]:
    """Yield the levels of windows over an image, from the smallest windows to the whole image.

    Args:
        image: (height, width) in pixels.
        side: of a window of level 0 in pixels, at least 1.
        overlap: share of its side that a window has in common with the next one, in [0, 1).
    """
    scale, smallest, common = 1, 0.0, int(side * overlap)
    while True:
        length, shared = side * scale, common * scale
        rows, columns = (_starts(extent, length, length - shared) for extent in image)
        size = (min(length, image[0]), min(length, image[1]))
        yield Level(image, scale, shared, smallest, rows, columns, size)
        if length >= max(image):
            return
        smallest = _LARGE * shared
        scale *= 2


def _starts(extent: int, length: int, step: int) -> tuple[int, ...]:
    """First pixels of windows that are evenly spread over an axis, `step` apart at most."""
    rest = max(0, extent - length)
    count = -(-rest // step)
    return tuple(rest * index // count for index in range(count + 1)) if count else (0,)
