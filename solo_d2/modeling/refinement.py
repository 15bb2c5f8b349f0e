"""Final masks at stride 2, along the edges of the image.

Shapes: K instances, (h, w) the canvas at stride 4, (2h, 2w) at stride 2.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..layers import mask_occupancy, profiles_to_boxes
from ..layers.guided_filter import GuidedFilter
from .output import chunk_length

REACH = 2
"""How far, in pixels at stride 4, a mask may grow beyond its box."""


def make_guide(pixels: Tensor, pixel_std: Tensor) -> Tensor:
    """Make the images at stride 2 that `refine_masks` wants.

    Args:
        pixels: normalised images (N, 3, H, W).
        pixel_std: by which their channels have been divided, (3, 1, 1).

    Returns:
        (N, 3, H / 2, W / 2) with values in a range of 1.
    """
    return F.avg_pool2d(pixels * (pixel_std / 255), 2)


def refine_masks(probs: Tensor, guide: Tensor, threshold: float) -> Tensor:
    """Double the resolution of soft masks by a guided filter.

    On a CPU only a window round each mask's box is computed. A GPU computes whole masks, a bounded
    number at a time, and is not waited for.

    Args:
        probs: soft masks (K, h, w), float32.
        guide: the image at stride 2, (3, 2h, 2w), of `make_guide`.
        threshold: foreground is what exceeds it.

    Returns:
        (K, 2h, 2w), of use for thresholding only: 0 away from the box of a mask.
    """
    guided = GuidedFilter(guide)
    boxes = profiles_to_boxes(*mask_occupancy(probs > threshold))
    if probs.device.type == "cpu":
        return _refine_windows(probs, guided, boxes)
    return _refine_whole(probs, guided, boxes)


def _refine_windows(probs: Tensor, guided: GuidedFilter, boxes: Tensor) -> Tensor:
    count, height, width = probs.shape
    # Unlike torch's, NumPy's zeros cost no memory until they are written, and most never are.
    refined = torch.from_numpy(np.zeros((count, 2 * height, 2 * width), np.float32))
    for index, (x0, y0, x1, y1) in enumerate(boxes.int().tolist()):
        if x1 > x0:
            rows = slice(max(0, y0 - REACH), min(height, y1 + REACH))
            columns = slice(max(0, x0 - REACH), min(width, x1 + REACH))
            window = guided(probs[index : index + 1], rows, columns)[0]
            refined[index, 2 * rows.start : 2 * rows.stop, 2 * columns.start : 2 * columns.stop] = (
                window
            )
    return refined


def _refine_whole(probs: Tensor, guided: GuidedFilter, boxes: Tensor) -> Tensor:
    count, height, width = probs.shape
    refined = probs.new_empty((count, 2 * height, 2 * width))
    whole = slice(0, height), slice(0, width)
    inside = _near(boxes[:, 1::2], 2 * height)[:, :, None]
    inside = inside & _near(boxes[:, 0::2], 2 * width)[:, None]
    # Four values of a pixel at stride 2 are worked on at once.
    length = chunk_length((4 * height, 4 * width), probs.device)
    for start in range(0, count, length):
        part = slice(start, start + length)
        refined[part] = guided(probs[part], *whole) * inside[part]
    return refined


def _near(spans: Tensor, size: int) -> Tensor:
    """Pixels at stride 2, (K, size), that windows over spans (K, 2) at stride 4 would have."""
    low, high = spans[:, :1], spans[:, 1:]
    places = torch.arange(size, device=spans.device)
    return (places >= 2 * (low - REACH)) & (places < 2 * (high + REACH)) & (high > low)
