"""Facts about many polygons at once, and which of them are objects of their images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np
from pycocotools import mask as mask_util

__all__ = ["FAR", "LONGEST", "Outlines", "covers_pixels", "measure"]

FAR = 10
"""Sides of the image beyond which no coordinate may lie: what is drawn costs by its length."""

LONGEST = 1e6
"""Longest outline, in pixels of the image. Drawing 100 times as many takes minutes, or crashes."""


@dataclass(frozen=True)
class Outlines:
    """Facts about P polygons.

    Attributes:
        low: smallest x and y, (P, 2).
        high: largest x and y, (P, 2).
        area: enclosed area, (P,), 0 for a line; parts that are walked in opposite directions, as
            those of an eight, cancel.
        length: of the outline, (P,), every edge as its longer side.
        finite: whether all coordinates are numbers, (P,).
    """

    low: np.ndarray
    high: np.ndarray
    area: np.ndarray
    length: np.ndarray
    finite: np.ndarray


def measure(polygons: Sequence[Sequence[float]]) -> Outlines:
    """Measure polygons of at least one point each, x, y, x, y, ..."""
    counts = np.fromiter(map(len, polygons), np.int64, len(polygons)) // 2
    total = 2 * int(counts.sum())
    try:
        flat = np.fromiter(chain.from_iterable(polygons), np.float64, total)
    except OverflowError:  # a whole number of more than 308 digits
        far = (min(max(v, -1e300), 1e300) for v in chain.from_iterable(polygons))
        flat = np.fromiter(far, np.float64, total)
    x, y = np.ascontiguousarray(flat[0::2]), np.ascontiguousarray(flat[1::2])
    if not len(polygons):
        none = np.zeros(0)
        return Outlines(np.zeros((0, 2)), np.zeros((0, 2)), none, none, np.zeros(0, bool))
    first = np.cumsum(counts) - counts
    following = np.arange(1, len(x) + 1)
    following[first + counts - 1] = first
    with np.errstate(invalid="ignore", over="ignore"):  # what is not finite is told by `finite`
        x_next, y_next = x[following], y[following]
        twice = np.add.reduceat(x * y_next - x_next * y, first)
        steps = np.maximum(np.abs(x_next - x), np.abs(y_next - y))
        length = np.add.reduceat(steps, first)
        low = np.stack([np.minimum.reduceat(v, first) for v in (x, y)], 1)
        high = np.stack([np.maximum.reduceat(v, first) for v in (x, y)], 1)
        # Differences of large products are rounded: less than this is a line.
        area = np.where(np.abs(twice) > 1e-9 * length**2, np.abs(twice) / 2, 0.0)
    finite = np.isfinite(low).all(1) & np.isfinite(high).all(1)
    return Outlines(low, high, area, length, finite)


def covers_pixels(polygon: Sequence[float], size: tuple[int, int]) -> bool:
    """Draw a polygon, neither far nor `LONGEST`, and return whether a pixel is in it."""
    return bool(mask_util.area(mask_util.frPyObjects([list(map(float, polygon))], *size))[0] > 0)
