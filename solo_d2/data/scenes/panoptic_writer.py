"""Write panoptic annotations of a generated dataset from its instances and background labels.

Files in addition to those of `writer`, for every split::

    annotations/panoptic_<split>.json   COCO's panoptic format
    panoptic/<split>/000001.png         segment ids

Instances are segments 1, 2, ... of an image, in the order of its annotations; then each label of
the background is one segment. Category ids of stuff follow those of the things.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from pycocotools import mask as mask_util

from ...io.image import ImageError, open_image
from ...io.panoptic_png import write_panoptic_png
from ...io.segmentation import encode_mask
from ..datasets.coco_json import read_coco

__all__ = ["write_panoptic"]

logger = logging.getLogger(__name__)


def _segment(ids: np.ndarray, number: int, category: int) -> dict[str, Any] | None:
    """Describe the visible part of a segment; None if nothing is visible."""
    mask = ids == number
    area = int(np.count_nonzero(mask))
    if area == 0:
        return None
    box = [int(v) for v in mask_util.toBbox(encode_mask(mask))]
    return {"id": number, "category_id": category, "area": area, "bbox": box, "iscrowd": 0}


def make_segments(
    masks: list[np.ndarray], categories: list[int], stuff: np.ndarray, first_stuff: int
) -> tuple[np.ndarray, list[dict[str, Any]]]:
    """Compute the segments of one image.

    Args:
        masks: of K instances, boolean (H, W); where two meet, the later one lies above.
        categories: K category ids.
        stuff: labels (H, W) of the background from 1; 0 where there is none.
        first_stuff: category id of label 1.

    Returns:
        Ids int32 (H, W), and COCO's ``segments_info``.
    """
    # Behind the instances' numbers; an instance is written over whatever label is below it.
    ids = np.where(stuff > 0, stuff.astype(np.int32) + len(masks), 0).astype(np.int32)
    for number, mask in enumerate(masks, 1):
        ids[mask] = number
    wanted = list(enumerate(categories, 1))
    labels = (int(label) for label in np.unique(stuff) if label)
    wanted += [(label + len(masks), first_stuff + label - 1) for label in labels]
    segments = [_segment(ids, number, category) for number, category in wanted]
    return ids, [segment for segment in segments if segment is not None]


def _read_labels(path: Path) -> np.ndarray:
    try:
        with open_image(path) as image:
            return np.asarray(image)
    except ImageError as error:
        raise ValueError(
            f"{path}: cannot be read ({error.reason}); build the dataset again"
        ) from error


def _write_image(
    folder: Path,
    image: dict[str, Any],
    objects: list[dict[str, Any]],
    labels: np.ndarray,
    first_stuff: int,
) -> dict[str, Any]:
    """Write the PNG of one image and return its annotation."""
    masks = [mask_util.decode(x["segmentation"]).astype(bool) for x in objects]
    ids, segments = make_segments(masks, [x["category_id"] for x in objects], labels, first_stuff)
    name = f"{Path(image['file_name']).stem}.png"
    write_panoptic_png(folder / name, ids)
    return {"image_id": image["id"], "file_name": name, "segments_info": segments}


def write_panoptic(root: str | os.PathLike[str], split: str) -> Path:
    """Write the panoptic annotations of one split, replacing existing ones.

    Args:
        root: folder of a built dataset.
        split: its name, such as "train".

    Returns:
        The json file.

    Raises:
        ValueError: the dataset has no background labels, or cannot be read or written.
    """
    root = Path(root)
    source = root / "annotations" / f"{split}.json"
    content = read_coco(source)
    things, stuff = content["categories"], content.get("stuff_categories")
    if not stuff:
        raise ValueError(
            f"{source} has no 'stuff_categories': this dataset has instances only; "
            "the backgrounds of stamps have labels"
        )
    first_stuff = max(entry["id"] for entry in things) + 1
    of_image: dict[Any, list[dict[str, Any]]] = {image["id"]: [] for image in content["images"]}
    for annotation in content["annotations"]:
        of_image[annotation["image_id"]].append(annotation)
    target = root / "annotations" / f"panoptic_{split}.json"
    try:
        with tempfile.TemporaryDirectory(dir=root, prefix=".panoptic_") as stage:
            records = []
            for image in content["images"]:
                labels = _read_labels(root / image["stuff_file_name"])
                objects = of_image[image["id"]]
                records.append(_write_image(Path(stage), image, objects, labels, first_stuff))
            folder = root / "panoptic" / split
            shutil.rmtree(folder, ignore_errors=True)
            shutil.copytree(stage, folder)
        _write_json(target, content["images"], records, things, stuff, first_stuff)
    except OSError as error:
        raise ValueError(f"{root}: cannot be written to ({error}); copy the set first") from error
    logger.info("%s: panoptic annotations of %d images", target, len(records))
    return target


def _write_json(
    target: Path,
    images: list[dict[str, Any]],
    records: list[dict[str, Any]],
    things: list[dict[str, Any]],
    stuff: list[dict[str, Any]],
    first_stuff: int,
) -> None:
    """Write the file last and atomically: if it exists, the annotations are complete."""
    categories = [{**entry, "isthing": 1} for entry in things]
    categories += [{**entry, "id": first_stuff + entry["id"] - 1, "isthing": 0} for entry in stuff]
    content = {"images": images, "annotations": records, "categories": categories}
    partial = target.with_suffix(".part")
    partial.write_text(json.dumps(content))
    os.replace(partial, target)
