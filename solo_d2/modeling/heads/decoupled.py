"""Decoupled SOLO (paper §3.2.2): one mask channel for every column and every row of a level."""

from __future__ import annotations

from typing import Any, NamedTuple

from detectron2.config import configurable
from detectron2.layers import Conv2d
from torch import Tensor, nn

from ...layers import resize_bilinear
from ..structures import Batched
from ..towers import init_convs, prior_bias
from .base import SOLOHead
from .build import SOLO_HEAD_REGISTRY
from .masks import make_masks, take_cells


class DecoupledMaskInputs(NamedTuple):
    """Mask logits of a batch.

    Attributes:
        x: of every column j, per level (N, S_l, 2 H_l, 2 W_l).
        y: of every row i, likewise.
    """

    x: list[Batched]
    y: list[Batched]


@SOLO_HEAD_REGISTRY.register()
class DecoupledSOLOHead(SOLOHead):
    """m_ij = sigmoid(x_j) · sigmoid(y_i), Eq. 1; both factors at twice the level's size.

    The 2 S maps of a level are computed at once, as many as a handful of masks; products are
    made of cells asked for only.

    Args:
        kwargs: of `SOLOHead`.

    Example:
        >>> from solo_d2.testing import tiny_config
        >>> model = SOLO(tiny_config("MODEL.SOLO.HEAD", "DecoupledSOLOHead"))
        >>> model.head.mask_strides
        (4, 4, 8, 16, 16)
    """

    tower_axes = ("x", "y")
    """The coordinates that the tower in front of the x and of the y maps sees."""

    @configurable
    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.mask_strides = self.grid.mask_strides
        self.mask_towers = nn.ModuleDict({axes: self.make_tower(axes) for axes in self.tower_axes})
        self.x_predictors, self.y_predictors = (
            nn.ModuleList(
                Conv2d(self.mask_towers[axes].out_channels, size, kernel_size=3, padding=1)
                for size in self.grid.num_grids
            )
            for axes in self.tower_axes
        )
        init_convs(self.mask_towers, self.x_predictors, self.y_predictors)
        for predictor in (*self.x_predictors, *self.y_predictors):
            nn.init.constant_(predictor.bias, prior_bias(self.prior_prob))

    def mask_inputs(
        self,
        features: dict[str, Tensor],  # noqa: ARG002 - the levels are enough
        levels: list[Tensor],
    ) -> DecoupledMaskInputs:
        """Predict the maps of all columns and rows."""
        maps = DecoupledMaskInputs([], [])
        for level, x in enumerate(levels):
            double = (2 * x.shape[-2], 2 * x.shape[-1])
            large = {k: resize_bilinear(tower(x), double) for k, tower in self.mask_towers.items()}
            x_axes, y_axes = self.tower_axes
            maps.x.append(Batched.split(self.x_predictors[level](large[x_axes])))
            maps.y.append(Batched.split(self.y_predictors[level](large[y_axes])))
        return maps

    def batch_probs(
        self,
        inputs: DecoupledMaskInputs,
        images: int | slice,
        level: int,
        cells: Tensor,
        size: tuple[int, int] | None,
    ) -> Tensor:
        """See `SOLOHead.batch_probs`."""
        cells = cells - self.grid.starts[level]
        row, column = cells // self.grid.num_grids[level], cells % self.grid.num_grids[level]
        x = take_cells(inputs.x[level].of(images), column)  # copies
        y = take_cells(inputs.y[level].of(images), row)
        x = make_masks(x, size=size, overwrite=True)
        return x * make_masks(y, size=size, overwrite=True)


@SOLO_HEAD_REGISTRY.register()
class DecoupledLightSOLOHead(DecoupledSOLOHead):
    """The light form: one tower with both coordinates in front of the x and the y maps.

    Example:
        >>> from solo_d2.testing import tiny_config
        >>> model = SOLO(tiny_config("MODEL.SOLO.HEAD", "DecoupledLightSOLOHead"))
        >>> model.head.mask_strides
        (4, 4, 8, 16, 16)
    """

    tower_axes = ("xy", "xy")
