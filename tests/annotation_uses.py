"""What a user does with an annotation file, for a process that may crash on it."""

from __future__ import annotations

import math

from detectron2.data import DatasetCatalog, MetadataCatalog

from solo_d2.data.dataset_mapper import SOLODatasetMapper
from solo_d2.data.datasets.coco_json import load_coco_json, register_coco_json
from solo_d2.evaluation import COCOInstanceEvaluator
from solo_d2.io.segmentation import check_segmentations, decode_mask

NAME = "fuzzed"


def count_records(path, folder):
    """Number of images of a file."""
    return len(load_coco_json(path, folder).records)


def check_and_decode(segmentations, size):
    """Decode every segmentation that is kept; the others must have a problem."""
    checked = check_segmentations(segmentations, [size] * len(segmentations))
    for i, kept in enumerate(checked.kept):
        assert (kept is None) == (i in checked.problems)
        if kept is not None:
            assert decode_mask(kept, size).shape == size
    return True


def read_and_use(path, folder, fast):
    """Read a file; train on and score what is read."""
    register_coco_json(NAME, path, folder)
    try:
        return _use(fast)
    finally:
        DatasetCatalog.remove(NAME)
        MetadataCatalog.remove(NAME)


def _use(fast):
    mapper = SOLODatasetMapper(
        is_train=True, augmentations=[], image_format="BGR", use_instance_mask=True,
        instance_mask_format="bitmask",
    )  # fmt: skip
    records = DatasetCatalog.get(NAME)
    evaluator = COCOInstanceEvaluator(NAME, None, fast=fast, distributed=False)
    for record in records:
        sample = mapper(record)
        objects = sample["instances"]
        for mask in objects.gt_masks.tensor if objects.has("gt_masks") else ():
            assert mask.any()
        for x in record["annotations"]:
            assert x["iscrowd"] in (0, 1)
            assert all(math.isfinite(v) for v in x["bbox"])
        found = objects
        found.scores = objects.gt_classes.double() * 0 + 0.9
        found.pred_classes = objects.gt_classes
        if len(found):
            found.pred_masks, found.pred_boxes = objects.gt_masks.tensor, objects.gt_boxes
        evaluator.process([record], [{"instances": found}] if len(found) else [{}])
    evaluator.evaluate()
    return len(records)
