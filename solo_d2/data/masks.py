"""Masks of annotations through the augmentations of their image."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from detectron2.data import transforms as T
from detectron2.structures import BitMasks, PolygonMasks
from detectron2.structures.masks import polygons_to_bitmask

from ..io.paths import printable
from ..io.segmentation import Reason, check_segmentations, decode_mask
from .jitter import pad_empty

__all__ = ["checked_masks", "transform_masks"]


def checked_masks(
    annotations: Sequence[dict[str, Any]], size: tuple[int, int], file_name: str
) -> list[Any]:
    """Return the segmentations of the annotations of one image, as far as they can be used.

    Args:
        annotations: Detectron2's, of our readers or of a user's function.
        size: (height, width) of the image as stored.
        file_name: of the image, for messages.

    Returns:
        For each polygons, a compressed RLE, a boolean (height, width), or None if it covers nothing
        of the image.

    Raises:
        ValueError: one that is no mask of the image; the text names the image.
    """
    given = [x.get("segmentation") for x in annotations]
    name = printable(file_name)
    bare = sum(value is None for value in given)
    if bare:
        raise ValueError(
            f"{bare} of {len(given)} annotations of {name} have no segmentation; SOLO learns from "
            "masks"
        )
    arrays: dict[int, Any] = {i: x for i, x in enumerate(given) if _is_bitmap(x, size)}
    for array in arrays.values():
        if array.shape != size:
            raise ValueError(
                f"a mask of {name} has {array.shape[1]}x{array.shape[0]} pixels, the image "
                f"{size[1]}x{size[0]}"
            )
    checked = check_segmentations(
        [[] if i in arrays else x for i, x in enumerate(given)], [size] * len(given)
    )
    for i, problem in checked.problems.items():
        if problem.reason not in (Reason.NOTHING, Reason.OUTSIDE):
            raise ValueError(f"annotation {i} of {name} cannot be used: {problem.text}")
    return [arrays[i] != 0 if i in arrays else kept for i, kept in enumerate(checked.kept)]


def _is_bitmap(value: Any, size: tuple[int, int]) -> bool:
    """Return whether a segmentation is an array of pixels, and not one of points."""
    if not isinstance(value, np.ndarray) or value.ndim != 2:
        return False
    return value.dtype == bool or value.shape == size or value.shape[1] != 2


def transform_masks(
    masks: Sequence[Any],
    transforms: T.TransformList,
    size: tuple[int, int],
    *,
    as_polygons: bool,
) -> BitMasks | PolygonMasks:
    """Apply the augmentations of an image to its masks.

    Args:
        masks: of `checked_masks`, none of them None.
        transforms: as the image took them.
        size: (height, width) of the augmented image.
        as_polygons: return polygons if all are, and nothing was cropped: what is left of a
            polygon in a crop may be no polygon.

    Returns:
        The masks, all of them, also those of which nothing is left.
    """
    polygons = [i for i, mask in enumerate(masks) if isinstance(mask, list)]
    moved = dict(zip(polygons, _move([masks[i] for i in polygons], transforms), strict=True))
    cropped = any(isinstance(t, T.CropTransform) for t in transforms.transforms)
    if as_polygons and len(moved) == len(masks) and not cropped:
        return PolygonMasks(list(moved.values()))
    bitmaps = torch.zeros((len(masks), *size), dtype=torch.bool)
    for i, mask in enumerate(masks):
        if i in moved:
            parts = [_before_rounding(p) for p in moved[i]] if cropped else moved[i]
            bitmap = polygons_to_bitmask(parts, *size)
        else:
            pixels = decode_mask(mask, size).astype(np.uint8)
            bitmap = _move_bitmap(pixels, transforms) != 0
        bitmaps[i] = torch.from_numpy(bitmap)
    return BitMasks(bitmaps)


def _move(instances: Sequence[list[Any]], transforms: T.TransformList) -> list[list[np.ndarray]]:
    """Polygons of instances after the augmentations, beyond the border of a crop, too."""
    polygons = [np.array(p, np.float64).reshape(-1, 2) for parts in instances for p in parts]
    for transform in transforms.transforms:
        if isinstance(transform, T.CropTransform):
            # Not cut: drawing stops at the border anyway, and cutting needs shapely, which
            # changes polygons that cross themselves.
            polygons = [transform.apply_coords(p) for p in polygons]
        else:
            polygons = transform.apply_polygons(polygons)
    ends = np.cumsum([len(parts) for parts in instances])
    starts = ends - [len(parts) for parts in instances]
    return [
        [p.reshape(-1) for p in polygons[a:b]]
        for a, b in zip(starts.tolist(), ends.tolist(), strict=True)
    ]


def _move_bitmap(pixels: np.ndarray, transforms: T.TransformList) -> np.ndarray:
    for transform in transforms.transforms:
        if isinstance(transform, T.PadTransform):
            pixels = pad_empty(pixels, transform)
        else:
            pixels = np.asarray(transform.apply_segmentation(pixels))
    return pixels


def _before_rounding(polygon: np.ndarray) -> np.ndarray:
    """Coordinates that pycocotools rounds as if the image went on to the left and above.

    It draws on a grid of fifths of a pixel, and rounds what is negative towards zero: an object
    whose upper left is cut off would change its shape.
    """
    grid = np.floor(5 * polygon + 0.5)
    return np.where(grid < 0, (grid - 0.75) / 5, polygon)
