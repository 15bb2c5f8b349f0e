"""How far a training or an evaluation is, in few lines: what ``solo-d2`` shows of them."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from typing import Any

from detectron2.config import CfgNode
from detectron2.engine import HookBase
from detectron2.utils import comm
from torch.utils.data import DataLoader
from tqdm import tqdm

from .hooks import BestCheckpoint
from .trainer import SOLOTrainer

__all__ = ["EvaluationWithProgress", "Progress", "TrainerWithProgress"]

_TOLD = ("segm/AP", "panoptic_seg/PQ")
"""Results of evaluations that a line names."""


class Progress:
    """Shows how much is done: a bar on a terminal, elsewhere a line for every tenth of it.

    Args:
        unit: What is counted.
        total: How many there are.
        done: How many are done already.
        lines: Whether there are lines where there is no terminal.
    """

    def __init__(self, unit: str, total: int, done: int = 0, *, lines: bool = True) -> None:
        self._unit, self._total = unit, total
        self._first = self._done = done
        self._begin = time.monotonic()
        self._bar = tqdm(
            total=total, initial=done, desc=unit, leave=False, disable=None, dynamic_ncols=True
        )
        self._lines = lines and self._bar.disable
        self._last = done

    def step(self, state: str = "", news: str = "") -> None:
        """Count one more, and show what is known of it; `news` have a line in every case."""
        self._done += 1
        self._bar.set_postfix_str(state, refresh=False)
        self._bar.update()
        due = self._last + math.ceil(self._total / 10)
        if news or (self._lines and due <= self._done < self._total):
            self.tell(state, news)

    def tell(self, *state: str) -> None:
        """Write a line, above the bar if there is one."""
        self._last = self._done
        passed, counted = time.monotonic() - self._begin, self._done - self._first
        left = passed / max(counted, 1) * (self._total - self._done)
        parts = [f"{self._unit} {self._done}/{self._total}", *state]
        parts += [f"{tqdm.format_interval(left)} left"] if counted and left else []
        tqdm.write(", ".join(part for part in parts if part))

    def close(self) -> None:
        """Take the bar away."""
        self._bar.close()


class _Counted:
    """A loader whose batches are counted as they are taken."""

    def __init__(self, loader: DataLoader[Any], lines: bool) -> None:
        self._loader, self._lines = loader, lines

    def __len__(self) -> int:
        return len(self._loader)

    def __iter__(self) -> Iterator[Any]:
        progress = Progress("evaluation: batch", len(self), lines=self._lines)
        try:
            for batch in self._loader:
                yield batch
                progress.step()
        finally:
            progress.close()


class EvaluationWithProgress(SOLOTrainer):
    """`SOLOTrainer` whose evaluations show how far they are."""

    lines = True

    @classmethod
    def build_test_loader(cls, cfg: CfgNode, dataset_name: str) -> Any:
        """Build the loader of one dataset of `DATASETS.TEST`; the main process shows progress."""
        loader = super().build_test_loader(cfg, dataset_name)
        return _Counted(loader, cls.lines) if comm.is_main_process() else loader


class TrainerWithProgress(EvaluationWithProgress):
    """`SOLOTrainer` that shows how far it is, and what every evaluation finds."""

    lines = False  # of the evaluations: there is one of the training for each

    def build_hooks(self) -> list[HookBase]:
        """Add the hook that shows it, behind all others."""
        added = super().build_hooks()
        if comm.is_main_process():
            best = next((hook for hook in added if isinstance(hook, BestCheckpoint)), None)
            added.append(_TrainingProgress(best))
        return added


class _TrainingProgress(HookBase):
    """Counts iterations, with a line for every evaluation.

    Args:
        best: Keeps the best checkpoint; None if nothing does.
    """

    def __init__(self, best: BestCheckpoint | None) -> None:
        self._best = best

    def before_train(self) -> None:
        """Begin at the first iteration of this run."""
        self._progress = Progress("iteration", self.trainer.max_iter, self.trainer.start_iter)

    def after_step(self) -> None:
        """Count, and tell the results of an evaluation of this iteration."""
        self._progress.step(self._loss(), self._found(self.trainer.iter))

    def after_train(self) -> None:
        """Tell the results of the last evaluation; also called when a training is stopped."""
        self._progress.close()
        if self.trainer.iter + 1 >= self.trainer.max_iter:
            self._progress.tell(self._loss(), self._found(self.trainer.max_iter))

    def _loss(self) -> str:
        history = self.trainer.storage.histories().get("total_loss")
        return "" if history is None else f"loss {history.median(20):.3f}"

    def _found(self, iteration: int) -> str:
        """The main results of the evaluation behind an iteration; "" if there was none."""
        values = {
            name: value
            for name, (value, at) in self.trainer.storage.latest().items()
            if at == iteration and name.endswith(_TOLD)
        }
        texts = [
            f"{name.replace('/', ' ')} {'-' if math.isnan(value) else format(value, '.1f')}"
            for name, value in values.items()
        ]
        if texts and self._best is not None and self._best.iteration == iteration:
            texts.append("the best so far")
        return ", ".join(texts)
