"""Names that NumPy dropped and old evaluation packages still use."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import numpy as np


@contextlib.contextmanager
def numpy_name(name: str, value: Any) -> Iterator[None]:
    """Let ``numpy.<name>`` be `value` for a while, unless NumPy has the name itself."""
    if name in vars(np):
        yield
        return
    setattr(np, name, value)
    try:
        yield
    finally:
        delattr(np, name)
