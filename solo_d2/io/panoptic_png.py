"""COCO's panoptic PNG: an image whose colour is the segment's id, R + 256 G + 65536 B."""

from __future__ import annotations

from collections import Counter
from collections.abc import Container, Sequence
from os import PathLike
from typing import Any

import numpy as np

from .image import ImageError, open_image, write_image

__all__ = [
    "IGNORE_LABEL",
    "MAX_ID",
    "check_ids",
    "check_unique",
    "ids_to_rgb",
    "read_panoptic_png",
    "rgb_to_ids",
    "semantic_labels",
    "write_panoptic_png",
]

MAX_ID = 256**3 - 1
"""Largest id that a colour can stand for."""

IGNORE_LABEL = 255
"""Label of pixels that no segment covers, as Detectron2's `MODEL.SEM_SEG_HEAD.IGNORE_VALUE`."""


def rgb_to_ids(rgb: np.ndarray) -> np.ndarray:
    """Ids of colours.

    Args:
        rgb: uint8 (..., 3).

    Returns:
        int32 (...), 0 to `MAX_ID`.
    """
    # On the last axis: a matrix product of integers would be several times slower.
    red, green, blue = (rgb[..., channel].astype(np.int32) for channel in range(3))
    return red + (green << 8) + (blue << 16)


def ids_to_rgb(ids: np.ndarray) -> np.ndarray:
    """Colours of ids, the inverse of `rgb_to_ids`.

    Args:
        ids: whole numbers (...), 0 to `MAX_ID`.

    Returns:
        uint8 (..., 3).

    Raises:
        ValueError: an id that no colour stands for.
    """
    if ids.size and (ids.min() < 0 or ids.max() > MAX_ID):
        raise ValueError(f"ids must be 0 to {MAX_ID}, got {ids.min()} to {ids.max()}")
    return np.stack([ids & 255, ids >> 8 & 255, ids >> 16 & 255], axis=-1).astype(np.uint8)


def read_panoptic_png(path: str | PathLike[str]) -> np.ndarray:
    """Ids of a panoptic PNG.

    Args:
        path: an RGB image (an alpha channel is dropped).

    Returns:
        int32 (H, W); 0 is no segment.

    Raises:
        ValueError: the file is missing, cannot be read, or is not in colour.
    """
    with open_image(path) as image:
        if image.mode not in ("RGB", "RGBA"):
            raise ImageError(
                path,
                "expected a panoptic PNG (RGB, id = R + 256 G + 65536 B), got an image of mode "
                f"{image.mode}; labels of a semantic segmentation are no ids",
            )
        image.load()
        return rgb_to_ids(np.asarray(image)[..., :3])


def write_panoptic_png(path: str | PathLike[str], ids: np.ndarray) -> None:
    """Write ids (H, W), 0 to `MAX_ID`, as a panoptic PNG; `read_panoptic_png` is the inverse.

    Raises:
        ValueError: an id that no colour stands for, or the file cannot be written.
    """
    write_image(path, ids_to_rgb(ids)[..., ::-1])


def semantic_labels(
    ids: np.ndarray,
    segments_info: list[dict[str, Any]],
    file_name: str,
    ignore_label: int = IGNORE_LABEL,
) -> np.ndarray:
    """Labels of the semantic branch: stuff from 1, 0 for all things.

    Args:
        ids: of the panoptic PNG, (H, W).
        segments_info: with ``id``, ``isthing`` and contiguous ``category_id``, stuff from 1.
        file_name: of the PNG, for messages.
        ignore_label: for pixels without a segment.

    Returns:
        uint8 (H, W).

    Raises:
        ValueError: an id that `segments_info` does not list, or lists twice.
    """
    check_unique([segment["id"] for segment in segments_info], file_name)
    label_of = {0: ignore_label}
    for segment in segments_info:
        label_of[segment["id"]] = 0 if segment["isthing"] else segment["category_id"]
    found, inverse = np.unique(ids, return_inverse=True)
    check_ids(found, label_of, file_name)
    table = np.array([label_of[int(i)] for i in found], np.uint8)
    return table[inverse].reshape(ids.shape)


def check_ids(found: np.ndarray, known: Container[int], file_name: str) -> None:
    """Raise a `ValueError` if a PNG shows ids, other than 0, that are not `known`."""
    strange = [int(i) for i in found if i and int(i) not in known]
    if strange:
        raise ValueError(
            f"{file_name} shows the segment id {strange[0]} (and {len(strange) - 1} more), which "
            "the annotation's 'segments_info' does not list; do the PNG and the json belong "
            "together?"
        )


def check_unique(ids: Sequence[int], where: str) -> None:
    """Raise a `ValueError` if two segments of an image have one id.

    Args:
        ids: of the segments.
        where: the image, for the message.
    """
    twice = [number for number, count in Counter(ids).items() if count > 1]
    if twice:
        raise ValueError(
            f"{where}: two segments have the id {twice[0]}, so that its pixels are of both; give "
            "every segment in 'segments_info' an id of its own"
        )
