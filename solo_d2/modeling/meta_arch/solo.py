"""The meta-architecture: preprocess, backbone, head, then loss or instances. No maths here."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from detectron2.config import CfgNode, configurable
from detectron2.layers import ShapeSpec
from detectron2.modeling import META_ARCH_REGISTRY, Backbone, build_backbone
from detectron2.structures import ImageList
from torch import Tensor

from ..aux_semantic import AuxSemanticBranch
from ..criterion import SOLOCriterion
from ..dynamic_assigner import DynamicSoftAssigner
from ..grid import MAX_STRIDE, GridSpec
from ..heads import SOLO_HEAD_REGISTRY, SOLOHead, build_solo_head, check_features
from ..inputs import check_image, check_objects
from ..model_config import check_model_config
from ..postprocessing import (
    InferenceSettings,
    build_nms,
)
from ..refinement import make_guide
from ..structures import SOLOPredictions
from ..targets import SOLOTargetAssigner
from .inference import Inference


@META_ARCH_REGISTRY.register()
class SOLO(Inference):
    """Box-free instance segmentation by locations, with any head of `SOLO_HEAD_REGISTRY`.

    Args:
        backbone: a Detectron2 backbone that yields the head's features.
        head: predicts categories and masks of grid cells.
        assigner: makes training targets.
        criterion: makes losses of predictions and targets.
        settings: thresholds and limits of inference.
        pixel_mean: per channel, in the input's channel order and range.
        pixel_std: likewise.
        input_format: order of the channels, "BGR" or "RGB"; only to compare with a checkpoint's.
        resize_filter: what images are resized with, "pillow" or "opencv"; likewise.
        aux_semantic: adds a loss in training, if given.

    Attributes:
        class_names: human-readable class names by label; () if unknown. Set by the trainer and
            stored in checkpoints.
        stuff_names: likewise, of a semantic branch.
        category_ids: of the annotations, in the order of the labels; () if unknown.
        stuff_category_ids: likewise, of a semantic branch.

    Example:
        >>> import torch
        >>> from solo_d2.testing import tiny_config
        >>> model = SOLO(tiny_config()).eval()
        >>> outputs = model([{"image": torch.zeros(3, 64, 96)}])
        >>> outputs[0]["instances"].image_size
        (64, 96)
    """

    class_names: tuple[str, ...] = ()
    stuff_names: tuple[str, ...] = ()
    category_ids: tuple[int, ...] = ()
    stuff_category_ids: tuple[int, ...] = ()

    assigner_class: ClassVar[type[SOLOTargetAssigner]] = SOLOTargetAssigner
    """Assigner class that `from_config` instantiates for `MODEL.SOLO.ASSIGNER` "center"."""

    supports_tta: ClassVar[bool] = True
    """Instances are all that is wanted, and those of several scales can be joined."""

    provides_image: ClassVar[bool] = False
    """The image stands among the features that the head gets."""

    @configurable
    def __init__(
        self,
        *,
        backbone: Backbone,
        head: SOLOHead,
        assigner: SOLOTargetAssigner,
        criterion: SOLOCriterion,
        settings: InferenceSettings,
        pixel_mean: tuple[float, ...],
        pixel_std: tuple[float, ...],
        input_format: str | None = None,
        resize_filter: str = "pillow",
        aux_semantic: AuxSemanticBranch | None = None,
    ) -> None:
        super().__init__()
        _check_parts(head, assigner, criterion)
        self.backbone = backbone
        self.head = head
        self.assigner = assigner
        self.criterion = criterion
        self.settings = settings
        self.aux_semantic = aux_semantic
        self.input_format = input_format
        self.resize_filter = resize_filter
        self.pixel_mean: Tensor
        self.pixel_std: Tensor
        # Whole numbers in a config are no reason to compute with integers.
        for name, values in (("pixel_mean", pixel_mean), ("pixel_std", pixel_std)):
            statistics = torch.tensor(values, dtype=torch.float32).view(-1, 1, 1)
            self.register_buffer(name, statistics, persistent=False)

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
        """Build the parts from `cfg.MODEL`; the only reader of `cfg.MODEL.SOLO` but the head.

        Raises:
            ValueError: as `check_config`.
        """
        cls.check_config(cfg)
        node = cfg.MODEL.SOLO
        backbone = build_backbone(cfg)
        shapes = backbone.output_shape()
        check_features("SOLO.IN_FEATURES", node.IN_FEATURES, list(shapes))
        strides = [shapes[name].stride for name in node.IN_FEATURES]
        grid = GridSpec.build(node.NUM_GRIDS, node.SCALE_RANGES, strides)
        head = build_solo_head(cfg, shapes, grid)
        aux_semantic = _build_aux_semantic(node, shapes)
        mask_strides = set(head.mask_strides) | ({aux_semantic.stride} if aux_semantic else set())
        return {
            "backbone": backbone,
            "head": head,
            "assigner": cls._build_assigner(node, grid, head, tuple(mask_strides)),
            "criterion": SOLOCriterion(
                num_classes=node.NUM_CLASSES,
                category_loss=node.CATEGORY_LOSS,
                category_weight=node.CATEGORY_LOSS_WEIGHT,
                mask_loss=node.MASK_LOSS,
                mask_weight=node.MASK_LOSS_WEIGHT,
                mask_points=node.MASK_LOSS_POINTS,
                focal_alpha=node.FOCAL_LOSS_ALPHA,
                focal_gamma=node.FOCAL_LOSS_GAMMA,
                mask_strides=head.mask_strides,
                by_level=not head.one_mask_source,
            ),
            "settings": _build_settings(node, cfg.TEST.DETECTIONS_PER_IMAGE),
            "pixel_mean": cfg.MODEL.PIXEL_MEAN,
            "pixel_std": cfg.MODEL.PIXEL_STD,
            "input_format": cfg.INPUT.FORMAT,
            "resize_filter": cfg.INPUT.RESIZE_FILTER,
            "aux_semantic": aux_semantic,
        }

    @classmethod
    def _build_assigner(
        cls, node: CfgNode, grid: GridSpec, head: SOLOHead, strides: tuple[int, ...]
    ) -> SOLOTargetAssigner:
        if node.ASSIGNER == "center":
            return cls.assigner_class(
                grid, node.NUM_CLASSES, node.CENTER_REGION, strides, node.MASK_TARGETS
            )
        return DynamicSoftAssigner(
            grid,
            node.NUM_CLASSES,
            strides,
            node.MASK_TARGETS,
            level_strides=head.mask_strides,
            by_level=not head.one_mask_source,
        )

    @classmethod
    def check_config(cls, cfg: CfgNode) -> None:
        """Check the part of a config that the model is built from; see `check_model_config`.

        Raises:
            ValueError: the first thing that is wrong.
        """
        check_model_config(cfg)
        name = cfg.MODEL.SOLO.HEAD
        if getattr(SOLO_HEAD_REGISTRY.get(name), "needs_image", False) and not cls.provides_image:
            raise ValueError(
                f'MODEL.SOLO.HEAD {name} needs MODEL.META_ARCHITECTURE "SoftSOLO", got '
                f"{cfg.MODEL.META_ARCHITECTURE!r}"
            )
        assigner = cfg.MODEL.SOLO.ASSIGNER
        if assigner != "center" and cls.assigner_class is not SOLOTargetAssigner:
            raise ValueError(
                f'MODEL.SOLO.ASSIGNER must be "center" with {cls.__name__}, which has an assigner '
                f"of its own, got {assigner!r}"
            )

    @property
    def device(self) -> torch.device:
        """Where the model lives."""
        return self.pixel_mean.device

    @property
    def size_divisibility(self) -> int:
        """What divides the sides of every canvas, in pixels."""
        return max(self.backbone.size_divisibility, MAX_STRIDE)

    def forward(self, batched_inputs: list[dict[str, Any]]) -> Any:
        """Run on a batch in Detectron2's format.

        Args:
            batched_inputs: one dict per image: ``image``, (3, H, W) in the config's channel order
                and range 0 to 255; in training ``instances`` with ``gt_classes`` and ``gt_masks``;
                at test time optionally ``height`` and ``width`` of the wanted output, which
                default to the image's own.

        Returns:
            In training a dict of scalar losses. Otherwise, per image, a dict with ``instances``:
            ``pred_masks`` boolean (K, height, width), ``pred_boxes`` XYXY with right and bottom
            edge exclusive, ``scores`` (K,) descending, ``pred_classes`` (K,).
        """
        if not (batched_inputs or self.training):
            return []
        images = self.preprocess_image(batched_inputs)
        if self.runner is not None and not self.training:
            outputs = self.runner(images.tensor)
            results = self.finish(outputs.instances, outputs.predictions, images, batched_inputs)
            return self.complete(results, outputs.semantic, images)
        features = self.backbone(images.tensor)
        predictions = self.predict(features, images)
        if self.training:
            return self.losses(features, predictions, images, batched_inputs)
        results = self.inference(predictions, images, batched_inputs)
        return self.complete(results, self.semantic_logits(features), images)

    def predict(self, features: dict[str, Tensor], images: ImageList) -> SOLOPredictions:
        """Run the head on the backbone's features of `images`."""
        predictions = self.head(features)
        if self.settings.refine_masks and not self.training:
            predictions = predictions._replace(guide=make_guide(images.tensor, self.pixel_std))
        return predictions

    def preprocess_image(self, batched_inputs: list[dict[str, Any]]) -> ImageList:
        """Normalise, and pad to one canvas whose sides the strides of all levels divide.

        The result has the type of the model: also of one after ``model.half()``, and whatever the
        type of the images is.

        Raises:
            ValueError: an input without an image tensor of the model's channels.
        """
        if not batched_inputs:
            raise ValueError("a model expects at least one image, got an empty batch")
        for inputs in batched_inputs:
            check_image(inputs.get("image"), len(self.pixel_mean))
        images = [x["image"].to(self.device, non_blocking=True) for x in batched_inputs]
        images = [
            ((x - self.pixel_mean) / self.pixel_std).to(self.pixel_mean.dtype) for x in images
        ]
        return ImageList.from_tensors(images, self.size_divisibility)

    def losses(
        self,
        features: dict[str, Tensor],
        predictions: SOLOPredictions,
        images: ImageList,
        batched_inputs: list[dict[str, Any]],
    ) -> dict[str, Tensor]:
        """Losses of a batch with ground truth."""
        if any("instances" not in x for x in batched_inputs):
            raise ValueError(
                'training expects "instances" in every input; an image without objects has an '
                "empty Instances"
            )
        for inputs, size in zip(batched_inputs, images.image_sizes, strict=True):
            check_objects(inputs["instances"], size)
        canvas = images.tensor.shape[-2:]
        targets = self.assigner([x["instances"] for x in batched_inputs], canvas, self.device)
        targets = self.assigner.match(targets, predictions, self.head.mask_probs)
        losses = self.criterion(predictions, targets, self.head.mask_probs)
        if self.aux_semantic is not None:
            losses.update(self.aux_semantic.losses(features, targets))
        return losses


def _check_parts(head: SOLOHead, assigner: SOLOTargetAssigner, criterion: SOLOCriterion) -> None:
    """Raise a `ValueError` for parts, such as of a `LazyConfig`, that do not belong together."""
    parts = (head, assigner, criterion)
    classes = [part.num_classes for part in parts if hasattr(part, "num_classes")]
    if len(set(classes)) > 1:
        raise ValueError(
            "head, assigner and criterion must have the same num_classes, got "
            f"{', '.join(map(str, classes))}"
        )
    if head.grid != assigner.grid:
        raise ValueError(
            f"head and assigner must have the same grid, got {head.grid} and {assigner.grid}"
        )


def _build_settings(node: CfgNode, max_instances: int) -> InferenceSettings:
    return InferenceSettings(
        score_thresh=node.SCORE_THRESH_TEST,
        mask_thresh=node.MASK_THRESH_TEST,
        pre_nms_topk=node.PRE_NMS_TOPK_TEST,
        nms=build_nms(
            node.NMS_TYPE,
            kernel=node.NMS_KERNEL,
            sigma=node.NMS_SIGMA,
            threshold=node.NMS_THRESH_TEST,
        ),
        final_score_thresh=node.FINAL_SCORE_THRESH_TEST,
        max_instances=max_instances,
        score_temperature=node.SCORE_TEMPERATURE,
        refine_masks=node.REFINE_MASKS_TEST,
    )


def _build_aux_semantic(node: CfgNode, shapes: dict[str, ShapeSpec]) -> AuxSemanticBranch | None:
    weight = node.AUX_SEMANTIC_LOSS_WEIGHT
    if weight == 0:
        return None
    name = node.IN_FEATURES[0]
    return AuxSemanticBranch(
        in_feature=name,
        in_channels=shapes[name].channels,
        stride=shapes[name].stride,
        num_classes=node.NUM_CLASSES,
        weight=weight,
        norm=node.NORM,
        prior_prob=node.PRIOR_PROB,
    )
