"""What an image file holds as an array: upright, three channels, 8 bits."""

from __future__ import annotations

import logging
from typing import Any

import cv2
import numpy as np
from PIL import Image

from .paths import printable
from .pixels import to_uint8

__all__ = ["WITH_ALPHA", "gray_array", "orientation", "rgb_array", "turn"]

WITH_ALPHA = ("LA", "RGBA", "PA", "La", "RGBa")
"""Pillow's modes with an alpha channel."""

_COLOUR = ("LA", "RGB", "RGBA", "RGBX", "RGBa")
_BITS, _LARGEST, _ORIENTATION = 258, 281, 0x0112  # tags of TIFF
_logger = logging.getLogger(__name__)


def rgb_array(image: Image.Image, name: str, white: float = 0) -> np.ndarray:
    """Decode an image of Pillow.

    The EXIF orientation is applied. Grayscale, palette and CMYK images become colour, an alpha
    channel is dropped, and more than 8 bits are scaled as by `to_uint8`.

    Args:
        image: opened; of a file it need not be loaded.
        name: of the file, for messages.
        white: see `to_uint8`.

    Returns:
        uint8 RGB (H, W, 3).

    Raises:
        ScaleError: see `to_uint8`.
    """
    deep = _deep_colour(image)  # before it is loaded: Pillow keeps the upper 8 bits alone
    declared = _declared(image)
    image.load()
    if deep is not None:
        array = to_uint8(deep, name, white=white, declared=declared)
    elif image.mode == "F" or image.mode.startswith("I"):
        gray = to_uint8(np.asarray(image), name, white=white, declared=declared)
        array = np.repeat(gray[:, :, None], 3, axis=2)
    else:
        array = np.asarray(image.convert("RGB"))
    return turn(array, orientation(image, name))


def orientation(image: Image.Image, name: str) -> int:
    """Return the EXIF orientation, 1 to 8; 1 (upright) where the EXIF block is broken."""
    try:
        return int(image.getexif().get(_ORIENTATION, 1))
    except Exception as error:  # a broken block raises anything, and the pixels are good
        _logger.warning(
            "%s: EXIF orientation ignored, the block is broken (%s)", printable(name), error
        )
        return 1


def turn(array: np.ndarray, orientation: int) -> np.ndarray:
    """Return an image (H, W, ...) upright, as its EXIF orientation says; others than 2 to 8 do."""
    if 5 <= orientation <= 8:
        array = array.swapaxes(0, 1)
    if orientation in (2, 3, 6, 7):
        array = array[:, ::-1]
    if orientation in (3, 4, 7, 8):
        array = array[::-1]
    return array


def _declared(image: Image.Image) -> int:
    """Largest possible value by the header; 0 where it says nothing more than the file type."""
    tags: Any = getattr(image, "tag_v2", None)
    if tags is None:  # other formats than TIFF are scaled to all of their bits
        return 0
    bits = tags.get(_BITS, 16)
    bits = max(bits) if isinstance(bits, tuple) else bits
    if bits != 16:
        return 2 ** int(bits) - 1 if 8 < bits < 16 else 0
    # "The maximum component value used": of one file of many, so that its number of bits counts.
    largest = tags.get(_LARGEST, 0)
    largest = max(largest) if isinstance(largest, tuple) else largest
    return 2 ** int(largest).bit_length() - 1 if 255 < largest <= 65535 else 0


def _deep_colour(image: Image.Image) -> np.ndarray | None:
    """All bits, uint16 RGB (H, W, 3), of a colour file with 16 a channel; None of any other."""
    tiles: Any = getattr(image, "tile", None)
    if not tiles or image.mode not in _COLOUR or ";16" not in str(tiles[0][3]):
        return None
    file: Any = getattr(image, "fp", None)
    if file is None:
        return None
    place = file.tell()
    file.seek(0)
    data = np.frombuffer(file.read(), np.uint8)
    file.seek(place)
    try:
        array = cv2.imdecode(data, cv2.IMREAD_UNCHANGED)
    except cv2.error:
        return None
    if array is None or array.dtype != np.uint16 or array.shape[:2] != image.size[::-1]:
        return None
    return array[..., 2::-1] if array.ndim == 3 else np.repeat(array[..., None], 3, axis=2)


def gray_array(image: Image.Image, name: str) -> np.ndarray:
    """Decode one channel of 8 bits, or of 16 that are scaled, as uint8 (H, W)."""
    declared = _declared(image)
    image.load()
    values = np.asarray(image.convert("L") if image.mode == "1" else image)
    return to_uint8(values, name, declared=declared)
