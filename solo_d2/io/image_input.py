"""Images as callers have them: files, Pillow's images and arrays, in one form."""

from __future__ import annotations

import os
from os import PathLike
from typing import Any

import numpy as np
from PIL import Image

from .decode import rgb_array
from .image import read_image
from .pixels import ScaleError, to_uint8

__all__ = ["ImageLike", "to_bgr"]

ImageLike = np.ndarray | Image.Image | str | PathLike[str]
"""What `to_bgr` takes."""


def to_bgr(
    image: ImageLike, name: str = "The image", *, image_format: str = "BGR", max_value: float = 0
) -> np.ndarray:
    """Bring an image to uint8 BGR.

    Args:
        image: The path of a file, read by `read_image`; an image of Pillow, turned upright by its
            EXIF orientation; or an array of uint8 or uint16, shape (H, W) or (H, W, 1) for gray,
            (H, W, 3) for colours, (H, W, 4) with an alpha channel, which is dropped.
        name: Of the image, for messages.
        image_format: Order of an array's channels, "BGR" (OpenCV) or "RGB". It cannot be seen, so
            that a wrong one costs accuracy and raises no error.
        max_value: See `read_image`; also for arrays of uint16.

    Returns:
        Shape (H, W, 3), in [0, 255].

    Raises:
        ValueError: The file cannot be read, or the array has another type or shape.
    """
    if image_format not in ("BGR", "RGB"):
        raise ValueError(f'image_format must be "BGR" or "RGB", got {image_format!r}.')
    if isinstance(image, str | os.PathLike):
        return read_image(image, "BGR", max_value=max_value)
    try:
        if isinstance(image, Image.Image):
            return np.ascontiguousarray(rgb_array(image, name, max_value)[..., ::-1])
        _check_array(image, name)
        pixels = to_uint8(image, name, white=max_value)
    except ScaleError as error:
        raise ValueError(f"{name} has {error}.") from error
    if pixels.ndim == 2:
        pixels = pixels[..., None]
    if pixels.shape[2] == 1:
        return np.repeat(pixels, 3, axis=2)
    return pixels[..., 2::-1] if image_format == "RGB" else pixels[..., :3]


def _check_array(image: Any, name: str) -> None:
    if not isinstance(image, np.ndarray) or image.dtype not in (np.uint8, np.uint16):
        got = image.dtype if isinstance(image, np.ndarray) else type(image).__name__
        raise ValueError(
            f"{name} must be a path, an image of Pillow or a numpy array of type uint8 (0 to 255) "
            f"or uint16, got {got}."
        )
    # (3, H, 4) may be an image of three rows with an alpha channel, but hardly ever is.
    planes = image.ndim == 3 and (image.shape[2] not in (1, 3, 4) or image.shape[::2] == (3, 4))
    if image.ndim not in (2, 3) or planes or image.size == 0:
        raise ValueError(
            f"{name} must have the shape (height, width, 3), or 1 or 4 channels or none at the "
            f"end, and be not empty, got {image.shape}."
        )
