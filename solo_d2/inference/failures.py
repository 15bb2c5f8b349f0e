"""Errors of single inputs: in words, and which of them end a run."""

from __future__ import annotations

import logging
import threading
from dataclasses import dataclass, field

import torch

from ..io.errors import one_line
from ..io.growing import OutputError

__all__ = ["BadFrames", "describe", "raise_if_hopeless"]

_logger = logging.getLogger(__name__)


def describe(error: Exception) -> str:
    """Return an error in one short line; without its type where the text was made for people."""
    text = one_line(error)[:300]
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return f"too large for the memory that is left ({text})"
    return text if isinstance(error, ValueError) else f"{type(error).__name__}: {text}"


def raise_if_hopeless(error: Exception) -> None:
    """Raise an error after which no other input can be used either; log any other."""
    # After such an error every call on the GPU fails. Before torch 2.8 the text alone tells.
    lost = getattr(torch, "AcceleratorError", ())
    if isinstance(error, (OutputError, lost)) or "CUDA error" in str(error):
        raise error
    _logger.debug("an input failed", exc_info=error)


@dataclass
class BadFrames:
    """Frames of a video that cannot be used: one line for all, since there may be thousands.

    They may come from two threads, and in another order than their own.
    """

    count: int = 0
    first: tuple[int, str] = (0, "")
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def add(self, number: int, error: Exception) -> None:
        """Count a frame."""
        with self._lock:
            if not self.count or number < self.first[0]:
                self.first = (number, describe(error))
            self.count += 1

    def __str__(self) -> str:
        number, text = self.first
        return f"{self.count} frames could not be used, the first one is frame {number}: {text}"
