"""Random scenes with ground truth as a COCO file, and predictions that are partly right."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch
from detectron2.structures import Boxes, Instances
from PIL import Image

from solo_d2.layers import encode_masks, masks_to_boxes

SIZE = (100, 140)
CATEGORY_IDS = [2, 3, 7, 11]


def instances(masks, labels, scores):
    """A model's output for one image."""
    masks = torch.as_tensor(np.array(masks), dtype=torch.bool).reshape(-1, *SIZE)
    return Instances(
        SIZE,
        pred_masks=masks,
        pred_boxes=Boxes(masks_to_boxes(masks)),
        pred_classes=torch.tensor(labels, dtype=torch.int64),
        scores=torch.tensor(scores, dtype=torch.float32),
    )


def random_mask(rng):
    """A blob of noise, 4 to 100 pixels long: all of COCO's area ranges occur."""
    mask = np.zeros(SIZE, dtype=bool)
    height, width = np.exp(rng.uniform(np.log(4), np.log([100, 130]))).astype(int)
    y, x = rng.integers(0, SIZE[0] - height + 1), rng.integers(0, SIZE[1] - width + 1)
    mask[y : y + height, x : x + width] = rng.random((height, width)) < 0.95
    return mask


def random_scene(rng, *, detections=8):
    """(masks, labels) of the truth and (masks, labels, scores) of predictions, both maybe empty."""
    truth = [(random_mask(rng), int(rng.integers(4))) for _ in range(rng.integers(0, 6))]
    found = []
    for _ in range(rng.integers(0, detections)) if rng.random() < 0.8 else ():
        if truth and rng.random() < 0.7:
            mask, label = truth[rng.integers(len(truth))]
            mask = np.roll(mask, int(rng.integers(-4, 5)), axis=1)
            label = int(rng.integers(4)) if rng.random() < 0.2 else label
        else:
            mask, label = random_mask(rng), int(rng.integers(4))
        found.append((mask, label, round(float(rng.random()), 2)))  # equal scores occur
    return truth, found


def annotation(number, image_id, mask, label, *, iscrowd=0):
    """An entry of a COCO file."""
    mask = torch.from_numpy(mask)[None]
    x0, y0, x1, y1 = masks_to_boxes(mask)[0].tolist()
    return {
        "id": number,
        "image_id": image_id,
        "category_id": CATEGORY_IDS[label],
        "segmentation": encode_masks(mask)[0],
        "area": float(mask.sum()),
        "bbox": [x0, y0, x1 - x0, y1 - y0],
        "iscrowd": iscrowd,
    }


def write_scenes(folder, scenes, *, crowds=0.0, seed=0):
    """Write the truth of `scenes` as COCO json with black images; returns the file."""
    rng = np.random.default_rng(seed)
    folder = Path(folder)
    images, annotations = [], []
    for number, (truth, _) in enumerate(scenes):
        image_id, name = 3 * number + 5, f"{number}.png"
        Image.new("RGB", SIZE[::-1]).save(folder / name)
        images.append({"id": image_id, "file_name": name, "height": SIZE[0], "width": SIZE[1]})
        for mask, label in truth:
            crowd = int(rng.random() < crowds)
            entry = annotation(len(annotations) + 1, image_id, mask, label, iscrowd=crowd)
            annotations.append(entry)
    categories = [{"id": i, "name": f"class {i}"} for i in CATEGORY_IDS]
    content = {"images": images, "annotations": annotations, "categories": categories}
    (folder / "truth.json").write_text(json.dumps({**content, "info": {}}))
    return folder / "truth.json"


def feed(evaluator, scenes, *, perfect=False, chosen=slice(None)):
    """Let an evaluator see the predictions of all scenes, or the truth itself."""
    evaluator.reset()
    for number in range(len(scenes))[chosen]:
        truth, found = scenes[number]
        found = [(mask, label, 0.9) for mask, label in truth] if perfect else found
        columns = list(zip(*found, strict=True)) or [(), (), ()]
        inputs = {"image_id": 3 * number + 5, "file_name": f"{number}.png"}
        evaluator.process([inputs], [{"instances": instances(*columns)}])
    return evaluator.evaluate()
