"""Instances as COCO results, the JSON that pycocotools and most tools read."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any

import torch
from detectron2.structures import Instances
from torch import Tensor

from ..layers import encode_masks

__all__ = [
    "coco_category_ids",
    "instances_to_coco_results",
    "panoptic_things",
    "panoptic_to_json",
    "save_json",
]


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
    rles = encode_masks(instances.pred_masks)
    common: dict[str, Any] = {"image_id": image_id}
    if file_name is not None:
        common["file_name"] = file_name
    results = []
    labels, scores = instances.pred_classes.tolist(), instances.scores.tolist()
    for label, score, box, rle in zip(labels, scores, boxes.tolist(), rles, strict=True):
        category = label if category_ids is None else category_ids[label]
        entry = {**common, "category_id": category, "bbox": box, "score": score}
        if class_names is not None:
            entry["category_name"] = class_names[label]
        results.append({**entry, "segmentation": rle})
    return results


def panoptic_things(ids: Tensor, segments_info: Sequence[Mapping[str, Any]]) -> Instances:
    """The things of a panoptic segmentation, which do not overlap, as instances.

    Args:
        ids: of segments, (H, W), on any device.
        segments_info: with ``id``, ``isthing``, ``category_id`` and ``score``.

    Returns:
        `pred_masks` (K, H, W), `pred_classes` and `scores` (K,), in the order of `segments_info`.
    """
    things = [segment for segment in segments_info if segment["isthing"]]
    numbers = torch.tensor([segment["id"] for segment in things], device=ids.device)
    instances = Instances((ids.shape[0], ids.shape[1]))
    instances.pred_masks = ids[None] == numbers[:, None, None]
    instances.pred_classes = torch.tensor(
        [segment["category_id"] for segment in things], dtype=torch.int64
    )
    instances.scores = torch.tensor([segment["score"] for segment in things])
    return instances


def panoptic_to_json(
    panoptic_seg: tuple[Tensor, Sequence[Mapping[str, Any]]],
    image_id: int,
    *,
    file_name: str,
    thing_ids: Sequence[int] | None = None,
    stuff_ids: Sequence[int] | None = None,
    thing_names: Sequence[str] | None = None,
    stuff_names: Sequence[str] | None = None,
) -> dict[str, Any]:
    """Turn a panoptic segmentation into an annotation of COCO's panoptic format.

    The masks are in it, as compressed RLE, where COCO has them in a PNG.

    Args:
        panoptic_seg: ids (H, W), and what they stand for.
        image_id: number of the picture.
        file_name: name of the picture.
        thing_ids: category id of every label of things; by default the label itself.
        stuff_ids: likewise of stuff.
        thing_names: name of every label of things; if given, segments get a `category_name`.
        stuff_names: likewise of stuff.

    Returns:
        A dict with `image_id`, `file_name` and `segments_info`, ready for `json.dump`.
    """
    ids, described = panoptic_seg
    segments = []
    for segment in described:
        mask = ids == segment["id"]
        label, isthing = segment["category_id"], bool(segment["isthing"])
        categories, names = (thing_ids, thing_names) if isthing else (stuff_ids, stuff_names)
        entry = {**segment, "isthing": isthing, "area": int(mask.sum())}
        entry.pop("instance_id", None)  # a place in the model's list, which is not written
        entry["category_id"] = label if categories is None else categories[label]
        if names is not None:
            entry["category_name"] = names[label]
        segments.append({**entry, "segmentation": encode_masks(mask[None])[0]})
    return {"image_id": image_id, "file_name": file_name, "segments_info": segments}


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
