"""The ground truth of a registered dataset in the form that every scorer takes.

Scorers are stricter than readers: they want whole positive ids, a number for the area, the sizes
of all images. They are never given an annotation file, and none is written for them: the truth is
made anew, in memory, of the records that training would use, and counts images, annotations and
classes from 1. So what is scored can be neither older nor other than the dataset.
"""

from __future__ import annotations

import json
import logging
import math
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.structures import BoxMode
from detectron2.utils.file_io import PathManager
from pycocotools import mask as mask_util
from pycocotools.coco import COCO

__all__ = [
    "Truth",
    "image_size",
    "read_truth",
    "records_by_id",
    "records_of",
    "shared_records",
]

_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Truth:
    """Ground truth and what leads back to the dataset's own ids.

    Attributes:
        dataset_name: as registered.
        numbers: the scorer's image id, from 1 on in the order of the dataset's ids, of each of
            these.
        sizes: (height, width) by the dataset's image id; only of a dataset with annotations.
        category_ids: the dataset's category id of every label; the scorer's is the label + 1.
        classes: names by label, None where the dataset has none.
        content: COCO's dict for the scorer.
    """

    dataset_name: str
    numbers: dict[Any, int]
    sizes: dict[Any, tuple[int, int]]
    category_ids: list[Any]
    classes: list[str] | None
    content: dict[str, Any]

    @property
    def annotated(self) -> bool:
        """Whether there is anything to score against; a test set has nothing."""
        return bool(self.content["annotations"])

    def coco(self) -> COCO:
        """Return the content as pycocotools has it."""
        index = COCO()
        index.dataset = self.content
        index.createIndex()
        return index


def read_truth(dataset_name: str, *, federated: bool = False) -> Truth:
    """Make the ground truth of a registered dataset.

    Args:
        dataset_name: a dataset of ours, or any in Detectron2's format. Of Detectron2's own, whose
            records lack areas, the ``json_file`` in the metadata is read.
        federated: LVIS: add what images are known to lack, and the frequency of classes.

    Raises:
        ValueError: an image or annotation that cannot be scored, with its id.
    """
    metadata = MetadataCatalog.get(dataset_name)
    file = _foreign_file(dataset_name)
    records = None
    if file is None or metadata.get("thing_classes") is None:
        records = records_of(dataset_name)  # many fill their metadata only then
    label_of = _labels(metadata, federated)
    categories: dict[Any, dict] = {}
    if file is not None:
        records, categories = _read_file(file, label_of)
    elif federated:
        categories = {i: {"frequency": f} for i, f in enumerate(metadata.class_frequencies)}
    images, annotations = _images(dataset_name, records or [], label_of if federated else None)
    classes = metadata.get("thing_classes")
    highest = max((x["category_id"] for x in annotations), default=0)
    count = max(highest, 1 + max(categories, default=-1)) if classes is None else len(classes)
    if highest > count:
        raise ValueError(
            f"the dataset {dataset_name} has an annotation of class {highest - 1}, but its "
            f"metadata name {count} classes; thing_classes must list all"
        )
    content = {
        "info": {},
        "licenses": [],
        "images": [image for _, image in images],
        "annotations": annotations,
        "categories": [
            {**categories.get(k, {}), "id": k + 1, "name": str(classes[k] if classes else k)}
            for k in range(count)
        ],
    }
    sizes = {i: (x["height"], x["width"]) for i, x in images if annotations}
    return Truth(
        dataset_name=dataset_name,
        numbers={image_id: image["id"] for image_id, image in images},
        sizes=sizes,
        category_ids=_category_ids(metadata, count, federated),
        classes=None if classes is None else list(classes),
        content=content,
    )


def _foreign_file(dataset_name: str) -> str | None:
    """The annotation file of a dataset whose records are not ours; they lack areas."""
    metadata = MetadataCatalog.get(dataset_name)
    file = metadata.get("json_file")
    # Detectron2's evaluator leaves a copy of older records under this name and in the metadata.
    if metadata.get("source") is not None or str(file).endswith(f"{dataset_name}_coco_format.json"):
        return None
    return file


def _labels(metadata: Any, federated: bool) -> Callable[[Any], int | None]:
    """From the category ids of a file to labels."""
    ids = metadata.get("thing_dataset_id_to_contiguous_id")
    if ids:
        return ids.get
    first = int(federated)  # Detectron2's own LVIS sets: ids from 1 to C
    return lambda category_id: category_id - first


def _category_ids(metadata: Any, count: int, federated: bool) -> list[Any]:
    ids = metadata.get("thing_dataset_id_to_contiguous_id")
    if ids:
        return sorted(ids, key=ids.__getitem__)
    return [label + int(federated) for label in range(count)]


def _read_file(
    file: str, label_of: Callable[[Any], int | None]
) -> tuple[list[dict[str, Any]], dict[int, dict[str, Any]]]:
    """Records with areas, and categories by label, of a COCO or LVIS file."""
    with open(PathManager.get_local_path(file), encoding="utf-8-sig") as opened:
        content = json.load(opened)
    annotations = defaultdict(list)
    for x in content.get("annotations") or ():
        entry = {**x, "category_id": label_of(x["category_id"]), "bbox_mode": BoxMode.XYWH_ABS}
        annotations[x["image_id"]].append(entry)
    records = [
        {**image, "image_id": image["id"], "annotations": annotations[image["id"]]}
        for image in content["images"]
    ]
    categories = {}
    for category in content["categories"]:
        label = label_of(category["id"])
        if label is not None:
            categories[label] = category
    return records, categories


def _images(
    dataset_name: str,
    records: list[dict[str, Any]],
    label_of: Callable[[Any], int | None] | None,
) -> tuple[list[tuple[Any, dict[str, Any]]], list[dict[str, Any]]]:
    """COCO's images, each with the dataset's id, and annotations; for LVIS with `label_of`."""
    images: list[tuple[Any, dict[str, Any]]] = []
    annotations: list[dict[str, Any]] = []
    lacking = 0
    annotated = any(record.get("annotations") for record in records)
    for number, record in enumerate(_sorted(dataset_name, records), 1):
        where = f"the dataset {dataset_name}, image {record['image_id']}"
        image: dict[str, Any] = {"id": number, "file_name": ""}
        if annotated:
            image["height"], image["width"] = image_size(dataset_name, record)
        if label_of is not None:
            for key in ("neg_category_ids", "not_exhaustive_category_ids"):
                labels = map(label_of, record.get(key) or ())
                image[key] = [label + 1 for label in labels if label is not None]
        images.append((record["image_id"], image))
        for x in record.get("annotations") or ():
            entry = _annotation(where, x, (image["height"], image["width"]))
            lacking += entry is None
            if entry is not None:
                entry |= {"id": len(annotations) + 1, "image_id": number}
                annotations.append(entry)
    if lacking:
        _logger.warning("%s: %d annotations have no mask and are not scored", dataset_name, lacking)
    return images, annotations


_shared: dict[str, list[dict[str, Any]]] | None = None


@contextmanager
def shared_records() -> Iterator[None]:
    """Let the evaluators that are made in the block read a dataset once for all of them."""
    global _shared
    _shared = {}
    try:
        yield
    finally:
        _shared = None


def records_of(dataset_name: str) -> list[dict[str, Any]]:
    """Read the records of a registered dataset anew, or take those that were just read."""
    if _shared is None:
        return DatasetCatalog.get(dataset_name)
    if dataset_name not in _shared:
        _shared[dataset_name] = DatasetCatalog.get(dataset_name)
    return _shared[dataset_name]


def records_by_id(dataset_name: str, records: list[dict[str, Any]]) -> dict[Any, dict[str, Any]]:
    """Index records by image id.

    Raises:
        ValueError: a record has no id, or the one of another.
    """
    found: dict[Any, dict[str, Any]] = {}
    for record in records:
        if record.get("image_id") is None:
            raise ValueError(
                f"the dataset {dataset_name}: the record of {record.get('file_name')} lacks "
                "'image_id', without which results cannot be told apart"
            )
        if record["image_id"] in found:
            raise ValueError(
                f"the dataset {dataset_name} has two images with the id {record['image_id']}; "
                "make ids unique"
            )
        found[record["image_id"]] = record
    return found


def _sorted(dataset_name: str, records: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Records by image id, since the order of images decides between equal scores."""
    found = records_by_id(dataset_name, records)
    try:
        return [found[image_id] for image_id in sorted(found)]
    except TypeError:  # numbers and texts
        return [found[image_id] for image_id in sorted(found, key=str)]


def image_size(dataset_name: str, record: Mapping[str, Any]) -> tuple[int, int]:
    """Return (height, width) of a record.

    Raises:
        ValueError: it has none.
    """
    try:
        return int(record["height"]), int(record["width"])
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"the dataset {dataset_name}, image {record['image_id']}: masks need 'height' and "
            "'width' of their image"
        ) from error


def _annotation(where: str, x: Mapping[str, Any], size: tuple[int, int]) -> dict[str, Any] | None:
    """One annotation without ids, its area and box from the mask where they are no such thing."""
    label = x.get("category_id")
    if isinstance(label, bool) or not isinstance(label, (int, np.integer)) or label < 0:
        raise ValueError(f"{where}: an annotation has no class of the dataset")
    try:
        segmentation = _segmentation(x.get("segmentation"), size)
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{where}: an annotation cannot be scored: {error}") from error
    if segmentation is None:
        return None
    area, box = x.get("area"), _box(x)
    if not (_is_number(area) and area > 0):  # type: ignore[operator]
        area = float(mask_util.area(_rle(segmentation, size)))
    if box is None:
        box = mask_util.toBbox(_rle(segmentation, size)).tolist()
    crowd = x.get("iscrowd")
    return {
        "category_id": int(label) + 1,
        "segmentation": segmentation,
        "area": area,
        "bbox": box,
        "iscrowd": int(crowd not in (None, 0, "0", "")),
    }


def _segmentation(value: Any, size: tuple[int, int]) -> Any:
    """Polygons, or compressed RLE with text; None where there is no mask."""
    if isinstance(value, np.ndarray) and value.shape == size:
        value = mask_util.encode(np.asfortranarray(value, np.uint8))
    if isinstance(value, Mapping):
        if tuple(map(int, value["size"])) != size:
            raise ValueError(f"its mask has the size {value['size']}, its image {list(size)}")
        counts = value["counts"]
        if isinstance(counts, (list, tuple)):
            counts = mask_util.frPyObjects({"size": list(size), "counts": list(counts)}, *size)[
                "counts"
            ]
        counts = counts.decode("ascii") if isinstance(counts, bytes) else str(counts)
        return {"size": list(size), "counts": counts}
    polygons = [np.asarray(polygon, np.float64).ravel() for polygon in value or ()]
    polygons = [polygon for polygon in polygons if len(polygon) >= 6 and len(polygon) % 2 == 0]
    if not polygons:
        return None
    # pycocotools walks along every edge, pixel by pixel, and crashes where they are too many.
    if not all(np.abs(polygon).max() <= 10 * sum(size) for polygon in polygons):
        raise ValueError("its polygon reaches far beyond the image, or has NaN in it")
    return [polygon.tolist() for polygon in polygons]


def _rle(segmentation: Any, size: tuple[int, int]) -> Any:
    if isinstance(segmentation, dict):
        return segmentation
    return mask_util.merge(mask_util.frPyObjects(segmentation, *size))


def _box(x: Mapping[str, Any]) -> list[float] | None:
    """XYWH box, or None where there is none."""
    box = np.asarray(x.get("bbox"), object).ravel().tolist()
    if len(box) != 4 or not all(map(_is_number, box)):
        return None
    mode = x.get("bbox_mode", BoxMode.XYWH_ABS)
    if mode == BoxMode.XYXY_ABS:
        box = [box[0], box[1], box[2] - box[0], box[3] - box[1]]
    elif mode != BoxMode.XYWH_ABS:
        return None
    return box if min(box[2:]) >= 0 else None


def _is_number(value: Any) -> bool:
    number = isinstance(value, (int, float, np.integer, np.floating))
    return number and not isinstance(value, bool) and math.isfinite(value)
