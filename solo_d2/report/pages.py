"""The page of a report."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from ..evaluation.calibration import TEMPERATURES
from ..evaluation.scoring import METRICS
from ..io.charts import line_chart
from ..io.page import Page, beside, code, matrix, paragraph, table
from ..io.paths import printable
from .measure import Measures
from .overlays import draw_image
from .runs import Dataset

__all__ = ["make_page"]

WORST = 50
"""Images that are shown of one run."""
DIFFERENT = 25
"""Images that are shown of two."""
CONFUSED = 20
"""Pairs of classes that are listed."""

TASKS = {"segm": "masks", "boundary": "boundaries of masks", "bbox": "boxes of masks"}


def make_page(dataset: Dataset, runs: Sequence[Measures], temperature: float) -> Page:
    """Make the page of one run, or of two side by side.

    Args:
        dataset: that was evaluated.
        runs: the run, and the one that it is compared with.
        temperature: `MODEL.SOLO.SCORE_TEMPERATURE` of the run.
    """
    run = runs[0]
    count = len(dataset.truth.content["annotations"])
    page = Page(
        f"Evaluation on {dataset.truth.dataset_name}",
        f"{len(dataset.ids)} images, {count} annotations, {len(run.matches.entries)} detections",
    )
    page.section("Figures", *_figures(runs))
    page.section("Where AP is lost", beside(*_losses(run)))
    page.section("Missed objects", *_missed(runs))
    page.section("Precision and recall", beside(*_curves(runs)))
    page.section("Scores", *_calibration(run, temperature))
    page.section("Classes", *_classes(runs))
    page.section("Classes taken for others", *_confusion(dataset, run))
    if len(runs) > 1:
        page.section("Where the runs differ", *_different(dataset, runs))
    page.section("Worst images", *_worst(dataset, run))
    page.section("Suspect annotations", *_suspects(run))
    return page


def _figures(runs: Sequence[Measures]) -> Iterator[str]:
    rows = [
        [TASKS[task], run.title, *(run.figures[task][name] for name in METRICS)]
        for task in TASKS
        for run in runs
        if task in run.figures
    ]
    if len(runs) == 1:
        rows = [[row[0], *row[2:]] for row in rows]
    headers = ["AP of", *(["run"] if len(runs) > 1 else []), *METRICS]
    yield table(headers, rows, caption="by COCO's rules, in percent")
    for run in runs if len(runs) > 1 else ():
        yield paragraph(f"{run.title}: {printable(run.file)}")


def _losses(run: Measures) -> Iterator[str]:
    found = run.diagnosis
    yield table(
        ["perfect", "AP", "AP50", "AP75"],
        [[name, *values] for name, values in found.perfect.items()],
        caption="AP with one thing made perfect",
    )
    yield table(
        ["error", "AP50", "number"],
        [[name, *values] for name, values in found.errors.items()],
        caption="errors at IoU 0.5 (TIDE), and the AP50 that each costs",
    )
    yield table(
        ["size", "IoU 0.5", "IoU 0.75"],
        [[name, *values] for name, values in found.recall.items()],
        caption="objects with any detection of that IoU, in percent",
    )


def _missed(runs: Sequence[Measures]) -> Iterator[str]:
    for run in runs:
        if not run.matches.counted.any():
            yield paragraph(f"{run.title}: no detection counts, as all of them lie on crowds.")
        total = sum(row["all"] for row in run.missed.values())
        yield paragraph(
            f"{run.title}: {total} of {len(run.matches.objects)} objects have no true detection "
            f"with a score of at least {run.threshold:.2f}, from which on F1 is highest."
        )
    run = runs[0]
    sizes = list(next(iter(run.missed.values())))
    rows = [[reason, *(row[size] for size in sizes)] for reason, row in run.missed.items()]
    yield table(["reason", *sizes], rows, caption=f"{run.title}, first reason that holds")


def _curves(runs: Sequence[Measures]) -> Iterator[str]:
    yield line_chart(runs[0].curves, "recall", "precision, mean over classes")
    if len(runs) > 1:
        name = "mean, 0.5 to 0.95"
        both = {run.title: run.curves[name] for run in runs}
        yield line_chart(both, "recall", f"precision, {name}")


def _calibration(run: Measures, temperature: float) -> Iterator[str]:
    if not run.before.points:
        yield paragraph("No detection counts, so nothing is known of the scores.")
        return
    series = {
        "scores": [(x, y) for x, y, _ in run.before.points],
        "with the temperature": [(x, y) for x, y, _ in run.after.points],
    }
    best = min(max(temperature * run.temperature, TEMPERATURES[0]), TEMPERATURES[1])
    yield beside(
        line_chart(series, "score", "share of true detections, IoU 0.5", diagonal=True),
        table(
            ["", "ECE, in percent"],
            [["scores", 100 * run.before.error], ["with the temperature", 100 * run.after.error]],
            caption="expected calibration error, in ten bins",
        ),
    )
    yield paragraph(
        "With this line in the config a score is the share of true detections among those of its "
        "kind. No order and no AP changes; thresholds on scores mean something else then."
    )
    yield code(f"MODEL:\n  SOLO:\n    SCORE_TEMPERATURE: {best:.3f}")


def _classes(runs: Sequence[Measures]) -> Iterator[str]:
    rows = []
    for name, (count, values) in runs[0].classes.items():
        row = [name, count, *values.values()]
        for other in runs[1:]:
            before = other.classes[name][1]["AP"]
            row += [before, values["AP"] - before]
        rows.append(row)
    more = ["AP, other run", "difference"] if len(runs) > 1 else []
    yield table(["class", "objects", *METRICS, *more], rows, caption="masks, in percent")


def _confusion(dataset: Dataset, run: Measures) -> Iterator[str]:
    if len(dataset.classes) < 2:
        return
    pairs = run.diagnosis.confused[:CONFUSED]
    if pairs:
        yield table(["object", "detection", "number"], pairs, caption="of all detections")
    if run.confusion is not None:
        names = [*dataset.classes, "none"]
        yield paragraph(
            f"Rows are objects, columns detections with a score of at least {run.threshold:.2f}."
        )
        yield matrix(names, names, run.confusion)


def _different(dataset: Dataset, runs: Sequence[Measures]) -> Iterator[str]:
    this, other = runs[0].images, runs[1].images
    gain = {k: this[k].f1 - other[k].f1 for k in this}
    order = sorted((k for k in gain if gain[k]), key=lambda k: (-abs(gain[k]), k))
    better = sum(x > 0 for x in gain.values())
    worse = sum(x < 0 for x in gain.values())
    yield paragraph(
        f"F1 is higher in {better} images and lower in {worse}, {len(gain) - better - worse} are "
        f"equal. The {min(DIFFERENT, len(order))} with the largest difference:"
    )
    for number in order[:DIFFERENT]:
        yield paragraph(f"F1 {other[number].f1:.2f} → {this[number].f1:.2f}")
        yield draw_image(dataset, number, runs)


def _worst(dataset: Dataset, run: Measures) -> Iterator[str]:
    wrong = {k: x for k, x in run.images.items() if x.errors}
    order = sorted(wrong, key=lambda k: (wrong[k].f1, -wrong[k].errors, k))
    if order:
        yield paragraph(
            f"The {min(WORST, len(order))} with the lowest F1 of detections with a score of at "
            f"least {run.threshold:.2f}; left the objects, red where missed, right the detections, "
            "red where false."
        )
    for number in order[:WORST]:
        yield draw_image(dataset, number, [run])


def _suspects(run: Measures) -> Iterator[str]:
    rows = [
        [str(x["image_id"]), x["type"].replace("_", " "), x["dt_category"], x["dt_score"],
         x["gt_category"] or "", x["iou"] or math.nan]
        for x in run.diagnosis.suspects[:CONFUSED]
    ]  # fmt: skip
    if rows:
        yield paragraph("Confident detections that hint at a wrong annotation.")
        headers = ["image", "kind", "detection", "score", "annotation", "IoU"]
        yield table(headers, rows, digits=2)
