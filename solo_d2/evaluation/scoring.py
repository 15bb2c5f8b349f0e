"""Precision by COCO's rules, of the fastest exact implementation that is installed."""

from __future__ import annotations

import contextlib
import io
import logging
from collections import Counter
from collections.abc import Iterable
from typing import Any

import numpy as np
from pycocotools.cocoeval import COCOeval

from .boundary import BoundaryCOCOeval
from .truth import Truth

try:
    import hotcoco as hotcoco
except ImportError:
    hotcoco = None  # type: ignore[assignment]

__all__ = [
    "BOUNDARY",
    "METRICS",
    "TASKS",
    "Scorer",
    "figures_by_class",
    "figures_of",
    "images_over",
    "mean_precision",
    "percent",
    "warn_of_limit",
    "within_limit",
]

_logger = logging.getLogger(__name__)

METRICS = ("AP", "AP50", "AP75", "APs", "APm", "APl")
TASKS = ("segm", "bbox")
BOUNDARY = "boundary"


class Scorer:
    """Scores results against one ground truth.

    Args:
        truth: of a dataset.
        limit: instances per image and class that count.
        fast: use hotcoco for masks and boxes; otherwise, and for boundaries, pycocotools scores.
    """

    def __init__(self, truth: Truth, limit: int, *, fast: bool) -> None:
        self._truth, self._limit, self._fast = truth, limit, fast
        self._index: Any = None  # the truth as hotcoco has it

    def precision(
        self, results: list[dict[str, Any]], task: str, chosen: list[int] | None = None
    ) -> np.ndarray:
        """Return precision by IoU, recall, category, area range, and limit of detections.

        Args:
            results: entries with masks or, for "bbox", boxes alone.
            task: one of `TASKS`, or `BOUNDARY`.
            chosen: numbers of the images that count; by default all.
        """
        scorer = self._evaluated(results, task, chosen)
        with contextlib.redirect_stdout(io.StringIO()):
            scorer.accumulate()
        return np.asarray((scorer.eval or {})["precision"])

    def matches(self, results: list[dict[str, Any]], task: str) -> list[dict[str, Any] | None]:
        """Return pycocotools' ``evalImgs``: what was matched, by category, area and image."""
        found: list[dict[str, Any] | None] = self._evaluated(results, task, None).evalImgs
        return found

    def _evaluated(self, results: list[dict[str, Any]], task: str, chosen: list[int] | None) -> Any:
        """Match results with objects; two packages have the same words in two spellings."""
        scorer: Any
        kind = "bbox" if task == "bbox" else "segm"
        if self._fast and task != BOUNDARY:
            self._index = self._index or hotcoco.COCO(self._truth.content)
            scorer = hotcoco.COCOeval(self._index, self._index.load_res(results), kind)
            scorer.params.max_dets = [self._limit]
            if chosen is not None:
                scorer.params.img_ids = chosen
            scorer.evaluate()
            return scorer
        make = BoundaryCOCOeval if task == BOUNDARY else COCOeval
        with contextlib.redirect_stdout(io.StringIO()):
            index = self._truth.coco()
            scorer = make(index, index.loadRes(results), kind)
            scorer.params.maxDets = [self._limit]
            if chosen is not None:
                scorer.params.imgIds = chosen
            scorer.evaluate()
        return scorer


def figures_of(precision: np.ndarray) -> dict[str, float]:
    """Return `METRICS` in percent, NaN for what no object belongs to.

    Args:
        precision: (10 IoU thresholds from 0.5 on, recalls, categories, 4 area ranges, limits).
    """
    chosen = [precision[:, :, :, 0, -1], precision[0, :, :, 0, -1], precision[5, :, :, 0, -1]]
    chosen += [precision[:, :, :, area, -1] for area in (1, 2, 3)]
    return dict(zip(METRICS, percent(map(mean_precision, chosen)), strict=True))


def figures_by_class(precision: np.ndarray, truth: Truth) -> dict[str, float]:
    """Return AP of every class in percent, if there are several.

    Classes of one name get their id behind it.
    """
    names = truth.classes or []
    if len(names) < 2:
        return {}
    repeated = {name for name, count in Counter(names).items() if count > 1}
    ids = truth.category_ids
    keys = [f"{n} (id {i})" if n in repeated else n for n, i in zip(names, ids, strict=True)]
    values = (mean_precision(precision[:, :, k, 0, -1]) for k in range(len(names)))
    return dict(zip(keys, percent(values), strict=True))


def within_limit(results: list[dict[str, Any]], limit: int) -> list[dict[str, Any]]:
    """Return those that count, in their order: the best `limit` results of an image and class.

    Args:
        results: entries of a COCO results file.
        limit: instances per image and class that count.

    Example:
        >>> results = [{"image_id": 1, "category_id": 1, "score": x} for x in (0.5, 0.9, 0.7)]
        >>> [x["score"] for x in within_limit(results, 2)]
        [0.9, 0.7]
    """
    before: Counter[tuple[Any, Any]] = Counter()
    kept = []
    # Equal scores count in the order of the results, as COCO's own code has it.
    for k in sorted(range(len(results)), key=lambda k: -results[k]["score"]):
        key = (results[k]["image_id"], results[k]["category_id"])
        if before[key] < limit:
            kept.append(k)
        before[key] += 1
    return [results[k] for k in sorted(kept)]


def images_over(limit: int, found: Iterable[tuple[Any, Any]]) -> int:
    """Count the images with more than `limit` instances of one class.

    Args:
        limit: instances per image and class that count.
        found: image and class of every instance.
    """
    return len({image for (image, _), count in Counter(found).items() if count > limit})


def warn_of_limit(name: str, limit: int, images: int) -> None:
    """Say of how many images the best instances of a class are not all that there are.

    Args:
        name: of what was scored.
        limit: instances per image and class that count.
        images: answer of `images_over`.
    """
    if images:
        _logger.warning(
            "%s: %d images have more than %d instances of one class, and the best %d count "
            "(max_dets_per_image, of TEST.DETECTIONS_PER_IMAGE)", name, images, limit, limit,
        )  # fmt: skip


def mean_precision(precision: np.ndarray) -> float:
    """Return the mean over all that is known, -1 where nothing is."""
    known = precision[precision > -1]
    return float(known.mean()) if known.size else -1.0


def percent(values: Iterable[float]) -> list[float]:
    """Return shares in percent, NaN for -1."""
    return [100 * value if value >= 0 else float("nan") for value in values]
