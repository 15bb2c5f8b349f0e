"""The evaluator that fits a data set."""

from __future__ import annotations

from detectron2.data import MetadataCatalog
from detectron2.evaluation import COCOEvaluator, DatasetEvaluator


def build_evaluator(dataset_name: str, output_dir: str | None = None) -> DatasetEvaluator:
    """Choose an evaluator by the ``evaluator_type`` in the data set's metadata.

    Args:
        dataset_name: a registered data set.
        output_dir: where results are written; None writes nothing.

    Raises:
        ValueError: no evaluator is known for the data set.
    """
    kind = MetadataCatalog.get(dataset_name).get("evaluator_type")
    if kind in ("coco", "coco_panoptic_seg"):
        return COCOEvaluator(dataset_name, output_dir=output_dir)
    raise ValueError(
        f"the data set {dataset_name!r} has the evaluator_type {kind!r}; known: 'coco'. Set it "
        f"with MetadataCatalog.get({dataset_name!r}).set(evaluator_type='coco')"
    )
