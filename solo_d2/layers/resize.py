"""Resizing of feature maps: to a size, and to the cells of a grid."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.ops import roi_align

from .checks import check_tensors

ALIGN_MODES = ("bilinear", "adaptive_max_pool", "region_grid")

# From so many channels on; CUDA resizes other maps by one thread for all channels of a pixel.
_CHANNELS_LAST = 16


def resize_bilinear(x: Tensor, size: tuple[int, int]) -> Tensor:
    """Resize (N, C, h, w) to (N, C, *size) bilinearly with half-pixel centres.

    Example:
        >>> import torch
        >>> resize_bilinear(torch.tensor([[[[0.0, 1.0]]]]), (1, 4))
        tensor([[[[0.0000, 0.2500, 0.7500, 1.0000]]]])
    """
    check_tensors("resize_bilinear", ("x", x, "floating", "N C H W"))
    if x.is_cuda and x.shape[1] >= _CHANNELS_LAST:
        x = x.contiguous(memory_format=torch.channels_last)
    return F.interpolate(x, size=size, mode="bilinear", align_corners=False)


def align_to_grid(x: Tensor, size: int, mode: str = "bilinear") -> Tensor:
    """Bring a feature map to the cells of a grid (paper §4.2.1, "Alignment").

    Args:
        x: feature map (N, C, H, W).
        size: S, cells a side.
        mode: one of `ALIGN_MODES`: a bilinear sample in the middle of every cell; the maximum of
            the pixels that a cell touches; or the mean of bilinear samples in every cell, which
            are at least as dense as the pixels.

    Returns:
        (N, C, S, S).

    Raises:
        ValueError: unknown mode, or `x` is no such tensor.

    Example:
        >>> import torch
        >>> align_to_grid(torch.arange(4.0).view(1, 1, 2, 2), 1)
        tensor([[[[1.5000]]]])
    """
    check_tensors("align_to_grid", ("x", x, "floating", "N C H W"))
    if mode == "bilinear":
        return resize_bilinear(x, (size, size))
    if mode == "adaptive_max_pool":
        return F.adaptive_max_pool2d(x, (size, size))
    if mode == "region_grid":
        height, width = x.shape[-2:]
        # One box per image, the whole map; without a sampling ratio, ceil(pixels / S) samples.
        # In float32: bfloat16 does not have every size, nor torchvision every kernel in it.
        values = x.to(torch.promote_types(x.dtype, torch.float32))
        boxes = torch.zeros((x.shape[0], 5), dtype=values.dtype, device=values.device)
        boxes[:, 0] = torch.arange(x.shape[0], device=x.device)
        boxes[:, 3].fill_(width)  # no copy from the host, which a CUDA graph cannot record
        boxes[:, 4].fill_(height)
        return roi_align(values, boxes, (size, size), aligned=True).to(x.dtype)
    raise ValueError(f"MODEL.SOLO.ALIGN must be one of {ALIGN_MODES}, got {mode!r}")
