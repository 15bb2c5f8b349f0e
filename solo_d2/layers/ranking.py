"""Rank & Sort loss of the category branch, in memory and time linear in the number of cells."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from . import budgets
from .checks import check_tensors

DELTA = 0.5
"""Half the width of the ramp that stands for a step where logits are compared, as in the paper."""


def rank_sort_loss(logits: Tensor, positives: Tensor, quality: Tensor) -> Tensor:
    """Sum of the Rank & Sort loss (Oksuz et al., 2021) over all positives.

    A positive costs the share of negatives among what is ranked above it (ranking error), and how
    much worse than in the right order the positives above it are (sorting error). It depends on the
    order of the logits alone, so that negatives, however many, need no weight. Its gradient is the
    paper's: every error, divided among the pairs that cause it, pulls their logits apart. It sums
    up to zero. A pair is compared by a ramp from 0 to 1 in place of a step.

    Args:
        logits: of all cells and classes, of any shape.
        positives: indices (P,) of the positive ones among the flattened logits, each once.
        quality: IoU of the masks of the positives (P,), in [0, 1].

    Returns:
        A scalar, float32 (float64 for such logits), from 0 to 2 P; 0 without positives.

    Raises:
        ValueError: tensors of another type, or shapes that do not fit.

    Example:
        >>> import torch
        >>> logits = torch.tensor([[1.0, 3.0, 0.0]])  # one negative is above, one below
        >>> rank_sort_loss(logits, torch.tensor([0]), torch.tensor([0.8]))  # 1 / (1 + 1/2)
        tensor(0.6667)
    """
    check_tensors(
        "rank_sort_loss",
        ("logits", logits, "floating", "..."),
        ("positives", positives, "integer", "P"),
        ("quality", quality, "floating", "P"),
    )
    return _RankSortSum.apply(logits, positives.long(), quality)


class _RankSortSum(torch.autograd.Function):
    """The gradient is computed along with the loss, and is all that is kept."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, positives: Tensor, quality: Tensor) -> Tensor:
        dtype = torch.promote_types(logits.dtype, torch.float32)
        flat = logits.detach().reshape(-1).to(dtype)
        ctx.like = logits.shape, logits.dtype
        if not len(positives):
            ctx.save_for_backward(torch.zeros_like(flat))
            return flat.new_zeros(())
        own = flat[positives]
        rank, sorting, pull = _sort(own, quality.to(dtype))
        # Far below all positives these are negatives without effect.
        others = flat.index_copy(0, positives, (own.min() - 4 * DELTA).expand_as(own))
        false, grad = _compare(others, own, rank)
        ranking = false / (rank + false)
        grad.index_copy_(0, positives, pull - ranking - sorting)
        ctx.save_for_backward(grad)
        return (ranking + sorting).sum()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        (grad,), (grad_total,) = ctx.saved_tensors, grad_outputs
        shape, dtype = ctx.like
        return (grad * grad_total).to(dtype).view(shape), None, None


def _sort(own: Tensor, quality: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Compare the positives (P,) with one another.

    Returns:
        Of each its rank among the positives, its sorting error, and the gradient that it gets from
        the errors of those that it should be ranked below.
    """
    cost = 1 - quality
    ranks, errors, pull = [], [], torch.zeros_like(own)
    for logits, qualities in zip(*(x.split(_rows(len(own))) for x in (own, quality)), strict=True):
        above = ((own - logits[:, None]) / (2 * DELTA) + 0.5).clamp(0, 1)  # (rows, P)
        rank = above.sum(1)
        error = above @ cost / rank
        wrong = above.masked_fill(quality >= qualities[:, None], 0)
        above -= wrong  # what is left stands above in the right order, too
        error -= above @ cost / above.sum(1)
        ranks.append(rank)
        errors.append(error)
        pull += (error / wrong.sum(1).clamp(min=1e-12)) @ wrong
    return torch.cat(ranks), torch.cat(errors), pull


def _rows(count: int) -> int:
    return max(1, budgets.COMPARED_PAIRS // count)


def _compare(others: Tensor, own: Tensor, rank: Tensor) -> tuple[Tensor, Tensor]:
    """Compare negatives with positives, without a matrix of all pairs.

    A positive p has a lower edge p - DELTA and an upper one p + DELTA. A negative n is above it by
    (relu(n - lower edge) - relu(n - upper edge)) / (2 DELTA). Between two neighbouring edges of all
    positives sums of those are linear in n: number and sum of the negatives there give the sums
    over negatives, a slope and an offset those over positives.

    Args:
        others: logits (n,) of all, the positives' far below.
        own: logits of the positives (P,).
        rank: of the positives among themselves (P,).

    Returns:
        How many negatives are above each positive (P,), and the gradient of each negative (n,).
    """
    edges, order = torch.cat([own - DELTA, own + DELTA]).sort()
    bounds = edges.double()
    sign = torch.ones_like(bounds).div_(2 * DELTA)
    sign[order >= len(own)] *= -1
    pieces = others.split(budgets.RANKED_LOGITS)
    places = [torch.bucketize(x, edges, right=True, out_int32=True) for x in pieces]
    counts, sums = bounds.new_zeros(2, len(edges) + 1)
    for logits, place in zip(pieces, places, strict=True):
        counts.scatter_add_(0, place.long(), torch.ones_like(logits, dtype=torch.float64))
        sums.scatter_add_(0, place.long(), logits.double())
    above = counts.flip(0).cumsum(0).flip(0)[1:]  # of every edge
    beyond = sums.flip(0).cumsum(0).flip(0)[1:] - bounds * above
    false = torch.zeros_like(own, dtype=torch.float64)
    false.index_add_(0, order % len(own), sign * beyond)
    false.clamp_(min=0)

    weights = sign / (rank.double() + false)[order % len(own)]
    start = weights.new_zeros(1)
    slopes = torch.cat([start, weights.cumsum(0)])
    offsets = torch.cat([start, (weights * bounds).cumsum(0)])
    grad = torch.empty_like(others)
    for logits, place, part in zip(pieces, places, grad.split(budgets.RANKED_LOGITS), strict=True):
        part.copy_((logits * slopes[place] - offsets[place]).clamp_(min=0))
    return false.to(own.dtype), grad
