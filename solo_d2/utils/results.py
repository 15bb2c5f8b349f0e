"""Instances as COCO results, the JSON that pycocotools and most tools read."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import pycocotools.mask as mask_util
from detectron2.structures import Instances

__all__ = ["coco_category_ids", "instances_to_coco_results", "save_json"]


def instances_to_coco_results(
    instances: Instances,
    image_id: int,
    *,
    file_name: str | None = None,
    category_ids: Sequence[int] | None = None,
    class_names: Sequence[str] | None = None,
) -> list[dict[str, Any]]:
    """Turn the K instances of a picture into K entries of a COCO results file.

    Args:
        instances: With `pred_masks` (K, H, W), `pred_boxes` (XYXY pixels, right and bottom edge
            exclusive), `pred_classes` and `scores` (K,), on any device.
        image_id: Number of the picture.
        file_name: Name of the picture, added to every entry (the format allows more keys).
        category_ids: Category id of every label; by default the label itself.
        class_names: Name of every label; if given, entries get a `category_name`.

    Returns:
        Entries with `image_id`, `category_id`, `bbox` (XYWH pixels), `score` and `segmentation`
        (compressed RLE as text), ready for `json.dump`.
    """
    if len(instances) == 0:
        return []
    boxes = instances.pred_boxes.tensor.double().cpu().numpy()
    boxes[:, 2:] -= boxes[:, :2]
    masks = instances.pred_masks.cpu().numpy().astype(np.uint8)
    rles = mask_util.encode(np.asfortranarray(masks.transpose(1, 2, 0)))
    common: dict[str, Any] = {"image_id": image_id}
    if file_name is not None:
        common["file_name"] = file_name
    results = []
    labels, scores = instances.pred_classes.tolist(), instances.scores.tolist()
    for label, score, box, rle in zip(labels, scores, boxes.tolist(), rles, strict=True):
        rle["counts"] = rle["counts"].decode("ascii")  # bytes are no JSON
        category = label if category_ids is None else category_ids[label]
        entry = {**common, "category_id": category, "bbox": box, "score": score}
        if class_names is not None:
            entry["category_name"] = class_names[label]
        results.append({**entry, "segmentation": rle})
    return results


def coco_category_ids(contiguous: Mapping[int, int] | None) -> list[int] | None:
    """Category id of every label, from Detectron2's `thing_dataset_id_to_contiguous_id`.

    Args:
        contiguous: Category id to label (0 to C - 1), or None.

    Returns:
        C category ids, or None where there is no mapping.
    """
    if not contiguous:
        return None
    return [category for category, _ in sorted(contiguous.items(), key=lambda item: item[1])]


def save_json(path: str | PathLike[str], content: Any) -> None:
    """Write a JSON file, making its folder.

    Raises:
        ValueError: It cannot be written.
    """
    try:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        Path(path).write_text(json.dumps(content), encoding="utf-8")
    except OSError as error:
        raise ValueError(f"{path}: cannot be written ({error}).") from error
