"""Whether an exported model finds what the PyTorch model finds, judged by instances.

A pixel whose probability is 0.5 but for rounding may fall on either side, and changes the
maskness, and so the score, of its instance a little. So instances are matched by label and IoU,
and pixels may differ only where the probability is that close to the threshold.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

Outputs = Mapping[str, np.ndarray]
"""Outputs of a graph of kind "full" by name, for a batch."""


class Tolerance(NamedTuple):
    """What may differ.

    Attributes:
        score: Between scores of matched instances.
        mask: Between probabilities of a pixel; others than those that lie this close to the
            threshold must not change sides.
        matched: Least share of instances that are matched.
    """

    score: float
    mask: float
    matched: float


TOLERANCES = {
    "f32": Tolerance(score=1e-3, mask=1e-3, matched=1.0),
    "f16": Tolerance(score=0.1, mask=1.0, matched=0.8),
    "bf16": Tolerance(score=0.3, mask=1.0, matched=0.5),
    "int8": Tolerance(score=0.5, mask=1.0, matched=0.3),
}
"""By precision; of all but f32 the check only finds models that are broken: AP says the rest."""

_LEAST_IOU = 0.9


@dataclass(frozen=True)
class Parity:
    """Differences between two models on one image.

    Attributes:
        size: (height, width) of the input.
        instances: That the PyTorch model finds.
        matched: Of these, that the exported model finds as well.
        extra: Instances that only the exported model finds.
        score: Largest difference of scores, over matched instances.
        mask: Largest difference of a pixel's probability, likewise.
        flips: Share of pixels on the other side of the threshold, likewise.
        clear_flips: Pixels among these that were not close to the threshold.
        moved: Largest share of an instance's own pixels that changed sides. They change its
            maskness by as much at most, and the decay of scores by overlaps by three times that.
    """

    size: tuple[int, int]
    instances: int
    matched: int
    extra: int
    score: float
    mask: float
    flips: float
    clear_flips: int
    moved: float

    def __str__(self) -> str:
        """Describe it in a line."""
        return (
            f"{self.size[0]}x{self.size[1]}: {self.matched} of {self.instances} instances, largest "
            f"difference of scores {self.score:.1e}, of masks {self.mask:.1e}, {self.flips:.1e} of "
            "the pixels flipped"
        )

    def problem(self, tolerance: Tolerance) -> str | None:
        """Say what exceeds a tolerance; None if nothing does."""
        total = self.instances + self.extra
        if total and self.matched < tolerance.matched * total:
            return f"{self.matched} of {self.instances} instances are found, {self.extra} others"
        if self.score > tolerance.score + 4 * self.moved:
            return f"scores differ by {self.score:.1e}"
        if self.mask > tolerance.mask:
            return f"masks differ by {self.mask:.1e}"
        return f"{self.clear_flips} pixels change sides" if self.clear_flips else None


@dataclass(frozen=True)
class RawParity:
    """Differences between the raw outputs of two models.

    Attributes:
        size: (height, width) of the input.
        score: Largest difference of category scores that both keep.
        suppressed: Share of the category scores that only one of both keeps: point NMS compares
            neighbours, and those that are equal but for rounding may fall either way.
        tensors: Largest difference of what masks are made of, as a share of the largest value.
    """

    size: tuple[int, int]
    score: float
    suppressed: float
    tensors: float

    def __str__(self) -> str:
        """Describe it in a line."""
        return (
            f"{self.size[0]}x{self.size[1]}: largest difference of scores {self.score:.1e}, of "
            f"tensors {self.tensors:.1e}, {self.suppressed:.1e} of the scores kept by one alone"
        )

    def problem(self, tolerance: Tolerance) -> str | None:
        """Say what exceeds a tolerance; None if nothing does."""
        if not self.score <= tolerance.score:
            return f"scores differ by {self.score:.1e}"
        if not self.tensors <= tolerance.score:
            return f"the tensors that masks are made of differ by {self.tensors:.1e}"
        allowed = max(1e-3, 1 - tolerance.matched)
        return (
            None
            if self.suppressed <= allowed
            else f"{self.suppressed:.1e} of the scores are kept by one alone"
        )


def compare_raw(want: Outputs, got: Outputs, size: tuple[int, int]) -> RawParity:
    """Compare two models' raw outputs for images of a size, see `graph.RawGraph`."""
    ours, theirs = want["category_scores"], got["category_scores"]
    kept = (ours > 0) & (theirs > 0)
    return RawParity(
        size=size,
        score=float(np.abs(ours - theirs)[kept].max(initial=0)),
        suppressed=float(((ours > 0) != (theirs > 0)).mean()),
        tensors=max(
            float(np.abs(want[name] - got[name]).max() / max(np.abs(want[name]).max(), 1e-6))
            for name in want
            if name != "category_scores"
        ),
    )


def compare(
    want: Outputs,
    got: Outputs,
    *,
    size: tuple[int, int],
    mask_thresh: float,
    final_thresh: float,
    tolerance: Tolerance,
) -> Parity:
    """Compare two models' outputs for one image.

    Args:
        want: Of the PyTorch model: ``scores`` (1, N), ``labels`` (1, N), ``masks`` (1, N, h, w).
        got: Of the exported model.
        size: (height, width) of the image.
        mask_thresh: Probability above which a pixel is foreground.
        final_thresh: Score that an instance must reach. Instances that miss or reach it, or the
            last slot, by less than the tolerance are not counted unless they are matched.
        tolerance: What may differ.
    """
    ours, theirs = _filled(want), _filled(got)
    pairs = _match(ours, theirs, mask_thresh)
    score = mask = moved = 0.0
    flipped = pixels = clear = 0
    for i, j in pairs:
        p, q = ours.masks[i], theirs.masks[j]
        score = max(score, float(abs(ours.scores[i] - theirs.scores[j])))
        mask = max(mask, float(np.abs(p - q).max()))
        sides = (p > mask_thresh) != (q > mask_thresh)
        flipped, pixels = flipped + int(sides.sum()), pixels + sides.size
        moved = max(moved, float(sides.sum() / max(1, (p > mask_thresh).sum())))
        clear += int((sides & (np.abs(p - mask_thresh) > tolerance.mask)).sum())
    slots = want["scores"].shape[1]
    lowest = final_thresh
    if slots == len(ours.scores):
        lowest = max(lowest, float(ours.scores.min()))
    lowest += tolerance.score + 4 * moved
    missing = _certain(ours, {i for i, _ in pairs}, lowest)
    return Parity(
        size=size,
        instances=len(pairs) + missing,
        matched=len(pairs),
        extra=_certain(theirs, {j for _, j in pairs}, lowest),
        score=score,
        mask=mask,
        flips=flipped / max(1, pixels),
        clear_flips=clear,
        moved=moved,
    )


class _Found(NamedTuple):
    scores: np.ndarray
    labels: np.ndarray
    masks: np.ndarray


def _filled(outputs: Outputs) -> _Found:
    slots = outputs["scores"][0] > 0
    return _Found(*(outputs[name][0][slots] for name in _Found._fields))


def _match(ours: _Found, theirs: _Found, threshold: float) -> Sequence[tuple[int, int]]:
    """Pairs of the same label, with the closest masks first, each instance once."""
    if not len(ours.scores) or not len(theirs.scores):
        return []
    a, b = (
        (x.masks > threshold).reshape(len(x.masks), -1).astype(np.float32) for x in (ours, theirs)
    )
    shared = a @ b.T
    iou = shared / np.maximum(a.sum(1)[:, None] + b.sum(1)[None] - shared, 1)
    # Masks that several cells share differ in score alone.
    closeness = iou - 0.01 * np.abs(ours.scores[:, None] - theirs.scores[None])
    closeness[(ours.labels[:, None] != theirs.labels[None]) | (iou < _LEAST_IOU)] = -1
    pairs: list[tuple[int, int]] = []
    for index in np.argsort(-closeness, axis=None, kind="stable"):
        i, j = divmod(int(index), len(theirs.scores))
        if closeness[i, j] < 0:
            break
        if all(i != x and j != y for x, y in pairs):
            pairs.append((i, j))
    return pairs


def _certain(found: _Found, paired: set[int], lowest: float) -> int:
    """Instances without a partner that lie above every limit for certain."""
    return sum(i not in paired and score > lowest for i, score in enumerate(found.scores.tolist()))
