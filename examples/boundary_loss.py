r"""A mask loss in one file: Dice, and cross entropy that weighs pixels near the boundary.

solo-d2 train --import examples/boundary_loss.py --config-file CONFIG ... \
        MODEL.SOLO.MASK_LOSS boundary
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from solo_d2.layers import dice_loss
from solo_d2.modeling import MASK_LOSSES

REACH = 2
"""Pixels of the mask on both sides of a boundary that count."""


def boundary_loss(probs: Tensor, targets: Tensor) -> Tensor:
    """Add the cross entropy of the pixels around the target's boundary to the Dice loss.

    Args:
        probs: soft masks (K, H, W) in [0, 1].
        targets: masks (K, H, W), boolean or in [0, 1].

    Returns:
        One loss per mask (K,).
    """
    near = boundary_region(targets)
    entropy = F.binary_cross_entropy(
        probs.clamp(1e-6, 1 - 1e-6), targets.to(probs.dtype), reduction="none"
    )
    pixels = near.flatten(1).sum(1).clamp(min=1)
    return dice_loss(probs, targets) + (entropy * near).flatten(1).sum(1) / pixels


def boundary_region(targets: Tensor) -> Tensor:
    """Return the pixels (K, H, W) at most `REACH` from a pixel of the other kind, boolean."""
    values = targets.float()[:, None]
    side = 2 * REACH + 1
    highest = F.max_pool2d(values, side, stride=1, padding=REACH)
    lowest = -F.max_pool2d(-values, side, stride=1, padding=REACH)
    return (highest != lowest)[:, 0]


MASK_LOSSES["boundary"] = boundary_loss
