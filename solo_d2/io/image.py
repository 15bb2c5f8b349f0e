"""Image files: one reader for whatever other people's files hold, and one writer."""

from __future__ import annotations

import contextlib
import io
import warnings
from collections.abc import Iterator
from os import PathLike, fspath
from pathlib import Path
from typing import Any, BinaryIO

import cv2
import numpy as np
from PIL import Image, UnidentifiedImageError

from .atomic import atomic_write
from .decode import LayoutError, orientation, rgb_array
from .errors import one_line
from .paths import not_a_file, printable
from .pixels import ScaleError

__all__ = [
    "IMAGE_EXTENSIONS",
    "IMAGE_FORMATS",
    "MAX_PIXELS",
    "ImageError",
    "ImageTooLargeError",
    "can_write",
    "decode_image",
    "open_image",
    "read_image",
    "read_size",
    "write_image",
]

IMAGE_EXTENSIONS = (
    *(".apng", ".avif", ".bmp", ".dib", ".gif", ".j2k", ".jfif", ".jp2", ".jpe", ".jpeg", ".jpg"),
    *(".mpo", ".pbm", ".pgm", ".png", ".pnm", ".ppm", ".tif", ".tiff", ".webp"),
)
"""File name extensions (lower case) that a folder is searched for."""

IMAGE_FORMATS = (
    *("AVIF", "BMP", "DIB", "GIF", "JPEG", "JPEG2000", "MPO", "PNG", "PPM", "TIFF", "WEBP"),
)
"""Pillow's names of the formats that are read, by content and whatever the file is called.

Others are refused: Pillow hands EPS to Ghostscript, and rare formats have rarely tested readers.
"""

MAX_PIXELS = 178_956_970
"""Largest width * height that is decoded (half a gigabyte of RGB; Pillow's own limit)."""


class ImageError(ValueError):
    """A file that is not the image expected; the text is one line with its name and a remedy.

    Attributes:
        reason: the text without the name.
    """

    def __init__(self, path: str | PathLike[str], reason: str) -> None:
        super().__init__(f"{printable(path)}: {reason}")
        self.reason = reason


class ImageTooLargeError(ImageError):
    """An image of more pixels than are decoded."""


@contextlib.contextmanager
def open_image(path: str | PathLike[str]) -> Iterator[Image.Image]:
    """Open an image file of a listed format; every reader of images goes through this.

    Args:
        path: a file; what is no regular file, such as a named pipe, is refused.

    Yields:
        Pillow's image with its header read. Whatever decoding raises inside of the block becomes
        an `ImageError`.

    Raises:
        ImageError: the file is missing, no regular file, not an image of `IMAGE_FORMATS`, damaged,
            or larger than `MAX_PIXELS`.
    """
    name = fspath(path)
    with _explained(name):
        problem = not_a_file(name)
        if problem is not None:
            raise ImageError(name, _remedy(problem))
        # Not by name: Pillow would map the file, and turn some TIFF files into other pixels.
        with open(name, "rb") as file, _open(file) as image:
            _check_size(image, name, MAX_PIXELS)
            yield image


def decode_image(
    data: bytes, name: str = "The image", *, max_pixels: int = MAX_PIXELS, max_value: float = 0
) -> np.ndarray:
    """Decode an image file that is in memory, as `read_image` does a file.

    Args:
        data: Content of a file of `IMAGE_FORMATS`.
        name: Of the image, for messages.
        max_pixels: Largest width * height, compared before anything is decoded.
        max_value: See `read_image`.

    Returns:
        uint8 BGR (H, W, 3).

    Raises:
        ImageTooLargeError: It has more pixels.
        ImageError: See `open_image`.
    """
    with _explained(name), _open(io.BytesIO(data)) as image:
        _check_size(image, name, max_pixels)
        return np.ascontiguousarray(rgb_array(image, name, max_value)[:, :, ::-1])


@contextlib.contextmanager
def _explained(name: str) -> Iterator[None]:
    """Turn whatever decoding raises into an `ImageError`."""
    try:
        yield
    except ImageError:
        raise
    except Image.DecompressionBombError as error:  # Pillow's own limit
        raise ImageTooLargeError(name, _too_large()) from error
    except Exception as error:  # Pillow's decoders raise whatever their parsing trips over
        raise ImageError(name, _explain(error)) from error


def _check_size(image: Image.Image, name: str, limit: int) -> None:
    if image.width * image.height > limit:
        size = f"{image.width} x {image.height} pixels; "
        raise ImageTooLargeError(name, _too_large(size, limit))


def _open(file: BinaryIO) -> Image.Image:
    with warnings.catch_warnings():
        # Pillow warns at half of the size that it refuses: MAX_PIXELS is the one limit here.
        warnings.simplefilter("ignore")
        Image.init()
        # Before Pillow 11.3 there is no AVIF.
        return Image.open(file, formats=[x for x in IMAGE_FORMATS if x in Image.OPEN])


def read_image(
    path: str | PathLike[str], format: str = "BGR", *, max_value: float = 0
) -> np.ndarray:
    """Read an image upright, in 8 bits and three channels.

    The EXIF orientation is applied. Grayscale, palette and CMYK images become colour, an alpha
    channel is dropped, 16-bit values are scaled (65535 becomes 255), float values in [0, 1] are
    multiplied by 255. Of an animation or a stack the first frame is read.

    Args:
        path: a file of `IMAGE_FORMATS`.
        format: channel order of the result, "BGR" (OpenCV, Detectron2) or "RGB".
        max_value: the value of files with more than 8 bits that becomes 255, such as 4095 for 12
            bits in 16 (`INPUT.MAX_VALUE`). By default what the file says, else all of its bits,
            with a warning if it uses the lowest ones alone.

    Returns:
        The image, shape (H, W, 3), contiguous, in [0, 255].

    Raises:
        ImageError: see `open_image`; or the values have no defined scale.
        ValueError: `format` is unknown or `max_value` below 0.
    """
    if format not in ("BGR", "RGB"):
        raise ValueError(f'format must be "BGR" or "RGB", got {format!r}.')
    if not max_value >= 0:
        raise ValueError(f"max_value (INPUT.MAX_VALUE) must be 0 or more, got {max_value}.")
    with open_image(path) as image:
        rgb = rgb_array(image, fspath(path), max_value)
    return np.ascontiguousarray(rgb[:, :, ::-1] if format == "BGR" else rgb)


def read_size(path: str | PathLike[str]) -> tuple[int, int]:
    """Return (height, width) of the upright image from the file's header, without decoding it.

    Raises:
        ImageError: see `open_image`.
    """
    with open_image(path) as image:
        width, height = image.size
        if image.format == "TIFF":  # its `size` is turned already, but not in every Pillow
            tags: Any = image.getexif()
            width, height = int(tags[256]), int(tags[257])
        turned = 5 <= orientation(image, fspath(path)) <= 8
    return (width, height) if turned else (height, width)


def can_write(path: str | PathLike[str]) -> bool:
    """Tell whether `write_image` knows the format of a file name."""
    extension = printable(Path(path).suffix.lower())
    return bool(extension) and cv2.haveImageWriter(f"image{extension}")


def write_image(
    path: str | PathLike[str], image: np.ndarray, *, quality: int | None = None
) -> None:
    """Write an image in the format of the file name, making its folder.

    An older file is replaced when the new one is whole.

    Args:
        path: the file.
        image: uint8, shape (H, W) or (H, W, 3) BGR or (H, W, 4) BGRA.
        quality: of JPEG, 0 to 100.

    Raises:
        ValueError: it cannot be written.
    """
    flags = [] if quality is None else [cv2.IMWRITE_JPEG_QUALITY, quality]
    name = printable(path)
    if not can_write(path):
        raise ValueError(f"{name}: cannot be written: no known image format. Name it .png or .jpg.")
    try:
        # Encoded in memory: OpenCV's own files cannot have every name.
        done, data = cv2.imencode(Path(path).suffix.lower(), image, flags)
        if not done:
            raise ValueError(f"{name}: cannot be written in this format. Name it .png.")
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(path, sync=False) as file:  # there may be thousands
            file.write(data.data)
    except (OSError, cv2.error) as error:
        raise ValueError(f"{name}: cannot be written ({one_line(error)}).") from error


def _remedy(problem: str) -> str:
    if problem == "no such file":
        return "no such file. Check the path."
    if problem == "is a folder":
        return "is a folder, expected an image. Name a file in it."
    return f"{problem}, expected an image file. Leave it out."


def _too_large(size: str = "", limit: int = MAX_PIXELS) -> str:
    return f"too large ({size}limit {limit} pixels). Scale or crop it first."


def _explain(error: Exception) -> str:
    """What is wrong with a file, and what to do."""
    if isinstance(error, PermissionError):
        return "may not be read. Check its permissions."
    if isinstance(error, MemoryError):
        return "too large for the memory that is left. Scale or crop it first."
    if isinstance(error, UnidentifiedImageError):
        return "not an image in a known format, or empty. Convert it to PNG or JPEG."
    if isinstance(error, ScaleError):
        return f"{error}. Scale the values, save it with 8 bits, or set INPUT.MAX_VALUE."
    if isinstance(error, LayoutError):
        return f"{error}."
    if isinstance(error, OSError) and error.errno:
        return f"cannot be read ({error.strerror})."
    return f"damaged or truncated ({one_line(error)}). Get the file again, or leave it out."
