"""What an image file holds as an array: upright, three channels, 8 bits."""

from __future__ import annotations

import logging
from typing import Any

import cv2
import numpy as np
from PIL import Image

from .paths import printable
from .pixels import to_uint8

__all__ = ["WITH_ALPHA", "LayoutError", "gray_array", "orientation", "rgb_array", "turn"]

WITH_ALPHA = ("LA", "RGBA", "PA", "La", "RGBa")
"""Pillow's modes with an alpha channel."""

_COLOUR = ("LA", "RGB", "RGBA", "RGBX", "RGBa")
# Tags of TIFF.
_BITS, _WHITE_IS_ZERO, _SAMPLES, _LARGEST, _PLANAR, _ORIENTATION = 258, 262, 277, 281, 284, 0x0112
_logger = logging.getLogger(__name__)


class LayoutError(ValueError):
    """Pixels in an order that none of the decoders here reads right."""


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
        LayoutError: a TIFF file of more than 8 bits has its colours one after the other.
    """
    deep = _deep(image)  # before it is loaded: Pillow keeps the upper 8 bits alone
    image.load()  # turns TIFF as OpenCV does, and forgets the orientation
    if deep is not None:
        array = to_uint8(deep[0], name, white=white, declared=deep[1])
    elif image.mode == "F" or image.mode.startswith("I"):
        gray = to_uint8(_gray(image, white), name, white=white, declared=_declared(image))
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


def _deep(image: Image.Image) -> tuple[np.ndarray, int] | None:
    """All bits, uint16 RGB (H, W, 3), and the largest possible value or 0, where Pillow cuts them.

    That is colour of 16 bits a channel, and JPEG 2000 of more than 8.
    """
    tiles: Any = getattr(image, "tile", None)
    file: Any = getattr(image, "fp", None)
    if not tiles or file is None:
        return None
    _check_layout(image)
    is_j2k = image.format == "JPEG2000"
    if not is_j2k and (image.mode not in _COLOUR or ";16" not in str(tiles[0][3])):
        return None
    place = file.tell()
    file.seek(0)
    data = file.read()
    file.seek(place)
    bits = _bits_of_j2k(data) if is_j2k else 16
    if bits <= 8:
        return None
    try:
        array = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    except cv2.error:
        return None
    if array is None or array.dtype != np.uint16 or array.shape[:2] != image.size[::-1]:
        return None
    rgb = array[..., 2::-1] if array.ndim == 3 else np.repeat(array[..., None], 3, axis=2)
    return rgb, 2**bits - 1 if is_j2k else _declared(image)


def _check_layout(image: Image.Image) -> None:
    """Refuse what Pillow and OpenCV turn into noise without a word."""
    tags: Any = getattr(image, "tag_v2", None)
    if tags is None or tags.get(_PLANAR, 1) != 2 or tags.get(_SAMPLES, 1) == 1:
        return
    bits = tags.get(_BITS, 1)
    if max(bits) > 8 if isinstance(bits, tuple) else bits > 8:
        raise LayoutError(
            "a TIFF file of more than 8 bits with one plane after the other; save its colours "
            'pixel by pixel (tifffile: planarconfig="contig"), or as PNG'
        )


def _bits_of_j2k(data: bytes) -> int:
    """Bits of the first channel by the codestream's header; 8 where there is none."""
    start = data.find(b"\xff\x4f\xff\x51")  # its start and its sizes, before the bits
    return (data[start + 42] & 0x7F) + 1 if 0 <= start < len(data) - 42 else 8


def _gray(image: Image.Image, white: float = 0) -> np.ndarray:
    """Values of one channel, white the largest; see `to_uint8` about `white`."""
    image.load()
    values = np.asarray(image.convert("L") if image.mode == "1" else image)
    tags: Any = getattr(image, "tag_v2", None)
    if values.dtype == np.uint16 and tags is not None and tags.get(_WHITE_IS_ZERO, 1) == 0:
        # Pillow does it for up to 8 bits alone.
        declared = _declared(image)
        most = white or (declared if values.max(initial=0) <= declared else 65535)
        most = np.uint16(min(most, 65535))
        values = most - np.minimum(values, most)
    return values


def gray_array(image: Image.Image, name: str) -> np.ndarray:
    """Decode one channel of 8 bits, or of 16 that are scaled, as uint8 (H, W)."""
    return to_uint8(_gray(image), name, declared=_declared(image))
