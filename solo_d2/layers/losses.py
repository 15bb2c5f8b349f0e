"""Losses between soft masks."""

from __future__ import annotations

import torch
from torch import Tensor

from .checks import check_tensors
from .mask_ops import mask_areas

# Added to each of the two sums of the denominator, as in the published models: with an empty
# target and an empty prediction the loss is 1, and its gradient is finite.
DICE_EPS = 1e-3

# Probabilities are kept this far from 0 and 1 before their logarithm is taken: a product of
# sigmoids has no logits from which a loss could be computed without it.
PROB_EPS = 1e-6


def dice_loss(probs: Tensor, targets: Tensor, eps: float = DICE_EPS) -> Tensor:
    """Dice loss with squared denominators (paper Eq. 6 and 7).

    ``1 - 2 Σpq / (Σp² + eps + Σq² + eps)``

    Args:
        probs: soft masks (K, ...) in [0, 1].
        targets: masks (K, ...) in [0, 1], of the same shape; boolean or soft.
        eps: added to both sums of the denominator.

    Returns:
        One loss per mask (K,), in [0, 1].

    Example:
        >>> import torch
        >>> probs, targets = torch.tensor([[0.5, 0.5]]), torch.tensor([[True, False]])
        >>> dice_loss(probs, targets)
        tensor([0.3342])
    """
    probs, targets = _as_masks("dice_loss", probs, targets)
    probs, targets = probs.flatten(1), targets.flatten(1)
    if targets.dtype == torch.bool:
        # The same sums; autograd then keeps no float copy of the targets.
        overlap = torch.where(targets, probs, 0.0).sum(1)
        target_norm = mask_areas(targets[:, None]).to(probs.dtype)
    else:
        overlap = (probs * targets).sum(1)
        target_norm = targets.square().sum(1)
    return 1 - 2 * overlap / (probs.square().sum(1) + target_norm + 2 * eps)


def mae_loss(probs: Tensor, targets: Tensor) -> Tensor:
    """Mean absolute error of soft masks (paper Eq. 12, L_mae).

    The paper does not say what the mean is over. Here it is all pixels, padding included, so that
    the loss is the metric MSE's sister; small objects are left to the Dice loss beside it.

    Args:
        probs: soft masks (K, ...) in [0, 1].
        targets: masks (K, ...) in [0, 1], of the same shape; boolean or soft.

    Returns:
        The mean over all pixels, one loss per mask (K,), in [0, 1].

    Example:
        >>> import torch
        >>> probs, targets = torch.tensor([[0.5, 0.5]]), torch.tensor([[True, False]])
        >>> mae_loss(probs, targets)
        tensor([0.5000])
    """
    probs, targets = _as_masks("mae_loss", probs, targets)
    return (probs - targets.to(probs.dtype)).abs().flatten(1).mean(1)


def matte_loss(probs: Tensor, targets: Tensor) -> Tensor:
    """L_mae + L_dice of soft mattes (paper Eq. 12); arguments as for `mae_loss`.

    Example:
        >>> import torch
        >>> probs, targets = torch.tensor([[0.5, 0.5]]), torch.tensor([[True, False]])
        >>> matte_loss(probs, targets)
        tensor([0.8342])
    """
    return mae_loss(probs, targets) + dice_loss(probs, targets)


def binary_mask_loss(probs: Tensor, targets: Tensor, positive_weight: float = 2.0) -> Tensor:
    """Binary cross entropy of soft masks, with a weight on the pixels of the object.

    A pixel of target t costs ``-(positive_weight · t · log p + (1 - t) · log(1 - p))``.

    Args:
        probs: soft masks (K, ...) in [0, 1].
        targets: masks (K, ...) in [0, 1], of the same shape; boolean or soft.
        positive_weight: weight of foreground pixels; 2 in the paper (§4.2.1).

    Returns:
        The mean over all pixels, one loss per mask (K,).

    Example:
        >>> import torch
        >>> probs, targets = torch.tensor([[0.5, 0.5]]), torch.tensor([[True, False]])
        >>> binary_mask_loss(probs, targets)
        tensor([1.0397])
    """
    probs, targets = _as_masks("binary_mask_loss", probs, targets)
    if targets.dtype == torch.bool:
        entropy = -torch.where(targets, positive_weight, 1.0) * _log_probs(probs, targets)
    else:
        probs = probs.clamp(PROB_EPS, 1 - PROB_EPS)
        entropy = -positive_weight * targets * probs.log() - (1 - targets) * (1 - probs).log()
    return entropy.flatten(1).mean(1)


def dice_bce_loss(probs: Tensor, targets: Tensor) -> Tensor:
    """Dice loss plus binary cross entropy without weights, as in Mask2Former.

    Dice sees a mask as a whole, cross entropy every pixel by itself.

    Args:
        probs: soft masks (K, ...) in [0, 1].
        targets: masks (K, ...) in [0, 1], of the same shape; boolean or soft.

    Returns:
        The sum of both, one loss per mask (K,).

    Example:
        >>> import torch
        >>> probs, targets = torch.tensor([[0.5, 0.5]]), torch.tensor([[True, False]])
        >>> dice_bce_loss(probs, targets)  # 0.3342 and ln 2
        tensor([1.0274])
    """
    probs, targets = _as_masks("dice_bce_loss", probs, targets)
    return dice_loss(probs, targets) + binary_mask_loss(probs, targets, positive_weight=1.0)


def focal_mask_loss(
    probs: Tensor, targets: Tensor, alpha: float = 0.25, gamma: float = 2.0
) -> Tensor:
    """Focal loss of soft masks (RetinaNet §3; the paper gives no values of its own).

    Args:
        probs: soft masks (K, ...) in [0, 1].
        targets: boolean masks (K, ...) of the same shape.
        alpha: weight of foreground pixels; background has 1 - alpha.
        gamma: focusing exponent.

    Returns:
        The mean over all pixels, one loss per mask (K,).

    Example:
        >>> import torch
        >>> probs, targets = torch.tensor([[0.5, 0.5]]), torch.tensor([[True, False]])
        >>> focal_mask_loss(probs, targets)
        tensor([0.0866])
    """
    probs, targets = _as_masks("focal_mask_loss", probs, targets)
    if targets.dtype != torch.bool:
        raise ValueError(f"focal_mask_loss expects boolean targets, got {targets.dtype}")
    log_probs = _log_probs(probs, targets)
    weights = torch.where(targets, alpha, 1 - alpha) * (1 - log_probs.exp()) ** gamma
    return -(weights * log_probs).flatten(1).mean(1)


def _log_probs(probs: Tensor, targets: Tensor) -> Tensor:
    """Logarithm of the probability that every pixel gives to its boolean target."""
    return torch.where(targets, probs, 1 - probs).clamp(PROB_EPS, 1 - PROB_EPS).log()


def _as_masks(name: str, probs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Return checked masks, those of half precision in float32: sums of pixels exceed its range."""
    check_tensors(
        name, ("probs", probs, "floating", "K ..."), ("targets", targets, "real", "K ...")
    )
    if probs.shape != targets.shape:
        raise ValueError(
            f"{name} expects masks of one shape, got {tuple(probs.shape)} "
            f"and {tuple(targets.shape)}"
        )
    if targets.dtype != torch.bool and not targets.is_floating_point():
        raise ValueError(
            f"{name} expects targets that are boolean or in [0, 1], got {targets.dtype}"
        )
    probs = probs.to(torch.promote_types(probs.dtype, torch.float32))
    return probs, targets if targets.dtype == torch.bool else targets.to(probs.dtype)
