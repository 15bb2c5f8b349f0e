"""The feature pyramid of this package's backbones, with or without a path back up."""

from __future__ import annotations

from typing import Any

import fvcore.nn.weight_init as weight_init
from detectron2.config import CfgNode
from detectron2.layers import Conv2d, get_norm
from detectron2.modeling import FPN, Backbone
from detectron2.modeling.backbone.fpn import LastLevelMaxPool
from torch import Tensor, nn


class PathAggregationFPN(FPN):
    """An FPN whose fine levels reach the coarse ones by a short path (PANet, Liu et al., 2018).

    N_2 = P_2, and N_{l+1} = P_{l+1} + path(N_l), up to P_6; a path is a 3x3 convolution of stride
    2, norm, ReLU, and a 1x1 convolution. In the paper a 3x3 convolution and a ReLU follow the sum
    instead. Here the last layer stands before the sum and starts at zero: at first the features
    are the FPN's, so that weights of a model without paths are a start that loses nothing.

    Parameters and features have the names of Detectron2's `FPN`; those of the paths are added.

    Args:
        out_channels: channels of every level.
        norm: normalisation, as for `detectron2.layers.get_norm`.
        **kwargs: of `FPN`.
    """

    def __init__(self, *, out_channels: int, norm: str = "", **kwargs: Any) -> None:
        super().__init__(out_channels=out_channels, norm=norm, **kwargs)
        self.paths = nn.ModuleDict(
            {name: _make_path(out_channels, norm) for name in self._out_features[1:]}
        )

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """Compute the levels of a batch (N, 3, H, W), by name, finest first."""
        features = super().forward(x)
        level = features[self._out_features[0]]
        for name, path in self.paths.items():
            level = features[name] = features[name] + path(level)
        return features


def _make_path(channels: int, norm: str) -> nn.Sequential:
    down = Conv2d(
        *(channels, channels, 3),
        stride=2,
        padding=1,
        bias=not norm,
        norm=get_norm(norm, channels),
        activation=nn.functional.relu,
    )
    output = Conv2d(channels, channels, 1)
    weight_init.c2_msra_fill(down)
    nn.init.zeros_(output.weight)
    nn.init.zeros_(output.bias)
    return nn.Sequential(down, output)


def build_pyramid(cfg: CfgNode, bottom_up: Backbone) -> FPN:
    """Build the FPN of `MODEL.FPN`, P2 to P6, on a backbone with the features up to res5."""
    node = cfg.MODEL.FPN
    # A config of Detectron2's keys alone has no such key.
    pyramid = PathAggregationFPN if node.get("PATH_AGGREGATION", False) else FPN
    return pyramid(
        bottom_up=bottom_up,
        in_features=node.IN_FEATURES,
        out_channels=node.OUT_CHANNELS,
        norm=node.NORM,
        top_block=LastLevelMaxPool(),
        fuse_type=node.FUSE_TYPE,
    )
