"""SOLO with a semantic branch: panoptic segmentation (paper §4.6)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, NamedTuple

import torch
from detectron2.config import CfgNode, configurable
from detectron2.modeling import META_ARCH_REGISTRY, build_sem_seg_head
from detectron2.modeling.meta_arch import SEM_SEG_HEADS_REGISTRY
from detectron2.modeling.meta_arch.panoptic_fpn import combine_semantic_and_instance_outputs
from detectron2.structures import ImageList
from torch import Tensor, nn

from ...config.rules import choice
from ...config.validation import check_values
from ...layers import budgets, resize_bilinear
from ..inputs import check_semantic_labels
from ..model_config import check_feature_names, check_norm_channels
from ..semantic import ResizedLogits, best_classes, pad_labels
from ..structures import SOLOPredictions
from .solo import SOLO


def is_panoptic(cfg: CfgNode) -> bool:
    """Return whether the config is that of a `PanopticSOLO`, or of a class derived from it."""
    name = cfg.MODEL.META_ARCHITECTURE
    if name not in META_ARCH_REGISTRY:
        return False  # building the model will say so
    architecture = META_ARCH_REGISTRY.get(name)
    return isinstance(architecture, type) and issubclass(architecture, PanopticSOLO)


@META_ARCH_REGISTRY.register()
class PanopticSOLO(SOLO):
    """SOLO and a semantic segmentation of stuff, merged as Panoptic FPN merges them.

    Args:
        sem_seg_head: of Detectron2's `SEM_SEG_HEADS_REGISTRY`; its class 0 stands for all things.
        ignore_value: label of pixels without a class.
        overlap_thresh: an instance of which more than this part is taken already is left out.
        stuff_area_limit: smallest stuff region, in pixels of the output.
        instance_score_thresh: smallest score of an instance.
        **kwargs: as for `SOLO`.

    Example:
        >>> import torch
        >>> from solo_d2.testing import tiny_config
        >>> model = PanopticSOLO(tiny_config("MODEL.META_ARCHITECTURE", "PanopticSOLO")).eval()
        >>> outputs = model([{"image": torch.zeros(3, 64, 96)}])
        >>> sorted(outputs[0])
        ['instances', 'panoptic_seg', 'sem_seg']
    """

    supports_tta: ClassVar[bool] = False  # stuff would have to be joined as well

    @configurable
    def __init__(
        self,
        *,
        sem_seg_head: nn.Module,
        ignore_value: int,
        overlap_thresh: float,
        stuff_area_limit: float,
        instance_score_thresh: float,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.sem_seg_head = sem_seg_head
        self.ignore_value = ignore_value
        self.overlap_thresh = overlap_thresh
        self.stuff_area_limit = stuff_area_limit
        self.instance_score_thresh = instance_score_thresh

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
        """Build SOLO's parts, and the branch that `MODEL.SEM_SEG_HEAD.NAME` names."""
        parts = super().from_config(cfg)
        combine = cfg.MODEL.PANOPTIC_FPN.COMBINE
        return {
            **parts,
            "sem_seg_head": build_sem_seg_head(cfg, parts["backbone"].output_shape()),
            "ignore_value": cfg.MODEL.SEM_SEG_HEAD.IGNORE_VALUE,
            "overlap_thresh": combine.OVERLAP_THRESH,
            "stuff_area_limit": combine.STUFF_AREA_LIMIT,
            "instance_score_thresh": combine.INSTANCES_CONFIDENCE_THRESH,
        }

    @classmethod
    def check_config(cls, cfg: CfgNode) -> None:
        """Check also the branch of stuff."""
        super().check_config(cfg)
        node = cfg.MODEL.SEM_SEG_HEAD
        names = choice(lambda: sorted(name for name, _ in SEM_SEG_HEADS_REGISTRY))
        names.check("MODEL.SEM_SEG_HEAD.NAME", node.NAME)
        check_values(cfg, ("MODEL.SEM_SEG_HEAD", "MODEL.PANOPTIC_FPN"))
        check_norm_channels("MODEL.SEM_SEG_HEAD", node.NORM, {"CONVS_DIM": node.CONVS_DIM})
        check_feature_names(cfg, "MODEL.SEM_SEG_HEAD.IN_FEATURES", merged=True)
        finest = node.IN_FEATURES[0]
        if finest[1:].isdigit() and node.COMMON_STRIDE != 2 ** int(finest[1:]):
            raise ValueError(
                f"MODEL.SEM_SEG_HEAD.COMMON_STRIDE must be {2 ** int(finest[1:])}, the stride of "
                f"{finest}, the first of MODEL.SEM_SEG_HEAD.IN_FEATURES, got {node.COMMON_STRIDE}"
            )
        if 0 <= node.IGNORE_VALUE < node.NUM_CLASSES:
            raise ValueError(
                f"MODEL.SEM_SEG_HEAD.IGNORE_VALUE must be none of the {node.NUM_CLASSES} classes "
                f"(MODEL.SEM_SEG_HEAD.NUM_CLASSES), got {node.IGNORE_VALUE}"
            )

    def forward(self, batched_inputs: list[dict[str, Any]]) -> Any:
        """Run on a batch in Detectron2's format.

        Args:
            batched_inputs: as for `SOLO`; in training also ``sem_seg``, labels (H, W), int64.

        Returns:
            In training a dict of scalar losses. Otherwise, per image, a dict as that of
            Detectron2's `PanopticFPN`: ``instances`` as of `SOLO`; ``sem_seg``, logits (C, height,
            width), or a `ResizedLogits` where these would be too large; ``panoptic_seg``, a pair
            of segment ids int32 (height, width), 0 for none, and a list with ``id``, ``isthing``
            and contiguous ``category_id`` of every segment.
        """
        return super().forward(batched_inputs)

    def losses(
        self,
        features: dict[str, Tensor],
        predictions: SOLOPredictions,
        images: ImageList,
        batched_inputs: list[dict[str, Any]],
    ) -> dict[str, Tensor]:
        """Losses of `SOLO` and of the semantic branch."""
        losses = super().losses(features, predictions, images, batched_inputs)
        losses.update(self.semantic_losses(features, images, batched_inputs))
        return losses

    @torch.no_grad()
    def semantic_logits(self, features: dict[str, Tensor]) -> Tensor:
        """Logits (N, C, H, W) of the semantic branch."""
        logits: Tensor = self.sem_seg_head(features, None)[0]
        return logits

    def semantic_losses(
        self, features: dict[str, Tensor], images: ImageList, batched_inputs: list[dict[str, Any]]
    ) -> dict[str, Tensor]:
        """Losses of the semantic branch; padding is ignored."""
        if any("sem_seg" not in x for x in batched_inputs):
            raise ValueError(
                'training expects "sem_seg" in every input; use a panoptic dataset '
                "(docs/panoptic.md), or MODEL.META_ARCHITECTURE SOLO"
            )
        for inputs, size in zip(batched_inputs, images.image_sizes, strict=True):
            check_semantic_labels(inputs["sem_seg"], size)
        canvas = (images.tensor.shape[-2], images.tensor.shape[-1])
        labels = [x["sem_seg"].to(self.device, non_blocking=True) for x in batched_inputs]
        return self.sem_seg_head(features, pad_labels(labels, canvas, self.ignore_value))[1]

    @torch.no_grad()
    def complete(
        self, results: list[dict[str, Any]], semantic: Tensor | None, images: ImageList
    ) -> list[dict[str, Any]]:
        """Add ``sem_seg`` and ``panoptic_seg`` to the instances of every image."""
        assert semantic is not None  # of `semantic_logits`
        limits = CombineLimits(
            self.overlap_thresh, self.stuff_area_limit, self.instance_score_thresh
        )
        return combine_outputs(results, semantic, images.image_sizes, limits)


class CombineLimits(NamedTuple):
    """Keys of `MODEL.PANOPTIC_FPN.COMBINE`.

    Attributes:
        overlap_thresh: share of an instance that others may cover before it is dropped.
        stuff_area_limit: least pixels of a segment of stuff.
        instance_score_thresh: least score of an instance.
    """

    overlap_thresh: float
    stuff_area_limit: float
    instance_score_thresh: float


def combine_outputs(
    results: list[dict[str, Any]],
    all_logits: Tensor,
    image_sizes: Sequence[tuple[int, int]],
    limits: CombineLimits,
) -> list[dict[str, Any]]:
    """Add ``sem_seg`` and ``panoptic_seg`` to the instances of every image.

    Args:
        results: with ``instances``, in place.
        all_logits: of the semantic branch (N, C, H, W), on the padded canvas.
        image_sizes: (height, width) of every image on it.
        limits: of merging.
    """
    for result, logits, (height, width) in zip(results, all_logits, image_sizes, strict=True):
        instances = result["instances"]
        size: tuple[int, int] = instances.image_size
        logits = logits[:, :height, :width].float()
        if len(logits) * size[0] * size[1] <= budgets.SEMANTIC_VALUES:
            result["sem_seg"] = resize_bilinear(logits[None], size)[0]
            labels = result["sem_seg"].argmax(dim=0)
        else:
            # A copy: a replayed graph writes its next logits where these lie.
            result["sem_seg"] = ResizedLogits(logits.clone(), size)
            labels = best_classes(logits, size)
        result["panoptic_seg"] = combine_semantic_and_instance_outputs(instances, labels, *limits)
    return results
