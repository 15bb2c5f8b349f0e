"""Detectron2's augmentations that resize, with the filter of the model's weights."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from detectron2.data import transforms as T
from PIL import Image

from ..layers.images import resize_image

__all__ = ["FilteredResize", "FilteredResizeTransform", "use_resize_filter"]

_RESIZING = (T.Resize, T.ResizeShortestEdge, T.ResizeScale)


class FilteredResizeTransform(T.ResizeTransform):
    """Detectron2's `ResizeTransform` whose bilinear filter is one of `RESIZE_FILTERS`.

    Points and segmentations are moved as by Detectron2.

    Args:
        h: height of the image before, in pixels.
        w: its width.
        new_h: height afterwards.
        new_w: width afterwards.
        resize_filter: see `resize_image`.
    """

    def __init__(self, h: int, w: int, new_h: int, new_w: int, resize_filter: str) -> None:
        super().__init__(h, w, new_h, new_w)
        self.resize_filter = resize_filter

    def apply_image(self, img: np.ndarray, interp: int | None = None) -> np.ndarray:
        """Resize an image (h, w) or (h, w, 3), uint8, or another array by another method."""
        if interp not in (None, Image.Resampling.BILINEAR):
            resized: np.ndarray = super().apply_image(img, interp)
            return resized
        return resize_image(img, (self.new_h, self.new_w), self.resize_filter)


class FilteredResize(T.Augmentation):
    """An augmentation of Detectron2 that resizes, with one of `RESIZE_FILTERS`.

    Args:
        resize: chooses the size.
        resize_filter: takes the place of its bilinear filter; other methods stay.
    """

    def __init__(self, resize: T.Augmentation, resize_filter: str) -> None:
        super().__init__()
        self.resize = resize
        self.resize_filter = resize_filter

    def get_transform(self, image: np.ndarray) -> Any:
        """Return the transform of an image (h, w, 3)."""
        plain = self.resize.get_transform(image)
        if not isinstance(plain, T.ResizeTransform) or plain.interp != Image.Resampling.BILINEAR:
            return plain
        return FilteredResizeTransform(
            plain.h, plain.w, plain.new_h, plain.new_w, self.resize_filter
        )


def use_resize_filter(
    augmentations: Sequence[T.Augmentation | T.Transform], resize_filter: str
) -> list[T.Augmentation | T.Transform]:
    """Let those augmentations that resize images use a filter.

    Args:
        augmentations: of a mapper. `Resize`, `ResizeShortestEdge` and `ResizeScale` are replaced.
        resize_filter: one of `RESIZE_FILTERS`; "pillow" is what they use by themselves.
    """
    if resize_filter == "pillow":
        return list(augmentations)
    return [
        FilteredResize(x, resize_filter) if isinstance(x, _RESIZING) else x for x in augmentations
    ]
