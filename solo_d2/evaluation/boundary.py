"""Boundary AP (Cheng et al., 2021): AP that asks whether the outlines of masks agree."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
from pycocotools import mask as mask_util
from pycocotools.cocoeval import COCOeval

__all__ = ["BoundaryCOCOeval", "boundary_of", "boundary_width"]

WIDTH = 0.02
"""Width of a boundary relative to the diagonal of its image."""


def boundary_width(size: Sequence[int]) -> int:
    """Return the width of a boundary in pixels, at least 1, in an image of (height, width)."""
    return max(1, round(WIDTH * math.hypot(*size)))


def boundary_of(rle: dict[str, Any]) -> dict[str, Any]:
    """Return the pixels of a mask that are near to its outline.

    These are the pixels whose square neighbourhood of `boundary_width` reaches out of the mask or
    of the image.

    Args:
        rle: of a mask, compressed.

    Returns:
        RLE of the boundary.

    Example:
        >>> import numpy as np
        >>> from solo_d2.io.segmentation import decode_mask, encode_mask
        >>> square = np.zeros((40, 40), bool)
        >>> square[10:20, 10:20] = True
        >>> boundary = boundary_of(encode_mask(square))  # 1 pixel wide: 2 % of 57 pixels
        >>> int(decode_mask(boundary, (40, 40)).sum())
        36
    """
    x, y, width, height = (int(side) for side in mask_util.toBbox(rle))
    if not width or not height:
        return rle
    mask = mask_util.decode(rle)
    window = mask[y : y + height, x : x + width]
    reach = boundary_width(mask.shape)
    # Outside of the window there is no mask, hence a border of zeros.
    inside = cv2.erode(
        np.ascontiguousarray(window),
        np.ones((2 * reach + 1, 2 * reach + 1), np.uint8),
        borderType=cv2.BORDER_CONSTANT,
        borderValue=0,
    )
    window -= inside
    return mask_util.encode(mask)


class BoundaryCOCOeval(COCOeval):
    """COCO's evaluation with the smaller of the IoU of two masks and that of their boundaries.

    Objects in crowds are matched by their masks alone, since a crowd has no outline.
    """

    def computeIoU(self, imgId: int, catId: int) -> Any:
        """Return the IoU of detections, best first, and objects of one image and class."""
        ious = super().computeIoU(imgId, catId)
        if len(ious) == 0:
            return ious
        truth, found = self._gts[imgId, catId], self._dts[imgId, catId]
        order = np.argsort([-x["score"] for x in found], kind="mergesort")[: len(ious)]
        single = np.array([not x["iscrowd"] for x in truth], bool)
        outlines = mask_util.iou(
            [boundary_of(found[i]["segmentation"]) for i in order],
            [boundary_of(x["segmentation"]) for x in truth],
            [0] * len(truth),
        )
        return np.where(single, np.minimum(ious, outlines), ious)
