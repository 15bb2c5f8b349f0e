"""Post-processing of a whole batch in tensor operations of constant shape (paper §3.3.3, §3.3.4).

It finds what `postprocessing` finds, wherever there are at most K candidates, and asks the device
for nothing on the way: a GPU is never waited for, and the graph can be recorded or exported.

Shapes: N images, T cells in all, C classes, K candidates and M instances (both constant), (h, w)
the canvas at `MASK_STRIDE`.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NamedTuple, TypeAlias

import torch
from torch import Tensor

from ..layers import budgets, exporting
from ..layers.nms import DECAYS, higher_overlaps
from .heads import SOLOHead, take_cells
from .postprocessing import InferenceSettings, category_scores
from .structures import SOLOPredictions


class FixedInstances(NamedTuple):
    """Instances of a batch, by descending score; a slot of score 0 is empty.

    Attributes:
        scores: (N, M) float32.
        labels: classes (N, M), int64.
        masks: soft masks (N, M, h, w) float32 in [0, 1].
        num_candidates: (cell, class) pairs of every image (N,) whose score exceeds the threshold;
            where there are more than K, worse ones have not been looked at.
        cells: flat cell indices (N, M), int64.
    """

    scores: Tensor
    labels: Tensor
    masks: Tensor
    num_candidates: Tensor
    cells: Tensor


class _Slots(NamedTuple):
    """The K best (cell, class) pairs of every image, each (N, K); a score of 0 is no candidate."""

    scores: Tensor
    labels: Tensor
    cells: Tensor


_Found: TypeAlias = tuple[Tensor, Tensor, Tensor, Tensor]
"""Scores, labels, masks and cells of some images, as of `FixedInstances`."""


def decay_of(nms: Callable[..., Tensor]) -> Callable[[Tensor], Tensor] | None:
    """Return what gives the factors of an NMS of `build_nms`; None if it takes one mask at a time.

    Example:
        >>> from solo_d2.modeling.postprocessing import build_nms
        >>> values = {"kernel": "gaussian", "sigma": 0.5, "threshold": 0.5}
        >>> [decay_of(build_nms(name, **values)) is None for name in ("matrix", "fast", "hard")]
        [False, False, True]
    """
    if not isinstance(nms, partial) or nms.func not in DECAYS:
        return None
    return partial(DECAYS[nms.func], **nms.keywords)


def postprocess_fixed(
    head: SOLOHead,
    predictions: SOLOPredictions,
    size: tuple[int, int],
    settings: InferenceSettings,
    *,
    max_candidates: int | None = None,
) -> FixedInstances:
    """Turn the raw output of a head into instances of every image.

    Equal to the exact visit of `postprocessing.select_candidates` wherever `num_candidates` is at
    most K; beyond, the K best category scores compete. Call it without gradients and, as counting
    pixels needs float32, outside of autocast.

    Args:
        head: that made `predictions`.
        predictions: of a batch of N images.
        size: (h, w).
        settings: thresholds and limits.
        max_candidates: K; `settings.pre_nms_topk` if not given. There are no more than T · C.

    Returns:
        Instances of the batch, M = min(K, `settings.max_instances`).

    Raises:
        ValueError: the NMS takes one mask after the other, or K is not positive.
    """
    if decay_of(settings.nms) is None:
        raise ValueError(
            'a post-processing of fixed size needs MODEL.SOLO.NMS_TYPE "matrix" or "fast"; others '
            "take one mask after the other"
        )
    limit = settings.pre_nms_topk if max_candidates is None else max_candidates
    if limit < 1:
        raise ValueError(f"max_candidates must be at least 1, got {limit}")
    scores = category_scores(predictions.category_logits)
    num_candidates = (scores > settings.score_thresh).sum((1, 2))
    slots = _best_slots(scores, limit, settings.score_thresh)
    # Memory is bounded by groups of images; a graph to be exported knows no number of images.
    length = max(1, budgets.FIXED_PIXELS // (slots.cells.shape[1] * size[0] * size[1]))
    count = 1 if exporting() else len(scores)
    groups = (
        [slice(0, None)]
        if count <= length
        else [slice(start, start + length) for start in range(0, count, length)]
    )
    parts = [_instances(head, predictions, images, slots, size, settings) for images in groups]
    return _join(parts, num_candidates)


def _join(parts: list[_Found], num_candidates: Tensor) -> FixedInstances:
    found = parts[0] if len(parts) == 1 else map(torch.cat, zip(*parts, strict=True))
    scores, labels, masks, cells = found
    return FixedInstances(scores, labels, masks, num_candidates, cells)


def _instances(
    head: SOLOHead,
    predictions: SOLOPredictions,
    images: slice,
    slots: _Slots,
    size: tuple[int, int],
    settings: InferenceSettings,
) -> _Found:
    """Scores, labels, soft masks and cells of some images of the batch."""
    slots = _Slots(*(x[images] for x in slots))
    probs = head.all_mask_probs(predictions, images, slots.cells, size)
    masks = probs > settings.mask_thresh
    slots = _weigh_by_masks(slots, probs, masks, head.cell_strides[slots.cells], settings)
    decay = decay_of(settings.nms)
    assert decay is not None  # checked above
    scores = slots.scores * decay(higher_overlaps(masks, slots.labels, slots.scores))
    scores, kept = scores.topk(min(settings.max_instances, scores.shape[1]), dim=1)
    reported = settings.reported(scores)
    scores = torch.where(scores >= settings.final_score_thresh, reported, 0.0)
    probs = take_cells(probs, kept)
    return scores, slots.labels.gather(1, kept), probs, slots.cells.gather(1, kept)


def _best_slots(scores: Tensor, limit: int, threshold: float) -> _Slots:
    """The `limit` best pairs by category score (N, T, C)."""
    num_classes = scores.shape[2]
    flat = scores.flatten(1)
    best, index = flat.topk(min(limit, flat.shape[1]), dim=1)
    best = torch.where(best > threshold, best, 0.0)
    return _Slots(best, index % num_classes, index // num_classes)


def _weigh_by_masks(
    slots: _Slots, probs: Tensor, masks: Tensor, strides: Tensor, settings: InferenceSettings
) -> _Slots:
    """Multiply by maskness; 0 for masks too small for their level, and below the best of NMS."""
    # Whole numbers up to 2**24 are exact; runtimes on a CPU count in int64 many times as slowly.
    areas = masks.sum((2, 3), dtype=torch.float32)
    foreground = (probs * masks).sum((2, 3))
    maskness = foreground / areas.clamp(min=1)
    scores = slots.scores * (maskness * (areas > strides))
    if settings.pre_nms_topk < scores.shape[1]:
        kept, order = scores.topk(settings.pre_nms_topk, dim=1)
        scores = torch.zeros_like(scores).scatter(1, order, kept)
    return slots._replace(scores=scores)
