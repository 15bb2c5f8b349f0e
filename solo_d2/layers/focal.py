"""The focal loss of the category branch, in memory that a thousand classes can afford."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from . import budgets
from .checks import check_tensors


def category_focal_loss(logits: Tensor, labels: Tensor, alpha: float, gamma: float) -> Tensor:
    """Sum of the sigmoid focal loss over all cells and classes.

    The value and gradient of fvcore's `sigmoid_focal_loss` with one-hot targets. Those, and what
    autograd keeps of every step, need twelve times the memory of the logits; here the gradient,
    which is as large as they are, is computed along with the loss, and is all that is kept.

    Args:
        logits: (N, C, S, S).
        labels: class of every cell (N, S²), row by row; C for the background.
        alpha: weight of the positive class; the negatives have 1 - alpha.
        gamma: focusing exponent.

    Returns:
        A scalar, float32 (float64 for such logits).

    Raises:
        ValueError: tensors of another type, or shapes that do not fit.
    """
    check_tensors(
        "category_focal_loss",
        ("logits", logits, "floating", "N C S S"),
        ("labels", labels, "integer", "N T"),
    )
    if labels.shape[1] != logits.shape[2] * logits.shape[3]:
        raise ValueError(
            "category_focal_loss expects a label for each of the "
            f"{logits.shape[2] * logits.shape[3]} cells of an image, got {labels.shape[1]}"
        )
    return _FocalSum.apply(logits, labels, alpha, gamma)


class _FocalSum(torch.autograd.Function):
    """All classes count as negative first; then the one class of a positive cell is put right."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, labels: Tensor, alpha: float, gamma: float) -> Tensor:
        dtype = torch.promote_types(logits.dtype, torch.float32)
        flat = logits.flatten(2)
        grad = torch.empty_like(flat, dtype=dtype)
        total = grad.new_zeros(())
        for start in range(0, flat.shape[1], budgets.CLASSES):
            classes = slice(start, start + budgets.CLASSES)
            loss, grad[:, classes] = _focal(flat[:, classes].to(dtype), 1 - alpha, gamma)
            total += loss.sum()
        if labels.numel():
            positive = (labels < flat.shape[1])[:, None]
            index = labels.clamp(max=flat.shape[1] - 1)[:, None]  # (N, 1, S²)
            own = flat.gather(1, index).to(dtype)
            as_negative, _ = _focal(own, 1 - alpha, gamma)
            # A logit's loss as a positive is its negative's as a negative.
            as_positive, slope = _focal(-own, alpha, gamma)
            total += torch.where(positive, as_positive - as_negative, 0.0).sum()
            grad.scatter_(1, index, torch.where(positive, -slope, grad.gather(1, index)))
        ctx.save_for_backward(grad)
        ctx.like = logits.shape, logits.dtype
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_total: Tensor) -> tuple[Tensor, None, None, None]:
        (grad,) = ctx.saved_tensors
        shape, dtype = ctx.like
        return (grad * grad_total).to(dtype).view(shape), None, None, None


def _focal(logits: Tensor, weight: float, gamma: float) -> tuple[Tensor, Tensor]:
    """Loss of logits whose target is 0, and its derivative."""
    probs = logits.sigmoid()
    entropy = F.softplus(logits)  # -log(1 - p)
    factor = weight * probs**gamma
    return factor * entropy, factor * (gamma * (1 - probs) * entropy + probs)
