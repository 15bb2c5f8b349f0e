"""Objects that the grid of a config cannot teach or find, whatever the weights are."""

from __future__ import annotations

from typing import Any

import numpy as np
from detectron2.config import CfgNode
from detectron2.structures import BoxMode
from pycocotools import mask as mask_util

from ..check.claims import claim, network_frames, network_of
from ..check.measure import measure_objects
from ..evaluation.truth import as_rle
from .runs import Dataset, Entry

__all__ = ["find_unlearnable"]

OUTSIDE = "outside of every scale range"
BEATEN = "no cell of its own"
DROPPED = "too few pixels of a mask"


def find_unlearnable(cfg: CfgNode, dataset: Dataset) -> dict[int, str]:
    """Find the objects that no cell is responsible for, or whose mask inference drops.

    Args:
        cfg: of the model, at the size of tests.
        dataset: that was evaluated.

    Returns:
        Why, by annotation id.
    """
    records: list[dict[str, Any]] = [
        {"file_name": dataset.files[k], "height": h, "width": w, "annotations": []}
        for k, (h, w) in sorted(dataset.sizes.items())
    ]
    ids: list[list[int]] = [[] for _ in records]
    for x in dataset.truth.content["annotations"]:
        if not x["iscrowd"] and _has_pixels(x, dataset):
            place = x["image_id"] - 1  # images are numbered from 1
            records[place]["annotations"].append(
                {**x, "category_id": x["category_id"] - 1, "bbox_mode": BoxMode.XYWH_ABS}
            )
            ids[place].append(x["id"])
    network = network_of(cfg)
    objects = measure_objects(records)
    frames = network_frames(
        objects.sizes, cfg.INPUT.MIN_SIZE_TEST, cfg.INPUT.MAX_SIZE_TEST, network.size_divisibility
    )
    claims = claim(objects, frames, network.assigner)
    annotation = np.concatenate([*map(np.array, ids), np.zeros(0)]).astype(np.int64)
    found: dict[int, str] = {}
    for reason, mask in (
        (OUTSIDE, claims.outside),
        (BEATEN, claims.beaten),
        (DROPPED, claims.dropped & ~claims.lost),
    ):
        found |= dict.fromkeys(annotation[mask].tolist(), reason)
    return found


def _has_pixels(x: Entry, dataset: Dataset) -> bool:
    return bool(mask_util.area(as_rle(x["segmentation"], dataset.sizes[x["image_id"]])))
