"""Area, box and centre of many masks at once, exactly and without a pixel being decoded."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from .runs import read_runs

__all__ = ["MaskMeasures", "measure_masks"]


class MaskMeasures(NamedTuple):
    """Measures of M masks, in pixels.

    Attributes:
        areas: int64 (M,).
        boxes: XYXY, right and bottom edge exclusive, int64 (M, 4); zeros for an empty mask.
        centers: mean x and y of the pixels, which count from 0, float64 (M, 2); NaN for an empty
            mask.
    """

    areas: np.ndarray
    boxes: np.ndarray
    centers: np.ndarray


def measure_masks(rles: Sequence[dict[str, Any]]) -> MaskMeasures:
    """Measure masks by their runs, which go down the columns.

    Args:
        rles: compressed, as `check_segmentations` leaves them; of any sizes.

    Example:
        >>> import numpy as np
        >>> from solo_d2.io.segmentation import encode_mask
        >>> mask = np.zeros((3, 4), bool)
        >>> mask[1, 1:3] = True
        >>> measures = measure_masks([encode_mask(mask)])
        >>> measures.areas.tolist(), measures.boxes.tolist(), measures.centers.tolist()
        ([2], [[1, 1, 3, 2]], [[1.5, 1.0]])
    """
    count = len(rles)
    boxes, centers = np.zeros((count, 4), np.int64), np.full((count, 2), np.nan)
    if not count:
        return MaskMeasures(np.zeros(0, np.int64), boxes, centers)
    owner, start, stop = _object_runs([_counts(rle) for rle in rles])
    height = np.array([rle["size"][0] for rle in rles], np.int64)[owner]
    areas = np.bincount(owner, stop - start, count).astype(np.int64)

    first = np.flatnonzero(np.diff(owner, prepend=-1))  # of every mask that has a pixel
    if not first.size:
        return MaskMeasures(areas, boxes, centers)
    left, right = start // height, (stop - 1) // height
    whole = right > left  # a run around a corner has the last row and the first one
    top = np.where(whole, 0, start % height)
    bottom = np.where(whole, height, (stop - 1) % height + 1)
    present = owner[first]
    boxes[present, 0] = np.minimum.reduceat(left, first)
    boxes[present, 1] = np.minimum.reduceat(top, first)
    boxes[present, 2] = np.maximum.reduceat(right, first) + 1
    boxes[present, 3] = np.maximum.reduceat(bottom, first)
    before, behind = _coordinates_before(start, height), _coordinates_before(stop, height)
    for axis in range(2):
        sums = np.add.reduceat(behind[axis] - before[axis], first)
        centers[present, axis] = sums / areas[present]
    return MaskMeasures(areas, boxes, centers)


def _counts(rle: dict[str, Any]) -> bytes:
    counts = rle["counts"]
    return counts if isinstance(counts, bytes) else counts.encode("ascii")


def _object_runs(texts: Sequence[bytes]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of every run of object pixels: its mask, and the first and one-past-last pixel."""
    runs, begin = read_runs(texts)
    counts = np.diff(begin, append=len(runs))
    owner = np.repeat(np.arange(len(texts)), counts)
    ends = np.cumsum(runs)
    ends -= np.repeat(np.concatenate([[0], ends])[begin], counts)
    chosen = ((np.arange(len(runs)) - begin[owner]) % 2 == 1) & (runs > 0)
    return owner[chosen], (ends - runs)[chosen], ends[chosen]


def _coordinates_before(pixel: np.ndarray, height: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Sums of x and of y of all pixels before some, column by column."""
    columns, rows = np.divmod(pixel, height)
    x = height * (columns * (columns - 1) // 2) + rows * columns
    y = columns * (height * (height - 1) // 2) + rows * (rows - 1) // 2
    return x, y
