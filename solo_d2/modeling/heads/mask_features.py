"""The unified mask feature (paper §3.2.3, "Mask feature F")."""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from ...layers import append_coords
from .base import conv_norm_relu, init_convs, make_tower


class UnifiedMaskFeature(nn.Module):
    """Merge the pyramid into one map at the stride of its finest level.

    A level that is 2^n times coarser than the finest goes through n stages of 3x3 convolution,
    norm, ReLU and twofold bilinear upsampling (the finest through one convolution); the sum goes
    through a 1x1 convolution, norm and ReLU. The coarsest level is given pixel coordinates.

    Args:
        in_channels: channels of every level.
        num_levels: levels P2, P3, ...; each twice as coarse as the one before.
        channels: channels of the stages.
        out_channels: E, channels of the result.
        norm: normalisation, as for `detectron2.layers.get_norm`.
    """

    def __init__(
        self, *, in_channels: int, num_levels: int, channels: int, out_channels: int, norm: str
    ) -> None:
        super().__init__()
        self.stages = nn.ModuleList()
        for level in range(num_levels):
            width = in_channels + (2 if level == num_levels - 1 else 0)
            self.stages.append(_Stages(width, channels, level, norm))
        self.predictor = conv_norm_relu(channels, out_channels, norm, kernel_size=1)
        init_convs(self)

    def forward(self, levels: Sequence[Tensor]) -> Tensor:
        """Merge levels, finest first.

        Args:
            levels: (N, in_channels, H / stride, W / stride) each.

        Returns:
            (N, out_channels, H / s, W / s) with the stride s of the first level.
        """
        merged = None
        for level, (x, stages) in enumerate(zip(levels, self.stages, strict=True)):
            x = stages(append_coords(x) if level == len(levels) - 1 else x)
            # Not in place: ReLU needs its output for the backward pass.
            merged = x if merged is None else merged + x
        return self.predictor(merged)


class _Stages(nn.Sequential):
    """The convolutions of one level, each followed by upsampling, except on the finest level."""

    def __init__(self, in_channels: int, channels: int, doublings: int, norm: str) -> None:
        super().__init__(*make_tower(in_channels, channels, max(doublings, 1), norm))
        self.upsample = doublings > 0

    def forward(self, x: Tensor) -> Tensor:
        for convolution in self:
            x = convolution(x)
            if self.upsample:
                x = F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)
        return x
