"""All figures of a report, measured of one file of results."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..evaluation.calibration import (
    Calibration,
    apply_temperature,
    calibrate,
    measure_calibration,
)
from ..evaluation.diagnosis import Diagnosis, diagnose, evaluate_masks
from ..evaluation.scoring import BOUNDARY, METRICS, Scorer, figures_of, within_limit
from ..io.json_file import without_nan
from ..io.paths import printable
from .matches import ImageFacts, Matches, best_threshold, match, why_missed
from .runs import Dataset, Entry

__all__ = ["Measures", "measure", "to_json"]

RECALLS = np.linspace(0, 1, 101)
MATRIX = 20
"""Most classes of which the confusion matrix is shown."""


@dataclass(frozen=True)
class Measures:
    """What is known of one run; AP in percent.

    Attributes:
        title: for people.
        file: of the results.
        figures: COCO's figures by "segm", "boundary" and, where results have boxes, "bbox".
        classes: number of objects, and figures of the masks, by class.
        curves: points (recall, precision), mean over the classes, by IoU.
        diagnosis: where AP is lost.
        confusion: numbers of (object's class + none, detection's class + none), at the threshold;
            None of more than `MATRIX` classes.
        matches: of results and objects.
        threshold: score from which on F1 is highest; lower ones are not drawn or counted below.
        images: facts of every image, by its number.
        missed: numbers of missed objects by reason and size.
        before: calibration of the scores.
        after: calibration with the temperature.
        temperature: best value of `MODEL.SOLO.SCORE_TEMPERATURE`, relative to that of the run.
    """

    title: str
    file: Path
    figures: dict[str, dict[str, float]]
    classes: dict[str, tuple[int, dict[str, float]]]
    curves: dict[str, list[tuple[float, float]]]
    diagnosis: Diagnosis
    confusion: np.ndarray | None
    matches: Matches
    threshold: float
    images: dict[int, ImageFacts]
    missed: dict[str, dict[str, int]]
    before: Calibration
    after: Calibration
    temperature: float


def measure(
    dataset: Dataset,
    entries: list[Entry],
    title: str,
    file: Path,
    limit: int,
    unlearnable: Mapping[int, str] | None = None,
) -> Measures:
    """Measure results.

    Args:
        dataset: that was evaluated.
        entries: of `read_results`.
        title: of the run.
        file: of the results.
        limit: instances per image and class that count; others are left out.
        unlearnable: see `why_missed`.

    Raises:
        ValueError: There is no result, or hotcoco is not installed.
    """
    if not entries:
        raise ValueError(
            f"{printable(file)}: has no detections, and a report needs some; lower "
            "MODEL.SOLO.SCORE_THRESH_TEST"
        )
    entries = within_limit(entries, limit)
    masks = [{k: v for k, v in x.items() if k != "bbox"} for x in entries]
    diagnosis = diagnose(dataset.truth.content, masks, dataset.ids)
    figures, precision = _figures(dataset, entries, limit)
    matches = match(dataset, masks)
    threshold = best_threshold(matches)
    scores, true = matches.scores[matches.counted], matches.true[matches.counted]
    temperature = calibrate(scores, true)
    return Measures(
        title=title,
        file=file,
        figures=figures,
        classes=_classes(dataset, precision),
        curves=_curves(precision),
        diagnosis=diagnosis,
        confusion=_confusion(dataset, masks, threshold),
        matches=matches,
        threshold=threshold,
        images=matches.images(dataset, threshold),
        missed=why_missed(dataset, matches, threshold, unlearnable),
        before=measure_calibration(scores, true),
        after=measure_calibration(apply_temperature(scores, temperature), true),
        temperature=temperature,
    )


def _figures(
    dataset: Dataset, entries: list[Entry], limit: int
) -> tuple[dict[str, dict[str, float]], np.ndarray]:
    """Figures by task, and the precision of masks."""
    scorer = Scorer(dataset.truth, limit, fast=True)
    tasks = ["segm", BOUNDARY] + ["bbox"] * all("bbox" in x for x in entries)
    found = {}
    for task in tasks:
        unused = "segmentation" if task == "bbox" else "bbox"
        results = [{k: v for k, v in x.items() if k != unused} for x in entries]
        found[task] = scorer.precision(results, task)
    return {task: figures_of(precision) for task, precision in found.items()}, found["segm"]


def _classes(dataset: Dataset, precision: np.ndarray) -> dict[str, tuple[int, dict[str, float]]]:
    content = dataset.truth.content
    counts = Counter(x["category_id"] for x in content["annotations"] if not x["iscrowd"])
    found = {}
    for k, name in enumerate(dataset.classes):
        text = name if dataset.classes.count(name) == 1 else f"{name} ({k})"
        found[text] = (counts[k + 1], figures_of(precision[:, :, k : k + 1]))
    return found


def _curves(precision: np.ndarray) -> dict[str, list[tuple[float, float]]]:
    plain = precision[..., 0, -1]
    plain = plain[:, :, (plain > -1).all((0, 1))]  # classes with objects
    means = {"IoU 0.5": plain[0], "IoU 0.75": plain[5], "mean, 0.5 to 0.95": plain.mean(0)}
    if not plain.shape[2]:  # nothing but crowds
        return {name: [] for name in means}
    return {
        name: list(zip(RECALLS.tolist(), part.mean(1).tolist(), strict=True))
        for name, part in means.items()
    }


def _confusion(dataset: Dataset, masks: list[Entry], threshold: float) -> np.ndarray | None:
    if len(dataset.classes) > MATRIX:
        return None
    found = evaluate_masks(dataset.truth.content, masks).confusion_matrix(min_score=threshold)
    return np.asarray(found["matrix"]).astype(np.int64)


def to_json(measures: Measures, dataset: Dataset) -> dict[str, Any]:
    """Return the figures for a program, with the images by the dataset's ids; NaN is None."""
    return without_nan(
        {
            "results": str(measures.file.resolve()),
            "dataset": dataset.truth.dataset_name,
            "figures": measures.figures,
            "classes": {k: {"objects": n, **x} for k, (n, x) in measures.classes.items()},
            "perfect": {
                k: dict(zip(METRICS[:3], x, strict=True))
                for k, x in measures.diagnosis.perfect.items()
            },
            "errors": {
                k: {"AP50": x, "number": n} for k, (x, n) in measures.diagnosis.errors.items()
            },
            "missed": measures.missed,
            "threshold": measures.threshold,
            "calibration": {
                "ECE": measures.before.error,
                "temperature": measures.temperature,
                "ECE_with_temperature": measures.after.error,
            },
            "images": [
                {"image_id": dataset.ids[k], "true": x.true, "false": x.false, "missed": x.missed}
                for k, x in measures.images.items()
            ],
        }
    )
