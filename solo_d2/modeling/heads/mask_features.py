"""Mask features (paper §3.2.3, "Mask feature F"): one for all levels, or one per level.

Both modules yield one map per level and say how the masks made from it relate to it:
`upsample` is the factor by which mask logits are enlarged, `shared` whether it is one map.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import Tensor, nn

from ...layers import resize_bilinear
from ..towers import LayerStyle, Tower, conv_norm_relu, init_convs


class UnifiedMaskFeature(nn.Module):
    """Merge the pyramid into one map at the stride of its finest level.

    A level that is 2^n times coarser than the finest goes through n stages of 3x3 convolution,
    norm, ReLU and twofold bilinear upsampling (the finest through one convolution); the sum goes
    through a 1x1 convolution, norm and ReLU. The coarsest level is given pixel coordinates.

    Args:
        in_channels: channels of every level.
        in_features: names of the levels P2, P3, ...; each twice as coarse as the one before.
        channels: channels of the stages.
        out_channels: E, channels of the result.
        style: of the layers; only "all" makes them deformable, as in the published models.
        coords: give coordinates to the coarsest level.
    """

    shared, upsample = True, 1

    def __init__(
        self,
        *,
        in_channels: int,
        in_features: Sequence[str],
        channels: int,
        out_channels: int,
        style: LayerStyle,
        coords: bool = True,
    ) -> None:
        super().__init__()
        self.in_features = list(in_features)
        style = style.inner()
        coarsest = len(self.in_features) - 1
        self.stages = nn.ModuleList(
            _Stages(in_channels, channels, level, style, coords and level == coarsest)
            for level in range(len(self.in_features))
        )
        self.predictor = conv_norm_relu(channels, out_channels, style, kernel_size=1)
        init_convs(self)

    def forward(self, features: dict[str, Tensor], levels: list[Tensor]) -> list[Tensor]:
        """Merge the backbone's features (N, in_channels, H / stride, W / stride).

        Returns:
            For every one of `levels` the same (N, out_channels, H / s, W / s), with the stride s
            of the finest feature.
        """
        merged = None
        for name, stages in zip(self.in_features, self.stages, strict=True):
            x = stages(features[name])
            # Not in place: ReLU needs its output for the backward pass.
            merged = x if merged is None else merged + x
        return [self.predictor(merged)] * len(levels)


class _Stages(Tower):
    """The convolutions of one level, each followed by upsampling, except on the finest level."""

    def __init__(
        self, in_channels: int, channels: int, doublings: int, style: LayerStyle, coords: bool
    ) -> None:
        depth = max(doublings, 1)
        super().__init__(in_channels, channels, depth, style, num_coord_convs=int(coords))
        self.doubles = doublings > 0

    def run(self, x: Tensor, align: Callable[[Tensor], Tensor] | None) -> Tensor:  # noqa: ARG002
        """Run all layers; nothing is aligned."""
        for i, layer in enumerate(self):
            x = layer(self.layer_input(x, i))
            if self.doubles:
                x = resize_bilinear(x, (2 * x.shape[-2], 2 * x.shape[-1]))
        return x


class SeparateMaskFeature(nn.Module):
    """A mask feature of every level's own ("Dynamic*", paper §4.2.2), by layers that all share.

    It is what vanilla SOLO's mask branch has in front of its last layer. There the map is enlarged
    twofold before that layer; a 1x1 convolution and bilinear upsampling commute, so that here the
    few masks are enlarged instead of all channels.

    Args:
        in_channels: channels of every level.
        channels: channels of all layers but the last.
        out_channels: E, channels of the result.
        num_convs: 3x3 layers; 7 in the paper.
        style: of the layers.
        coords: give coordinates to the first layer.
    """

    shared, upsample = False, 2

    def __init__(
        self,
        *,
        in_channels: int,
        channels: int,
        out_channels: int,
        num_convs: int,
        style: LayerStyle,
        coords: bool = True,
    ) -> None:
        super().__init__()
        if num_convs < 2:
            raise ValueError(f"MODEL.SOLO.MASK_FEATURE.NUM_CONVS must be >= 2, got {num_convs}")
        self.tower = Tower(
            in_channels, channels, num_convs - 1, style.inner(), num_coord_convs=int(coords)
        )
        self.predictor = conv_norm_relu(channels, out_channels, style)
        init_convs(self)

    def forward(
        self,
        features: dict[str, Tensor],  # noqa: ARG002 - the levels are enough
        levels: list[Tensor],
    ) -> list[Tensor]:
        """Run the layers on every level.

        Args:
            features: of the backbone; not used.
            levels: (N, in_channels, H_l, W_l) each.

        Returns:
            (N, out_channels, H_l, W_l) each.
        """
        return [self.predictor(self.tower(x)) for x in levels]
