"""Classes of datasets by their names: a validation file need not list all, nor in one order."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from detectron2.data import DatasetCatalog, MetadataCatalog

from .checks import shown_name, thing_classes
from .datasets.problems import listed
from .scenes.composed import LABELS, SCENE

__all__ = ["align_classes"]

_logger = logging.getLogger(__name__)


def align_classes(name: str, classes: Sequence[str]) -> None:
    """Number the classes of a registered dataset as a model does, by their names.

    Classes that the dataset does not list occur nowhere in it. Nothing happens where the dataset
    has these classes already, declares none, or is one for panoptic segmentation.

    Args:
        name: of the dataset; its records and metadata are others afterwards.
        classes: of the model, in the order of its labels.

    Raises:
        ValueError: the dataset has classes that the model lacks, or is not registered.
    """
    own = thing_classes(name)
    metadata = MetadataCatalog.get(name)
    if own is None or own == list(classes) or metadata.get("stuff_dataset_id_to_contiguous_id"):
        return
    where = f"the dataset {shown_name(name)}"
    missing = [x for x in classes if x not in own]
    extra = [x for x in own if x not in classes]
    if extra:
        occurring = _occurring(name)
        extra = [x for label, x in enumerate(own) if x in extra and label in occurring]
    if extra or len(set(own)) < len(own) or len(set(classes)) < len(classes):
        lacks = f", and lacks {listed(missing)}" if missing else ""
        raise ValueError(
            f"{where} has the classes {listed(own)}, the model {listed(list(classes))}: they "
            f"cannot be matched by name, since it has {listed(extra or own)}{lacks}"
        )
    place = {x: k for k, x in enumerate(classes)}
    _replace_records(name, {k: place[x] for k, x in enumerate(own) if x in place})
    _replace_metadata(name, own, classes)
    told = f"does not list {listed(missing)}" if missing else "has another order of classes"
    _logger.warning("%s %s; its classes were matched with the model's by name", where, told)


def _occurring(name: str) -> set[int]:
    """Labels of the annotations of a dataset."""
    records = DatasetCatalog.get(name)
    if any(SCENE in record for record in records):
        return set(range(len(thing_classes(name) or ())))
    annotations = (x for r in records for x in r.get("annotations") or ())
    return {x["category_id"] for x in annotations if isinstance(x.get("category_id"), int)}


def _replace_records(name: str, labels: dict[int, int]) -> None:
    """Register a function that gives records with these labels for those of the old one.

    What was no label of the dataset becomes -1, which no model has, and which is told.
    """
    load: Callable[[], list[dict[str, Any]]] = DatasetCatalog[name]

    def label_of(annotation: dict[str, Any]) -> int:
        label = annotation.get("category_id")
        return labels.get(int(label), -1) if isinstance(label, (int, np.integer)) else -1

    def renumber(record: dict[str, Any]) -> dict[str, Any]:
        if SCENE in record:
            return {**record, LABELS: labels}
        annotations = record.get("annotations") or ()
        renumbered = [{**x, "category_id": label_of(x)} for x in annotations]
        return {**record, "annotations": renumbered} if "annotations" in record else record

    DatasetCatalog.remove(name)
    DatasetCatalog.register(name, lambda: [renumber(record) for record in load()])


def _replace_metadata(name: str, own: list[str], classes: Sequence[str]) -> None:
    """Give a dataset these classes, and an unused category id to those that it lacks."""
    old = MetadataCatalog.get(name)
    values = {k: v for k, v in old.as_dict().items() if k != "name"}
    values["thing_classes"] = list(classes)
    values["aligned"] = True  # so that registering the files again begins anew
    ids = values.get("thing_dataset_id_to_contiguous_id")
    if ids:
        by_label = {label: category for category, label in ids.items()}
        by_name = {x: by_label[label] for label, x in enumerate(own) if label in by_label}
        values["thing_dataset_id_to_contiguous_id"] = _category_ids(by_name, classes)
    if values.get("class_frequencies"):
        groups = dict(zip(own, values["class_frequencies"], strict=True))
        values["class_frequencies"] = [groups.get(x, "f") for x in classes]
    if values.get("source"):
        values.pop("json_file", None)  # Detectron2's own evaluator needs one with all classes
    MetadataCatalog.remove(name)
    MetadataCatalog.get(name).set(**values)


def _category_ids(by_name: dict[str, Any], classes: Sequence[str]) -> dict[Any, int]:
    """Label of every category id; classes without one get the next that is free."""
    numbers = [i for i in by_name.values() if isinstance(i, int)]
    free = max(numbers, default=0)
    ids = {}
    for label, name in enumerate(classes):
        if name in by_name:
            ids[by_name[name]] = label
        else:
            free += 1
            ids[free if numbers else f"{name} (not listed)"] = label
    return ids
