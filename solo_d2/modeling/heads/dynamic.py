"""Dynamic SOLO, published as SOLOv2 (paper §3.2.3): predicted kernels on a mask feature."""

from __future__ import annotations

from typing import Any, ClassVar, NamedTuple

import torch
from detectron2.config import CfgNode, configurable
from detectron2.layers import Conv2d, ShapeSpec
from torch import Tensor

from ...layers import dynamic_conv
from ..grid import GridSpec
from ..structures import Batched
from ..towers import init_convs
from .base import SOLOHead, check_features
from .build import SOLO_HEAD_REGISTRY
from .mask_features import SeparateMaskFeature, UnifiedMaskFeature
from .masks import make_masks, take_cells

MASK_FEATURE_TYPES = ("unified", "separate")
KERNEL_SIZES = (1, 3)


class DynamicMaskInputs(NamedTuple):
    """Kernels and features of a batch.

    Attributes:
        kernels: weights of the convolution of every cell (N, T, D).
        features: per level, mask feature (N, E, H_l, W_l); if it is unified, the same map
            (N, E, H / 4, W / 4) for all levels.
    """

    kernels: Batched
    features: list[Batched]


@SOLO_HEAD_REGISTRY.register()
class DynamicSOLOHead(SOLOHead):
    """SOLOv2: M_ij = sigmoid(G_ij * F), Eq. 2.

    Args:
        kernel_dim: channels that a kernel reads.
        kernel_size: side of a kernel, 1 or 3; D = kernel_size² · kernel_dim.
        feature_dim: E, channels of the mask feature; `kernel_dim` if not given.
        unified_from: names and strides of the features that a unified mask feature is made of,
            finest first; None for a separate mask feature of every level.
        feature_conv_dim: channels of the mask feature's layers.
        feature_num_convs: layers of a separate mask feature.
        feature_coords: give coordinates to the mask feature.
        kwargs: of `SOLOHead`.

    Example:
        >>> from solo_d2.testing import tiny_config
        >>> model = SOLO(tiny_config("MODEL.SOLO.HEAD", "DynamicSOLOHead"))
        >>> model.head.mask_strides
        (4, 4, 4, 4, 4)
    """

    uses: ClassVar[tuple[str, ...]] = ("KERNEL_DIM", "KERNEL_SIZE", "MASK_FEATURE")

    @configurable
    def __init__(
        self,
        *,
        kernel_dim: int,
        kernel_size: int,
        feature_dim: int | None = None,
        unified_from: dict[str, int] | None,
        feature_conv_dim: int,
        feature_num_convs: int,
        feature_coords: bool,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.kernel_size = kernel_size
        self.kernel_tower = self.make_tower("xy")
        self.kernel_predictor = Conv2d(
            self.kernel_tower.out_channels, kernel_dim * kernel_size**2, kernel_size=3, padding=1
        )
        init_convs(self.kernel_tower, self.kernel_predictor)
        layers: dict[str, Any] = {
            "in_channels": self.in_channels,
            "channels": feature_conv_dim,
            "out_channels": kernel_dim if feature_dim is None else feature_dim,
            "style": self.style,
            "coords": feature_coords,
        }
        self.mask_feature: UnifiedMaskFeature | SeparateMaskFeature
        if unified_from is None:
            self.mask_feature = SeparateMaskFeature(num_convs=feature_num_convs, **layers)
            self.mask_strides = self.grid.mask_strides
        else:
            self.mask_feature = UnifiedMaskFeature(in_features=list(unified_from), **layers)
            self.mask_strides = (min(unified_from.values()),) * self.grid.num_levels
        self.one_mask_source = self.mask_feature.shared

    @classmethod
    def from_config(
        cls, cfg: CfgNode, input_shape: dict[str, ShapeSpec], grid: GridSpec
    ) -> dict[str, Any]:
        """Add the arguments of kernels and mask feature to those of all heads."""
        node = cfg.MODEL.SOLO
        return {
            **super().from_config(cfg, input_shape, grid),
            "kernel_dim": node.KERNEL_DIM,
            "kernel_size": node.KERNEL_SIZE,
            "unified_from": _unified_from(node.MASK_FEATURE, input_shape),
            "feature_conv_dim": node.MASK_FEATURE.CONV_DIM,
            "feature_num_convs": node.MASK_FEATURE.NUM_CONVS,
            "feature_coords": node.MASK_FEATURE.COORDS,
        }

    def mask_inputs(self, features: dict[str, Tensor], levels: list[Tensor]) -> DynamicMaskInputs:
        """Predict the kernels of all cells and the mask feature."""
        kernels = self.predict_cells(self.kernel_tower, self.kernel_predictor, levels)
        maps = self.mask_feature(features, levels)
        if self.one_mask_source:
            split = [Batched.split(maps[0])] * len(maps)
        else:
            split = [Batched.split(level) for level in maps]
        cells = torch.cat([level.flatten(2) for level in kernels], dim=2).transpose(1, 2)
        return DynamicMaskInputs(kernels=Batched.split(cells), features=split)

    def cell_kernels(self, inputs: DynamicMaskInputs, image: int, cells: Tensor) -> Tensor:
        """See `SOLOHead.cell_kernels`."""
        return take_cells(inputs.kernels.of(image), cells[None])[0]

    def batch_probs(
        self,
        inputs: DynamicMaskInputs,
        images: int | slice,
        level: int,
        cells: Tensor,
        size: tuple[int, int] | None,
    ) -> Tensor:
        """See `SOLOHead.batch_probs`."""
        kernels = take_cells(inputs.kernels.of(images), cells)
        return self.convolve(kernels, inputs.features[level].of(images), size)

    def convolve(self, kernels: Tensor, feature: Tensor, size: tuple[int, int] | None) -> Tensor:
        """Soft masks of kernels (N, K, D) on a mask feature (N, E, H_l, W_l)."""
        logits = dynamic_conv(feature, kernels, self.kernel_size)
        upsample = self.mask_feature.upsample
        return make_masks(logits, upsample=upsample, size=size, overwrite=True)


def _unified_from(node: CfgNode, input_shape: dict[str, ShapeSpec]) -> dict[str, int] | None:
    if node.TYPE == "separate":
        return None
    check_features("SOLO.MASK_FEATURE.IN_FEATURES", node.IN_FEATURES, list(input_shape))
    return {name: input_shape[name].stride for name in node.IN_FEATURES}
