"""Train the heads alone at first, and the network below the feature pyramid later."""

from __future__ import annotations

import logging

from detectron2.engine import HookBase
from torch import nn

from ..solver import below_pyramid

__all__ = ["FreezeBackbone"]

_logger = logging.getLogger(__name__)


class FreezeBackbone(HookBase):
    """Keeps the network below the feature pyramid as it is for the first iterations.

    Its gradients are not computed, which saves their time, and the optimizer does not touch it.
    Running statistics move as `NORM` and `NORM_EVAL` say.

    Args:
        model: Not wrapped for several processes.
        iterations: How many; `SOLVER.FREEZE_BACKBONE_ITERS`.

    Raises:
        ValueError: Nothing there is trained anyway.
    """

    def __init__(self, model: nn.Module, iterations: int) -> None:
        self._iterations = iterations
        self._parameters = [p for p in below_pyramid(model).parameters() if p.requires_grad]
        if not self._parameters:
            raise ValueError(
                f"SOLVER.FREEZE_BACKBONE_ITERS is {iterations}, but FREEZE_AT leaves nothing of "
                "the backbone to train; lower FREEZE_AT, or set it to 0"
            )

    def before_train(self) -> None:
        """Freeze, unless the training goes on behind the end of it."""
        if self.trainer.start_iter < self._iterations:
            _logger.info("The backbone is frozen until iteration %d", self._iterations)
            self._train(False)

    def before_step(self) -> None:
        """End it in its iteration."""
        if self.trainer.iter == self._iterations:
            self._train(True)

    def after_train(self) -> None:
        """Leave the model as it was given."""
        self._train(True)

    def _train(self, trained: bool) -> None:
        for parameter in self._parameters:
            parameter.requires_grad_(trained)
