"""Losses between soft masks."""

from __future__ import annotations

import torch
from torch import Tensor

from .mask_ops import mask_areas

# Added to each of the two sums of the denominator, as in the published models: with an empty
# target and an empty prediction the loss is 1, and its gradient is finite.
DICE_EPS = 1e-3


def dice_loss(probs: Tensor, targets: Tensor, eps: float = DICE_EPS) -> Tensor:
    """Dice loss with squared denominators (paper Eq. 6 and 7).

    ``1 - 2 Σpq / (Σp² + eps + Σq² + eps)``

    Args:
        probs: soft masks (K, ...) in [0, 1].
        targets: masks (K, ...) in [0, 1], of the same shape; boolean or soft.
        eps: added to both sums of the denominator.

    Returns:
        One loss per mask (K,), in [0, 1].
    """
    if probs.shape != targets.shape:
        raise ValueError(
            f"dice_loss expects masks of one shape, got {tuple(probs.shape)} "
            f"and {tuple(targets.shape)}"
        )
    probs, targets = probs.flatten(1), targets.flatten(1)
    if targets.dtype == torch.bool:
        # The same sums; autograd then keeps no float copy of the targets.
        overlap = torch.where(targets, probs, 0.0).sum(1)
        target_norm = mask_areas(targets[:, None]).to(probs.dtype)
    else:
        overlap = (probs * targets).sum(1)
        target_norm = targets.square().sum(1)
    return 1 - 2 * overlap / (probs.square().sum(1) + target_norm + 2 * eps)
