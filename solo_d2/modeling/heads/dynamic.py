"""Dynamic SOLO, published as SOLOv2 (paper §3.2.3): predicted kernels on one mask feature."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from detectron2.config import CfgNode, configurable
from detectron2.layers import Conv2d, ShapeSpec
from torch import Tensor

from ...layers import append_coords
from ..grid import GridSpec
from ..structures import SOLOPredictions
from .base import SOLOHead, init_convs, make_tower
from .build import SOLO_HEAD_REGISTRY
from .mask_features import UnifiedMaskFeature


class DynamicMaskInputs(NamedTuple):
    """Kernels and features of a batch.

    Attributes:
        kernels: weights of one 1x1 convolution per cell (N, T, E).
        features: mask feature (N, E, H / 4, W / 4).
    """

    kernels: Tensor
    features: Tensor


@SOLO_HEAD_REGISTRY.register()
class DynamicSOLOHead(SOLOHead):
    """SOLOv2: M_ij = sigmoid(G_ij * F), Eq. 2.

    Args:
        in_channels: channels of every input feature.
        num_convs: 3x3 layers of every tower.
        conv_dim: channels of the towers.
        norm: normalisation of all layers.
        kernel_dim: E, channels of the mask feature and weights of a kernel.
        mask_features: names of the features that the mask feature is made of, finest first.
        mask_feature_stride: stride of the first of them.
        mask_feature_dim: channels of its stages.
        kwargs: of `SOLOHead`.
    """

    @configurable
    def __init__(
        self,
        *,
        in_channels: int,
        num_convs: int,
        conv_dim: int,
        norm: str,
        kernel_dim: int,
        mask_features: Sequence[str],
        mask_feature_stride: int,
        mask_feature_dim: int,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            in_channels=in_channels, num_convs=num_convs, conv_dim=conv_dim, norm=norm, **kwargs
        )
        self.mask_features = list(mask_features)
        self.mask_strides = (mask_feature_stride,) * self.grid.num_levels
        self.kernel_tower = make_tower(in_channels + 2, conv_dim, num_convs, norm)
        tower_dim = conv_dim if num_convs else in_channels + 2
        self.kernel_predictor = Conv2d(tower_dim, kernel_dim, kernel_size=3, padding=1)
        for module in (self.kernel_tower, self.kernel_predictor):
            init_convs(module)
        self.mask_feature = UnifiedMaskFeature(
            in_channels=in_channels,
            num_levels=len(self.mask_features),
            channels=mask_feature_dim,
            out_channels=kernel_dim,
            norm=norm,
        )

    @classmethod
    def from_config(
        cls, cfg: CfgNode, input_shape: dict[str, ShapeSpec], grid: GridSpec
    ) -> dict[str, Any]:
        """Add the mask feature's arguments to those of all heads."""
        node = cfg.MODEL.SOLO
        return {
            **super().from_config(cfg, input_shape, grid),
            "kernel_dim": node.KERNEL_DIM,
            "mask_features": node.MASK_FEATURE.IN_FEATURES,
            "mask_feature_stride": input_shape[node.MASK_FEATURE.IN_FEATURES[0]].stride,
            "mask_feature_dim": node.MASK_FEATURE.CONV_DIM,
        }

    def mask_inputs(self, features: dict[str, Tensor], levels: list[Tensor]) -> DynamicMaskInputs:
        """Predict the kernels of all cells and the mask feature."""
        kernels = [
            self.kernel_predictor(self.kernel_tower(self.align(append_coords(x), size)))
            for x, size in zip(levels, self.grid.num_grids, strict=True)
        ]
        return DynamicMaskInputs(
            kernels=torch.cat([level.flatten(2) for level in kernels], dim=2).transpose(1, 2),
            features=self.mask_feature([features[name] for name in self.mask_features]),
        )

    def mask_probs(
        self,
        predictions: SOLOPredictions,
        image: int,
        cells: Tensor,
        *,
        levels: Sequence[int] | None = None,  # noqa: ARG002 - all levels share one mask feature
        size: tuple[int, int] | None = None,
    ) -> Tensor:
        """See `SOLOHead.mask_probs`. A 1x1 convolution with K kernels is one matrix product."""
        kernels, features = predictions.mask_inputs
        features = features[image]
        logits = kernels[image][cells] @ features.flatten(1)  # (K, H * W)
        probs = logits.float().sigmoid().view(len(cells), *features.shape[1:])
        if size is not None and size != probs.shape[1:]:
            # Cells as the batch, which may be empty; channels may not.
            probs = F.interpolate(probs[:, None], size=size, mode="bilinear", align_corners=False)
            probs = probs[:, 0]
        return probs
