"""Objects that no cell learns: count them, and warn of many."""

from __future__ import annotations

import logging

import torch
from torch import Tensor

_logger = logging.getLogger(__name__)


_CAUSE = (
    "their size is outside of MODEL.SOLO.SCALE_RANGES, or smaller objects have their cells; finer "
    "MODEL.SOLO.NUM_GRIDS or other ranges help"
)


class LostObjects:
    """Counts the objects of a training that no cell learns, and warns of them once.

    Such an object is outside of all scale ranges, or smaller ones have all of its cells. Neither
    shows in a loss. The count stays on the device; it is read once, after some batches.

    Args:
        batches: after which to warn.
        share: of the objects, above which to warn.
        cause: why there are such objects, and what helps.

    Attributes:
        seen: objects so far.
        lost: how many of them no cell learnt, a scalar on the device.
    """

    def __init__(self, batches: int = 100, share: float = 0.02, cause: str = _CAUSE) -> None:
        self.batches = batches
        self.share = share
        self.cause = cause
        self.seen = 0
        self.lost: Tensor | None = None

    def add(self, owner: Tensor, total: int) -> None:
        """Count those of a batch.

        Args:
            owner: index of the object that owns each cell, -1 for none.
            total: objects of the batch.
        """
        owned = torch.zeros(total + 1, dtype=torch.bool, device=owner.device)
        owned[owner.flatten()] = True  # -1 is the spare one at the end
        lost = total - owned[:total].sum()
        self.lost = lost if self.lost is None else self.lost + lost
        self.seen += total
        self.batches -= 1
        if self.batches == 0 and int(self.lost) > self.share * self.seen:
            _logger.warning(
                "%d of the first %d objects (%.0f %%) belong to no cell and are not learnt: %s",
                int(self.lost),
                self.seen,
                100 * int(self.lost) / self.seen,
                self.cause,
            )
