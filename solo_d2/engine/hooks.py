"""Hooks of the training loop: the best checkpoint, and pictures of what is learnt."""

from __future__ import annotations

import logging
import math
from pathlib import Path

from detectron2.engine import HookBase

from ..checkpoint import load_checkpoint
from .checkpointer import BestCheckpointer

_logger = logging.getLogger(__name__)

BEST = "model_best"
"""Name of the best checkpoint, without its ending."""


class BestCheckpoint(HookBase):
    """Keeps the checkpoint of the best evaluation so far, also over resumes.

    Args:
        period: of the evaluations, in iterations; it comes behind their hook.
        checkpointer: saves it.
        metric: of the evaluation, the larger the better.
    """

    def __init__(self, period: int, checkpointer: BestCheckpointer, metric: str) -> None:
        self._period = period
        self._checkpointer = checkpointer
        self._metric = metric
        self._best = -math.inf

    def before_train(self) -> None:
        """In a resumed training, look at how good the best one is."""
        file = Path(self._checkpointer.save_dir, f"{BEST}.pth")
        if not self.trainer.start_iter or not file.is_file():
            return
        try:
            self._best = float(load_checkpoint(file, mmap=True)["best"][self._metric])
        except (ValueError, KeyError, TypeError):
            _logger.warning("%s does not say how good it is, and will be replaced", file)

    def after_step(self) -> None:
        """Compare, behind an evaluation."""
        done = self.trainer.iter + 1
        if done % self._period == 0 and done != self.trainer.max_iter:
            self._compare()

    def after_train(self) -> None:
        """Compare, behind the last evaluation."""
        if self.trainer.iter + 1 >= self.trainer.max_iter:
            self._compare()

    def _compare(self) -> None:
        found = self.trainer.storage.latest().get(self._metric)
        if found is None:
            _logger.warning("The evaluation has no %s, by which the best is chosen", self._metric)
            return
        value, iteration = found
        if not math.isfinite(value) or value <= self._best:
            return
        best = {self._metric: float(value)}
        self._checkpointer.save(BEST, iteration=int(iteration), best=best)
        self._best = value
        _logger.info("%s.pth is of iteration %d: %s %.4f", BEST, iteration, self._metric, value)
