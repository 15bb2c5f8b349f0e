"""What benchmarks that train share: a progress bar, a log file and results in percent."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from pathlib import Path

from detectron2.engine import HookBase
from tqdm import tqdm

METRICS = ("AP", "AP50", "AP75", "APs", "APm", "APl")


class Bar(HookBase):
    """Progress bar of a run."""

    def __init__(self, label: str) -> None:
        self.label = label

    def before_train(self) -> None:
        """Draw it."""
        self.bar = tqdm(total=self.trainer.max_iter, desc=self.label, leave=False)

    def after_step(self) -> None:
        """Move it."""
        self.bar.update()

    def after_train(self) -> None:
        """Remove it."""
        self.bar.close()


def log_to(path: Path) -> None:
    """Send Detectron2's log to a file, so that the progress bars stay readable."""
    handler = logging.FileHandler(path, encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    for name in ("detectron2", "fvcore", "solo_d2"):
        logger = logging.getLogger(name)
        logger.handlers, logger.propagate = [handler], False
        logger.setLevel(logging.INFO)  # without it Detectron2 sets up a log of its own


def percentages(results: Mapping[str, float]) -> dict[str, float | None]:
    """Return `METRICS` of an evaluation in percent; None if no object has that size."""
    values = {metric: float(results.get(metric, math.nan)) for metric in METRICS}
    if math.isnan(values["AP"]):  # so Detectron2 reports that nothing was found
        return dict.fromkeys(METRICS, 0.0)
    return {key: None if math.isnan(value) else value for key, value in values.items()}
