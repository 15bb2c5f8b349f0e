"""Turns the annotations of a COCO file into Detectron2's, some thousands at a time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from detectron2.structures import BoxMode

from ...io.errors import shown
from ...io.segmentation import Problem, Reason, Segmentations, check_segmentations
from .alpha import resolve_alpha
from .boxes import BoxCheck, numbers
from .entries import Ids
from .problems import Findings, count_of, listed

__all__ = ["AnnotationReader"]

_CROWD = {0: 0, 1: 1, None: 0, "0": 0, "1": 1}
_BEYOND = 0.05
"""Share of an image's side by which objects may reach out of it without a word."""

_Size = tuple[int, int]


class AnnotationReader:
    """Adds annotations to the records of their images.

    Args:
        path: of the annotation file.
        records: Detectron2's, by image id; get their "annotations".
        labels: label of every category id.
        findings: get what is to be said.

    Attributes:
        objects: number of objects of every label, (C,).
        suspicious: ids of images of whose size there is doubt, in the order of the annotations.
    """

    def __init__(
        self,
        path: Path,
        records: Mapping[Any, dict[str, Any]],
        labels: Mapping[Any, int],
        findings: Findings,
    ) -> None:
        self.path, self.records, self.labels, self.findings = path, records, labels, findings
        self.objects = np.zeros(len(labels), np.int64)
        self.suspicious: dict[Any, None] = {}
        self._image_ids, self._category_ids = Ids(list(records)), Ids(list(labels))
        self._boxes = BoxCheck()
        self._beyond: list[Any] = []

    def add(self, ids: Sequence[Any], annotations: Sequence[dict[str, Any]]) -> None:
        """Check annotations and add those that can be used to their records.

        Args:
            ids: checked, one per annotation.
            annotations: entries of the file, with "image_id" and "category_id".
        """
        ids, annotations, owners, labels, crowds = self._referred(ids, annotations)
        sizes = [(record["height"], record["width"]) for record in owners]
        masks = check_segmentations([x.get("segmentation") for x in annotations], sizes)
        boxes, fit = self._boxes.add([x.get("bbox") for x in annotations], masks, sizes)
        areas, measured = numbers([x.get("area") for x in annotations])
        measured &= areas > 0
        incomplete = set(np.flatnonzero(~(fit & measured)).tolist()) | masks.changed
        areas, has_area = areas.tolist(), measured.tolist()
        counted = []
        self._suspect(ids, owners, masks, sizes)
        for i, entry in enumerate(annotations):
            made: dict[str, Any] = {
                "bbox": boxes[i],
                "bbox_mode": BoxMode.XYWH_ABS,
                "category_id": labels[i],
                "segmentation": masks.kept[i],
                "iscrowd": crowds[i],
            }
            if has_area[i]:
                made["area"] = areas[i]  # COCO's sizes of objects go by it
            problem = masks.problems.get(i)
            if problem is None and "alpha" in entry:
                problem = _add_alpha(made, entry["alpha"], self.path, sizes[i])
            if problem is not None:
                self.findings.drop(ids[i], problem)
                continue
            owners[i]["annotations"].append(made)
            if not crowds[i]:
                counted.append(labels[i])
            # COCO's own code needs these keys, and takes the id 0 for "no match".
            if i in incomplete or not ids[i] or type(entry.get("iscrowd")) is not int:
                self.findings.complete(ids[i])
        self.objects += np.bincount(counted, minlength=len(self.objects))

    def finish(self) -> None:
        """Correct boxes that are no boxes of their masks, and note what is to be said of all."""
        note = self._boxes.finish(self.records.values())
        if note:
            self.findings.notes.append(note)
        if self._beyond:
            count = count_of(len(self._beyond), "annotation")
            reach = "reaches" if len(self._beyond) == 1 else "reach"
            self.findings.notes.append(
                f"{count} {reach} far out of the image; what lies outside counts as cut off "
                f"({listed(self._beyond)})"
            )

    def _referred(
        self, ids: Sequence[Any], annotations: Sequence[dict[str, Any]]
    ) -> tuple[Any, ...]:
        """Ids, annotations, records, labels and crowd flags, without those that lack one."""
        owners = self._find(annotations, "image_id", self.records, self._image_ids)
        labels = self._find(annotations, "category_id", self.labels, self._category_ids)
        crowds = _crowds(annotations)
        columns = [ids, annotations, owners, labels, crowds]
        if None in owners or None in labels or None in crowds:
            usable = []
            for i, entry in enumerate(annotations):
                problem = self._unreferred(entry, owners[i], labels[i], crowds[i])
                if problem is None:
                    usable.append(i)
                else:
                    self.findings.drop(ids[i], problem)
            columns = [[column[i] for i in usable] for column in columns]
        return tuple(columns)

    def _find(
        self,
        annotations: Sequence[dict[str, Any]],
        key: str,
        table: Mapping[Any, Any],
        ids: Ids,
    ) -> list[Any]:
        """What annotations refer to by `key`, None where there is no such thing."""
        values = [entry[key] for entry in annotations]
        if set(map(type, values)) == {int}:
            found = list(map(table.get, values))
            if None not in found:
                return found
        meant = list(map(ids.find, values))
        self.findings.standard &= meant == values
        return list(map(table.get, meant))

    def _unreferred(
        self, entry: dict[str, Any], owner: Any, label: Any, crowd: Any
    ) -> Problem | None:
        if owner is None:
            text = f"it belongs to the image {shown(entry['image_id'])}, not listed"
            return Problem(Reason.IMAGE, text)
        if label is None:
            text = (
                f"it has the category id {shown(entry['category_id'])}, which is not among the "
                f"file's categories {shown(list(self.labels))}"
            )
            return Problem(Reason.CATEGORY, text)
        if crowd is None:
            text = f"its 'iscrowd' is {shown(entry['iscrowd'])}; expected 0 or 1"
            return Problem(Reason.CROWD, text)
        return None

    def _suspect(
        self,
        ids: Sequence[Any],
        owners: Sequence[dict[str, Any]],
        masks: Segmentations,
        sizes: Sequence[_Size],
    ) -> None:
        """Note objects that reach out of their image, or belong to one of another size."""
        size = np.array(sizes, np.float64).reshape(-1, 2)[:, ::-1]
        margin = 2 + _BEYOND * size
        low, high = masks.extents[:, :2], masks.extents[:, 2:]
        beyond = ((low < -margin) | (high > size + margin)).any(1)
        for i in np.flatnonzero(beyond).tolist():
            self.suspicious[owners[i]["image_id"]] = None
            if i not in masks.problems:
                self._beyond.append(ids[i])
        for i, problem in masks.problems.items():
            if problem.reason in (Reason.SIZE, Reason.OUTSIDE):
                self.suspicious[owners[i]["image_id"]] = None


def _crowds(annotations: Sequence[dict[str, Any]]) -> list[int | None]:
    """Crowd flags; None where there is another value."""
    values = [entry.get("iscrowd") for entry in annotations]
    if not set(map(type, values)) <= {int, float, bool, str, type(None)}:
        hashable = (int, float, str, type(None))
        values = [value if isinstance(value, hashable) else "?" for value in values]
    return list(map(_CROWD.get, values))


def _add_alpha(made: dict[str, Any], alpha: Any, path: Path, size: _Size) -> Problem | None:
    try:
        made["alpha"] = resolve_alpha(alpha, path, size)
    except ValueError as error:
        return Problem(Reason.ALPHA, str(error))
    return None
