"""Reads, checks and registers data sets in COCO format.

Everything that would fail later, deep inside training or evaluation, fails here instead, with
the file and the remedy in the message. Polygons, compressed and uncompressed RLE, crowd regions
and images without objects are accepted.
"""

from __future__ import annotations

import json
import logging
import math
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from detectron2.structures import BoxMode
from pycocotools import mask as mask_util

from .alpha import resolve_alpha
from .catalog import CocoData, register_data

__all__ = ["CocoData", "load_coco_json", "read_json", "register_coco_json"]

logger = logging.getLogger(__name__)


def read_json(path: Path) -> dict[str, Any]:
    """Content of a COCO file, with a clear `ValueError` for what is none."""
    if not path.is_file():
        raise ValueError(f"{path}: no such file; pass the COCO json of the data set")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:  # also a file that is not text
        raise ValueError(f"{path} is not valid json ({error}); is it cut off?") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path}: expected a COCO object, got a json {type(content).__name__}")
    for key in ("images", "annotations", "categories"):
        if not isinstance(content.get(key), list):
            raise ValueError(
                f"{path} is not in COCO format: expected the lists 'images', 'annotations' and "
                f"'categories', got the keys {sorted(content)}"
            )
    if not content["categories"]:
        raise ValueError(f"{path} has no categories; list at least one {{'id', 'name'}}")
    return content


def _index(path: Path, kind: str, entries: Iterable[dict], keys: tuple[str, ...]) -> dict:
    """Entries by id; checks that each has `keys`, and that no id comes twice."""
    by_id: dict[Any, dict] = {}
    for entry in entries:
        missing = [key for key in ("id", *keys) if not isinstance(entry, dict) or key not in entry]
        if missing:
            raise ValueError(f"{path}: an entry of '{kind}' lacks {missing}: {str(entry)[:100]}")
        if entry["id"] in by_id:
            raise ValueError(
                f"{path}: the id {entry['id']} comes twice in '{kind}'; make it unique"
            )
        by_id[entry["id"]] = entry
    return by_id


def _polygons(segmentation: list) -> list[list[float]]:
    """The usable polygons: at least three finite points around a positive area."""
    usable = []
    for polygon in segmentation:
        if not isinstance(polygon, list) or len(polygon) < 6 or len(polygon) % 2:
            continue
        points = np.array(polygon, np.float64).reshape(-1, 2)
        x, y = points[:, 0], points[:, 1]
        area = abs(np.dot(x, np.roll(y, -1)) - np.dot(y, np.roll(x, -1))) / 2
        if np.isfinite(points).all() and area > 0:
            usable.append(polygon)
    return usable


def _rle(segmentation: dict, size: list[int]) -> dict[str, Any]:
    """Compressed RLE, with the counts as bytes or text, of either kind of RLE."""
    if [int(v) for v in segmentation["size"]] != size:
        raise ValueError(f"its RLE has the size {segmentation['size']}, but its image has {size}")
    if isinstance(segmentation["counts"], list):
        if sum(segmentation["counts"]) != size[0] * size[1]:
            raise ValueError(
                f"its RLE counts {sum(segmentation['counts'])} pixels, its image has "
                f"{size[0] * size[1]}"
            )
        return mask_util.frPyObjects(segmentation, *size)
    return {"size": size, "counts": segmentation["counts"]}


def _mask(segmentation: Any, size: list[int]) -> tuple[Any, dict[str, Any]] | None:
    """(segmentation for Detectron2, its RLE), or None where it covers nothing."""
    kept: Any
    if isinstance(segmentation, dict):
        rle = kept = _rle(segmentation, size)
    elif isinstance(segmentation, list):
        kept = _polygons(segmentation)
        if not kept:
            return None
        rle = mask_util.merge(mask_util.frPyObjects(kept, *size))
    else:
        raise ValueError(f"its segmentation is a {type(segmentation).__name__}")
    # A polygon may miss every pixel centre and still be an object of a subpixel's size.
    if isinstance(segmentation, dict) and mask_util.area(rle) == 0:
        return None
    return kept, rle


def _box(annotation: dict, rle: dict[str, Any]) -> tuple[list[float], bool]:
    """(XYWH box, whether it comes from the file)."""
    box = annotation.get("bbox")
    if isinstance(box, list) and len(box) == 4 and all(map(_is_finite, box)) and min(box[2:]) > 0:
        return [float(v) for v in box], True
    return [float(v) for v in mask_util.toBbox(rle)], False


def _is_finite(value: Any) -> bool:
    return isinstance(value, (int, float)) and math.isfinite(value)


def _instance(
    path: Path, annotation: dict, image: dict, classes: dict[int, int]
) -> tuple[dict | None, bool]:
    """(Detectron2's annotation or None where it covers nothing, whether the file's was whole).

    Raises:
        ValueError: With the second half of a sentence about this annotation.
    """
    if annotation["category_id"] not in classes:
        raise ValueError(
            f"it has the category id {annotation['category_id']}, which is not among the "
            f"file's categories {sorted(classes)}"
        )
    if not annotation.get("segmentation"):
        if annotation.get("segmentation") == []:
            return None, False
        raise ValueError("it has no 'segmentation'; SOLO learns from masks, not from boxes")
    size = [int(image["height"]), int(image["width"])]
    try:
        mask = _mask(annotation["segmentation"], size)
    except (KeyError, TypeError) as error:
        raise ValueError(f"its segmentation cannot be read ({error!r})") from error
    if mask is None:
        return None, False
    box, whole = _box(annotation, mask[1])
    record = {
        "bbox": box,
        "bbox_mode": BoxMode.XYWH_ABS,
        "category_id": classes[annotation["category_id"]],
        "segmentation": mask[0],
        "iscrowd": int(annotation.get("iscrowd", 0)),
    }
    if _is_finite(annotation.get("area")) and annotation["area"] > 0:
        record["area"] = float(annotation["area"])  # COCO's sizes of objects go by it
    if "alpha" in annotation:
        record["alpha"] = resolve_alpha(annotation["alpha"], path, (size[0], size[1]))
    # COCO's evaluation needs these keys, and takes the id 0 for "no match".
    whole = whole and annotation["id"] != 0 and {"area", "iscrowd"} <= annotation.keys()
    if isinstance(annotation["segmentation"], list):
        whole = whole and len(mask[0]) == len(annotation["segmentation"])
    return record, whole


def _image_records(path: Path, images: dict, root: Path) -> dict[Any, dict[str, Any]]:
    if not root.is_dir():
        raise ValueError(f"{root}: no such folder; it should hold the pictures of {path}")
    records = {}
    for image_id in sorted(images):
        image = images[image_id]
        file = root / image["file_name"]
        if not file.is_file():
            raise ValueError(
                f"{file}, named in {path}, does not exist; file names are taken relative to the "
                "image folder"
            )
        records[image_id] = {
            "file_name": str(file),
            "image_id": image_id,
            "height": int(image["height"]),
            "width": int(image["width"]),
            "annotations": [],
        }
    return records


def load_coco_json(
    json_file: str | os.PathLike[str], image_root: str | os.PathLike[str]
) -> CocoData:
    """Reads and checks a data set in COCO format.

    Annotations whose mask covers nothing (zero area, polygons of fewer than three points) are
    dropped, and boxes are computed from the mask where they are missing; one warning counts
    both.

    Args:
        json_file: the annotations.
        image_root: folder to which the file names of the images are relative.

    Returns:
        The data set, images without objects included.

    Raises:
        ValueError: If the file or folder is missing or not what it should be; the message names
            the file, what is wrong and the remedy.
    """
    path = Path(json_file)
    content = read_json(path)
    if is_lvis(content):
        raise ValueError(
            f"{path} is in LVIS format: read it as such, with --data-format lvis (or "
            "register_lvis_json)"
        )
    return parse_coco(path, content, Path(image_root))


def is_lvis(content: dict[str, Any]) -> bool:
    """Whether the content of a file says, as LVIS does, which classes an image lacks."""
    images = content["images"][:1]
    return bool(images) and isinstance(images[0], dict) and "neg_category_ids" in images[0]


def parse_coco(path: Path, content: dict[str, Any], root: Path) -> CocoData:
    """Checks `content`, read from `path`, as `load_coco_json` does."""
    categories = _index(path, "categories", content["categories"], ("name",))
    images = _index(path, "images", content["images"], ("file_name", "height", "width"))
    if not images:
        raise ValueError(f"{path} lists no images")
    records = _image_records(path, images, root)
    ids = sorted(categories)
    classes = {category_id: k for k, category_id in enumerate(ids)}
    annotations = _index(path, "annotations", content["annotations"], ("image_id", "category_id"))
    dropped = completed = 0
    for annotation in annotations.values():
        where = f"{path}: annotation {annotation['id']}"
        image = images.get(annotation["image_id"])
        if image is None:
            raise ValueError(f"{where} belongs to the image {annotation['image_id']}, not listed")
        try:
            record, whole = _instance(path, annotation, image, classes)
        except ValueError as error:
            raise ValueError(f"{where} cannot be used: {error}") from error
        dropped += record is None
        completed += record is not None and not whole
        if record is not None:
            records[annotation["image_id"]]["annotations"].append(record)
    if dropped or completed:
        logger.warning(
            "%s: %d annotations cover nothing and were dropped, %d lacked a box, an area or "
            "another key and were completed",
            path, dropped, completed,
        )  # fmt: skip
    return CocoData(
        records=list(records.values()),
        classes=[str(categories[k]["name"]) for k in ids],
        category_ids=ids,
        stuff=[str(entry["name"]) for entry in content.get("stuff_categories", ())],
        repaired=dropped + completed,
    )


def register_coco_json(
    name: str,
    json_file: str | os.PathLike[str],
    image_root: str | os.PathLike[str],
    *,
    matting: bool = False,
) -> list[str]:
    """Checks a data set in COCO format and registers it with Detectron2.

    Registering the same files again under the same name does nothing.

    Args:
        name: of the data set, as in ``cfg.DATASETS``.
        json_file: the annotations.
        image_root: folder to which the file names of the images are relative.
        matting: evaluate mattes, too; otherwise annotations with mattes count as masks there.

    Returns:
        The class names; their number is what ``MODEL.SOLO.NUM_CLASSES`` must be.

    Raises:
        ValueError: If the data set is not usable (see `load_coco_json`), or `name` stands for
            other files.
    """
    source = (str(Path(json_file).resolve()), str(Path(image_root).resolve()))

    def describe(data: CocoData) -> dict[str, Any]:
        stuff = {"stuff_classes": data.stuff} if data.stuff else {}
        # Without it COCOEvaluator writes a file of its own from the checked records.
        file = {} if data.repaired else {"json_file": source[0]}
        return {**stuff, **file}

    kind = "coco_matting" if matting else "coco"
    return register_data(name, source, lambda: load_coco_json(*source), kind, describe)
