"""Which detections are true, which objects are missed, and why; all at an IoU of 0.5."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..evaluation.diagnosis import SIZES, ImageIoU, evaluate_masks, image_ious
from .runs import Dataset, Entry

__all__ = ["REASONS", "ImageFacts", "Matches", "best_threshold", "match", "why_missed"]

IOU = 0.5
NEAR = 0.1
"""IoU from which a detection is taken for an attempt at an object, as in TIDE."""

REASONS = ("low score", "bad mask", "other class", "not found")
"""Why an object is missed, the first that holds: a true detection below the threshold; one of its
class with too different a mask; a good mask of another class; nothing of the kind."""


@dataclass(frozen=True)
class ImageFacts:
    """What is right and wrong in an image.

    Attributes:
        true: number of true detections.
        false: number of false ones.
        missed: number of objects without one.
    """

    true: int
    false: int
    missed: int

    @property
    def f1(self) -> float:
        """Harmonic mean of precision and recall, 1 where there is neither object nor detection."""
        total = 2 * self.true + self.false + self.missed
        return 2 * self.true / total if total else 1.0

    @property
    def errors(self) -> int:
        """Number of false detections and missed objects."""
        return self.false + self.missed


@dataclass(frozen=True)
class Matches:
    """Results beside the objects that they are matched with, by COCO's rules.

    Attributes:
        entries: the N results.
        numbers: of their images (N,).
        scores: their scores (N,).
        true: which of them are matched (N,).
        counted: which of them count (N,); others lie on crowds.
        objects: annotations without crowds, by id.
        finder: index of the result that matches an object, by annotation id.
    """

    entries: list[Entry]
    numbers: np.ndarray
    scores: np.ndarray
    true: np.ndarray
    counted: np.ndarray
    objects: dict[int, Entry]
    finder: dict[int, int]

    def images(self, dataset: Dataset, threshold: float) -> dict[int, ImageFacts]:
        """Return the facts of every image, by its number, of results with a score of at least."""
        length = len(dataset.ids) + 1
        shown = self.counted & (self.scores >= threshold)
        true, false = (
            np.bincount(self.numbers[shown & kind], minlength=length)
            for kind in (self.true, ~self.true)
        )
        objects = np.bincount([x["image_id"] for x in self.objects.values()], minlength=length)
        facts = zip(true.tolist(), false.tolist(), (objects - true).tolist(), strict=True)
        return {k: ImageFacts(*x) for k, x in enumerate(facts) if k}

    def is_found(self, annotation: int, threshold: float) -> bool:
        """Return whether a true detection of an object has a score of at least `threshold`."""
        return annotation in self.finder and self.scores[self.finder[annotation]] >= threshold


def match(dataset: Dataset, entries: list[Entry]) -> Matches:
    """Match results with objects; all of them are taken, see `within_limit`."""
    content = dataset.truth.content
    facts = evaluate_masks(content, _masks_alone(entries)).image_diagnostics(iou_thr=IOU)
    true, counted = np.zeros(len(entries), bool), np.zeros(len(entries), bool)
    for number, status in facts["dt_status"].items():  # numbers of results begin at 1
        counted[number - 1], true[number - 1] = True, status == "tp"
    return Matches(
        entries=entries,
        numbers=np.array([x["image_id"] for x in entries], np.int64),
        scores=np.array([x["score"] for x in entries]),
        true=true,
        counted=counted,
        objects={x["id"]: x for x in content["annotations"] if not x["iscrowd"]},
        finder={x: number - 1 for number, x in facts["dt_match"].items() if true[number - 1]},
    )


def _masks_alone(entries: list[Entry]) -> list[Entry]:
    """Scorers would take the area of a box beside a mask for the mask's."""
    return [{k: v for k, v in x.items() if k != "bbox"} for x in entries]


def best_threshold(matches: Matches) -> float:
    """Return the score from which on the detections of all images have the highest F1.

    Where none counts it is 0: all are shown.
    """
    scores, true = matches.scores[matches.counted], matches.true[matches.counted]
    if not len(scores):
        return 0.0
    order = np.argsort(-scores, kind="stable")
    scores, found = scores[order], np.cumsum(true[order])
    f1 = 2 * found / (np.arange(1, len(scores) + 1) + len(matches.objects))
    last = np.append(scores[1:] != scores[:-1], True)  # equal scores are shown together
    f1[~last] = -1
    return float(scores[f1.argmax()])


def why_missed(
    dataset: Dataset,
    matches: Matches,
    threshold: float,
    unlearnable: Mapping[int, str] | None = None,
) -> dict[str, dict[str, int]]:
    """Count the missed objects by reason and size.

    Args:
        dataset: that was evaluated.
        matches: of the results.
        threshold: score from which on a detection counts.
        unlearnable: by annotation id, why training could learn nothing of an object; comes first.

    Returns:
        Numbers by reason, and by size and "all".
    """
    known = unlearnable or {}
    reasons = [*dict.fromkeys(known.values()), *REASONS]
    table = {reason: dict.fromkeys(("all", *SIZES), 0) for reason in reasons}
    for image in image_ious(dataset.truth.content, matches.entries):
        for x, ious in zip(image.objects, image.ious.T, strict=True):
            if not matches.is_found(x["id"], threshold):
                row = table[known.get(x["id"]) or _reason(image, x, ious, matches)]
                row["all"] += 1
                row[_size_of(x["area"])] += 1
    return table


def _reason(image: ImageIoU, x: Entry, ious: np.ndarray, matches: Matches) -> str:
    if x["id"] in matches.finder:
        return "low score"
    same = np.array([y["category_id"] == x["category_id"] for y in image.found], bool)
    if (ious[same] >= NEAR).any():
        return "bad mask"
    return "other class" if (ious >= IOU).any() else "not found"


def _size_of(area: Any) -> str:
    return next(name for name, (low, high) in SIZES.items() if low <= area < high)
