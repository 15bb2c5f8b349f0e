"""Train one model, timed, and evaluate it: what `against.py` and `recipe.py` share."""

from __future__ import annotations

import contextlib
import time
from pathlib import Path
from statistics import median
from typing import Any

import torch
from _against_report import BOUNDARY, Run
from _runs import Bar, percentages
from detectron2.config import CfgNode
from detectron2.engine import HookBase
from detectron2.utils.env import seed_all_rng

from solo_d2.engine import SOLOTrainer

COLD = 10  # steps that are not timed: memory is allocated, kernels are chosen


def with_steps(cfg: CfgNode, steps: int) -> CfgNode:
    """Return a config of a training of this length; at most a tenth of it is warm-up."""
    cfg = cfg.clone()
    cfg.SOLVER.MAX_ITER = steps
    cfg.SOLVER.WARMUP_ITERS = min(cfg.SOLVER.WARMUP_ITERS, steps // 10)
    return cfg


class Stopwatch(HookBase):
    """Times the steps of a training, and after it every call of the model."""

    def before_train(self) -> None:
        """Start."""
        self.times = [self._now()]
        self.calls: list[float] = []
        self._started = 0.0

    def after_step(self) -> None:
        """Note the time behind the cold steps and behind the last one."""
        done = self.trainer.iter + 1
        if done == self.cold:
            self.times.append(self._now())
        if done == self.trainer.max_iter:
            self.times.append(self._now())
            self.trainer.model.register_forward_pre_hook(self._start)
            self.trainer.model.register_forward_hook(self._stop)

    @property
    def cold(self) -> int:
        """Steps that the speed does not count."""
        return min(COLD, self.trainer.max_iter // 2)

    @property
    def step(self) -> float:
        """Seconds of a step."""
        return (self.times[-1] - self.times[-2]) / (self.trainer.max_iter - self.cold)

    def _start(self, *_: Any) -> None:
        self._started = self._now()

    def _stop(self, *_: Any) -> None:
        self.calls.append(self._now() - self._started)

    def _now(self) -> float:
        if torch.device(self.trainer.cfg.MODEL.DEVICE).type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter()


class Trainer(SOLOTrainer):
    """`SOLOTrainer`, of any model, with a stopwatch."""

    def build_hooks(self) -> list[HookBase]:
        """Put the stopwatch before all that reports, saves and evaluates."""
        self.stopwatch = Stopwatch()
        return [self.stopwatch, *super().build_hooks()]


def train(cfg: CfgNode, name: str, seed: int, folder: Path) -> Run:
    """Train and evaluate one model."""
    cfg = cfg.clone()
    cfg.SEED, cfg.OUTPUT_DIR = seed, str(folder)
    cfg.freeze()
    folder.mkdir(parents=True, exist_ok=True)
    seed_all_rng(seed)
    trainer = Trainer(cfg)
    trainer.register_hooks([Bar(folder.name)])
    trainer.resume_or_load(resume=False)
    with (folder / "evaluation.txt").open("w") as text, contextlib.redirect_stdout(text):
        trainer.train()
    watch, results = trainer.stopwatch, trainer._last_eval_results if cfg.DATASETS.TEST else {}
    boundary = percentages(results.get("boundary", {}))["AP"]
    return Run(
        model=name,
        seed=seed,
        parameters=sum(p.numel() for p in trainer.model.parameters()),
        steps=cfg.SOLVER.MAX_ITER,
        seconds=watch.times[-1] - watch.times[0],
        train_speed=cfg.SOLVER.IMS_PER_BATCH / watch.step,
        test_ms=1000 * median(watch.calls or [0.0]),
        metrics={**percentages(results.get("segm", {})), BOUNDARY: boundary},
    )
