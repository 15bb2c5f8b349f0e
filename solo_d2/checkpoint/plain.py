"""Plain types of what is saved."""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

__all__ = ["plain_types"]

_logger = logging.getLogger(__name__)


def plain_types(value: Any, name: str) -> Any:
    """Convert a state to plain types, as safe loading demands.

    Args:
        value: of any type; what has no plain type becomes None, with a warning.
        name: of the value, for the warning.
    """
    if value is None or isinstance(value, Tensor):
        return value
    if isinstance(value, np.generic):
        return value.item()
    types: tuple[Any, ...] = (bool, int, float, str, bytes)
    for plain in types:
        if isinstance(value, plain):
            return plain(value)
    if isinstance(value, np.ndarray):
        return torch.from_numpy(value.copy())
    if isinstance(value, Mapping):
        items = {
            plain_types(k, name): plain_types(v, f"{name}.{k}".lstrip("."))
            for k, v in value.items()
        }
        return OrderedDict(items) if isinstance(value, OrderedDict) else items
    if isinstance(value, list | tuple):
        members = [plain_types(item, f"{name}.{i}") for i, item in enumerate(value)]
        return members if isinstance(value, list) else tuple(members)
    _logger.warning("Not saved: %s, a %s, which loading would refuse", name, type(value).__name__)
    return None
