"""Scores with another temperature: their logits, divided."""

from __future__ import annotations

import torch
from torch import Tensor

_LEAST_SCORE = 1e-6
"""Scores nearer to 0 or 1 count as this near: their logits are finite."""


def score_logits(scores: Tensor) -> Tensor:
    """Return the logits of scores in [0, 1], all of them finite."""
    known = scores.clamp(_LEAST_SCORE, 1 - _LEAST_SCORE)
    return known.log() - (1 - known).log()


def apply_temperature(scores: Tensor, temperature: float) -> Tensor:
    """Divide the logits of scores by a temperature; 0 stays 0, and no order changes.

    Args:
        scores: in [0, 1], of any shape.
        temperature: above 0; 1 changes nothing.

    Example:
        >>> import torch
        >>> apply_temperature(torch.tensor([0.0, 0.5, 0.8]), 0.5)  # 0.8² / (0.8² + 0.2²)
        tensor([0.0000, 0.5000, 0.9412])
    """
    if temperature == 1:
        return scores
    return torch.where(scores > 0, (score_logits(scores) / temperature).sigmoid(), 0.0)
