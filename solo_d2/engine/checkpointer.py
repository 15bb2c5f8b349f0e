"""The checkpointer of a training: what it saves can be trained on, and errors name changed keys."""

from __future__ import annotations

import logging
import re
from pathlib import Path
from typing import Any

import torch
from detectron2.config import CfgNode
from torch import nn

from ..checkpoint import SOLOCheckpointer
from ..io.errors import one_line
from .state import STATE_KEY, changes

_logger = logging.getLogger(__name__)

_NUMBERED = re.compile(r"model_\d{7,}")


class TrainingCheckpointer(SOLOCheckpointer):
    """`SOLOCheckpointer` that knows the config of its training.

    Of the checkpoints that this training saved by iteration, `SOLVER.CHECKPOINTS_TO_KEEP` stay.

    Attributes:
        saved_iteration: the last whole iteration in what was saved last; None if nothing was.
        numbered: files of iterations that this training, resumes included, has saved and kept, the
            newest last.
    """

    def __init__(self, cfg: CfgNode, model: nn.Module, **checkpointables: Any) -> None:
        super().__init__(model, cfg.OUTPUT_DIR, **checkpointables)
        self.cfg = cfg
        self.saved_iteration: int | None = None
        self.numbered: list[str] = []

    def save(self, name: str, **kwargs: Any) -> None:
        """Save as `SOLOCheckpointer` does, unless there are parameters with NaN or infinity.

        Raises:
            FloatingPointError: There are. What was saved before stays the last checkpoint.
            OSError: It cannot be written.
        """
        bad = _first_bad_parameter(self.model)
        if bad is not None:
            raise FloatingPointError(
                f"{name} is not saved: {bad} has NaN or infinite values, the training has diverged"
            )
        before = self.numbered
        if _NUMBERED.fullmatch(name):
            self.numbered = [*(x for x in before if x != f"{name}.pth"), f"{name}.pth"]
        try:
            super().save(name, **kwargs)  # the list is a part of it
        except BaseException:
            self.numbered = before
            raise
        self.saved_iteration = kwargs.get("iteration")
        self._remove_old()

    def _remove_old(self) -> None:
        """Remove all but the newest numbered checkpoints; the last one of all is among them."""
        keep = self.cfg.SOLVER.CHECKPOINTS_TO_KEEP
        if not (keep and self.save_to_disk):
            return
        for name in self.numbered[:-keep]:
            file = Path(self.save_dir, name)
            try:
                file.unlink(missing_ok=True)
            except OSError as error:
                _logger.warning("%s is not needed and cannot be removed: %s", file, one_line(error))
        self.numbered = self.numbered[-keep:]

    def last_file(self) -> Path | None:
        """Return the checkpoint that resuming goes on with; None if there is none."""
        try:
            name = Path(self.save_dir, "last_checkpoint").read_text().strip()
        except OSError:
            return None
        return Path(self.save_dir, name)

    def _load_model(self, checkpoint: dict[str, Any]) -> Any:
        try:
            return super()._load_model(checkpoint)
        except ValueError as error:
            changed = [x for x in changes(_saved_config(checkpoint), self.cfg) if x[:6] == "MODEL."]
            if not changed:
                raise
            raise ValueError(
                f"{one_line(error)}. Changed since it was saved: {', '.join(changed)}."
            ) from error


class BestCheckpointer(TrainingCheckpointer):
    """Saves beside the regular checkpoints: `--resume` must go on from the last, not the best."""

    def tag_last_checkpoint(self, last_filename_basename: str) -> None:
        """Leave the file `last_checkpoint` alone."""


def _first_bad_parameter(model: nn.Module) -> str | None:
    named = [(name, p.detach()) for name, p in model.named_parameters()]
    if not named:
        return None
    finite = torch.stack([torch.isfinite(p).all() for _, p in named])  # one answer of the device
    return None if bool(finite.all()) else named[int(finite.int().argmin())][0]


def _saved_config(checkpoint: dict[str, Any]) -> dict[str, Any]:
    """Return the config in a checkpoint, as of `flat_config`; {} if there is none."""
    state: Any = checkpoint
    for key in ("trainer", STATE_KEY, "config"):
        state = state.get(key) if isinstance(state, dict) else None
    return state if isinstance(state, dict) else {}
