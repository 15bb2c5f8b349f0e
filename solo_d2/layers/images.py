"""Resizing of images as arrays, with the filters that models are trained with."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import cv2
import numpy as np
from detectron2.data import transforms as T
from PIL import Image


def _pillow(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Resize as Detectron2 does: where it shrinks, a pixel is the mean of those that it covers."""
    return np.asarray(Image.fromarray(image).resize(size[::-1], Image.Resampling.BILINEAR))


def _opencv(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Resize as mmdetection does: a pixel is made of four, also where it shrinks."""
    return np.asarray(cv2.resize(image, size[::-1], interpolation=cv2.INTER_LINEAR))


RESIZE_FILTERS: Mapping[str, Callable[[np.ndarray, tuple[int, int]], np.ndarray]] = {
    "pillow": _pillow,
    "opencv": _opencv,
}
"""Bilinear filters of images by their names, the values of `INPUT.RESIZE_FILTER`."""


def resize_image(image: np.ndarray, size: tuple[int, int], resize_filter: str) -> np.ndarray:
    """Resize an image, or leave it as it is where it has the size.

    Args:
        image: (h, w) or (h, w, 3), uint8.
        size: wanted (height, width) in pixels, each at least 1.
        resize_filter: one of `RESIZE_FILTERS`.

    Returns:
        (height, width) or (height, width, 3), uint8.

    Raises:
        ValueError: there is no such filter.
    """
    if resize_filter not in RESIZE_FILTERS:
        raise ValueError(
            f"INPUT.RESIZE_FILTER must be one of {', '.join(RESIZE_FILTERS)}, got {resize_filter!r}"
        )
    if image.shape[:2] == size:
        return image
    return RESIZE_FILTERS[resize_filter](image, size)


def resized_shape(size: tuple[int, int], short: int, longest: int) -> tuple[int, int]:
    """Return the size (height, width) of an image as the network sees it, by Detectron2's rule.

    Args:
        size: (height, width) of the image.
        short: wanted length of the short side in pixels; 0 leaves the image as it is.
        longest: limit of the long side in pixels.
    """
    if short == 0:
        return size
    height, width = T.ResizeShortestEdge.get_output_shape(*size, short, longest)
    return max(height, 1), max(width, 1)  # a 1 x 3000 image would get the height 0
