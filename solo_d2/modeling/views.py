"""Several runs of the network over one image ("views"), joined before NMS.

Plain inference has one view; multi-scale testing has one per scale and flip (paper §4.3,
"Multi-scale testing"). Shapes: M masks and K instances as in `postprocessing`, (h, w) a canvas at
`MASK_STRIDE`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from ..layers import mask_areas
from .output import chunk_length
from .postprocessing import MASK_STRIDE, Candidates, Frame, View


def move_view(view: View, source: Frame, target: Frame, *, flip: bool, threshold: float) -> View:
    """Bring a view to another canvas, as if the network had seen the image there.

    Which candidates there are has been decided on the view's own canvas, where small objects still
    have their pixels; only masks change. Nothing is copied if there is nothing to change.

    Args:
        view: found on `source`.
        source: its frame.
        target: the frame wanted, of the same image.
        flip: the image on `source` is mirrored left to right.
        threshold: probability above which a pixel is foreground.
    """
    if source == target and not flip:
        return view
    rows, columns = (
        _taps(source, target, axis, flip=flip and axis == 1, device=view.candidates.masks.device)
        for axis in (0, 1)
    )

    def cell_masks(cells: Tensor) -> Tensor:
        return _resample(view.cell_masks(cells), rows, columns)

    # The larger canvas of the two decides how many soft masks there are at a time.
    size = max(source.canvas, target.canvas, key=lambda side: side[0] * side[1])
    length = chunk_length((size[0] // MASK_STRIDE, size[1] // MASK_STRIDE), rows.low.device)
    parts = view.candidates.cells.split(length)
    masks = torch.cat([cell_masks(part) > threshold for part in parts])
    return View(view.candidates._replace(masks=masks), cell_masks)


def keep_large(view: View, side: float) -> View:
    """Keep the candidates whose mask has the area of a square of at least this side.

    Args:
        view: found on a canvas.
        side: in pixels of the network's input.
    """
    candidates = view.candidates
    large = mask_areas(candidates.masks) * MASK_STRIDE**2 >= side**2  # (M,)
    kept = large[candidates.rows]
    rows = large.cumsum(0)[candidates.rows[kept]] - 1
    return view._replace(
        candidates=Candidates(
            scores=candidates.scores[kept],
            labels=candidates.labels[kept],
            rows=rows,
            cells=candidates.cells[large],
            masks=candidates.masks[large],
        )
    )


def join_views(views: Sequence[View], num_cells: int) -> View:
    """Join all candidates of several views on one canvas, for one NMS.

    Args:
        views: at least one.
        num_cells: cells T of a view; cell c of view v gets the number v · T + c.
    """
    if len(views) == 1:
        return views[0]
    parts = [view.candidates for view in views]
    before = [0]
    for part in parts:
        before.append(before[-1] + len(part.cells))
    candidates = Candidates(
        scores=torch.cat([part.scores for part in parts]),
        labels=torch.cat([part.labels for part in parts]),
        rows=torch.cat([x.rows + start for x, start in zip(parts, before, strict=False)]),
        cells=torch.cat([x.cells + index * num_cells for index, x in enumerate(parts)]),
        masks=torch.cat([part.masks for part in parts]),
    )

    def cell_masks(cells: Tensor) -> Tensor:
        owners = cells // num_cells
        probs: Tensor | None = None
        for index, view in enumerate(views):
            chosen = (owners == index).nonzero().squeeze(1)
            found = view.cell_masks(cells[chosen] - index * num_cells)
            if probs is None:
                probs = found.new_empty((len(cells), *found.shape[1:]))
            probs[chosen] = found
        assert probs is not None  # there is a view
        return probs

    return View(candidates, cell_masks)


class _Taps(NamedTuple):
    """Linear interpolation along one axis: `low` and the next pixel, the latter by `weight`."""

    low: Tensor
    high: Tensor
    weight: Tensor


def _taps(source: Frame, target: Frame, axis: int, *, flip: bool, device: torch.device) -> _Taps:
    """Where the pixels of `target` lie on `source`, both at `MASK_STRIDE`.

    Outside of the image one padding stands for the other, and the outermost pixel for what lies
    beyond it.
    """
    size = source.canvas[axis] // MASK_STRIDE
    count = target.canvas[axis] // MASK_STRIDE
    # Centres, relative to the image: 0 at its top or left edge, 1 at the other one.
    where = (torch.arange(count, dtype=torch.float64) + 0.5) * MASK_STRIDE / target.image[axis]
    if flip:
        where = 1 - where
    where = (where * source.image[axis] / MASK_STRIDE - 0.5).clamp(0, size - 1)
    low = where.floor()
    weight = (where - low).float().to(device)
    low = low.long().to(device)
    return _Taps(low, (low + 1).clamp(max=size - 1), weight)


def _resample(probs: Tensor, rows: _Taps, columns: _Taps) -> Tensor:
    """Resize soft masks (M, h, w) to (M, len(rows), len(columns)), one axis after the other."""
    low = probs[:, rows.low]
    probs = low.lerp_(probs[:, rows.high], rows.weight[:, None])
    low = probs[:, :, columns.low]
    return low.lerp_(probs[:, :, columns.high], columns.weight)
