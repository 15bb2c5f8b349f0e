"""Decoupled Dynamic SOLO (paper §3.2.4): several kernels a cell on a compact mask feature."""

from __future__ import annotations

import math
from functools import reduce
from typing import Any, ClassVar

from detectron2.config import CfgNode, configurable
from detectron2.layers import ShapeSpec
from torch import Tensor, nn

from ..grid import GridSpec
from ..towers import prior_bias
from .build import SOLO_HEAD_REGISTRY
from .dynamic import DynamicSOLOHead

# Mean of a channel that is normalised and rectified: the integral of x · N(x; 0, 1) over x > 0.
_MEAN_FEATURE = 1 / math.sqrt(2 * math.pi)


@SOLO_HEAD_REGISTRY.register()
class DecoupledDynamicSOLOHead(DynamicSOLOHead):
    """M = sigmoid(G_1 * F) · ... · sigmoid(G_A * F), Eq. 3; SOLOv2 for A = 1.

    It differs from `DynamicSOLOHead` in that the weights G of a cell form A groups, and that the
    mask feature has E / A channels.

    The paper does not say how training starts. With sub-masks of 0.5 the product of four would be
    0.06 everywhere, and its gradient an eighth of SOLOv2's. So the biases of the predicted
    weights are such that each sub-mask is about 0.5^(1/A), and a mask 0.5 as in SOLOv2.

    Args:
        num_groups: A.
        kernel_dim: channels that the kernels of a cell read together.
        kwargs: of `DynamicSOLOHead`.

    Example:
        >>> from solo_d2.testing import tiny_config
        >>> model = SOLO(tiny_config("MODEL.SOLO.HEAD", "DecoupledDynamicSOLOHead"))
        >>> model.head.mask_strides
        (4, 4, 4, 4, 4)
    """

    uses: ClassVar[tuple[str, ...]] = (*DynamicSOLOHead.uses, "NUM_KERNEL_GROUPS")

    @configurable
    def __init__(self, *, num_groups: int, kernel_dim: int, **kwargs: Any) -> None:
        super().__init__(kernel_dim=kernel_dim, feature_dim=kernel_dim // num_groups, **kwargs)
        self.num_groups = num_groups
        group_weights = kernel_dim // num_groups * self.kernel_size**2
        logit = prior_bias(0.5 ** (1 / num_groups))
        nn.init.constant_(self.kernel_predictor.bias, logit / (_MEAN_FEATURE * group_weights))

    @classmethod
    def from_config(
        cls, cfg: CfgNode, input_shape: dict[str, ShapeSpec], grid: GridSpec
    ) -> dict[str, Any]:
        """Add the number of groups."""
        arguments = super().from_config(cfg, input_shape, grid)
        return {**arguments, "num_groups": cfg.MODEL.SOLO.NUM_KERNEL_GROUPS}

    def convolve(self, kernels: Tensor, feature: Tensor, size: tuple[int, int] | None) -> Tensor:
        """Soft masks of kernels (N, K, D) on a mask feature (N, E / A, H_l, W_l)."""
        # One group after the other: all sub-masks at once would not fit a CPU's cache.
        groups = kernels.chunk(self.num_groups, dim=-1)
        convolve = super().convolve
        return reduce(_multiply, (convolve(group, feature, size) for group in groups))


def _multiply(product: Tensor, factor: Tensor) -> Tensor:
    return product * factor if product.requires_grad else product.mul_(factor)
