"""Deformable convolution, v1 and v2, by torchvision: nothing of ours or Detectron2's is compiled.

Shapes: N images, C channels, K = k * k taps of a kernel, G offset groups, (H, W) output size.
"""

from __future__ import annotations

from contextlib import nullcontext

import torch
from torch import Tensor, nn
from torchvision.ops import deform_conv2d

from .checks import check_tensors


def offset_channels(kernel_size: int, deform_groups: int, modulated: bool) -> int:
    """Channels of the convolution that predicts offsets, and masks if `modulated` (v2)."""
    return (3 if modulated else 2) * deform_groups * kernel_size**2


def deform_conv(x: Tensor, prediction: Tensor, conv: nn.Conv2d, *, modulated: bool) -> Tensor:
    """Apply a convolution at predicted positions.

    At zero offsets v1 (https://arxiv.org/abs/1703.06211) is the plain convolution, and v2
    (https://arxiv.org/abs/1811.11168), whose every tap is weighted by a sigmoid, half of it without
    the bias; so are Detectron2's and mmdet's.

    Args:
        x: input (N, C, h, w).
        prediction: for every output position, in input pixels: (N, 2 * G * K, H, W) offsets, (y, x)
            tap by tap, group by group; if `modulated`, (N, 3 * G * K, H, W) with logits of the
            masks behind the offsets. This is the layout of Detectron2 and mmdet.
        conv: whose weight, bias, stride, padding and dilation are used; not called.
        modulated: v2.

    Returns:
        (N, conv.out_channels, H, W) of the type of `x`.

    Example:
        >>> import torch
        >>> conv = torch.nn.Conv2d(1, 1, 3, padding=1)
        >>> x, no_offsets = torch.rand(1, 1, 5, 5), torch.zeros(1, 18, 5, 5)
        >>> torch.allclose(deform_conv(x, no_offsets, conv, modulated=False), conv(x), atol=1e-6)
        True
    """
    check_tensors(
        "deform_conv",
        ("x", x, "floating", "N C h w"),
        ("prediction", prediction, "floating", "N P H W"),
    )
    mask = None
    if modulated:
        # Three equal parts, of which two are offsets.
        first, second, mask = prediction.chunk(3, dim=1)
        prediction, mask = torch.cat([first, second], dim=1), mask.sigmoid()
    # torchvision knows no bfloat16, and positions need more bits than either half type has.
    dtype = torch.promote_types(x.dtype, torch.float32)
    # Work is counted on the meta device, which knows no autocast.
    counted = x.device.type == "meta"
    with nullcontext() if counted else torch.autocast(x.device.type, enabled=False):
        out = deform_conv2d(
            x.to(dtype),
            prediction.to(dtype),
            conv.weight.to(dtype),
            None if conv.bias is None else conv.bias.to(dtype),
            stride=conv.stride,
            padding=conv.padding,
            dilation=conv.dilation,
            mask=None if mask is None else mask.to(dtype),
        )
    return out.to(x.dtype)


class DeformConv2d(nn.Conv2d):
    """A convolution that predicts where to look, called like `nn.Conv2d`.

    Its child `conv_offset` starts at zero and must be left out when convolutions are initialised.

    Args:
        in_channels: channels of the input.
        out_channels: channels of the output.
        kernel_size: taps a side.
        stride: of this convolution and of `conv_offset`.
        padding: likewise.
        dilation: likewise.
        bias: add a bias.
        groups: of the convolution.
        deform_groups: groups of input channels with offsets of their own.
        modulated: deformable convolution v2, otherwise v1.

    Raises:
        ValueError: `deform_groups` does not divide `in_channels`.

    Example:
        >>> import torch
        >>> DeformConv2d(8, 16, 3, padding=1, modulated=True)(torch.zeros(1, 8, 5, 5)).shape
        torch.Size([1, 16, 5, 5])
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        *,
        stride: int = 1,
        padding: int = 0,
        dilation: int = 1,
        bias: bool = True,
        groups: int = 1,
        deform_groups: int = 1,
        modulated: bool,
    ) -> None:
        if deform_groups < 1 or in_channels % deform_groups:
            raise ValueError(
                f"{in_channels} channels cannot be divided into {deform_groups} offset groups"
            )
        super().__init__(
            in_channels,
            out_channels,
            kernel_size,
            stride=stride,
            padding=padding,
            dilation=dilation,
            groups=groups,
            bias=bias,
        )
        self.modulated = modulated
        self.conv_offset = nn.Conv2d(
            in_channels,
            offset_channels(kernel_size, deform_groups, modulated),
            kernel_size,
            stride=stride,
            padding=padding,
            dilation=dilation,
        )
        for parameter in self.conv_offset.parameters():
            nn.init.zeros_(parameter)

    def forward(self, input: Tensor) -> Tensor:
        """Convolve (N, in_channels, h, w); N may be 0."""
        return deform_conv(input, self.conv_offset(input), self, modulated=self.modulated)
