"""What all heads share: resampling of the levels, the category branch, and grouping by level.

Shapes: N images, L levels, S_l cells a side on level l, C classes, K cells asked for.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from detectron2.config import CfgNode, configurable
from detectron2.layers import Conv2d, ShapeSpec
from torch import Tensor, nn

from ...layers import align_to_grid, resize_bilinear
from ..grid import GridSpec
from ..structures import SOLOPredictions
from ..towers import LayerStyle, Tower, init_convs, prior_bias


class SOLOHead(nn.Module):
    """Base of all heads: category branch here, masks in the subclass.

    A subclass sets `uses` and `mask_strides`, and defines `mask_inputs` and one of `level_probs`
    (masks of one image) and `batch_probs` (of all images at once, as a GPU wants it).

    Args:
        grid: the grid pyramid.
        in_channels: channels of every input feature.
        in_features: names of the input features, finest first.
        feature_strides: strides of the input features in input pixels.
        num_classes: C.
        num_convs: 3x3 layers of every tower.
        num_coord_convs: of these in the mask (or kernel) branch, the first that see coordinates.
        conv_dim: channels of the towers.
        style: norm and kind of convolution of all layers.
        align_mode: how features are brought to the grid, see `align_to_grid`.
        prior_prob: score of every class at the start of training (focal loss, RetinaNet §4.1);
            of the pixels of static heads' masks, too.
        prior_score: the same of the classes alone, where it is another.
        freeze_category: keep the category branch as it is loaded.

    Attributes:
        cell_levels: level of every cell (T,), on the head's device.
        cell_strides: stride of that level's features (T,), likewise.

    Example:
        >>> issubclass(SOLO_HEAD_REGISTRY.get("DynamicSOLOHead"), SOLOHead)
        True
    """

    mask_strides: tuple[int, ...]
    """Stride of the masks that `mask_probs` returns without `size`, per level."""

    one_mask_source = False
    """All levels make their masks from one and the same map, so that cells need no grouping."""

    uses: ClassVar[tuple[str, ...]] = ()
    """Keys and nodes of `MODEL.SOLO` that this head reads beside those that all heads read.

    A key that another registered head declares and this one does not must keep its default.
    Nothing is checked for a head that reads the config in a `from_config` of its own and declares
    nothing.
    """

    needs_image: ClassVar[bool] = False
    """The head reads the image, which `SoftSOLO` puts among the features."""

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
        num_coord_convs: int,
        conv_dim: int,
        style: LayerStyle,
        align_mode: str,
        prior_prob: float,
        prior_score: float | None = None,
        freeze_category: bool = False,
    ) -> None:
        super().__init__()
        if not 0 < prior_prob < 1:
            raise ValueError(f"MODEL.SOLO.PRIOR_PROB must lie in (0, 1), got {prior_prob}")
        self.grid = grid
        self.cell_levels: Tensor
        self.cell_strides: Tensor
        levels = grid.levels(torch.arange(grid.num_cells))
        self.register_buffer("cell_levels", levels, persistent=False)
        self.register_buffer("cell_strides", torch.tensor(grid.strides)[levels], persistent=False)
        self.in_channels = in_channels
        self.in_features = list(in_features)
        self.feature_strides = list(feature_strides)
        self.num_classes = num_classes
        self.num_convs = num_convs
        self.num_coord_convs = num_coord_convs
        self.conv_dim = conv_dim
        self.style = style
        self.align_mode = align_mode
        self.prior_prob = prior_prob
        self.category_tower = self.make_tower()
        self.category_predictor = Conv2d(
            self.category_tower.out_channels, num_classes, kernel_size=3, padding=1
        )
        init_convs(self.category_tower, self.category_predictor)
        prior_score = prior_prob if prior_score is None else prior_score
        nn.init.constant_(self.category_predictor.bias, prior_bias(prior_score))
        for branch in (self.category_tower, self.category_predictor):
            branch.requires_grad_(not freeze_category)

    @classmethod
    def from_config(
        cls, cfg: CfgNode, input_shape: dict[str, ShapeSpec], grid: GridSpec
    ) -> dict[str, Any]:
        """Arguments that all heads take; a subclass adds its own."""
        node = cfg.MODEL.SOLO
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
            "num_coord_convs": node.NUM_COORD_CONVS,
            "conv_dim": node.CONV_DIM,
            "style": LayerStyle(
                node.NORM, node.DEFORM, node.DEFORM_MODULATED, node.RECOMPUTE_TOWERS
            ),
            "align_mode": node.ALIGN,
            "prior_prob": node.PRIOR_PROB,
            "prior_score": _prior_score(node),
            "freeze_category": node.FREEZE_CATEGORY_BRANCH,
        }

    def make_tower(self, axes: str = "") -> Tower:
        """Build the layers of a branch; with `axes` those of the mask (or kernel) branch."""
        return Tower(
            self.in_channels,
            self.conv_dim,
            self.num_convs,
            self.style,
            axes=axes,
            num_coord_convs=self.num_coord_convs if axes else 0,
        )

    def forward(self, features: dict[str, Tensor]) -> SOLOPredictions:
        """Predict categories and whatever masks are made from.

        Args:
            features: of the backbone, by name, each (N, channels, H / stride, W / stride).
        """
        levels = self.resample_levels([features[name] for name in self.in_features])
        logits = self.predict_cells(self.category_tower, self.category_predictor, levels)
        return SOLOPredictions(logits, self.mask_inputs(features, levels))

    def predict_cells(
        self, tower: Tower, predictor: nn.Module, levels: list[Tensor]
    ) -> list[Tensor]:
        """Run a branch that predicts something of every cell: (N, channels, S_l, S_l) per level."""
        return [
            predictor(tower(x, lambda x, size=size: align_to_grid(x, size, self.align_mode)))
            for x, size in zip(levels, self.grid.num_grids, strict=True)
        ]

    def cell_kernels(self, inputs: Any, image: int, cells: Tensor) -> Tensor | None:  # noqa: ARG002
        """Return the predicted kernels of cells, which describe their objects; None without any.

        Args:
            inputs: of `mask_inputs`.
            image: index of the image in the batch.
            cells: flat cell indices (K,).

        Returns:
            (K, D), or None for a head whose kernels are weights of its own.
        """
        return None

    @abstractmethod
    def mask_inputs(self, features: dict[str, Tensor], levels: list[Tensor]) -> Any:
        """Compute what `level_probs` needs, once per batch, for all cells.

        Args:
            features: of the backbone, by name.
            levels: the head's input features after `resample_levels`, finest first.
        """

    def level_probs(
        self, inputs: Any, image: int, level: int, cells: Tensor, size: tuple[int, int] | None
    ) -> Tensor:
        """`mask_probs` of cells on one level.

        Args:
            inputs: of `mask_inputs`.
            image: index of the image in the batch.
            level: of the cells; without meaning where `one_mask_source` is set.
            cells: flat cell indices (K,), K may be 0: every parameter of the mask branch must
                get a (zero) gradient from no masks, too.
            size: as for `mask_probs`.

        Returns:
            (K, H, W) float32 in memory of its own: inference overwrites it.
        """
        return self.batch_probs(inputs, image, level, cells[None], size)[0]

    def batch_probs(
        self,
        inputs: Any,
        images: int | slice,
        level: int,
        cells: Tensor,
        size: tuple[int, int] | None,
    ) -> Tensor:
        """`level_probs` of several images at once; here one after the other.

        Args:
            inputs: of `mask_inputs`.
            images: of the batch: the index of one, or a slice.
            level: of the cells; without meaning where `one_mask_source` is set.
            cells: flat cell indices (N, K), N = 1 for one image.
            size: as for `mask_probs`.

        Returns:
            (N, K, H, W) float32, as `level_probs`.
        """
        first = images if isinstance(images, int) else images.start or 0
        parts = [
            self.level_probs(inputs, image, level, row, size)
            for image, row in enumerate(cells, first)
        ]
        return torch.stack(parts)

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
            cells: flat cell indices (K,), in any order, K may be 0.
            levels: the levels that `cells` may lie on, if the caller knows; they then must share
                one mask stride. Needed where `size` is not given.
            size: (H, W) to resize to, bilinear, before any product of sub-masks; without it the
                masks have the stride `mask_strides[level]`.

        Returns:
            (K, H, W) float32 probabilities in [0, 1].
        """
        inputs = predictions.mask_inputs
        levels = range(self.grid.num_levels) if levels is None else levels
        if self.one_mask_source or len(levels) == 1:
            return self.level_probs(inputs, image, levels[0], cells, size)
        masks = None
        for level, chosen in self.grid.split(cells, levels):
            probs = self.level_probs(inputs, image, level, cells[chosen], size)
            if masks is None:
                masks = probs.new_empty((cells.shape[0], *probs.shape[1:]))
            masks.index_copy_(0, chosen, probs)
        assert masks is not None  # there is a level
        return masks

    def all_mask_probs(
        self, predictions: SOLOPredictions, images: slice, cells: Tensor, size: tuple[int, int]
    ) -> Tensor:
        """Turn cells of several images into soft masks, without a host synchronisation.

        Where levels have maps of their own, the masks of all cells are made on every level: shapes
        then do not depend on the cells.

        Args:
            predictions: output of this head.
            images: N of the batch.
            cells: flat cell indices (N, K), in any order.
            size: (H, W) to resize to, as for `mask_probs`.

        Returns:
            (N, K, H, W) float32 probabilities in [0, 1].
        """
        inputs = predictions.mask_inputs
        if self.one_mask_source:
            return self.batch_probs(inputs, images, 0, cells, size)
        levels = self.cell_levels[cells]
        masks: Tensor | None = None
        for level, start in enumerate(self.grid.starts):
            here = levels == level
            probs = self.batch_probs(inputs, images, level, torch.where(here, cells, start), size)
            masks = probs if masks is None else torch.where(here[..., None, None], probs, masks)
        assert masks is not None  # there is a level
        return masks

    def resample_levels(self, levels: list[Tensor]) -> list[Tensor]:
        """Resize the finest and the coarsest level to the strides that the grid expects.

        P2 is halved to stride 8 and P6 is enlarged to stride 32, as in the published models.
        """
        height, width = (side * self.feature_strides[0] for side in levels[0].shape[-2:])
        return [
            x if before == after else resize_bilinear(x, (height // after, width // after))
            for x, before, after in zip(
                levels, self.feature_strides, self.grid.strides, strict=True
            )
        ]


def _prior_score(node: CfgNode) -> float:
    """Score of every class at the start of training.

    The Rank & Sort loss moves positives and negatives apart, and not their level: scores that
    start far below the threshold would stay there, and nothing would be found.
    """
    if node.CATEGORY_LOSS != "rank_sort":
        return node.PRIOR_PROB
    return max(node.PRIOR_PROB, min(node.SCORE_THRESH_TEST, 0.5))


def check_features(key: str, names: Sequence[str], known: Sequence[str]) -> None:
    """Raise a `ValueError` unless the backbone yields `names`, the value of ``MODEL.<key>``."""
    if not names or any(name not in known for name in names):
        raise ValueError(
            f"MODEL.{key} is {list(names)}, but the backbone yields {list(known)}; {PYRAMID_REMEDY}"
        )


PYRAMID_REMEDY = (
    "name some of these, or take a backbone with a feature pyramid, such as MODEL.BACKBONE.NAME "
    '"build_resnet_fpn_backbone" with MODEL.RESNETS.OUT_FEATURES and MODEL.FPN.IN_FEATURES '
    '["res2", "res3", "res4", "res5"], which yields "p2" to "p6"'
)
"""What to do about features that the backbone does not have."""
