"""COCO's AP of results that come file by file, exact, in memory that does not hold them.

AP needs of a detection its score and whether it was matched; masks are needed within their image
alone. So results are matched file by file, and 24 bytes of a detection stay.
"""

from __future__ import annotations

import dataclasses
import logging
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ..io.paths import printable
from .result_files import read_entries
from .scoring import (
    METRICS,
    TASKS,
    Scorer,
    figures_by_class,
    figures_of,
    hotcoco,
    images_over,
    warn_of_limit,
)
from .truth import Truth

__all__ = ["StreamedScorer"]

_logger = logging.getLogger(__name__)

_FAR = 1e5**2
AREAS = ((0, _FAR), (0, 32**2), (32**2, 96**2), (96**2, _FAR))
"""COCO's area ranges, both ends inclusive."""

THRESHOLDS = 10
RECALLS = np.linspace(0.0, 1.0, 101)

Entry = dict[str, Any]


class Detections(NamedTuple):
    """What is kept of D detections of a class.

    Attributes:
        scores: float64 (D,).
        images: numbers, int32 (D,).
        flags: whether matched at each IoU, then whether ignored, uint8 (areas, 3, D) of bits.
    """

    scores: np.ndarray
    images: np.ndarray
    flags: np.ndarray


class StreamedScorer:
    """Scores files of results one after the other, as if they were one.

    Args:
        truth: of a dataset with annotations.
        limit: instances per image and class that count.
        fast: match with hotcoco; by default, if it is installed.

    Raises:
        ValueError: the dataset has no annotations.
    """

    def __init__(self, truth: Truth, limit: int = 100, *, fast: bool | None = None) -> None:
        if not truth.annotated:
            raise ValueError(
                f"the dataset {truth.dataset_name} has no annotations: there is nothing to score"
            )
        self._truth, self._limit = truth, limit
        self._fast = hotcoco is not None if fast is None else fast
        self._annotations: dict[int, list[Entry]] = defaultdict(list)
        for x in truth.content["annotations"]:
            self._annotations[x["image_id"]].append(x)
        self._file_of: dict[int, int] = {}
        self._files: list[Path] = []
        self._cut = 0  # images of which not all instances count
        self._kept: dict[str, dict[int, list[Detections]]] = {
            task: defaultdict(list) for task in TASKS
        }

    def add(self, path: Path) -> int:
        """Match the results of one file; returns how many there are.

        Raises:
            ValueError: it cannot be read, or has results of an image of another file.
        """
        entries = read_entries(path, self._truth)
        bare = next((k for k, x in enumerate(entries) if "bbox" not in x), None)
        if bare is not None:
            raise ValueError(f"{printable(path)}, entry {bare}: a result needs a bbox (XYWH)")
        numbers = sorted({x["image_id"] for x in entries})
        for number in numbers:
            if number in self._file_of:
                other = self._files[self._file_of[number]]
                ids = {n: image_id for image_id, n in self._truth.numbers.items()}
                raise ValueError(
                    f"{printable(path)}: has results of image {ids[number]!r}, and so has "
                    f"{printable(other)}; all results of an image must stand in one file"
                )
            self._file_of[number] = len(self._files)
        self._files.append(path)
        pairs = ((x["image_id"], x["category_id"]) for x in entries)
        self._cut += images_over(self._limit, pairs)
        if entries:
            scorer = Scorer(self._part(numbers), self._limit, fast=self._fast)
            for task in TASKS:
                for category, found in _pack(scorer.matches(_only(entries, task), task)):
                    self._kept[task][category].append(found)
        return len(entries)

    @property
    def images(self) -> int:
        """Number of images that have results."""
        return len(self._file_of)

    def _part(self, numbers: Iterable[int]) -> Truth:
        """The truth of some images."""
        annotations = [x for number in numbers for x in self._annotations.get(number, ())]
        images = [self._truth.content["images"][number - 1] for number in numbers]
        content = {**self._truth.content, "images": images, "annotations": annotations}
        return dataclasses.replace(self._truth, content=content)

    def precision(self, task: str) -> np.ndarray:
        """Return what `Scorer.precision` would return of all results together.

        Args:
            task: one of `TASKS`.
        """
        positives = self._positives()
        precision = np.full((THRESHOLDS, len(RECALLS), *positives.shape, 1), -1.0)
        for k, counts in enumerate(positives):
            parts = self._kept[task].get(k + 1, [])
            found = _joined(parts) if parts else None
            for area, count in enumerate(counts.tolist()):
                if count:
                    precision[:, :, k, area, 0] = _curves(found, area, count)
        return precision

    def _positives(self) -> np.ndarray:
        """Number of objects that can be found, by class and area (K, 4)."""
        annotations = self._truth.content["annotations"]
        objects = [x for x in annotations if not x["iscrowd"]]
        labels = np.array([x["category_id"] for x in objects], np.int64) - 1
        areas = np.array([x["area"] for x in objects], np.float64)
        count = len(self._truth.content["categories"])
        inside = [(areas >= low) & (areas <= high) for low, high in AREAS]
        return np.stack([np.bincount(labels[x], minlength=count) for x in inside], axis=1)

    def results(self) -> dict[str, dict[str, float]]:
        """Return metrics in percent, and warn, as `COCOInstanceEvaluator.evaluate` does."""
        warn_of_limit(self._truth.dataset_name, self._limit, self._cut)
        if not any(self._kept["segm"].values()):
            return {task: dict.fromkeys(METRICS, float("nan")) for task in TASKS}
        metrics = {}
        for task in TASKS:
            precision = self.precision(task)
            by_class = figures_by_class(precision, self._truth)
            more = {f"AP-{name}": value for name, value in by_class.items()}
            metrics[task] = {**figures_of(precision), **more}
        return metrics


def _joined(parts: list[Detections]) -> Detections:
    return Detections(*(np.concatenate(x, axis=-1) for x in zip(*parts, strict=True)))


def _only(entries: list[Entry], task: str) -> list[Entry]:
    """Entries with masks or boxes alone, see `entries_of`."""
    key = "bbox" if task == "bbox" else "segmentation"
    return [{k: x[k] for k in ("image_id", "category_id", "score", key)} for x in entries]


def _pack(images: Iterable[Entry | None]) -> Iterable[tuple[int, Detections]]:
    """What is kept of matches, by category."""
    groups: dict[int, list[list[Entry]]] = {}
    area_of = {area: k for k, area in enumerate(AREAS)}
    for x in images:
        if x is not None and len(x["dtScores"]):
            group = groups.setdefault(x["category_id"], [[] for _ in AREAS])
            group[area_of[tuple(x["aRng"])]].append(x)
    for category, by_area in groups.items():
        for found in by_area:
            found.sort(key=lambda x: x["image_id"])
        first = by_area[0]
        counts = [len(x["dtScores"]) for x in first]
        flags = [
            np.concatenate(
                [np.concatenate([np.asarray(x[key]) != 0 for x in found], axis=1)
                 for key in ("dtMatches", "dtIgnore")]
            )
            for found in by_area
        ]  # fmt: skip
        yield (
            category,
            Detections(
                scores=np.concatenate([np.asarray(x["dtScores"], np.float64) for x in first]),
                images=np.repeat(np.array([x["image_id"] for x in first], np.int32), counts),
                flags=np.packbits(np.stack(flags), axis=1),
            ),
        )


def _curves(found: Detections | None, area: int, positives: int) -> np.ndarray:
    """Precision at every recall, (THRESHOLDS, RECALLS), by the arithmetic of COCO's own code."""
    curves = np.zeros((THRESHOLDS, len(RECALLS)))
    if found is None:
        return curves
    # Images in order, and in them the order of the matcher: that of a stable sort of all.
    order = np.lexsort((found.images, -found.scores))
    bits = np.unpackbits(found.flags[area][:, order], axis=0, count=2 * THRESHOLDS).astype(bool)
    matched, counted = bits[:THRESHOLDS], ~bits[THRESHOLDS:]
    for t in range(THRESHOLDS):
        true = np.cumsum(matched[t] & counted[t]).astype(float)
        false = np.cumsum(~matched[t] & counted[t]).astype(float)
        precision = true / (false + true + np.spacing(1))
        precision = np.maximum.accumulate(precision[::-1])[::-1]
        places = np.searchsorted(true / positives, RECALLS, side="left")
        reached = places < len(precision)
        curves[t, reached] = precision[places[reached]]
    return curves
