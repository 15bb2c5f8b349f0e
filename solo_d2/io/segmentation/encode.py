"""Encode one mask in COCO's compressed run lengths."""

from __future__ import annotations

from typing import Any

import numpy as np
from pycocotools import mask as mask_util


def encode_mask(mask: np.ndarray) -> dict[str, Any]:
    """Encode a mask for JSON and for pycocotools.

    Many masks that are tensors are encoded faster by `solo_d2.layers.encode_masks`.

    Args:
        mask: (H, W) bool.

    Returns:
        ``size`` [H, W] and ``counts``, text.
    """
    rle = mask_util.encode(np.asfortranarray(mask, np.uint8))
    return {"size": [int(side) for side in rle["size"]], "counts": rle["counts"].decode("ascii")}


def to_rle(segmentation: Any, size: tuple[int, int]) -> dict[str, Any]:
    """Return a checked segmentation as a compressed RLE whose counts are text.

    Args:
        segmentation: polygons, of which the union is meant, or a compressed RLE.
        size: (height, width) of the image.
    """
    rle = segmentation
    if isinstance(rle, list):
        rle = mask_util.merge(mask_util.frPyObjects(rle, *size))
    counts = rle["counts"]
    return {**rle, "counts": counts.decode("ascii") if isinstance(counts, bytes) else counts}
