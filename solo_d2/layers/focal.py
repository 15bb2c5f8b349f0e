"""Focal losses of the category branch, in memory that a thousand classes can afford."""

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
        logits: (N, C, H, W), e.g. of a level of S x S cells.
        labels: class of every cell (N, H · W), row by row; C for the background.
        alpha: weight of the positive class; the negatives have 1 - alpha.
        gamma: focusing exponent.

    Returns:
        A scalar, float32 (float64 for such logits).

    Raises:
        ValueError: tensors of another type, or shapes that do not fit.

    Example:
        >>> import torch
        >>> logits, labels = torch.zeros(1, 2, 1, 1), torch.tensor([[0]])
        >>> category_focal_loss(logits, labels, 0.25, 2.0)
        tensor(0.1733)
    """
    _check("category_focal_loss", logits, labels)
    return _FocalSum.apply(logits, labels.long(), None, alpha, gamma)


def quality_focal_loss(logits: Tensor, labels: Tensor, quality: Tensor, gamma: float) -> Tensor:
    """Sum of the quality focal loss (Li et al., 2020) over all cells and classes.

    ``|y - p|^gamma · BCE(p, y)``, where y is the quality of a positive cell's mask for its own
    class, and 0 for all other classes and cells. Scores then rank masks by their quality. With a
    quality of 1 it is the focal loss without alpha.

    Args:
        logits: (N, C, H, W), e.g. of a level of S x S cells.
        labels: class of every cell (N, H · W), row by row; C for the background.
        quality: of the mask of every positive cell, in [0, 1], (N, H · W); not read elsewhere.
        gamma: focusing exponent.

    Returns:
        A scalar, float32 (float64 for such logits), differentiable in `logits`.

    Raises:
        ValueError: tensors of another type, or shapes that do not fit.

    Example:
        >>> import torch
        >>> logits, labels = torch.zeros(1, 2, 1, 1), torch.tensor([[0]])
        >>> quality_focal_loss(logits, labels, torch.tensor([[0.5]]), 2.0)  # the other class alone
        tensor(0.1733)
    """
    _check("quality_focal_loss", logits, labels)
    check_tensors("quality_focal_loss", ("quality", quality, "floating", "N T"))
    if quality.shape != labels.shape:
        raise ValueError(
            f"quality_focal_loss expects a quality for each label {tuple(labels.shape)}, "
            f"got {tuple(quality.shape)}"
        )
    return _FocalSum.apply(logits, labels.long(), quality, None, gamma)


def _check(name: str, logits: Tensor, labels: Tensor) -> None:
    check_tensors(
        name, ("logits", logits, "floating", "N C H W"), ("labels", labels, "integer", "N T")
    )
    cells = logits.shape[2] * logits.shape[3]
    if labels.shape[1] != cells:
        raise ValueError(
            f"{name} expects a label for each of the {cells} cells of an image, "
            f"got {labels.shape[1]}"
        )


class _FocalSum(torch.autograd.Function):
    """All classes count as negative first; then the one class of a positive cell is put right."""

    @staticmethod
    def forward(
        ctx: Any,
        logits: Tensor,
        labels: Tensor,
        quality: Tensor | None,
        alpha: float | None,
        gamma: float,
    ) -> Tensor:
        dtype = torch.promote_types(logits.dtype, torch.float32)
        flat = logits.flatten(2)
        grad = torch.empty_like(flat, dtype=dtype)
        total = grad.new_zeros(())
        weight = 1.0 if alpha is None else 1 - alpha
        for start in range(0, flat.shape[1], budgets.CLASSES):
            classes = slice(start, start + budgets.CLASSES)
            loss, grad[:, classes] = _focal(flat[:, classes].to(dtype), weight, gamma)
            total += loss.sum()
        if labels.numel():
            positive = (labels < flat.shape[1])[:, None]
            index = labels.clamp(max=flat.shape[1] - 1)[:, None]  # (N, 1, S²)
            own = flat.gather(1, index).to(dtype)
            as_negative, _ = _focal(own, weight, gamma)
            if quality is None:
                # A logit's loss as a positive is its negative's as a negative.
                as_positive, slope = _focal(-own, 1.0 if alpha is None else alpha, gamma)
                slope = -slope
            else:
                as_positive, slope = _quality_focal(own, quality[:, None].to(dtype), gamma)
            total += torch.where(positive, as_positive - as_negative, 0.0).sum()
            grad.scatter_(1, index, torch.where(positive, slope, grad.gather(1, index)))
        ctx.save_for_backward(grad)
        ctx.like = logits.shape, logits.dtype
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        (grad,), (grad_total,) = ctx.saved_tensors, grad_outputs
        shape, dtype = ctx.like
        return (grad * grad_total).to(dtype).view(shape), None, None, None, None


def _focal(logits: Tensor, weight: float, gamma: float) -> tuple[Tensor, Tensor]:
    """Loss of logits whose target is 0, and its derivative."""
    probs = logits.sigmoid()
    entropy = F.softplus(logits)  # -log(1 - p)
    factor = weight * probs**gamma
    return factor * entropy, factor * (gamma * (1 - probs) * entropy + probs)


def _quality_focal(logits: Tensor, target: Tensor, gamma: float) -> tuple[Tensor, Tensor]:
    """Loss of logits whose target lies in [0, 1], and its derivative."""
    probs = logits.sigmoid()
    entropy = F.softplus(logits) - target * logits
    error = probs - target
    distance = error.abs()
    factor = distance**gamma
    # Of a distance of 0 the factor's derivative is 0 for every exponent above 1.
    slope = gamma * distance.clamp(min=1e-12) ** (gamma - 1) * error.sign() * probs * (1 - probs)
    return factor * entropy, slope * entropy + factor * error
