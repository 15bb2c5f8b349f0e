"""From raw predictions to instances (paper §3.3.3 and §3.3.4), one function per step.

Legend: T cells in all, C classes, K candidates or instances, (H, W) the canvas in input pixels,
(h, w) the canvas at stride 4. No tensor ever holds the masks of all candidates.
"""

from __future__ import annotations

import logging
from bisect import bisect_left
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from detectron2.structures import Boxes, Instances
from detectron2.utils.logger import log_first_n
from torch import Tensor

from ..layers import (
    binarize,
    fast_nms,
    hard_nms,
    mask_occupancy,
    matrix_nms,
    point_nms,
    profiles_to_boxes,
    soft_nms,
)
from .grid import GridSpec

MASK_STRIDE = 4
"""Masks are selected and suppressed at a quarter of the input's resolution."""

NMS_TYPES = ("matrix", "fast", "soft", "hard")

CellMasks = Callable[[Tensor], Tensor]
"""Soft masks (K, h, w) of cells (K,) of one image, at `MASK_STRIDE`."""


def build_nms(name: str, *, kernel: str, sigma: float, threshold: float) -> Callable[..., Tensor]:
    """Choose the mask NMS: a function of masks, labels and scores that returns new scores.

    Args:
        name: one of `NMS_TYPES`.
        kernel: of Matrix NMS.
        sigma: of Matrix NMS and Soft-NMS.
        threshold: IoU above which Fast and Hard NMS remove.

    Raises:
        ValueError: unknown name, kernel, or a value out of range.
    """
    if name not in NMS_TYPES:
        raise ValueError(f"MODEL.SOLO.NMS_TYPE must be one of {NMS_TYPES}, got {name!r}")
    if not 0 <= threshold <= 1:
        raise ValueError(f"MODEL.SOLO.NMS_THRESH_TEST must lie in [0, 1], got {threshold}")
    nms = {
        "matrix": partial(matrix_nms, kernel=kernel, sigma=sigma),
        "fast": partial(fast_nms, threshold=threshold),
        "soft": partial(soft_nms, sigma=sigma),
        "hard": partial(hard_nms, threshold=threshold),
    }[name]
    # On no masks at all, so that a bad kernel or sigma is known before the first image.
    nothing = torch.zeros(0)
    nms(torch.zeros((0, 1, 1), dtype=torch.bool), nothing.long(), nothing)
    return nms


@dataclass(frozen=True)
class InferenceSettings:
    """Thresholds and limits of the test path.

    Attributes:
        score_thresh: category score that a (cell, class) pair must exceed to be a candidate.
        mask_thresh: probability above which a pixel is foreground.
        pre_nms_topk: candidates that enter NMS, by score x maskness.
        nms: of `build_nms`.
        final_score_thresh: score after NMS that an instance must reach.
        max_instances: instances per image.
    """

    score_thresh: float
    mask_thresh: float
    pre_nms_topk: int
    nms: Callable[..., Tensor]
    final_score_thresh: float
    max_instances: int

    def __post_init__(self) -> None:
        for key, value in (
            ("SCORE_THRESH_TEST", self.score_thresh),
            ("MASK_THRESH_TEST", self.mask_thresh),
            ("FINAL_SCORE_THRESH_TEST", self.final_score_thresh),
        ):
            if not 0 <= value < 1:
                raise ValueError(f"MODEL.SOLO.{key} must lie in [0, 1), got {value}")
        if self.pre_nms_topk < 1 or self.max_instances < 1:
            raise ValueError(
                "MODEL.SOLO.PRE_NMS_TOPK_TEST and TEST.DETECTIONS_PER_IMAGE must be at least 1, "
                f"got {self.pre_nms_topk} and {self.max_instances}"
            )


class Candidates(NamedTuple):
    """(cell, class) pairs of one image that may become instances, by descending score.

    Attributes:
        scores: category score x maskness (K,).
        labels: classes (K,).
        rows: row of `cells` and `masks` (K,); several classes may share a cell and its mask.
        cells: flat cell indices (M,), each once.
        masks: binary masks (M, h, w).
    """

    scores: Tensor
    labels: Tensor
    rows: Tensor
    cells: Tensor
    masks: Tensor


def category_scores(category_logits: list[Tensor]) -> Tensor:
    """Category probabilities of all cells after point NMS.

    Args:
        category_logits: (N, C, S_l, S_l) per level.

    Returns:
        (N, T, C) float32.
    """
    # With the more than 1000 classes of LVIS a few at a time, which halves the peak of memory.
    groups = zip(*(x.split(_CLASSES_AT_A_TIME, dim=1) for x in category_logits), strict=True)
    return torch.cat([torch.cat([_peaks(x) for x in levels], dim=1) for levels in groups], dim=2)


_CLASSES_AT_A_TIME = 128


def _peaks(logits: Tensor) -> Tensor:
    """Probabilities (N, S², C) after point NMS of logits (N, C, S, S)."""
    return point_nms(logits.float().sigmoid()).flatten(2).transpose(1, 2)


def select_candidates(
    scores: Tensor,
    cell_masks: CellMasks,
    size: tuple[int, int],
    grid: GridSpec,
    settings: InferenceSettings,
) -> Candidates:
    """Score every candidate by category score x maskness and keep the best `pre_nms_topk`.

    Cells are visited once each, in chunks, by descending category score. Maskness is at most 1, so
    that the visit can stop, with the same result, once the worst of `pre_nms_topk` candidates
    beats every category score still to come.

    Args:
        scores: category scores of one image (T, C).
        cell_masks: soft masks of cells.
        size: (h, w) of these masks.
        grid: the grid pyramid; a mask needs more foreground pixels than its level's stride.
        settings: thresholds and limits.
    """
    best = scores.amax(1)
    todo = (best > settings.score_thresh).nonzero().squeeze(1)
    todo = todo[best[todo].argsort(descending=True, stable=True)]
    kept = Candidates(
        scores=scores.new_zeros(0),
        labels=todo.new_zeros(0),
        rows=todo.new_zeros(0),
        cells=todo.new_zeros(0),
        masks=torch.zeros((0, *size), dtype=torch.bool, device=scores.device),
    )
    limit, cut = settings.pre_nms_topk, False
    for cells in todo.split(chunk_length(size, scores.device)):
        if len(kept.scores) == limit and bool(kept.scores[-1] >= best[cells[0]]):
            cut = True
            break
        masks, areas, maskness = binarize(cell_masks(cells), settings.mask_thresh)
        strides = torch.tensor(grid.strides, device=cells.device)[grid.levels(cells)]
        found = scores[cells]  # only of these cells: with many classes a copy of all is large
        found = torch.where(found > settings.score_thresh, found, 0.0)
        found *= (maskness * (areas > strides))[:, None]
        pairs = found.nonzero()  # (cell, class)
        new = Candidates(found[pairs[:, 0], pairs[:, 1]], pairs[:, 1], pairs[:, 0], cells, masks)
        cut |= len(kept.scores) + len(new.scores) > limit  # lengths: nothing to wait for
        kept = _merge(kept, new, limit)
    if cut:
        text = f"An image has more than {limit} candidates; PRE_NMS_TOPK_TEST leaves the best"
        log_first_n(logging.INFO, text, name=__name__)
    return kept


def _merge(kept: Candidates, new: Candidates, limit: int) -> Candidates:
    """The best `limit` of two sets of candidates, with the masks that they use and no others."""
    scores = torch.cat([kept.scores, new.scores])
    order = scores.argsort(descending=True, stable=True)[:limit]
    rows = torch.cat([kept.rows, new.rows + len(kept.cells)])[order]
    used, rows = rows.unique(return_inverse=True)
    return Candidates(
        scores=scores[order],
        labels=torch.cat([kept.labels, new.labels])[order],
        rows=rows,
        cells=torch.cat([kept.cells, new.cells])[used],
        masks=torch.cat([kept.masks, new.masks])[used],
    )


def suppress(candidates: Candidates, settings: InferenceSettings) -> tuple[Tensor, Tensor, Tensor]:
    """Mask NMS, final threshold and final limit.

    Returns:
        Scores, labels and flat cell indices (K,) of the instances, by descending score.
    """
    scores = settings.nms(candidates.masks[candidates.rows], candidates.labels, candidates.scores)
    order = scores.argsort(descending=True, stable=True)[: settings.max_instances]
    # A removed mask has score 0; with a final threshold of 0 it is not an instance either.
    order = order[(scores[order] >= settings.final_score_thresh) & (scores[order] > 0)]
    return scores[order], candidates.labels[order], candidates.cells[candidates.rows[order]]


def resize_masks(
    probs: Tensor,
    canvas: tuple[int, int],
    image_size: tuple[int, int],
    output_size: tuple[int, int],
    threshold: float,
) -> tuple[Tensor, Tensor]:
    """Bring soft masks to the output's resolution and threshold them.

    The published models resize bilinearly to the canvas, crop the padding, and resize bilinearly
    to the output. Both steps and the crop are linear in each axis, so that they are one matrix
    per axis; and a pixel can only exceed the threshold if one of its taps does, so that only the
    window that the mask's box reaches is computed. Memory beyond the result is bounded by the
    windows of a few masks.

    Args:
        probs: soft masks (K, h, w).
        canvas: (H, W) of the padded network input.
        image_size: (height, width) of the image in its top left corner.
        output_size: (height, width) wanted.
        threshold: foreground is what exceeds it.

    Returns:
        Boolean masks (K, *output_size) and their tight boxes (K, 4), XYXY, right and bottom edge
        exclusive.
    """
    device = probs.device
    y_axis, x_axis = (
        _Axis(probs.shape[1 + i], canvas[i], image_size[i], output_size[i], device)
        for i in range(2)
    )
    masks = _blank_masks((len(probs), *output_size), device)
    rows = torch.zeros(masks.shape[:2], dtype=torch.bool, device=device)
    columns = torch.zeros((len(probs), output_size[1]), dtype=torch.bool, device=device)
    reach = profiles_to_boxes(*mask_occupancy(probs > threshold)).int().cpu()
    length = _resize_chunk_length(output_size, device)
    for start in range(0, len(probs), length):
        chunk = slice(start, start + length)
        x0, y0 = reach[chunk, :2].amin(0).tolist()
        x1, y1 = reach[chunk, 2:].amax(0).tolist()
        y_bands, x_bands = y_axis.bands(y0, y1), x_axis.bands(x0, x1)
        if y_bands and x_bands:
            window = torch.cat([y_axis.taps[o, i] @ probs[chunk, i] for o, i in y_bands], dim=-2)
            window = torch.cat([window[..., i] @ x_axis.taps[o, i].T for o, i in x_bands], dim=-1)
            window = window > threshold
            y_out = slice(y_bands[0][0].start, y_bands[-1][0].stop)
            x_out = slice(x_bands[0][0].start, x_bands[-1][0].stop)
            masks[chunk, y_out, x_out] = window
            rows[chunk, y_out], columns[chunk, x_out] = mask_occupancy(window)
    return masks, profiles_to_boxes(rows, columns)


def _blank_masks(shape: tuple[int, ...], device: torch.device) -> Tensor:
    if device.type == "cpu":
        # Unlike torch's, NumPy's zeros cost neither time nor memory until they are written, and
        # most of a large output never is.
        return torch.from_numpy(np.zeros(shape, dtype=bool))
    return torch.zeros(shape, dtype=torch.bool, device=device)


class _Axis:
    """Both resizing steps and the crop along one axis, as a matrix `taps` (size out, size in)."""

    def __init__(
        self, size: int, canvas: int, image: int, output: int, device: torch.device
    ) -> None:
        taps = torch.eye(size, device=device)[None]
        taps = F.interpolate(taps, size=canvas, mode="linear", align_corners=False)[..., :image]
        taps = F.interpolate(taps, size=output, mode="linear", align_corners=False)[0]
        self.taps = taps.T.contiguous()
        used = self.taps > 0
        self._first = used.int().argmax(1).tolist()
        self._last = (size - 1 - used.flip(1).int().argmax(1)).tolist()

    def bands(self, low: int, high: int) -> list[tuple[slice, slice]]:
        """The outputs that have a tap in [low, high), in bands, each with the inputs it uses.

        An output has three taps at most, so that narrow bands leave out nearly all of the zeros.
        """
        start, end = bisect_left(self._last, low), bisect_left(self._first, high)
        bands = []
        for first in range(start, end, _BAND):
            stop = min(first + _BAND, end)
            bands.append((slice(first, stop), slice(self._first[first], self._last[stop - 1] + 1)))
        return bands


_BAND = 128


def make_instances(
    scores: Tensor, labels: Tensor, masks: Tensor, boxes: Tensor, **fields: Tensor
) -> Instances:
    """Assemble Detectron2's `Instances`; masks without a pixel are dropped.

    Args:
        scores: (K,).
        labels: (K,).
        masks: boolean (K, H, W) at the output's size.
        boxes: their tight boxes (K, 4).
        **fields: further fields, each with K rows.
    """
    instances = Instances((masks.shape[1], masks.shape[2]))
    instances.pred_masks = masks
    instances.pred_boxes = Boxes(boxes)
    instances.scores = scores
    instances.pred_classes = labels
    for name, value in fields.items():
        instances.set(name, value)
    present = boxes[:, 2] > boxes[:, 0]
    return instances if bool(present.all()) else instances[present]


# Pixels of float32 masks in flight: 16 MiB fits a CPU's outer cache, a GPU wants larger launches.
_CHUNK_PIXELS = {"cpu": 2**22, "cuda": 2**26}


def chunk_length(size: tuple[int, int], device: torch.device) -> int:
    """How many soft masks of `size` (height, width) are worked on at a time."""
    pixels = _CHUNK_PIXELS.get(device.type, _CHUNK_PIXELS["cuda"])
    return max(1, pixels // max(1, size[0] * size[1]))


def _resize_chunk_length(size: tuple[int, int], device: torch.device) -> int:
    """On a CPU one mask at a time, since masks of one chunk share the union of their windows."""
    return 1 if device.type == "cpu" else chunk_length(size, device)
