"""What of a training's checkpoint prediction needs, in a small file."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from .files import EMA_KEY
from .info import INFO_KEY

__all__ = ["halve", "slim_checkpoint"]


def slim_checkpoint(checkpoint: Mapping[str, Any]) -> dict[str, Any]:
    """Keep the weights that predict, and what the checkpoint says of itself.

    Optimizer, schedule and counters go. Of a training with `SOLVER.EMA` the average stays.

    Args:
        checkpoint: Of this package, as `load_checkpoint` reads it.

    Example:
        >>> slim_checkpoint({"model": {"a": 1}, "model_ema": {"a": 2}, "solo_d2": {}, "best": 3})
        {'model': {'a': 2}, 'solo_d2': {}}
    """
    return {"model": checkpoint.get(EMA_KEY, checkpoint["model"]), INFO_KEY: checkpoint[INFO_KEY]}


def halve(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Round floating-point weights to float16, which halves a file. Loading makes them float32.

    Raises:
        ValueError: A weight is too large for float16.
    """
    half = {k: v.half() if v.is_floating_point() else v for k, v in weights.items()}
    for key, value in weights.items():
        if bool((half[key].isinf() & torch.isfinite(value)).any()):
            largest = float(value.abs().max())
            raise ValueError(f"{key} has the value {largest:g}; float16 ends at 65504")
    return half
