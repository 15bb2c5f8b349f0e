"""Small datasets in COCO's panoptic format, and outputs of models for them."""

from __future__ import annotations

import json

import numpy as np
import torch
from detectron2.structures import Boxes, Instances
from PIL import Image

from solo_d2.io.panoptic_png import write_panoptic_png

# Ids out of order, so that an index cannot pass for an id.
CATEGORIES = [
    {"id": 9, "name": "grass", "isthing": 0},
    {"id": 2, "name": "cat", "isthing": 1},
    {"id": 4, "name": "dog", "isthing": 1},
    {"id": 7, "name": "sky", "isthing": 0},
]


def scenes():
    """Ids and segments of three 64x96 images: with both kinds, without things, without stuff."""
    both = np.zeros((64, 96), np.int32)
    both[:32], both[32:] = 300, 70000  # more than one byte
    both[10:40, 10:50], both[44:60, 60:90] = 5, 6
    both[:4, :4] = 0  # void
    segments = [
        {"id": 300, "category_id": 7},
        {"id": 70000, "category_id": 9},
        {"id": 5, "category_id": 2},
        {"id": 6, "category_id": 4},
    ]
    stuff = np.full((64, 96), 1, np.int32)
    things = np.zeros((64, 96), np.int32)
    things[8:56, 8:80] = 1
    return [
        (both, segments),
        (stuff, [{"id": 1, "category_id": 9}]),
        (things, [{"id": 1, "category_id": 4}]),
    ]


def write_scenes(root, all_scenes=None, suffix=".png"):
    """Write images, panoptic PNGs and the json; returns (json, PNG folder, images)."""
    images, annotations = [], []
    for folder in ("pictures", "panoptic"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    for number, (ids, segments) in enumerate(all_scenes or scenes(), 1):
        pixels = np.random.default_rng(number).integers(0, 256, (*ids.shape, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(root / "pictures" / f"{number}{suffix}")
        write_panoptic_png(root / "panoptic" / f"{number}.png", ids)
        image = {"id": number, "file_name": f"{number}{suffix}"}
        images.append({**image, "height": ids.shape[0], "width": ids.shape[1]})
        full = [
            {"iscrowd": 0, **segment, "area": int((ids == segment["id"]).sum()), "bbox": [0] * 4}
            for segment in segments
        ]
        annotations.append(
            {"image_id": number, "file_name": f"{number}.png", "segments_info": full}
        )
    content = {"images": images, "annotations": annotations, "categories": CATEGORIES}
    (root / "panoptic.json").write_text(json.dumps(content))
    return root / "panoptic.json", root / "panoptic", root / "pictures"


def perfect_output(record, ids):
    """What a model without a mistake returns for a record of the dataset."""
    described = [
        {"id": s["id"], "category_id": s["category_id"], "isthing": s["isthing"]}
        for s in record["segments_info"]
    ]
    labels = np.zeros(ids.shape, np.int64)
    things = []
    for segment in described:
        if segment["isthing"]:
            things.append(segment)
        else:
            labels[ids == segment["id"]] = segment["category_id"]
    masks = [torch.from_numpy(ids == s["id"]) for s in things]
    instances = Instances(ids.shape)
    instances.pred_masks = torch.stack(masks) if masks else torch.zeros(0, *ids.shape).bool()
    boxes = [[*(m.nonzero().amin(0).flip(0)), *(m.nonzero().amax(0).flip(0) + 1)] for m in masks]
    instances.pred_boxes = Boxes(torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4))
    instances.scores = torch.ones(len(masks))
    instances.pred_classes = torch.tensor([s["category_id"] for s in things], dtype=torch.int64)
    logits = torch.nn.functional.one_hot(torch.from_numpy(labels), 3).permute(2, 0, 1).float()
    panoptic = torch.from_numpy(ids.copy()), described
    return {"instances": instances, "sem_seg": logits, "panoptic_seg": panoptic}
