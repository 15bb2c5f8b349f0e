"""Instances as COCO results, the JSON that pycocotools and most tools read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from detectron2.structures import Instances
from torch import Tensor

from ..layers import encode_masks, masks_to_boxes
from ..layers.encoded_masks import rle_of_masks
from .json_file import JsonListWriter, save_json

__all__ = [
    "EncodedInstances",
    "JsonListWriter",
    "coco_category_ids",
    "instances_to_coco_results",
    "panoptic_things",
    "panoptic_to_json",
    "save_json",
]


@dataclass(frozen=True)
class EncodedInstances:
    """The K instances of an image in little memory: masks as RLE, the rest as arrays.

    Attributes:
        size: (height, width) of the masks.
        labels: classes (K,).
        scores: (K,).
        boxes: XYWH pixels (K, 4).
        counts: compressed RLE of every mask, as text.
        track_ids: numbers of the objects in a film (K,), if they are known.
    """

    size: tuple[int, int]
    labels: np.ndarray
    scores: np.ndarray
    boxes: np.ndarray
    counts: list[str]
    track_ids: np.ndarray | None = None

    @classmethod
    def of(cls, instances: Instances) -> EncodedInstances:
        """Encode `pred_masks`, `pred_classes` and `scores` of any device.

        Masks may be `EncodedMasks`, which stay as they are.

        Boxes are the `pred_boxes` (XYXY), or else those of the masks.
        """
        given = instances.has("pred_boxes")
        xyxy = instances.pred_boxes.tensor if given else masks_to_boxes(instances.pred_masks)
        boxes = np.array(xyxy.cpu(), np.float64)  # a copy
        boxes[:, 2:] -= boxes[:, :2]
        height, width = instances.pred_masks.shape[1:]
        return cls(
            size=(int(height), int(width)),
            labels=instances.pred_classes.cpu().numpy().astype(np.int64),
            scores=instances.scores.cpu().double().numpy(),
            boxes=boxes,
            counts=[rle["counts"] for rle in rle_of_masks(instances.pred_masks)],
            track_ids=instances.track_ids.cpu().numpy() if instances.has("track_ids") else None,
        )

    def __len__(self) -> int:
        return len(self.counts)

    def segmentations(self) -> list[dict[str, Any]]:
        """Return the masks as COCO has them."""
        return [{"size": list(self.size), "counts": counts} for counts in self.counts]

    def entries(
        self,
        image_id: Any,
        *,
        file_name: str | None = None,
        category_ids: Sequence[Any] | None = None,
        class_names: Sequence[str] | None = None,
    ) -> list[dict[str, Any]]:
        """Return entries of a COCO results file; see `instances_to_coco_results`."""
        common: dict[str, Any] = {"image_id": image_id}
        if file_name is not None:
            common["file_name"] = file_name
        results = []
        for label, score, box, mask in zip(
            self.labels.tolist(),
            self.scores.tolist(),
            self.boxes.tolist(),
            self.segmentations(),
            strict=True,
        ):
            category = label if category_ids is None else category_ids[label]
            entry = {**common, "category_id": category, "bbox": box, "score": score}
            if class_names is not None:
                entry["category_name"] = class_names[label]
            results.append({**entry, "segmentation": mask})
        if self.track_ids is not None:
            for entry, number in zip(results, self.track_ids.tolist(), strict=True):
                entry["track_id"] = number
        return results


def instances_to_coco_results(
    instances: Instances,
    image_id: Any,
    *,
    file_name: str | None = None,
    category_ids: Sequence[int] | None = None,
    class_names: Sequence[str] | None = None,
) -> list[dict[str, Any]]:
    """Turn the K instances of an image into K entries of a COCO results file.

    Args:
        instances: With `pred_masks` (K, H, W), `pred_boxes` (XYXY pixels, right and bottom edge
            exclusive), `pred_classes` and `scores` (K,), on any device.
        image_id: Number of the image.
        file_name: Name of the image, added to every entry (the format allows more keys).
        category_ids: Category id of every label; by default the label itself.
        class_names: Name of every label; if given, entries get a `category_name`.

    Returns:
        Entries with `image_id`, `category_id`, `bbox` (XYWH pixels), `score` and `segmentation`
        (compressed RLE as text), ready for `json.dump`; of instances with `track_ids` also
        `track_id`.
    """
    if len(instances) == 0:
        return []
    return EncodedInstances.of(instances).entries(
        image_id, file_name=file_name, category_ids=category_ids, class_names=class_names
    )


def panoptic_things(ids: Tensor, segments_info: Sequence[Mapping[str, Any]]) -> Instances:
    """Return the things of a panoptic segmentation, which do not overlap, as instances.

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
        image_id: number of the image.
        file_name: name of the image.
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
