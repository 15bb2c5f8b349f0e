"""What all heads share: resampling of the levels, towers, and the category branch.

Legend: N images, L levels, S_l cells a side on level l, C classes, K cells asked for.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

import torch.nn.functional as F
from detectron2.config import CfgNode, configurable
from detectron2.layers import Conv2d, ShapeSpec, get_norm
from torch import Tensor, nn

from ..grid import GridSpec
from ..structures import SOLOPredictions


def conv_norm_relu(
    in_channels: int, out_channels: int, norm: str, kernel_size: int = 3
) -> nn.Module:
    """One layer of a tower: same-size convolution, normalisation, ReLU; no bias before a norm."""
    if norm == "GN" and out_channels % 32:
        raise ValueError(
            f"GN has 32 groups, so that {out_channels} channels cannot be normalised; MODEL.SOLO's "
            "CONV_DIM, KERNEL_DIM and MASK_FEATURE.CONV_DIM must be multiples of 32"
        )
    return Conv2d(
        in_channels,
        out_channels,
        kernel_size=kernel_size,
        padding=kernel_size // 2,
        bias=not norm,
        norm=get_norm(norm, out_channels),
        activation=F.relu,
    )


def make_tower(in_channels: int, channels: int, num_convs: int, norm: str) -> nn.Sequential:
    """A stack of 3x3 layers, `in_channels` wide at its input and `channels` wide afterwards."""
    widths = [in_channels] + [channels] * num_convs
    return nn.Sequential(
        *(conv_norm_relu(widths[i], widths[i + 1], norm) for i in range(num_convs))
    )


def init_convs(module: nn.Module) -> None:
    """Initialise convolutions as the published models do: normal, std 0.01, zero bias."""
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.normal_(layer.weight, std=0.01)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)


class SOLOHead(nn.Module):
    """Base of all heads: category branch here, masks in the subclass.

    Args:
        grid: the grid pyramid.
        in_channels: channels of every input feature.
        in_features: names of the input features, finest first.
        feature_strides: strides of the input features in input pixels.
        num_classes: C.
        num_convs: 3x3 layers of every tower.
        conv_dim: channels of the towers.
        norm: normalisation of the towers, as for `detectron2.layers.get_norm`.
        prior_prob: score of every class at the start of training (focal loss, RetinaNet §4.1).
    """

    mask_strides: tuple[int, ...]
    """Stride of the masks that `mask_probs` returns without `size`, per level."""

    @configurable
    def __init__(
        self,
        *,
        grid: GridSpec,
        in_channels: int,
        in_features: Sequence[str],
        feature_strides: Sequence[int],
        num_classes: int,
        num_convs: int,
        conv_dim: int,
        norm: str,
        prior_prob: float,
    ) -> None:
        super().__init__()
        self.grid = grid
        self.in_features = list(in_features)
        self.feature_strides = list(feature_strides)
        self.num_classes = num_classes
        self.category_tower = make_tower(in_channels, conv_dim, num_convs, norm)
        tower_dim = conv_dim if num_convs else in_channels
        self.category_predictor = Conv2d(tower_dim, num_classes, kernel_size=3, padding=1)
        for module in (self.category_tower, self.category_predictor):
            init_convs(module)
        nn.init.constant_(self.category_predictor.bias, -math.log((1 - prior_prob) / prior_prob))

    @classmethod
    def from_config(
        cls, cfg: CfgNode, input_shape: dict[str, ShapeSpec], grid: GridSpec
    ) -> dict[str, Any]:
        """Arguments that all heads take; a subclass adds its own."""
        node = cfg.MODEL.SOLO
        if not 0 < node.PRIOR_PROB < 1:
            raise ValueError(f"MODEL.SOLO.PRIOR_PROB must lie in (0, 1), got {node.PRIOR_PROB}")
        channels = {input_shape[name].channels for name in node.IN_FEATURES}
        if len(channels) != 1:
            raise ValueError(
                f"the features {node.IN_FEATURES} must have the same number of channels, because "
                f"the head is shared by all levels; got {sorted(channels)}"
            )
        return {
            "grid": grid,
            "in_channels": channels.pop(),
            "in_features": node.IN_FEATURES,
            "feature_strides": [input_shape[name].stride for name in node.IN_FEATURES],
            "num_classes": node.NUM_CLASSES,
            "num_convs": node.NUM_CONVS,
            "conv_dim": node.CONV_DIM,
            "norm": node.NORM,
            "prior_prob": node.PRIOR_PROB,
        }

    def forward(self, features: dict[str, Tensor]) -> SOLOPredictions:
        """Predict categories and whatever masks are made from.

        Args:
            features: of the backbone, by name, each (N, channels, H / stride, W / stride).
        """
        levels = self.resample_levels([features[name] for name in self.in_features])
        logits = [
            self.category_predictor(self.category_tower(self.align(x, size)))
            for x, size in zip(levels, self.grid.num_grids, strict=True)
        ]
        return SOLOPredictions(logits, self.mask_inputs(features, levels))

    @abstractmethod
    def mask_inputs(self, features: dict[str, Tensor], levels: list[Tensor]) -> Any:
        """What `mask_probs` needs: computed once per batch, for all cells.

        Args:
            features: of the backbone, by name.
            levels: the head's input features after `resample_levels`, finest first.
        """

    @abstractmethod
    def mask_probs(
        self,
        predictions: SOLOPredictions,
        image: int,
        cells: Tensor,
        *,
        levels: Sequence[int] | None = None,
        size: tuple[int, int] | None = None,
    ) -> Tensor:
        """Turn grid cells into soft masks: the one step in which the variants differ.

        Only the cells asked for are computed.

        Args:
            predictions: output of this head.
            image: index of the image in the batch.
            cells: flat cell indices (K,), K may be 0.
            levels: the levels that `cells` may lie on, if the caller knows; they then must share
                one mask stride. Needed where `size` is not given.
            size: (H, W) to resize to, bilinear, before any product of sub-masks; without it the
                masks have the stride `mask_strides[level]`.

        Returns:
            (K, H, W) float32 probabilities in [0, 1].
        """

    def resample_levels(self, levels: list[Tensor]) -> list[Tensor]:
        """Resize the finest and the coarsest level to the strides that the grid expects.

        P2 is halved to stride 8 and P6 is enlarged to stride 32, as in the published models.
        """
        height, width = (side * self.feature_strides[0] for side in levels[0].shape[-2:])
        resampled = []
        for x, before, after in zip(levels, self.feature_strides, self.grid.strides, strict=True):
            if before != after:
                size = (height // after, width // after)
                x = F.interpolate(x, size=size, mode="bilinear", align_corners=False)
            resampled.append(x)
        return resampled

    def align(self, x: Tensor, size: int) -> Tensor:
        """Resize a level to its S x S grid (paper §4.2.1, "interpolation")."""
        return F.interpolate(x, size=(size, size), mode="bilinear", align_corners=False)
