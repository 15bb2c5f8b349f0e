"""The head of Soft SOLO (paper §A.3): SOLOv2 whose masks are mattes at the input's resolution."""

from __future__ import annotations

from typing import Any, ClassVar, NamedTuple

from detectron2.config import CfgNode, configurable
from detectron2.layers import ShapeSpec
from torch import Tensor

from ...layers import dynamic_conv, resize_bilinear
from ..grid import GridSpec
from ..structures import Batched
from .build import SOLO_HEAD_REGISTRY
from .details_refinement import DetailsRefinement
from .dynamic import DynamicMaskInputs, DynamicSOLOHead
from .masks import make_masks, take_cells

IMAGE_KEY = "image"
"""Under which the meta-architecture hands the image to the head, among the features."""


class SoftMaskInputs(NamedTuple):
    """Those of SOLOv2, and the fine features of every image.

    Attributes:
        dynamic: kernels and mask features.
        details: (N, channels, H, W).
        coarse_details: the same at the mask feature's size, (N, channels, H / 4, W / 4).
    """

    dynamic: DynamicMaskInputs
    details: Batched
    coarse_details: Batched


@SOLO_HEAD_REGISTRY.register()
class SoftDynamicSOLOHead(DynamicSOLOHead):
    """SOLOv2 with Details Refinement: a soft matte of every cell, at the input's resolution.

    Selection and NMS need masks of stride 4 only. The fine features are then downsampled once per
    image, not every matte.

    Args:
        details_dim: channels of the refinement.
        details_convs: its 3x3 layers.
        details_image: give it the image.
        details_fuse: add the enlarged mask feature.
        kwargs: of `DynamicSOLOHead`.

    Example:
        >>> from solo_d2.testing import tiny_config
        >>> cfg = tiny_config(
        ...     "MODEL.META_ARCHITECTURE", "SoftSOLO", "MODEL.SOLO.HEAD", "SoftDynamicSOLOHead",
        ...     "MODEL.SOLO.MASK_LOSS", "matte", "MODEL.SOLO.MASK_LOSS_WEIGHT", 1.0,
        ... )
        >>> SoftSOLO(cfg).head.mask_strides
        (1, 1, 1, 1, 1)
    """

    uses: ClassVar[tuple[str, ...]] = (
        *("KERNEL_DIM", "DETAILS"),
        *("MASK_FEATURE.IN_FEATURES", "MASK_FEATURE.CONV_DIM", "MASK_FEATURE.COORDS"),
    )
    needs_image = True

    @configurable
    def __init__(
        self,
        *,
        details_dim: int,
        details_convs: int,
        details_image: bool,
        details_fuse: bool,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.details = DetailsRefinement(
            in_channels=kwargs["kernel_dim"],
            channels=details_dim,
            num_convs=details_convs,
            use_image=details_image,
            norm=self.style.norm,
        )
        self.fuse = details_fuse
        self.mask_strides = (1,) * self.grid.num_levels

    @classmethod
    def from_config(
        cls, cfg: CfgNode, input_shape: dict[str, ShapeSpec], grid: GridSpec
    ) -> dict[str, Any]:
        """Add the arguments of the refinement."""
        node = cfg.MODEL.SOLO.DETAILS
        return {
            **super().from_config(cfg, input_shape, grid),
            "details_dim": node.CONV_DIM,
            "details_convs": node.NUM_CONVS,
            "details_image": node.IMAGE,
            "details_fuse": node.FUSE,
        }

    def mask_inputs(  # type: ignore[override]
        self, features: dict[str, Tensor], levels: list[Tensor]
    ) -> SoftMaskInputs:
        """Kernels, mask feature and fine features; the image is the feature `IMAGE_KEY`."""
        if IMAGE_KEY not in features:
            raise ValueError(
                'SoftDynamicSOLOHead needs the image; set MODEL.META_ARCHITECTURE "SoftSOLO"'
            )
        dynamic = super().mask_inputs(features, levels)
        feature = dynamic.features[0].all
        details = self.details(feature, features[IMAGE_KEY])
        coarse = resize_bilinear(details, (feature.shape[-2], feature.shape[-1]))
        return SoftMaskInputs(dynamic, Batched.split(details), Batched.split(coarse))

    def cell_kernels(  # type: ignore[override]
        self, inputs: SoftMaskInputs, image: int, cells: Tensor
    ) -> Tensor:
        """See `SOLOHead.cell_kernels`."""
        return super().cell_kernels(inputs.dynamic, image, cells)

    def batch_probs(  # type: ignore[override]
        self,
        inputs: SoftMaskInputs,
        images: int | slice,
        level: int,
        cells: Tensor,
        size: tuple[int, int] | None,
    ) -> Tensor:
        """See `SOLOHead.batch_probs`."""
        kernels = take_cells(inputs.dynamic.kernels.of(images), cells)
        weights, biases = self.details.project_kernels(kernels)
        feature = inputs.dynamic.features[level].of(images)
        is_coarse = size == feature.shape[-2:]
        details = (inputs.coarse_details if is_coarse else inputs.details).of(images)
        logits = dynamic_conv(details, weights, bias=biases)
        if self.fuse:
            coarse = dynamic_conv(feature, kernels)
            if not is_coarse:
                full = (details.shape[-2], details.shape[-1])
                coarse = resize_bilinear(coarse.flatten(0, 1)[:, None], full).view_as(logits)
            logits = logits + coarse
        return make_masks(logits, size=size, overwrite=True)
