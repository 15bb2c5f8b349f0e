"""From raw predictions to instances (paper §3.3.3 and §3.3.4), one function per step.

Shapes: T cells in all, C classes, K candidates or instances, (H, W) the canvas in input pixels,
(h, w) the canvas at stride 4. No tensor ever holds the masks of all candidates.
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import torch
from detectron2.structures import Instances
from detectron2.utils.logger import log_first_n
from torch import Tensor

from ..layers import (
    MASK_NMS,
    binarize,
    budgets,
    exporting,
    point_nms,
)
from ..layers.temperature import apply_temperature
from .grid import GridSpec
from .output import chunk_length, make_instances, resize_masks
from .refinement import refine_masks

MASK_STRIDE = 4
"""Masks are selected and suppressed at a quarter of the input's resolution."""

CellMasks = Callable[[Tensor], Tensor]
"""Soft masks (K, h, w) of cells (K,) of one image, at `MASK_STRIDE`."""


def build_nms(name: str, *, kernel: str, sigma: float, threshold: float) -> Callable[..., Tensor]:
    """Choose the mask NMS: a function of masks, labels and scores that returns new scores.

    Args:
        name: one of `MASK_NMS`; the function gets those of the options that it has.
        kernel: of Matrix NMS.
        sigma: of Matrix NMS and Soft-NMS.
        threshold: IoU above which Fast and Hard NMS remove.

    Raises:
        ValueError: unknown name, kernel, or a value out of range.
    """
    if name not in MASK_NMS:
        raise ValueError(f"MODEL.SOLO.NMS_TYPE must be one of {tuple(MASK_NMS)}, got {name!r}")
    if not 0 <= threshold <= 1:
        raise ValueError(f"MODEL.SOLO.NMS_THRESH_TEST must lie in [0, 1], got {threshold}")
    values = {"kernel": kernel, "sigma": sigma, "threshold": threshold}
    nms = partial(MASK_NMS[name], **{key: values[key] for key in nms_parameters(name)})
    # On no masks at all, so that a bad kernel or sigma is known before the first image.
    with torch.device("cpu"):  # wherever the model is being built
        nothing = torch.zeros(0)
        nms(nothing.bool().view(0, 1, 1), nothing.long(), nothing)
    return nms


def nms_parameters(name: str) -> list[str]:
    """Return which of "kernel", "sigma" and "threshold" a function of `MASK_NMS` takes."""
    taken = inspect.signature(MASK_NMS[name]).parameters
    return [key for key in ("kernel", "sigma", "threshold") if key in taken]


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
        score_temperature: of the scores that instances get, see `reported`.
        refine_masks: refine the final masks by the image; see `refinement.refine_masks`.
    """

    score_thresh: float
    mask_thresh: float
    pre_nms_topk: int
    nms: Callable[..., Tensor]
    final_score_thresh: float
    max_instances: int
    score_temperature: float = 1.0
    refine_masks: bool = False

    def __post_init__(self) -> None:
        for key, value in (
            ("SCORE_THRESH_TEST", self.score_thresh),
            ("MASK_THRESH_TEST", self.mask_thresh),
            ("FINAL_SCORE_THRESH_TEST", self.final_score_thresh),
        ):
            if not 0 <= value < 1:
                raise ValueError(f"MODEL.SOLO.{key} must lie in [0, 1), got {value}")
        if not self.score_temperature > 0:
            raise ValueError(
                f"MODEL.SOLO.SCORE_TEMPERATURE must be above 0, got {self.score_temperature}"
            )
        if self.pre_nms_topk < 1 or self.max_instances < 1:
            raise ValueError(
                "MODEL.SOLO.PRE_NMS_TOPK_TEST and TEST.DETECTIONS_PER_IMAGE must be at least 1, "
                f"got {self.pre_nms_topk} and {self.max_instances}"
            )

    def reported(self, scores: Tensor) -> Tensor:
        """Return the scores that instances get: their logits are divided by the temperature.

        No order changes, so that AP does not; NMS and its thresholds come before. 0 stays 0.

        Args:
            scores: in [0, 1], of any shape.
        """
        return apply_temperature(scores, self.score_temperature)


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


class View(NamedTuple):
    """What one run of the network found.

    Attributes:
        candidates: of this run, before NMS.
        cell_masks: soft masks (M, h, w) of its cells (M,), on the same canvas as the candidates'.
    """

    candidates: Candidates
    cell_masks: CellMasks


class Frame(NamedTuple):
    """Where an image lies in the network's input: in the top left corner of a padded canvas.

    Attributes:
        canvas: (H, W) of the input, divisible by `MASK_STRIDE`.
        image: (height, width) of the image on it.
    """

    canvas: tuple[int, int]
    image: tuple[int, int]


def category_scores(category_logits: list[Tensor]) -> Tensor:
    """Category probabilities of all cells after point NMS.

    Args:
        category_logits: (N, C, S_l, S_l) per level.

    Returns:
        (N, T, C) float32.
    """
    groups = zip(*(x.split(budgets.CLASSES, dim=1) for x in category_logits), strict=True)
    return torch.cat([torch.cat([_peaks(x) for x in levels], dim=1) for levels in groups], dim=2)


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
    # Where a graph is recorded, the number of chunks must not be that of the example image.
    for cells in (todo,) if exporting() else todo.split(chunk_length(size, scores.device)):
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
    reported = settings.reported(scores[order])
    return reported, candidates.labels[order], candidates.cells[candidates.rows[order]]


def postprocess(
    view: View,
    frame: Frame,
    output_size: tuple[int, int],
    settings: InferenceSettings,
    guide: Tensor | None = None,
) -> Instances:
    """Run NMS and make the masks at output resolution: the last step of all inference.

    Args:
        view: of `SOLO.view` or `views.join_views`.
        frame: of the view.
        output_size: (height, width) wanted.
        settings: thresholds and limits.
        guide: the image on `frame`, if masks are to be refined, (3, H / 2, W / 2).
    """
    scores, labels, cells = suppress(view.candidates, settings)
    probs = view.cell_masks(cells)
    if guide is not None:
        probs = refine_masks(probs, guide, settings.mask_thresh)
    masks, boxes = resize_masks(probs, *frame, output_size, settings.mask_thresh)
    return make_instances(scores, labels, masks, boxes)
