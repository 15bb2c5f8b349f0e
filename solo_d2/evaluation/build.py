"""The evaluators that fit a data set."""

from __future__ import annotations

from collections.abc import Callable

from detectron2.data import MetadataCatalog
from detectron2.evaluation import DatasetEvaluator, DatasetEvaluators

from .cityscapes import CityscapesInstanceEvaluator
from .coco import COCOInstanceEvaluator
from .lvis import LVISInstanceEvaluator
from .matting import MattingEvaluator, SOFIEvaluator
from .panoptic import PanopticEvaluator, SemanticEvaluator

# By evaluator_type: each is called with the data set's name and the folder for results.
_EVALUATORS: dict[str, tuple[Callable[[str, str | None], DatasetEvaluator], ...]] = {
    "coco": (COCOInstanceEvaluator,),
    # Of a model without mattes its binary masks are measured.
    "coco_matting": (COCOInstanceEvaluator, SOFIEvaluator, MattingEvaluator),
    # A model for instances alone yields the first one's figures.
    "coco_panoptic_seg": (COCOInstanceEvaluator, SemanticEvaluator, PanopticEvaluator),
    "lvis": (LVISInstanceEvaluator,),
    "cityscapes_instance": (CityscapesInstanceEvaluator,),
}


def build_evaluator(dataset_name: str, output_dir: str | None = None) -> DatasetEvaluator:
    """Choose evaluators by the ``evaluator_type`` in the data set's metadata.

    Args:
        dataset_name: a registered data set.
        output_dir: where results are written; None writes nothing.

    Returns:
        The evaluator, or Detectron2's `DatasetEvaluators` where a type has several.

    Raises:
        ValueError: no evaluator is known for the data set.
    """
    kind = MetadataCatalog.get(dataset_name).get("evaluator_type")
    if kind not in _EVALUATORS:
        raise ValueError(
            f"the data set {dataset_name!r} has the evaluator_type {kind!r}; known: "
            f"{', '.join(map(repr, _EVALUATORS))}. Set it with "
            f"MetadataCatalog.get({dataset_name!r}).set(evaluator_type='coco')"
        )
    evaluators = [make(dataset_name, output_dir) for make in _EVALUATORS[kind]]
    return evaluators[0] if len(evaluators) == 1 else DatasetEvaluators(evaluators)
