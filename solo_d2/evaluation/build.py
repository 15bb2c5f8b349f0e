"""The evaluators that fit a dataset."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from detectron2.config import CfgNode
from detectron2.data import MetadataCatalog
from detectron2.evaluation import DatasetEvaluator, DatasetEvaluators

from .cityscapes import CityscapesInstanceEvaluator
from .coco import COCOInstanceEvaluator
from .lvis import LVISInstanceEvaluator
from .matting import MattingEvaluator, SOFIEvaluator
from .panoptic import PanopticEvaluator, SemanticEvaluator
from .records import shared_records

EVALUATORS: dict[str, tuple[Callable[..., DatasetEvaluator], ...]] = {
    "coco": (COCOInstanceEvaluator,),
    # Of a model without mattes its binary masks are measured.
    "coco_matting": (COCOInstanceEvaluator, SOFIEvaluator, MattingEvaluator),
    # A model for instances alone yields the first one's figures.
    "coco_panoptic_seg": (COCOInstanceEvaluator, SemanticEvaluator, PanopticEvaluator),
    "lvis": (LVISInstanceEvaluator,),
    "cityscapes_instance": (CityscapesInstanceEvaluator,),
}
"""Evaluators by the ``evaluator_type`` of a dataset's metadata; those of your own can be added.

Each is called with the dataset's name and the folder for results, which may be None.
"""


def detections_per_image(cfg: CfgNode) -> int:
    """Return how many instances of an image the model of a config gives at most."""
    node = cfg.TEST.TILES if cfg.TEST.TILES.ENABLED else cfg.TEST
    return int(node.DETECTIONS_PER_IMAGE)


def build_evaluator(
    dataset_name: str,
    output_dir: str | None = None,
    *,
    max_dets_per_image: int | None = None,
    boundary: bool = False,
    diagnosis: bool = False,
) -> DatasetEvaluator:
    """Choose evaluators by the ``evaluator_type`` in the dataset's metadata.

    Args:
        dataset_name: a registered dataset.
        output_dir: where results are written; None writes nothing.
        max_dets_per_image: instances that the model gives at most. AP counts as many where that
            is more than the 100 of COCO or the 300 of LVIS; with fewer, nothing changes.
        boundary: measure Boundary AP where AP is measured.
        diagnosis: find out where AP is lost, where it is measured.

    Returns:
        The evaluator, or Detectron2's `DatasetEvaluators` where a type has several.

    Raises:
        ValueError: no evaluator is known for the dataset, or it cannot measure what
            was asked for.

    Example:
        >>> from solo_d2.testing import tiny_dataset
        >>> type(build_evaluator(tiny_dataset())).__name__
        'COCOInstanceEvaluator'
    """
    kind = MetadataCatalog.get(dataset_name).get("evaluator_type")
    if kind not in EVALUATORS:
        raise ValueError(
            f"the dataset {dataset_name!r} has the evaluator_type {kind!r}; known: "
            f"{', '.join(map(repr, EVALUATORS))}. Set it with "
            f"MetadataCatalog.get({dataset_name!r}).set(evaluator_type='coco')"
        )
    evaluators = []
    with shared_records():
        for make in EVALUATORS[kind]:
            options: dict[str, Any] = {}
            if isinstance(make, type) and issubclass(make, COCOInstanceEvaluator):
                options["max_dets_per_image"] = make.limit_for(max_dets_per_image)
                options |= {"boundary": boundary, "diagnosis": diagnosis}
            evaluators.append(make(dataset_name, output_dir, **options))
    return evaluators[0] if len(evaluators) == 1 else DatasetEvaluators(evaluators)
