"""Vanilla SOLO (paper §3.2.1): one mask channel for every cell of a level."""

from __future__ import annotations

from typing import Any

from detectron2.config import configurable
from detectron2.layers import Conv2d
from torch import Tensor, nn

from ...layers import dynamic_conv
from ..structures import Batched
from ..towers import init_convs, prior_bias
from .base import SOLOHead
from .build import SOLO_HEAD_REGISTRY
from .masks import make_masks


@SOLO_HEAD_REGISTRY.register()
class VanillaSOLOHead(SOLOHead):
    """The mask of cell k = i · S + j is channel k of the mask branch, at twice the level's size.

    The published models enlarge the tower's output and apply a 1x1 convolution of S² channels to
    it. Both steps commute; done in the other order, a mask costs one row of the convolution at
    the level's own size, and the masks of cells that nobody asks for cost nothing.

    Args:
        kwargs: of `SOLOHead`.

    Example:
        >>> from solo_d2.testing import tiny_config
        >>> model = SOLO(tiny_config("MODEL.SOLO.HEAD", "VanillaSOLOHead"))
        >>> model.head.mask_strides
        (4, 4, 8, 16, 16)
    """

    @configurable
    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.mask_strides = self.grid.mask_strides
        self.mask_tower = self.make_tower("xy")
        predictors = [
            Conv2d(self.mask_tower.out_channels, cells, kernel_size=1)
            for cells in self.grid.level_sizes
        ]
        self.mask_predictors = nn.ModuleList(predictors)
        init_convs(self.mask_tower, self.mask_predictors)
        for predictor in predictors:
            nn.init.constant_(predictor.bias, prior_bias(self.prior_prob))

    def mask_inputs(
        self,
        features: dict[str, Tensor],  # noqa: ARG002 - the levels are enough
        levels: list[Tensor],
    ) -> list[Batched]:
        """Features (N, channels, H_l, W_l) per level, in front of the last layer."""
        return [Batched.split(self.mask_tower(x)) for x in levels]

    def batch_probs(
        self,
        inputs: list[Batched],
        images: int | slice,
        level: int,
        cells: Tensor,
        size: tuple[int, int] | None,
    ) -> Tensor:
        """See `SOLOHead.batch_probs`."""
        predictor: Any = self.mask_predictors[level]
        feature, channels = inputs[level].of(images), cells - self.grid.starts[level]
        kernels = predictor.weight[channels].flatten(2)  # (N, K, C)
        logits = dynamic_conv(feature, kernels, bias=predictor.bias[channels])
        return make_masks(logits, upsample=2, size=size)
