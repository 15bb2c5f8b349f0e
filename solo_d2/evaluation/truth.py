"""The ground truth of a registered dataset in the form that every scorer takes.

Scorers are stricter than readers: they want whole positive ids, a number for the area, the sizes
of all images. They are never given an annotation file, and none is written for them: the truth is
made anew, in memory, of the records that training would use, and counts images, annotations and
classes from 1. So what is scored can be neither older nor other than the dataset.
"""

from __future__ import annotations

import logging
import math
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from detectron2.data import MetadataCatalog
from detectron2.structures import BoxMode
from detectron2.utils.file_io import PathManager
from pycocotools import mask as mask_util
from pycocotools.coco import COCO

from ..io.json_reader import collector_paused, read_json_object
from ..io.segmentation import Reason, check_segmentations, encode_mask, read_form
from .records import image_size, in_order, records_of

__all__ = ["Truth", "as_rle", "empty_mask", "is_finite", "read_truth"]

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
    with collector_paused():
        return _read_truth(dataset_name, federated)


def _read_truth(dataset_name: str, federated: bool) -> Truth:
    metadata = MetadataCatalog.get(dataset_name)
    file = _foreign_file(dataset_name)
    records = None
    if file is None or metadata.get("thing_classes") is None:
        records = records_of(dataset_name)  # many fill their metadata only then
    label_of = _labels(metadata, federated)
    categories: dict[Any, dict[str, Any]] = {}
    if file is not None:
        records, categories = _read_file(file, label_of)
    elif federated:
        categories = _frequencies(dataset_name)
    images, annotations = _images(dataset_name, records or [], label_of if federated else None)
    classes = metadata.get("thing_classes")
    count = _class_count(dataset_name, annotations, categories)
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


def _frequencies(dataset_name: str) -> dict[Any, dict[str, Any]]:
    """LVIS's categories by label, of a dataset whose metadata say how frequent they are."""
    groups = MetadataCatalog.get(dataset_name).get("class_frequencies")
    if groups is None:
        raise ValueError(
            f"the dataset {dataset_name}: LVIS's evaluation needs the frequency of classes; "
            "read it with register_lvis_json, or set class_frequencies in the metadata to "
            '"r", "c" or "f" of every class'
        )
    return {label: {"frequency": group} for label, group in enumerate(groups)}


def _class_count(
    dataset_name: str, annotations: list[dict[str, Any]], categories: dict[Any, dict[str, Any]]
) -> int:
    """How many classes there are: as many as are named, else as occur."""
    highest = max((x["category_id"] for x in annotations), default=0)
    classes = MetadataCatalog.get(dataset_name).get("thing_classes")
    if classes is None:
        return max(highest, 1 + max(categories, default=-1))
    if highest > len(classes):
        raise ValueError(
            f"the dataset {dataset_name} has an annotation of class {highest - 1}, but its "
            f"metadata name {len(classes)} classes; thing_classes must list all"
        )
    return len(classes)


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
    content = read_json_object(PathManager.get_local_path(file))
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
    given: list[tuple[Any, int, Mapping[str, Any]]] = []  # image id, number, annotation
    sizes: list[tuple[int, int]] = []
    annotated = any(record.get("annotations") for record in records)
    for number, record in enumerate(in_order(dataset_name, records), 1):
        image: dict[str, Any] = {"id": number, "file_name": ""}
        if annotated:
            image["height"], image["width"] = image_size(dataset_name, record)
        if label_of is not None:
            for key in ("neg_category_ids", "not_exhaustive_category_ids"):
                labels = map(label_of, record.get(key) or ())
                image[key] = [label + 1 for label in labels if label is not None]
        images.append((record["image_id"], image))
        for x in record.get("annotations") or ():
            given.append((record["image_id"], number, x))
            sizes.append((image["height"], image["width"]))
    return images, _annotations(dataset_name, given, sizes)


def _annotations(
    dataset_name: str,
    given: list[tuple[Any, int, Mapping[str, Any]]],
    sizes: list[tuple[int, int]],
) -> list[dict[str, Any]]:
    """Annotations of the scorer; of those without a usable mask the first is logged."""
    masks = [
        _bitmap_as_rle(x.get("segmentation"), n) for (_, _, x), n in zip(given, sizes, strict=True)
    ]
    checked = check_segmentations(masks, sizes)
    annotations: list[dict[str, Any]] = []
    left_out = []
    for k, (image_id, number, x) in enumerate(given):
        problem = checked.problems.get(k)
        if problem is None:
            mask = _plain(checked.kept[k], changed=k in checked.changed)
        elif problem.reason in (Reason.NOTHING, Reason.OUTSIDE) and is_finite(masks[k]):
            mask = empty_mask(sizes[k])
        else:
            left_out.append(f"image {image_id}: {problem.text}")
            continue
        facts = _facts(f"the dataset {dataset_name}, image {image_id}", x, mask, sizes[k])
        entry = {"id": len(annotations) + 1, "image_id": number, "segmentation": mask}
        annotations.append(entry | facts)
    if left_out and not annotations:
        raise ValueError(
            f"the dataset {dataset_name}: none of its {len(given)} annotations can be scored; the "
            f"first, {left_out[0]}"
        )
    if left_out:
        _logger.warning(
            "%s: %d of %d annotations are not scored; the first, %s",
            dataset_name, len(left_out), len(given), left_out[0],
        )  # fmt: skip
    return annotations


def _facts(where: str, x: Mapping[str, Any], mask: Any, size: tuple[int, int]) -> dict[str, Any]:
    """Class, crowd, area and box, the latter two from the mask where they are no such thing."""
    label = x.get("category_id")
    if isinstance(label, bool) or not isinstance(label, (int, np.integer)) or label < 0:
        raise ValueError(f"{where}: an annotation has no class of the dataset")
    area, box = x.get("area"), _box(x)
    if not (_is_number(area) and area > 0):  # type: ignore[operator]
        area = float(mask_util.area(as_rle(mask, size)))
    if box is None:
        box = mask_util.toBbox(as_rle(mask, size)).tolist()
    crowd = int(x.get("iscrowd") not in (None, 0, "0", ""))
    return {"category_id": int(label) + 1, "area": area, "bbox": box, "iscrowd": crowd}


def _bitmap_as_rle(value: Any, size: tuple[int, int]) -> Any:
    if isinstance(value, np.ndarray) and value.shape == size:
        return encode_mask(value != 0)
    return value


def is_finite(mask: Any) -> bool:
    """Return whether a readable segmentation has only numbers that a place can have."""
    return all(isinstance(part, dict) or np.isfinite(part).all() for part in read_form(mask))


def _plain(mask: Any, *, changed: bool = True) -> Any:
    """A checked mask in plain numbers and texts."""
    if isinstance(mask, dict):
        counts = mask["counts"]
        counts = counts.decode("ascii") if isinstance(counts, bytes) else counts
        return {"size": list(map(int, mask["size"])), "counts": counts}
    return [[float(v) for v in polygon] for polygon in mask] if changed else mask


def empty_mask(size: tuple[int, int]) -> dict[str, Any]:
    """Return the RLE of no pixel, which nothing can match, for what covers none.

    COCO's own code counts such an object as missed, and such a detection as wrong.
    """
    mask: dict[str, Any] = _plain(mask_util.encode(np.zeros(size, np.uint8, order="F")))
    return mask


def as_rle(mask: Any, size: tuple[int, int]) -> Any:
    """Return a mask of the truth, polygons or RLE, as one RLE of an image of (height, width)."""
    return mask_util.merge(mask_util.frPyObjects(mask, *size)) if isinstance(mask, list) else mask


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
