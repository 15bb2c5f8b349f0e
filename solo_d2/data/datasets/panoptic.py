"""Reads, checks and registers data sets in COCO's panoptic format.

Unlike Detectron2's `register_coco_panoptic_separated` it takes pictures of any file type, needs
no prepared label PNGs (`SOLODatasetMapper` makes the labels of the panoptic PNGs), and can do
without a file of instances: these are then the segments of things.
"""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.structures import BoxMode
from pycocotools import mask as mask_util

from ...io.panoptic_png import IGNORE_LABEL, check_ids, read_panoptic_png
from .coco_json import load_coco_json, read_coco

__all__ = ["PanopticData", "load_coco_panoptic", "register_coco_panoptic"]

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class PanopticData:
    """A checked data set.

    Attributes:
        records: Detectron2's dicts, one per annotated image: ``annotations`` of things,
            ``pan_seg_file_name``, and ``segments_info`` with contiguous category ids: things from
            0, stuff from 1, as the semantic branch numbers them.
        things: names by category id of the file.
        stuff: likewise.
        repaired: annotations of the instance file that COCO's evaluation would fail on.
    """

    records: list[dict[str, Any]]
    things: dict[int, str]
    stuff: dict[int, str]
    repaired: int


def _categories(path: Path, content: dict[str, Any]) -> tuple[dict[int, str], dict[int, str]]:
    """Names of things and of stuff by category id."""
    names: tuple[dict[int, str], dict[int, str]] = ({}, {})
    for entry in sorted(content["categories"], key=lambda entry: entry.get("id", -1)):
        if not {"id", "name", "isthing"} <= entry.keys():
            raise ValueError(
                f"{path}: a category needs 'id', 'name' and 'isthing', got {entry}; is this a "
                "panoptic file, or one of instances?"
            )
        names[0 if entry["isthing"] else 1][int(entry["id"])] = str(entry["name"])
    for kind, found, remedy in (
        ("thing", names[0], "nothing is left for SOLO to find"),
        ("stuff", names[1], "use MODEL.META_ARCHITECTURE SOLO and an instance file"),
    ):
        if not found:
            raise ValueError(f"{path} has no {kind} category ('isthing'); {remedy}")
    if len(names[1]) >= IGNORE_LABEL:
        raise ValueError(f"{path} has {len(names[1])} stuff categories; at most 254 fit a label")
    return names


def _segments(
    where: str, annotation: dict[str, Any], things: dict[int, int], stuff: dict[int, int]
) -> list[dict[str, Any]]:
    """Segments of one annotation with contiguous category ids."""
    segments = []
    for segment in annotation["segments_info"]:
        category = segment.get("category_id")
        if "id" not in segment or (category not in things and category not in stuff):
            raise ValueError(
                f"{where}: the segment {segment.get('id')} has the category id {category}, which "
                f"is not among the file's categories {sorted([*things, *stuff])}"
            )
        isthing = category in things
        segments.append(
            {
                "id": int(segment["id"]),
                "category_id": things[category] if isthing else stuff[category],
                "isthing": isthing,
                "iscrowd": int(segment.get("iscrowd", 0)),
            }
        )
    return segments


def instances_of(record: dict[str, Any]) -> list[dict[str, Any]]:
    """Detectron2's annotations of the thing segments of a record, from its PNG.

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
    shown = np.unique(ids)
    check_ids(shown, known, name)
    annotations = []
    for segment in (known[int(i)] for i in shown if i):
        if segment["isthing"]:
            rle = mask_util.encode(np.asfortranarray(ids == segment["id"], np.uint8))
            annotations.append(
                {
                    "bbox": [float(v) for v in mask_util.toBbox(rle)],
                    "bbox_mode": BoxMode.XYWH_ABS,
                    "category_id": segment["category_id"],
                    "segmentation": rle,
                    "iscrowd": segment["iscrowd"],
                }
            )
    return annotations


def _image_file(root: Path, image: dict[str, Any], png: str) -> Path:
    """The picture: by the file name in the json, or with the PNG's stem."""
    if "file_name" in image:
        return root / image["file_name"]
    return root / Path(png).with_suffix(".jpg")


def load_coco_panoptic(
    panoptic_json: str | os.PathLike[str],
    panoptic_root: str | os.PathLike[str],
    image_root: str | os.PathLike[str],
    instances_json: str | os.PathLike[str] | None = None,
) -> PanopticData:
    """Reads and checks a data set in COCO's panoptic format.

    Args:
        panoptic_json: the annotations.
        panoptic_root: folder of the panoptic PNGs.
        image_root: folder of the pictures.
        instances_json: instances of the same pictures in COCO format, which may overlap; without
            it they are taken from the PNGs, all of which are then read (about 10 ms each).

    Raises:
        ValueError: a file or folder is missing or not what it should be; the message names it,
            what is wrong and the remedy.
    """
    path, folder, images_folder = Path(panoptic_json), Path(panoptic_root), Path(image_root)
    content = read_coco(path)
    for root, what in ((folder, "panoptic PNGs"), (images_folder, "pictures")):
        if not root.is_dir():
            raise ValueError(f"{root}: no such folder; it should hold the {what} of {path}")
    things, stuff = _categories(path, content)
    labels = {k: i for i, k in enumerate(things)}, {k: i for i, k in enumerate(stuff, 1)}
    images = {image["id"]: image for image in content["images"]}
    records = []
    for annotation in content["annotations"]:
        if not {"image_id", "file_name", "segments_info"} <= annotation.keys():
            raise ValueError(
                f"{path}: an annotation needs 'image_id', 'file_name' and 'segments_info', got "
                f"{sorted(annotation)}; is this a panoptic file, or one of instances?"
            )
        where = f"{path}: annotation of the image {annotation['image_id']}"
        image = images.get(annotation["image_id"])
        if image is None:
            raise ValueError(f"{where}: the image is not listed in 'images'")
        record = {
            "file_name": str(_image_file(images_folder, image, annotation["file_name"])),
            "image_id": annotation["image_id"],
            "height": int(image["height"]),
            "width": int(image["width"]),
            "pan_seg_file_name": str(folder / annotation["file_name"]),
            "segments_info": _segments(where, annotation, *labels),
        }
        for key in ("file_name", "pan_seg_file_name"):
            if not Path(record[key]).is_file():
                raise ValueError(f"{record[key]}, named in {path}, does not exist")
        records.append(record)
    if not records:
        raise ValueError(f"{path} lists no annotations")
    if len(records) < len(images):
        logger.warning("%s: %d images have no annotation", path, len(images) - len(records))
    repaired = _add_instances(records, path, images_folder, list(things), instances_json)
    return PanopticData(records, things, stuff, repaired)


def _add_instances(
    records: list[dict[str, Any]],
    path: Path,
    image_root: Path,
    things: list[int],
    instances_json: str | os.PathLike[str] | None,
) -> int:
    """Fill in the ``annotations`` of all records; returns how many the file had to be repaired."""
    if instances_json is None:
        for record in records:
            record["annotations"] = instances_of(record)
        return 0
    data = load_coco_json(instances_json, image_root)
    if data.category_ids != things:
        raise ValueError(
            f"{instances_json} has the category ids {data.category_ids}, the things of {path} are "
            f"{things}; they must be the same"
        )
    annotations = {record["image_id"]: record["annotations"] for record in data.records}
    for record in records:
        if record["image_id"] not in annotations:
            raise ValueError(f"{instances_json} lacks the image {record['image_id']} of {path}")
        record["annotations"] = annotations[record["image_id"]]
    return data.repaired


def register_coco_panoptic(
    name: str,
    panoptic_json: str | os.PathLike[str],
    panoptic_root: str | os.PathLike[str],
    image_root: str | os.PathLike[str],
    instances_json: str | os.PathLike[str] | None = None,
) -> None:
    """Checks a data set in COCO's panoptic format and registers it with Detectron2.

    ``MODEL.SOLO.NUM_CLASSES`` must be the number of its things, and
    ``MODEL.SEM_SEG_HEAD.NUM_CLASSES`` one more than the number of its stuff classes. Registering
    the same files again under the same name does nothing.

    Args:
        name: of the data set, as in ``cfg.DATASETS``.
        panoptic_json: see `load_coco_panoptic`, as the other arguments.
        panoptic_root: folder of the panoptic PNGs.
        image_root: folder of the pictures.
        instances_json: instances of the same pictures.

    Raises:
        ValueError: the data set is not usable, or `name` stands for other files.
    """
    files = (panoptic_json, panoptic_root, image_root, instances_json)
    source = tuple(str(Path(file).resolve()) for file in files if file is not None)
    if name in DatasetCatalog.list():
        taken = MetadataCatalog.get(name).get("source", "another data set")
        if taken != source:
            raise ValueError(
                f"the data set name '{name}' is taken by {taken}; register {source[0]} under "
                "another name"
            )
        return
    data = load_coco_panoptic(*files)
    first = [data.records]  # the copy at hand serves the first use, later ones read again

    def load() -> list[dict[str, Any]]:
        return first.pop() if first else load_coco_panoptic(*files).records

    used = [*data.things, *data.stuff]
    DatasetCatalog.register(name, load)
    metadata = MetadataCatalog.get(name)
    metadata.set(
        source=source,
        image_root=source[2],
        panoptic_root=source[1],
        panoptic_json=source[0],
        evaluator_type="coco_panoptic_seg",
        ignore_label=IGNORE_LABEL,
        thing_classes=list(data.things.values()),
        thing_dataset_id_to_contiguous_id={c: k for k, c in enumerate(data.things)},
        stuff_classes=["things", *data.stuff.values()],
        # The label 0 of all things has an id that no category has, in COCO 0 as in Detectron2.
        stuff_dataset_id_to_contiguous_id={
            (max(used) + 1 if 0 in used else 0): 0,
            **{c: k for k, c in enumerate(data.stuff, 1)},
        },
    )
    if instances_json is not None and not data.repaired:
        # Without it COCOEvaluator writes a file of its own from the checked records.
        metadata.set(json_file=source[3])
