"""The size of an image from the header of its file."""

from __future__ import annotations

import os

from PIL import Image

from .errors import one_line

__all__ = ["read_image_size"]

_ORIENTATION = 0x0112
_TURNED = (5, 6, 7, 8)
"""EXIF orientations that exchange height and width."""


def read_image_size(path: str | os.PathLike[str]) -> tuple[int, int]:
    """Read (height, width) of an image as `read_image` will give it, without its pixels.

    Raises:
        ValueError: no readable image.
    """
    name = os.fspath(path)
    try:
        with Image.open(name) as image:
            width, height = image.size
            turned = _orientation(image) in _TURNED
    except Exception as error:  # Pillow's decoders raise whatever their parsing trips over
        raise ValueError(f"{name}: no readable image ({one_line(error)})") from error
    return (width, height) if turned else (height, width)


def _orientation(image: Image.Image) -> int:
    """EXIF orientation; 1, upright, where there is none or its block is broken."""
    try:
        # Of a PNG file `getexif` would decode the pixels to find a block behind them.
        if image.format == "PNG" and "exif" not in image.info:
            return 1
        return int(image.getexif().get(_ORIENTATION, 1))
    except Exception:  # a broken EXIF block raises anything, and `read_image` ignores it
        return 1
