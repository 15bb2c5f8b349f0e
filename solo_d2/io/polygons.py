"""Outlines of binary masks as polygons."""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce

import cv2
import numpy as np

__all__ = ["join_polygons", "mask_to_polygons"]


def mask_to_polygons(
    mask: np.ndarray, tolerance: float = 0.0, *, holes: bool = False
) -> list[np.ndarray]:
    """Trace the outlines of a mask along the edges of its pixels.

    Rasterising the polygons gives back the mask exactly, except that its holes are filled unless
    they are asked for: polygons of COCO, LabelMe and YOLO have none, but may run along a bridge
    to a hole, around it and back.

    Args:
        mask: Boolean, shape (H, W).
        tolerance: Largest distance in pixels by which a simplified outline may differ; 0 keeps
            every corner.
        holes: Join holes to the outlines around them, see `join_polygons`.

    Returns:
        One (P, 2) float array of x, y in pixels for each connected part, P >= 3; the left edge of
        the image is 0 and the right one W. Parts that touch in a corner are one.

    Raises:
        ValueError: The mask is not boolean and of two dimensions, or the tolerance is negative.

    Example:
        >>> import numpy as np
        >>> mask = np.zeros((4, 5), bool)
        >>> mask[1:3, 2:5] = True
        >>> mask_to_polygons(mask)[0].tolist()
        [[2.0, 1.0], [2.0, 3.0], [5.0, 3.0], [5.0, 1.0]]
    """
    if mask.ndim != 2 or mask.dtype != np.bool_:
        raise ValueError(f"expected a boolean mask (H, W), got {mask.dtype} {mask.shape}")
    if not tolerance >= 0:
        raise ValueError(f"tolerance must be 0 or more pixels, got {tolerance}")
    x, y, width, height = cv2.boundingRect(mask.view(np.uint8))
    crop = mask[y : y + height, x : x + width].view(np.uint8)
    # OpenCV runs through the centres of border pixels. Of pixels twice as large, the centres of
    # the first half name the left or top edge of the pixel, and those of the second half the other.
    double = np.ascontiguousarray(crop.repeat(2, axis=0).repeat(2, axis=1))
    mode = cv2.RETR_CCOMP if holes else cv2.RETR_EXTERNAL
    contours, hierarchy = cv2.findContours(double, mode, cv2.CHAIN_APPROX_NONE)
    parts: dict[int, list[np.ndarray]] = {}
    for k, contour in enumerate(contours):
        outline = _corners((contour[:, 0] + 1) // 2) + np.array([x, y])
        if tolerance > 0:
            outline = cv2.approxPolyDP(outline.astype(np.int32), tolerance, closed=True)[:, 0]
        outer = int(hierarchy[0, k, 3])  # -1 for an outer outline itself, which comes first
        if len(outline) >= 3 and (outer < 0 or outer in parts):
            parts.setdefault(k if outer < 0 else outer, []).append(outline.astype(np.float64))
    return [join_polygons(rings) for rings in parts.values()]


def join_polygons(polygons: Sequence[np.ndarray]) -> np.ndarray:
    """Join polygons to one that runs along bridges from one to the next, there and back.

    What lies in an even number of polygons is outside of the result, as pycocotools, OpenCV and
    Pillow rasterise it: holes and separate parts stay as they are.

    Args:
        polygons: At least one, each (P, 2).

    Returns:
        (Q, 2).

    Example:
        >>> import numpy as np
        >>> square = np.array([[0, 0], [0, 9], [9, 9], [9, 0]])
        >>> len(join_polygons([square, square // 3 + 3]))
        10
    """
    return reduce(_bridge, polygons)


def _bridge(ring: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Join two polygons between the first corner of one and the nearest one of the other."""
    k = int(np.square(ring - other[0]).sum(1).argmin())
    return np.concatenate([ring[: k + 1], other, other[:1], ring[k:]])


def _corners(points: np.ndarray) -> np.ndarray:
    """Return the points (P, 2) of a closed outline at which it turns."""
    points = points[(points != np.roll(points, 1, axis=0)).any(axis=1)]
    before = points - np.roll(points, 1, axis=0)
    after = np.roll(points, -1, axis=0) - points
    return points[(np.sign(before) != np.sign(after)).any(axis=1)]
