r"""A head in one file: masks by three small dynamic layers on relative coordinates.

The idea of CondInst (Tian et al., "Conditional Convolutions for Instance Segmentation", 2020) on
SOLO's grid: a cell predicts the weights of a tiny network, which sees the mask feature and where
every pixel lies relative to the cell.

    solo-d2 train --import examples/condinst_head.py --config-file CONFIG ... \
        MODEL.SOLO.HEAD CondInstHead MODEL.SOLO.CONDINST_CHANNELS 8

Legend: N images, T cells, K cells asked for, E channels of a layer, (h, w) mask feature.
"""

from __future__ import annotations

from typing import Any, ClassVar, NamedTuple

import torch
from detectron2.config import CfgNode, configurable
from detectron2.layers import Conv2d, ShapeSpec
from torch import Tensor

from solo_d2.config import HEAD_KEYS
from solo_d2.modeling import SOLO_HEAD_REGISTRY
from solo_d2.modeling.grid import GridSpec
from solo_d2.modeling.heads import SOLOHead, UnifiedMaskFeature, make_masks
from solo_d2.modeling.towers import init_convs

# Channels of the mask feature and of the dynamic layers.
HEAD_KEYS["CONDINST_CHANNELS"] = 8


class CondInstInputs(NamedTuple):
    """Weights of all cells and mask features, image by image.

    Attributes:
        weights: N times (T, D).
        features: N times (E, h, w).
    """

    weights: tuple[Tensor, ...]
    features: tuple[Tensor, ...]


@SOLO_HEAD_REGISTRY.register()
class CondInstHead(SOLOHead):
    """Predict the weights of three 1x1 layers for every cell.

    Args:
        channels: E.
        feature_conv_dim: channels of the layers that make the mask feature.
        unified_from: names and strides of the features that it is made of, finest first.
        kwargs: of `SOLOHead`.
    """

    uses: ClassVar[tuple[str, ...]] = (
        "CONDINST_CHANNELS",
        "MASK_FEATURE.CONV_DIM",
        "MASK_FEATURE.IN_FEATURES",
    )
    one_mask_source = True

    @configurable
    def __init__(
        self, *, channels: int, feature_conv_dim: int, unified_from: dict[str, int], **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.channels = channels
        self.mask_strides = (min(unified_from.values()),) * self.grid.num_levels
        self.mask_feature = UnifiedMaskFeature(
            in_channels=self.in_channels,
            in_features=list(unified_from),
            channels=feature_conv_dim,
            out_channels=feature_conv_dim,
            style=self.style,
            coords=False,
        )
        self.reduce = Conv2d(feature_conv_dim, channels, kernel_size=1)
        # Weights and biases of E + 2 -> E -> E -> 1; the two are the coordinates.
        self.sizes = [channels * (channels + 2), channels, channels**2, channels, channels, 1]
        self.weight_tower = self.make_tower("xy")
        self.weight_predictor = Conv2d(
            self.weight_tower.out_channels, sum(self.sizes), kernel_size=3, padding=1
        )
        init_convs(self.weight_tower, self.weight_predictor, self.reduce)
        self.register_buffer("centers", cell_centers(self.grid), persistent=False)

    @classmethod
    def from_config(
        cls, cfg: CfgNode, input_shape: dict[str, ShapeSpec], grid: GridSpec
    ) -> dict[str, Any]:
        """Add the arguments of this head to those of all heads."""
        node = cfg.MODEL.SOLO
        names = node.MASK_FEATURE.IN_FEATURES
        return {
            **super().from_config(cfg, input_shape, grid),
            "channels": node.CONDINST_CHANNELS,
            "feature_conv_dim": node.MASK_FEATURE.CONV_DIM,
            "unified_from": {name: input_shape[name].stride for name in names},
        }

    def mask_inputs(self, features: dict[str, Tensor], levels: list[Tensor]) -> CondInstInputs:
        """Predict the weights of all cells and the mask feature."""
        weights = self.predict_cells(self.weight_tower, self.weight_predictor, levels)
        cells = torch.cat([level.flatten(2) for level in weights], dim=2).transpose(1, 2)
        feature = self.reduce(self.mask_feature(features, levels)[0])
        return CondInstInputs(cells.unbind(0), feature.unbind(0))

    def level_probs(
        self,
        inputs: CondInstInputs,
        image: int,
        level: int,  # noqa: ARG002 - all levels share one mask feature
        cells: Tensor,
        size: tuple[int, int] | None,
    ) -> Tensor:
        """Run the three layers of every cell on the mask feature."""
        channels, feature = self.channels, inputs.features[image]
        weights = inputs.weights[image][cells].to(feature.dtype)
        first, bias_1, second, bias_2, third, bias_3 = weights.split(self.sizes, dim=1)
        first = first.unflatten(1, (channels, channels + 2))
        on_feature, on_position = first[:, :, 2:], first[:, :, :2]
        # A layer is linear: W (pixel - centre) = W pixel - W centre, so that no cell needs
        # coordinates of its own.
        centers = self.centers[cells].to(feature.dtype)
        bias_1 = bias_1 - (on_position @ centers[:, :, None]).squeeze(2)
        positions = pixel_positions(feature).flatten(1)
        x = on_feature @ feature.flatten(1) + on_position @ positions + bias_1[:, :, None]
        x = second.unflatten(1, (channels, channels)) @ x.relu() + bias_2[:, :, None]
        x = third[:, None] @ x.relu() + bias_3[:, :, None]
        return make_masks(x.unflatten(2, feature.shape[1:])[:, 0], size=size)


def cell_centers(grid: GridSpec) -> Tensor:
    """Return the centres (T, 2) of all cells, x and y as shares of the canvas in [0, 1]."""
    centers = []
    for size in grid.num_grids:
        middle = (torch.arange(size) + 0.5) / size
        rows, columns = torch.meshgrid(middle, middle, indexing="ij")
        centers.append(torch.stack([columns.flatten(), rows.flatten()], dim=1))
    return torch.cat(centers)


def pixel_positions(feature: Tensor) -> Tensor:
    """Return the centres (2, h, w) of the pixels of a map, x and y as shares of the canvas."""
    height, width = feature.shape[-2:]
    y = (torch.arange(height, device=feature.device) + 0.5) / height
    x = (torch.arange(width, device=feature.device) + 0.5) / width
    rows, columns = torch.meshgrid(y, x, indexing="ij")
    return torch.stack([columns, rows]).to(feature.dtype)
