"""The records of a registered dataset, whoever made them, checked before they are trained on."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from detectron2.data import DatasetCatalog, MetadataCatalog

from ..io.errors import shown
from ..io.paths import printable
from .checks import shown_name

__all__ = [
    "count_training_images",
    "has_objects",
    "is_crowd",
    "nothing_to_learn",
    "training_records",
]

_logger = logging.getLogger(__name__)


def training_records(name: str, num_classes: int, *, filter_empty: bool) -> Sequence[Any]:
    """Return the records of a dataset that are to be trained on.

    Args:
        name: of a registered dataset, ours or in Detectron2's format. A function may also have
            registered a `torch.utils.data.Dataset`, which is returned as it is.
        num_classes: of the model.
        filter_empty: leave out images without objects.

    Returns:
        Records in their order; each has a list of "annotations".

    Raises:
        ValueError: no objects at all, a record that is none, or a class that the model lacks.
    """
    records = DatasetCatalog.get(name)
    if not isinstance(records, list | tuple):
        return records
    kept, crowds, annotations, empty = [], 0, 0, 0
    for record in records:
        objects, others = _count(name, record, num_classes)
        annotations += objects + others
        crowds += others
        empty += not objects
        if objects or not filter_empty:
            kept.append(record)
    if annotations == crowds:
        raise ValueError(nothing_to_learn(name, records))
    _logger.info(
        "%s: %d objects in %d images; %d images without objects are %s",
        name, annotations - crowds, len(records) - empty, empty,
        "left out" if filter_empty else "background",
    )  # fmt: skip
    return kept


def count_training_images(name: str, *, filter_empty: bool) -> int:
    """Return how many records `training_records` keeps of a dataset, without checking them.

    Raises:
        ValueError: no objects at all.
    """
    records = DatasetCatalog.get(name)
    if not (filter_empty and isinstance(records, list | tuple)):
        return len(records)
    count = sum(map(has_objects, records))
    if not count:
        raise ValueError(nothing_to_learn(name, records))
    return count


def has_objects(record: Mapping[str, Any]) -> bool:
    """Return whether a record has an annotation that is no crowd."""
    return not all(map(is_crowd, record.get("annotations") or ()))


def is_crowd(annotation: Mapping[str, Any]) -> bool:
    """Return whether an annotation is a crowd, in whatever type that is said."""
    return annotation.get("iscrowd") not in (None, 0, "0", "")


def _count(name: str, record: Any, num_classes: int) -> tuple[int, int]:
    """Objects and crowds of a record."""
    if not isinstance(record, dict) or not isinstance(record.get("file_name"), str):
        raise ValueError(
            f"the dataset {shown_name(name)} has the record {shown(record)}; expected a dict with "
            "'file_name'"
        )
    if record.get("annotations") is None:
        record["annotations"] = []
    crowds = 0
    for annotation in record["annotations"]:
        label = annotation.get("category_id") if isinstance(annotation, Mapping) else None
        whole = isinstance(label, (int, np.integer)) and not isinstance(label, bool)
        if not whole or label not in range(num_classes):
            raise ValueError(
                f"the dataset {shown_name(name)} has an annotation of class {shown(label)} in "
                f"{printable(record['file_name'])}; the model has the classes 0 to "
                f"{num_classes - 1} (MODEL.SOLO.NUM_CLASSES)"
            )
        crowds += is_crowd(annotation)
    return len(record["annotations"]) - crowds, crowds


def nothing_to_learn(name: str, records: Sequence[Mapping[str, Any]]) -> str:
    """Return one line: which file, why it has nothing to learn from, and what to do."""
    images = len(records)
    annotations = sum(len(record.get("annotations") or ()) for record in records)
    source = MetadataCatalog.get(name).get("source")
    where = source[0] if source else f"the dataset {name}"
    if not images:
        why = "it has no images"
    elif not annotations:
        why = f"none of its {images} images has an annotation; annotate objects"
    else:
        why = (
            f"{annotations} of {annotations} annotations are crowds, which are not learned; set "
            "'iscrowd' to 0 for single objects"
        )
    return f"{where} has no image with objects: {why}"
