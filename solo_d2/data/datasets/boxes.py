"""Boxes of annotations: those of the file where they are boxes of the masks, else the masks'."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import chain
from typing import Any

import numpy as np
from pycocotools import mask as mask_util

from ...io.segmentation import Segmentations, mask_box

__all__ = ["BoxCheck", "numbers"]

_RLES_COMPARED = 32
"""Of every chunk; the extents of polygons are known anyway, and all are compared."""

_TOLERANCE = (
    0.1  # of the mean side of the mask, and 2 pixels: boxes are rounded, and masks smoothed
)


class BoxCheck:
    """Completes boxes, and finds out whether those of a file are what COCO has."""

    def __init__(self) -> None:
        self._compared = self._wrong = self._corners = 0

    def add(
        self, boxes: Sequence[Any], masks: Segmentations, sizes: Sequence[tuple[int, int]]
    ) -> tuple[list[Any], np.ndarray]:
        """Complete the boxes of some annotations.

        Args:
            boxes: as the file has them, or None.
            masks: of the same annotations.
            sizes: (height, width) of their images.

        Returns:
            XYWH boxes, those of masks where the file's are none, and which are the file's, (N,).
        """
        values, fit = _quadruples(boxes)
        fit &= np.all(values[:, 2:] > 0, axis=1)
        self._compare(values, fit, masks)
        completed = list(boxes)
        for i in np.flatnonzero(~fit).tolist():
            if masks.kept[i] is not None:
                completed[i] = mask_box(masks.kept[i], sizes[i])
        return completed, fit

    def finish(self, records: Iterable[dict[str, Any]]) -> str:
        """Take all boxes of records from their masks if most of the file's do not fit them.

        Returns:
            What is to be said about it; nothing where the boxes fit.
        """
        if self._wrong <= self._compared / 2:
            return ""
        for record in records:
            size = (record["height"], record["width"])
            for annotation in record["annotations"]:
                annotation["bbox"] = mask_box(annotation["segmentation"], size)
        corners = self._corners > self._wrong / 2
        what = "are x, y, x, y where COCO has x, y, width, height" if corners else "do not fit"
        return f"{self._wrong} of {self._compared} boxes {what}; all were computed from the masks"

    def _compare(self, boxes: np.ndarray, fit: np.ndarray, masks: Segmentations) -> None:
        extents = masks.extents.copy()
        rles = [i for i in np.flatnonzero(fit).tolist() if isinstance(masks.kept[i], dict)]
        for i in rles[:_RLES_COMPARED]:
            x, y, width, height = mask_util.toBbox(masks.kept[i]).tolist()
            extents[i] = x, y, x + width, y + height
        known = fit & ~np.isnan(extents[:, 0])
        extents, boxes = extents[known], boxes[known]
        allowed = 2 + _TOLERANCE * (extents[:, 2:] - extents[:, :2]).mean(1, keepdims=True)
        corners = np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], 1)
        wrong = (np.abs(corners - extents) > allowed).any(1)
        self._compared += len(wrong)
        self._wrong += int(wrong.sum())
        self._corners += int((np.abs(boxes - extents) <= allowed).all(1)[wrong].sum())


def numbers(values: Sequence[Any]) -> tuple[np.ndarray, np.ndarray]:
    """Return values as floats, (N,), NaN for what is no number, and which are finite, (N,)."""
    if not set(map(type, values)) <= {int, float}:
        values = [v if type(v) in (int, float) else np.nan for v in values]
    try:
        array = np.fromiter(values, np.float64, len(values))
    except OverflowError:  # a whole number of more than 308 digits
        array = np.array([v if abs(v) < 1e300 else np.nan for v in values], np.float64)
    return array, np.isfinite(array)


def _quadruples(boxes: Sequence[Any]) -> tuple[np.ndarray, np.ndarray]:
    """Lists of four numbers as floats, (N, 4), and which are such lists of finite ones, (N,)."""
    lists = np.array([type(box) is list and len(box) == 4 for box in boxes], bool)
    if not lists.all():
        boxes = [box if whole else (None,) * 4 for box, whole in zip(boxes, lists, strict=True)]
    values, finite = numbers(list(chain.from_iterable(boxes)))
    return values.reshape(-1, 4), np.all(finite.reshape(-1, 4), axis=1)
