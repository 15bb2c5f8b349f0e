"""The segments of panoptic annotations, and the objects among them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import torch
from detectron2.structures import BoxMode

from ...io.errors import shown
from ...io.panoptic_png import MAX_ID, check_ids, check_unique, read_panoptic_png
from ...io.paths import printable
from ...layers import encode_masks, masks_to_boxes
from .entries import Ids, whole_number
from .files import find_file, missing_files

__all__ = ["add_segments", "instances_of"]


def add_segments(
    path: Path,
    annotations: list[dict[str, Any]],
    folder: Path,
    records: dict[Any, dict[str, Any]],
    things: dict[Any, str],
    stuff: dict[Any, str],
) -> None:
    """Add the panoptic PNG and its segments to the records of annotated images."""
    labels = {k: i for i, k in enumerate(things)} | {k: i for i, k in enumerate(stuff, 1)}
    categories, images = Ids([*things, *stuff]), Ids(list(records))
    for annotation in annotations:
        where = f"{path}: annotation of the image {shown(annotation['image_id'])}"
        record = records.get(images.find(annotation["image_id"]))
        if record is None:
            raise ValueError(f"{where}: the image is not listed in 'images'")
        if "segments_info" in record:
            raise ValueError(f"{where}: the image has two annotations; keep one")
        try:
            record["pan_seg_file_name"] = find_file(os.fspath(folder), annotation["file_name"])
        except ValueError as error:
            raise ValueError(f"{where} {error}") from error
        segments = annotation["segments_info"]
        if not isinstance(segments, list):
            raise ValueError(f"{where}: 'segments_info' is {shown(segments)}; expected a list")
        record["segments_info"] = [_segment(where, x, categories, labels, things) for x in segments]
        check_unique([x["id"] for x in record["segments_info"]], where)
    pngs = [x["pan_seg_file_name"] for x in records.values() if "segments_info" in x]
    missing = missing_files(pngs)
    if missing:
        raise ValueError(f"{printable(missing[0][:400])}, named in {path}, does not exist")


def _segment(
    where: str, segment: Any, categories: Ids, labels: dict[Any, int], things: dict[Any, str]
) -> dict[str, Any]:
    """A segment with its contiguous category id."""
    if not isinstance(segment, dict):
        raise ValueError(f"{where}: a segment is {shown(segment)}; expected an object")
    number = whole_number(segment.get("id"))
    if number is None or not 0 < number <= MAX_ID:
        raise ValueError(
            f"{where}: a segment has the id {shown(segment.get('id'))}; expected 1 to {MAX_ID}"
        )
    category = categories.find(segment.get("category_id"))
    if category is None:
        raise ValueError(
            f"{where}: the segment {number} has the category id "
            f"{shown(segment.get('category_id'))}, which is not among the file's categories "
            f"{shown(sorted(labels))}"
        )
    crowd = segment.get("iscrowd", 0)
    if crowd not in (0, 1, None, "0", "1"):
        raise ValueError(
            f"{where}: the segment {number} has {shown(crowd)} as 'iscrowd'; expected 0 or 1"
        )
    return {
        "id": number,
        "category_id": labels[category],
        "isthing": category in things,
        "iscrowd": int(crowd or 0),
    }


def instances_of(record: dict[str, Any]) -> tuple[list[dict[str, Any]], list[int]]:
    """Return Detectron2's annotations of the thing segments of a record, from its PNG.

    Returns:
        The annotations, and the ids of all segments without a pixel.

    Raises:
        ValueError: the PNG cannot be read, has another size, or shows unknown ids.
    """
    name = record["pan_seg_file_name"]
    ids = read_panoptic_png(name)
    if ids.shape != (record["height"], record["width"]):
        raise ValueError(
            f"{name} is {ids.shape[0]} x {ids.shape[1]}, its image {record['file_name']} is "
            f"{record['height']} x {record['width']} (height x width)"
        )
    known = {segment["id"]: segment for segment in record["segments_info"]}
    found = np.unique(ids)
    check_ids(found, known, name)
    annotations = []
    for segment in (known[int(i)] for i in found if i):
        if segment["isthing"]:
            mask = torch.from_numpy(ids == segment["id"])[None]
            x0, y0, x1, y1 = masks_to_boxes(mask)[0].tolist()
            annotations.append(
                {
                    "bbox": [x0, y0, x1 - x0, y1 - y0],
                    "bbox_mode": BoxMode.XYWH_ABS,
                    "category_id": segment["category_id"],
                    "segmentation": encode_masks(mask)[0],
                    "iscrowd": segment["iscrowd"],
                }
            )
    return annotations, sorted(known.keys() - set(found.tolist()))
