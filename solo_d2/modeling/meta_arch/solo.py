"""The meta-architecture: preprocess, backbone, head, then loss or instances. No maths here."""

from __future__ import annotations

from typing import Any

import torch
from detectron2.config import CfgNode, configurable
from detectron2.modeling import META_ARCH_REGISTRY, Backbone, build_backbone
from detectron2.structures import ImageList, Instances
from torch import Tensor, nn

from ..criterion import SOLOCriterion
from ..grid import MAX_STRIDE, GridSpec
from ..heads import SOLOHead, build_solo_head
from ..postprocessing import (
    MASK_STRIDE,
    InferenceSettings,
    build_nms,
    category_scores,
    make_instances,
    resize_masks,
    select_candidates,
    suppress,
)
from ..structures import SOLOPredictions
from ..targets import SOLOTargetAssigner


@META_ARCH_REGISTRY.register()
class SOLO(nn.Module):
    """Box-free instance segmentation by locations, with any head of `SOLO_HEAD_REGISTRY`.

    Args:
        backbone: a Detectron2 backbone that yields the head's features.
        head: predicts categories and masks of grid cells.
        assigner: makes training targets.
        criterion: makes losses of predictions and targets.
        settings: thresholds and limits of inference.
        pixel_mean: per channel, in the input's channel order and range.
        pixel_std: likewise.
    """

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
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = head
        self.assigner = assigner
        self.criterion = criterion
        self.settings = settings
        self.pixel_mean: Tensor
        self.pixel_std: Tensor
        self.register_buffer("pixel_mean", torch.tensor(pixel_mean).view(-1, 1, 1), False)
        self.register_buffer("pixel_std", torch.tensor(pixel_std).view(-1, 1, 1), False)

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
        """Build the parts from `cfg.MODEL`; the only reader of `cfg.MODEL.SOLO` but the head."""
        node = cfg.MODEL.SOLO
        backbone = build_backbone(cfg)
        shapes = backbone.output_shape()
        _check_features(node, list(shapes))
        strides = [shapes[name].stride for name in node.IN_FEATURES]
        grid = GridSpec.build(node.NUM_GRIDS, node.SCALE_RANGES, strides)
        head = build_solo_head(cfg, shapes, grid)
        return {
            "backbone": backbone,
            "head": head,
            "assigner": SOLOTargetAssigner(
                grid, node.NUM_CLASSES, node.CENTER_REGION, head.mask_strides
            ),
            "criterion": SOLOCriterion(
                num_classes=node.NUM_CLASSES,
                category_weight=node.CATEGORY_LOSS_WEIGHT,
                mask_weight=node.MASK_LOSS_WEIGHT,
                focal_alpha=node.FOCAL_LOSS_ALPHA,
                focal_gamma=node.FOCAL_LOSS_GAMMA,
                mask_strides=head.mask_strides,
            ),
            "settings": InferenceSettings(
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
                max_instances=cfg.TEST.DETECTIONS_PER_IMAGE,
            ),
            "pixel_mean": cfg.MODEL.PIXEL_MEAN,
            "pixel_std": cfg.MODEL.PIXEL_STD,
        }

    @property
    def device(self) -> torch.device:
        """Where the model lives."""
        return self.pixel_mean.device

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
        images = self.preprocess_image(batched_inputs)
        predictions = self.head(self.backbone(images.tensor))
        if self.training:
            return self.losses(predictions, images, batched_inputs)
        return self.inference(predictions, images, batched_inputs)

    def preprocess_image(self, batched_inputs: list[dict[str, Any]]) -> ImageList:
        """Normalise, and pad to one canvas whose sides the strides of all levels divide."""
        images = [x["image"].to(self.device, non_blocking=True) for x in batched_inputs]
        images = [(x - self.pixel_mean) / self.pixel_std for x in images]
        return ImageList.from_tensors(images, max(self.backbone.size_divisibility, MAX_STRIDE))

    def losses(
        self, predictions: SOLOPredictions, images: ImageList, batched_inputs: list[dict[str, Any]]
    ) -> dict[str, Tensor]:
        """Losses of a batch with ground truth."""
        if any("instances" not in x for x in batched_inputs):
            raise ValueError(
                'training expects "instances" in every input; an image without objects has an '
                "empty Instances"
            )
        canvas = images.tensor.shape[-2:]
        targets = self.assigner([x["instances"] for x in batched_inputs], canvas, self.device)
        return self.criterion(predictions, targets, self.head.mask_probs)

    @torch.no_grad()
    def inference(
        self, predictions: SOLOPredictions, images: ImageList, batched_inputs: list[dict[str, Any]]
    ) -> list[dict[str, Instances]]:
        """Instances of every image of a batch."""
        canvas = tuple(images.tensor.shape[-2:])
        results = []
        # Counting pixels and comparing scores needs float32 (fp16 is not exact above 2048).
        with torch.autocast(self.device.type, enabled=False):
            scores = category_scores(predictions.category_logits)
            for i, (inputs, image_size) in enumerate(
                zip(batched_inputs, images.image_sizes, strict=True)
            ):
                output = (
                    int(inputs.get("height", image_size[0])),
                    int(inputs.get("width", image_size[1])),
                )
                instances = self.inference_single_image(
                    predictions, i, scores[i], canvas, image_size, output
                )
                results.append({"instances": instances})
        return results

    def inference_single_image(
        self,
        predictions: SOLOPredictions,
        image: int,
        scores: Tensor,
        canvas: tuple[int, int],
        image_size: tuple[int, int],
        output_size: tuple[int, int],
    ) -> Instances:
        """Instances of one image; see `postprocessing` for the steps.

        Args:
            predictions: of the head, for the batch.
            image: index in the batch.
            scores: category scores (T, C) of the image.
            canvas: (H, W) of the padded batch.
            image_size: (height, width) of the image on the canvas.
            output_size: (height, width) wanted.
        """
        size = (canvas[0] // MASK_STRIDE, canvas[1] // MASK_STRIDE)

        def cell_masks(cells: Tensor) -> Tensor:
            return self.head.mask_probs(predictions, image, cells, size=size)

        candidates = select_candidates(scores, cell_masks, size, self.head.grid, self.settings)
        scores, labels, cells = suppress(candidates, self.settings)
        masks, boxes = resize_masks(
            cell_masks(cells), canvas, image_size, output_size, self.settings.mask_thresh
        )
        return make_instances(scores, labels, masks, boxes)


def _check_features(node: CfgNode, known: list[str]) -> None:
    for key, names in (
        ("IN_FEATURES", node.IN_FEATURES),
        ("MASK_FEATURE.IN_FEATURES", node.MASK_FEATURE.IN_FEATURES),
    ):
        unknown = [name for name in names if name not in known]
        if unknown or not names:
            raise ValueError(f"MODEL.SOLO.{key} is {list(names)}, but the backbone yields {known}")
