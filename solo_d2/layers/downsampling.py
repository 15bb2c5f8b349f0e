"""Mask targets at a stride of the network: boolean masks, made smaller."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from .capture import capturing
from .checks import check_tensors


def downsample_masks(masks: Tensor, stride: int) -> Tensor:
    """Bilinear reduction of masks by an even integer factor, thresholded at >= 0.5.

    With half-pixel centres the sample of an output pixel lies in the middle of the four inner
    pixels of its stride x stride block, so that "bilinear >= 0.5" is "at least two of the four".

    Args:
        masks: boolean (K, H, W), H and W divisible by `stride`.
        stride: even factor, e.g. 4.

    Returns:
        Boolean (K, H / stride, W / stride).

    Example:
        >>> import torch
        >>> masks = torch.zeros(1, 4, 8, dtype=torch.bool)
        >>> masks[0, :, :4] = True
        >>> downsample_masks(masks, 4)
        tensor([[[ True, False]]])
    """
    check_tensors("downsample_masks", ("masks", masks, "boolean", "K H W"))
    if stride < 2 or stride % 2 or not _divides(stride, masks):
        raise ValueError(
            f"downsample_masks expects an even stride that divides the mask size, got stride "
            f"{stride} for {_size(masks)} pixels; pad the masks first"
        )
    pixels = masks.to(torch.uint8) if capturing() else masks.view(torch.uint8)
    low, high = stride // 2 - 1, stride // 2
    pixels = pixels[:, low::stride] + pixels[:, high::stride]
    return (pixels[..., low::stride] + pixels[..., high::stride]) >= 2


def mask_coverage(masks: Tensor, stride: int) -> Tensor:
    """Share of every stride x stride block that masks cover.

    Enlarged bilinearly and thresholded at 1/2, it gives outlines of a fraction of a block, of which
    a binary target of that size knows nothing.

    Args:
        masks: boolean (K, H, W), H and W divisible by `stride`.
        stride: factor from 2 to 255, e.g. 4.

    Returns:
        Float32 (K, H / stride, W / stride) in [0, 1].

    Example:
        >>> import torch
        >>> masks = torch.zeros(1, 4, 8, dtype=torch.bool)
        >>> masks[0, :, :5] = True
        >>> mask_coverage(masks, 4)
        tensor([[[1.0000, 0.2500]]])
    """
    check_tensors("mask_coverage", ("masks", masks, "boolean", "K H W"))
    if not 2 <= stride <= 255 or not _divides(stride, masks):
        raise ValueError(
            f"mask_coverage expects a stride from 2 to 255 that divides the mask size, got stride "
            f"{stride} for {_size(masks)} pixels; pad the masks first"
        )
    count, height, width = masks.shape
    rows = masks.reshape(count, height // stride, stride, width).view(torch.uint8)
    # Bytes hold the sums of a column of a block; six times faster than a mean of floats.
    sums = rows.sum(2, dtype=torch.uint8)[:, None].float()  # as images, of which there may be none
    return F.avg_pool2d(sums, (1, stride))[:, 0] / stride


def _divides(stride: int, masks: Tensor) -> bool:
    return masks.shape[1] % stride == masks.shape[2] % stride == 0


def _size(masks: Tensor) -> str:
    return f"{masks.shape[1]}x{masks.shape[2]}"
