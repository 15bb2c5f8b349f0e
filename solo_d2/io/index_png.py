"""PNGs whose pixels are numbers of objects or classes: palettes, grey values, and colours."""

from __future__ import annotations

from collections.abc import Iterator
from os import PathLike
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
from PIL import Image

from .atomic import atomic_write
from .errors import one_line
from .image import ImageError, open_image
from .panoptic_png import rgb_to_ids
from .paths import printable
from .segmentation import encode_mask

__all__ = [
    "COLOUR",
    "VOID",
    "IndexImage",
    "colormap",
    "encode_numbers",
    "encode_parts",
    "read_index_png",
    "write_index_png",
]

VOID = 255
"""Value of 8-bit masks where it is not known what is there, as the outlines of VOC's objects."""

COLOUR = 24
"""Bits of an image in colour."""

_LARGEST = 2**16 - 1


class IndexImage(NamedTuple):
    """The numbers of an image.

    Attributes:
        values: int32 (H, W); of colours R + 256 G + 65536 B.
        bits: 8, 16 or `COLOUR`.
    """

    values: np.ndarray
    bits: int


def read_index_png(path: str | PathLike[str]) -> IndexImage:
    """Read the numbers that pixels stand for.

    Args:
        path: A PNG with a palette, whose indices count, of one channel, or in colour.

    Raises:
        ImageError: The file is missing, damaged, or of another kind.
    """
    with open_image(path) as image:
        image.load()
        if image.mode in ("RGB", "RGBA"):
            return IndexImage(rgb_to_ids(np.asarray(image)[..., :3]), COLOUR)
        if image.mode in ("1", "L", "P"):
            return IndexImage(np.asarray(image).astype(np.int32), 8)
        if image.mode.startswith("I"):
            return IndexImage(np.asarray(image).astype(np.int32), 16)
        raise ImageError(
            path, f"an image of mode {image.mode}; expected a palette, one channel, or RGB"
        )


def write_index_png(path: str | PathLike[str], values: np.ndarray) -> None:
    """Write numbers (H, W) with a palette of 256 colours, or from 256 on as 16-bit grey values.

    Raises:
        ValueError: A number below 0 or above 65535, or the file cannot be written.
    """
    largest = int(values.max(initial=0))
    if largest > _LARGEST or int(values.min(initial=0)) < 0:
        raise ValueError(f"{printable(path)}: numbers of a mask must be 0 to 65535, got {largest}")
    if largest <= VOID:
        image = Image.fromarray(values.astype(np.uint8), "L")
        image.putpalette(colormap().ravel().tolist())
    else:
        image = Image.fromarray(values.astype(np.uint16))
    try:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(path, sync=False) as file:
            image.save(file, "PNG")
    except OSError as error:
        raise ValueError(f"{printable(path)}: cannot be written ({one_line(error)})") from error


def colormap() -> np.ndarray:
    """Return VOC's colours of the numbers 0 to 255, uint8 (256, 3) RGB.

    The bits of a number go to the channels in turn, from the highest bit of each on.
    """
    numbers = np.arange(256)[:, None]
    bit = np.arange(8)
    places = 3 * bit  # of the bits of a channel; those from 8 on are 0
    colours = [((numbers >> places + k & 1) << 7 - bit).sum(1) for k in range(3)]
    return np.stack(colours, 1).astype(np.uint8)


def encode_numbers(values: np.ndarray) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield every number but 0 in an int32 array (H, W), and the RLE of its pixels."""
    for value in np.unique(values).tolist():
        if value:  # one at a time: hundreds of masks of a large image would not fit into memory
            yield value, encode_mask(values == value)


def encode_parts(mask: np.ndarray) -> Iterator[dict[str, Any]]:
    """Yield the RLE of every connected part of a boolean mask (H, W); corners connect."""
    count, parts = cv2.connectedComponents(mask.view(np.uint8), connectivity=8)
    for part in range(1, count):
        yield encode_mask(parts == part)
