"""Panoptic quality (Kirillov et al. 2019), exactly as panopticapi defines it.

Shapes: (H, W) image, T segments of the ground truth, F found ones, C categories.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..io.panoptic_png import check_ids, check_unique

__all__ = ["PanopticQuality"]


@dataclass
class PanopticQuality:
    """Counts per category, summed over images.

    A found segment and one of the ground truth match if they have the same category and an IoU
    above one half, pixels without ground truth not counted; no segment can match two. Crowds match
    nothing; a segment that lies by more than half on pixels without ground truth, or on the crowd
    of its category, is no mistake.

    Attributes:
        categories: C category ids.
        counts: (4, C): sum of IoUs, true positives, false positives, false negatives.
    """

    categories: Sequence[int]
    counts: np.ndarray = field(init=False)

    def __post_init__(self) -> None:
        self.counts = np.zeros((4, len(self.categories)))
        self._index = {category: i for i, category in enumerate(self.categories)}

    def add(
        self,
        truth: np.ndarray,
        truth_segments: Sequence[dict[str, Any]],
        found: np.ndarray,
        found_segments: Sequence[dict[str, Any]],
        name: str = "image",
    ) -> None:
        """Count one image.

        Args:
            truth: segment ids (H, W); 0 is no segment.
            truth_segments: ``id``, ``category_id`` and optionally ``iscrowd`` of T segments.
            found: segment ids (H, W); 0 is no segment.
            found_segments: ``id`` and ``category_id`` of F segments.
            name: of the image, for messages.

        Raises:
            ValueError: sizes that differ, an id without a segment or of two, an unknown category,
                or a found segment that covers nothing.
        """
        if truth.shape != found.shape:
            raise ValueError(
                f"{name}: the ground truth has the size {truth.shape}, the result {found.shape}"
            )
        common = _intersections(
            truth,
            [segment["id"] for segment in truth_segments],
            found,
            [segment["id"] for segment in found_segments],
            name,
        )
        truth_area, found_area = common.sum(axis=1), common.sum(axis=0)
        if not found_area[1:].all():
            raise ValueError(f"{name}: a found segment covers nothing; leave it out")
        kind = self._kinds(truth_segments, name)
        found_kind = self._kinds(found_segments, name)
        crowd = np.array([bool(segment.get("iscrowd", 0)) for segment in truth_segments], bool)
        # Pixels without ground truth belong to no union.
        union = truth_area[1:, None] + found_area[None, 1:] - common[1:, 1:] - common[:1, 1:]
        iou = common[1:, 1:] / np.maximum(union, 1)
        match = (iou > 0.5) & (kind[:, None] == found_kind[None, :]) & ~crowd[:, None]
        ignored = common[0, 1:].copy()
        crowd_of = {int(kind[row]): row for row in np.flatnonzero(crowd)}
        for column, category in enumerate(found_kind):
            if int(category) in crowd_of:
                ignored[column] += common[crowd_of[int(category)] + 1, column + 1]
        wrong = ~match.any(axis=0) & (ignored / found_area[1:] <= 0.5)
        rows, columns = np.nonzero(match)
        np.add.at(self.counts[0], kind[rows], iou[rows, columns])
        np.add.at(self.counts[1], kind[rows], 1)
        np.add.at(self.counts[2], found_kind[wrong], 1)
        np.add.at(self.counts[3], kind[~match.any(axis=1) & ~crowd], 1)

    def miss(self, truth_segments: Sequence[dict[str, Any]]) -> None:
        """Count the segments of an image without a prediction as missed; see `add`."""
        missed = [x for x in truth_segments if not x.get("iscrowd", 0)]
        np.add.at(self.counts[3], self._kinds(missed, "image"), 1)

    def _kinds(self, segments: Sequence[dict[str, Any]], name: str) -> np.ndarray:
        """Index of every segment's category."""
        unknown = {segment["category_id"] for segment in segments} - self._index.keys()
        if unknown:
            raise ValueError(
                f"{name}: a segment has the category id {unknown.pop()}, expected one of "
                f"{list(self.categories)}"
            )
        return np.array([self._index[segment["category_id"]] for segment in segments], np.int64)

    def per_category(self) -> dict[int, tuple[float, float, float]]:
        """(PQ, SQ, RQ) in [0, 1] of every category that was annotated or found."""
        values = {}
        for category, (iou, right, wrong, missed) in zip(
            self.categories, self.counts.T, strict=True
        ):
            if right + wrong + missed > 0:
                weight = right + 0.5 * wrong + 0.5 * missed
                quality = iou / right if right else 0.0
                values[category] = float(iou / weight), float(quality), float(right / weight)
        return values

    def mean(self, categories: Sequence[int]) -> tuple[float, float, float]:
        """Means of (PQ, SQ, RQ) over those of `categories` that were annotated or found.

        NaN where none was.
        """
        values = self.per_category()
        chosen = [values[category] for category in categories if category in values]
        if not chosen:
            return float("nan"), float("nan"), float("nan")
        means = np.mean(chosen, axis=0)
        return float(means[0]), float(means[1]), float(means[2])


def _intersections(
    truth: np.ndarray,
    truth_ids: Sequence[int],
    found: np.ndarray,
    found_ids: Sequence[int],
    name: str,
) -> np.ndarray:
    """Pixels that segments share, (1 + T, 1 + F); row and column 0 stand for no segment."""
    pair = (truth.astype(np.int64) << 32) | found.astype(np.int64)
    pair = pair.ravel()
    # Images are made of runs of equal ids: sorting these is quicker than sorting pixels.
    starts = np.flatnonzero(np.concatenate([[True], pair[1:] != pair[:-1]]))
    lengths = np.diff(np.append(starts, pair.size))
    pairs, inverse = np.unique(pair[starts], return_inverse=True)
    areas = np.bincount(inverse, lengths, len(pairs)).astype(np.int64)
    common = np.zeros((1 + len(truth_ids), 1 + len(found_ids)), np.int64)
    indices = []
    for ids, shown, what in (
        (truth_ids, pairs >> 32, "ground truth"),
        (found_ids, pairs & 0xFFFFFFFF, "result"),
    ):
        check_unique(ids, f"{name} ({what})")
        check_ids(np.unique(shown), set(ids), f"{name} ({what})")
        place = {0: 0, **{int(number): i for i, number in enumerate(ids, 1)}}
        indices.append([place[int(number)] for number in shown])
    common[indices[0], indices[1]] = areas
    return common
