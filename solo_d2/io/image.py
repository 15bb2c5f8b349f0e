"""Reading one picture, of whatever kind, as the three-channel uint8 array that a model expects."""

from __future__ import annotations

import logging
import warnings
from os import PathLike, fspath

import numpy as np
from PIL import Image, ImageOps

__all__ = ["IMAGE_EXTENSIONS", "MAX_PIXELS", "read_image"]

IMAGE_EXTENSIONS = (".bmp", ".gif", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp")
"""File name extensions (lower case) that a folder is searched for."""

MAX_PIXELS = 178_956_970
"""Largest width * height that is decoded (half a gigabyte of RGB; Pillow's own limit)."""

_logger = logging.getLogger(__name__)


def read_image(path: str | PathLike[str], format: str = "BGR") -> np.ndarray:
    """Read a picture upright, in 8 bits and three channels.

    The EXIF orientation is applied. Grayscale, palette and CMYK pictures become colour, an alpha
    channel is dropped, 16-bit values are scaled (65535 becomes 255), float values in [0, 1] are
    multiplied by 255. Of an animation or a stack the first frame is read.

    Args:
        path: Any file that Pillow can read.
        format: Channel order of the result, "BGR" (OpenCV, Detectron2) or "RGB".

    Returns:
        The picture, shape (H, W, 3), contiguous, in [0, 255].

    Raises:
        ValueError: The file is missing, a folder, not a picture, truncated, or larger than
            `MAX_PIXELS`; or its values have no defined scale; or `format` is unknown.
    """
    if format not in ("BGR", "RGB"):
        raise ValueError(f'format must be "BGR" or "RGB", got {format!r}.')
    name = fspath(path)
    try:
        with warnings.catch_warnings():
            # Pillow warns at half of the size that it refuses: MAX_PIXELS is the one limit here.
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(name) as image:
                if image.width * image.height > MAX_PIXELS:
                    raise Image.DecompressionBombError(f"{image.width} x {image.height} pixels")
                image.load()
                rgb = _to_rgb(_upright(image, name))
    except Exception as error:  # Pillow's decoders raise whatever their parsing trips over
        raise ValueError(_explain(name, error)) from error
    return np.ascontiguousarray(rgb[:, :, ::-1] if format == "BGR" else rgb)


def _upright(image: Image.Image, name: str) -> Image.Image:
    """The picture with its EXIF orientation applied; unchanged where the EXIF block is broken."""
    try:
        return ImageOps.exif_transpose(image)
    except Exception as error:  # a broken EXIF block raises anything, and the pixels are good
        _logger.warning("%s: EXIF orientation ignored, the block is broken (%s)", name, error)
        return image


def _to_rgb(image: Image.Image) -> np.ndarray:
    """Pixels as uint8 RGB (H, W, 3), scaled by the range that the mode stands for."""
    if image.mode == "F":
        return _gray_to_rgb(_float_to_uint8(np.asarray(image)))
    if image.mode == "I" or image.mode.startswith("I;16"):
        return _gray_to_rgb(_integer_to_uint8(np.asarray(image)))
    return np.asarray(image.convert("RGB"))


def _gray_to_rgb(gray: np.ndarray) -> np.ndarray:
    return np.repeat(gray[:, :, None], 3, axis=2)


def _integer_to_uint8(values: np.ndarray) -> np.ndarray:
    # Older Pillow opens 16-bit PNG in its 32-bit mode "I", so the values decide, not the mode.
    low, high = int(values.min()), int(values.max())
    if low < 0 or high > 65535:
        raise _ScaleError(f"integer values in [{low}, {high}], expected 16 bits: [0, 65535]")
    return np.round(values / 257.0).astype(np.uint8)  # 65535 = 257 * 255


def _float_to_uint8(values: np.ndarray) -> np.ndarray:
    low, high = float(values.min()), float(values.max())
    if not (low >= 0.0 and high <= 1.0):  # also true for NaN
        raise _ScaleError(f"float values in [{low:g}, {high:g}], expected [0, 1]")
    return np.round(values * 255.0).astype(np.uint8)


class _ScaleError(ValueError):
    """Pixel values that have no defined scale to 8 bits."""


def _explain(name: str, error: Exception) -> str:
    """One line: the file, what is wrong with it, what to do."""
    if isinstance(error, FileNotFoundError):
        return f"{name}: no such file. Check the path."
    if isinstance(error, IsADirectoryError):
        return f"{name}: is a folder, expected a picture. Name a file in it."
    if isinstance(error, PermissionError):
        return f"{name}: may not be read. Check its permissions."
    if isinstance(error, Image.DecompressionBombError):
        return f"{name}: too large ({error}; limit {MAX_PIXELS} pixels). Scale or crop it first."
    if isinstance(error, Image.UnidentifiedImageError):
        return f"{name}: not a picture in a known format, or empty. Convert it to PNG or JPEG."
    if isinstance(error, _ScaleError):
        return f"{name}: {error}. Scale the values, or save it with 8 bits."
    return f"{name}: damaged or truncated ({error}). Get the file again, or leave it out."
