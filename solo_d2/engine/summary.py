"""What a training ends with: its files, its best result, and the command that tries it."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path

from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog
from detectron2.utils import comm

from ..checkpoint import load_checkpoint
from ..data.records import has_objects
from .hooks import BEST

__all__ = ["closing_lines"]


def closing_lines(cfg: CfgNode) -> list[str]:
    """Describe a finished training.

    Args:
        cfg: Of the training.

    Returns:
        Lines for the console; none on processes other than the main one.
    """
    if not comm.is_main_process():
        return []
    folder = Path(cfg.OUTPUT_DIR)
    best, final = folder / f"{BEST}.pth", folder / "model_final.pth"
    lines = ["-" * 72]
    if best.is_file():
        found = load_checkpoint(best, mmap=True)
        scores = ", ".join(
            f"{key.replace('/', ' ')} {value:.1f}" for key, value in found["best"].items()
        )
        lines.append(f"best model:  {best} ({scores} at iteration {found['iteration'] + 1})")
    elif cfg.TEST.EVAL_PERIOD > 0 and cfg.DATASETS.TEST:
        lines.append(f"best model:  none; {_why_no_ap(cfg.DATASETS.TEST[0])}")
    lines.append(f"last model:  {final}")
    curves = shlex.join(["tensorboard", "--logdir", str(folder)])
    lines.append(f"log, curves: {folder / 'log.txt'}, {curves}")
    weights = best if best.is_file() else final
    command = "solo-d2" if Path(sys.argv[0]).name == "solo-d2" else "python -m solo_d2"
    words = ["--config-file", str(folder / "config.yaml"), "--weights", str(weights)]
    lines.append(f"try it:      {command} predict {shlex.join(words)} --input IMAGE")
    return [*lines, lines[0]]


def _why_no_ap(name: str) -> str:
    """Return why no evaluation on a dataset had an AP, and what helps."""
    if any(map(has_objects, DatasetCatalog.get(name))):
        return "no evaluation had an AP (more epochs help most)"
    return "no evaluation had an AP: the validation set has no object (annotate some in it)"
