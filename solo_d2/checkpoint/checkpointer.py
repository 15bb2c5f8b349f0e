"""Detectron2's checkpointer, with safe reading, strict matching and saving without gaps."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Any

from detectron2.checkpoint import DetectionCheckpointer
from detectron2.checkpoint.c2_model_loading import align_and_update_state_dicts
from detectron2.utils import comm
from torch import nn

from ..io.atomic import atomic_write, remove_leftovers
from ..io.errors import one_line
from .classes import check_classes, match_classes, take_classes
from .convention import OWN, check_convention, own_info
from .files import EMA_KEY, load_checkpoint, save_checkpoint
from .fit import Require, check_fit, compare, leave_out_classes
from .foreign.convert import convert_state_dict
from .foreign.key_maps import find_source
from .formats import check_whole
from .info import INFO_KEY, CheckpointInfo
from .places import find_weights, public_name
from .plain import plain_types
from .tensors import check_values

_logger = logging.getLogger(__name__)

_TAG = "last_checkpoint"


class SOLOCheckpointer(DetectionCheckpointer):
    """Loads and saves the weights of a model, and the state of a training.

    Loading takes what Detectron2's does, and the published files of other SOLO projects, which it
    converts. It never runs code from a file, and refuses what does not fit.

    Args:
        model: changed in place by loading.
        save_dir: folder of the checkpoints.
        save_to_disk: by default on the main process alone.
        require: how much of the model a file must fill.
        rename: whether the model's `class_names` may differ from those of a file of the same
            classes: its names are other words for them.
        **checkpointables: have `state_dict` and `load_state_dict`, such as ``trainer``.

    Attributes:
        resumed: whether `resume_or_load` went on with a checkpoint of `save_dir`.
        averaged: whether the weights that were loaded last are an average (EMA).

    Example:
        >>> from solo_d2 import SOLO
        >>> from solo_d2.testing import tiny_config
        >>> model = SOLO(tiny_config())
        >>> SOLOCheckpointer(model, ".").save("mine")
        >>> load_state_dict("mine.pth").keys() == model.state_dict().keys()
        True
    """

    def __init__(
        self,
        model: nn.Module,
        save_dir: str = "",
        *,
        save_to_disk: bool | None = None,
        require: Require = Require.EVERYTHING,
        rename: bool = False,
        **checkpointables: Any,
    ) -> None:
        super().__init__(model, save_dir, save_to_disk=save_to_disk, **checkpointables)
        self.require = require
        self.rename = rename
        self.resumed = False
        self.averaged = False
        self._loading: list[str] = []

    def load(self, path: str, checkpointables: list[str] | None = None) -> dict[str, Any]:
        """Load a file.

        Args:
            path: a file, a URL, or a name such as "detectron2://..." or "solo://...", see
                `find_weights`. "" does nothing.
            checkpointables: which of them to load; None for all.

        Returns:
            What else the file has.

        Raises:
            ValueError: The file cannot be had, cannot be used, or does not fit.
        """
        if not path:
            _logger.info("No weights named; the model stays as it is.")
            return {}
        shown = public_name(os.fspath(path))
        _logger.info("Loading %s", shown)
        file, heuristics = find_weights(os.fspath(path))
        checkpoint = self._load_file(str(file))
        if heuristics:
            checkpoint["matching_heuristics"] = True
        self._loading = list(self.checkpointables if checkpointables is None else checkpointables)
        try:
            self._load_model(checkpoint)
            for key in self._loading:
                if key in checkpoint:
                    self._load_state(key, checkpoint.pop(key))
        except ValueError as error:
            raise ValueError(f"{shown}: {error}") from error
        return checkpoint

    def save(self, name: str, **kwargs: Any) -> None:
        """Save to ``NAME.pth`` and make it the last checkpoint; both atomically.

        Args:
            name: of the file in `save_dir`.
            **kwargs: more to save, of plain types.

        Raises:
            OSError: It cannot be written. What was saved before stays as it was.
        """
        if not self.save_dir or not self.save_to_disk:
            return
        states = {key: obj.state_dict() for key, obj in self.checkpointables.items()}
        data: dict[str, Any] = {
            "model": self.model.state_dict(),
            **plain_types({**states, **kwargs}, ""),
        }
        info = own_info(self.model)
        if info is not None:
            data[INFO_KEY] = info
        file = Path(self.save_dir, f"{name}.pth")
        if file.name != f"{name}.pth":
            raise ValueError(f"a checkpoint needs a name without folders, got {name!r}")
        _logger.info("Saving %s", file)
        save_checkpoint(data, file)
        self.tag_last_checkpoint(file.name)

    def tag_last_checkpoint(self, last_filename_basename: str) -> None:
        """Name the checkpoint that resuming goes on with, atomically."""
        with atomic_write(Path(self.save_dir, _TAG)) as file:
            file.write(last_filename_basename.encode())

    def resume_or_load(self, path: str, *, resume: bool = True) -> dict[str, Any]:
        """Go on with the last checkpoint of `save_dir`, or load other weights.

        If the last one is missing or damaged, the newest whole one is taken, with a warning. The
        main process chooses, and all processes fail if one of them cannot load.

        Args:
            path: weights to load where there is nothing to resume from.
            resume: False loads `path` in any case.

        Raises:
            ValueError: There is no whole checkpoint left, or see `load`.
        """
        if self.save_dir and self.save_to_disk:
            for name in remove_leftovers(self.save_dir):
                _logger.warning("Removed %s, left by a save that was interrupted", name)
        file, problem = None, None
        if resume and self.save_dir:
            last = find_last(self.save_dir) if comm.is_main_process() else None
            file, problem = comm.all_gather(last)[0]
        if problem is not None:
            raise ValueError(problem)
        self.resumed = file is not None
        if file is None:
            return self.load(path, checkpointables=[])
        before, self.require = self.require, Require.EVERYTHING
        failure, checkpoint = None, {}
        try:
            checkpoint = self.load(file)
        except ValueError as error:
            failure = f"cannot resume: {error}"
        finally:
            self.require = before
        failures = [text for text in comm.all_gather(failure) if text]
        if failures:
            raise ValueError(failures[0])
        return checkpoint

    def _load_file(self, filename: str) -> dict[str, Any]:
        # Optimizers keep what they are given; weights are copied.
        return load_checkpoint(filename, mmap=not self.checkpointables)

    def _load_model(self, checkpoint: dict[str, Any]) -> Any:
        """Check everything first, so that a refused file leaves the model as it was."""
        # A training goes on with the weights themselves; all others want the average.
        self.averaged = {EMA_KEY, INFO_KEY} <= set(checkpoint) and not self._loading
        if self.averaged:
            checkpoint["model"] = checkpoint.pop(EMA_KEY)
            _logger.info("Using its EMA weights")
        _prepare(checkpoint, self.model)
        info = None
        if INFO_KEY in checkpoint:
            info = CheckpointInfo.from_dict(checkpoint[INFO_KEY])
            self._match_classes(info, checkpoint)
        fit = compare(self.model, checkpoint["model"])
        if self.require is Require.BACKBONE:
            fit = leave_out_classes(fit, checkpoint["model"])
        check_fit(fit, self.require)
        check_values(self.model, checkpoint["model"])
        if info is not None:
            try:
                check_convention(info, self.model)
            except ValueError as error:
                if self.require is not Require.NOTHING:
                    raise
                _logger.warning("The file %s", error)
            if self.require is Require.EVERYTHING:
                take_classes(self.model, info)
        return super()._load_model(checkpoint)

    def _match_classes(self, info: CheckpointInfo, checkpoint: dict[str, Any]) -> None:
        check_classes(info, checkpoint["model"])
        # The state of an optimizer, which comes with a resumed training, is in the file's order.
        resuming = any(key in checkpoint for key in self._loading)
        # Names of other projects' files are not always known for certain.
        strict = self.require is Require.EVERYTHING and info.source == OWN and not self.rename
        match_classes(self.model, info, checkpoint["model"], strict=strict, move=not resuming)

    def _load_state(self, key: str, state: Any) -> None:
        try:
            self.checkpointables[key].load_state_dict(state)
        except Exception as error:  # optimizers and schedulers raise all kinds
            raise ValueError(
                f"its {key!r} does not fit this run ({one_line(error)}). Resume with the config "
                "that it was saved with, or start anew from it as MODEL.WEIGHTS."
            ) from error


def load_weights(
    model: nn.Module,
    weights: str | os.PathLike[str],
    *,
    allow_partial: bool = False,
    rename: bool = False,
) -> bool:
    """Load weights for prediction into a model, in place.

    Args:
        model: The model. Where it has `class_names`, those of the file are put in the same order;
            where it has none, it gets the file's.
        weights: A file or a URL, see `SOLOCheckpointer.load`; "" leaves the model as it is, with
            a warning.
        allow_partial: Take what fits, and log by name what is left random.
        rename: Whether the model's `class_names` may be other words than the file's for the same
            classes.

    Returns:
        Whether they are an average (EMA), which is taken where the file has one.

    Raises:
        ValueError: The file is missing, damaged, unsafe, of another model or of other classes, or
            the model gets another input than the weights were trained with.

    Example:
        >>> from solo_d2 import SOLO
        >>> from solo_d2.testing import tiny_config
        >>> model = SOLO(tiny_config())
        >>> save_checkpoint({"model": model.state_dict()}, "mine.pth")
        >>> load_weights(model, "mine.pth")
        False
    """
    if not os.fspath(weights):
        _logger.warning("MODEL.WEIGHTS is empty: the model has random weights.")
        return False
    require = Require.NOTHING if allow_partial else Require.EVERYTHING
    checkpointer = SOLOCheckpointer(model, require=require, rename=rename)
    checkpointer.load(os.fspath(weights), checkpointables=[])
    return checkpointer.averaged


def find_last(folder: str) -> tuple[str | None, str | None]:
    """Return the file to resume from, or what is wrong; neither, where nothing was saved yet."""
    tag = Path(folder, _TAG)
    reason = f"there is no {tag}"
    if tag.is_file():
        name = tag.read_text(errors="replace").strip()
        reason = f"{tag} is empty"
        if name and name != Path(name).name:
            reason = f"{tag} names {name!r}, outside of the folder"
        elif name:
            try:
                check_whole(tag.with_name(name))
                return str(tag.with_name(name)), None
            except ValueError as error:
                reason = str(error)
    for file in _training_files(folder):
        try:
            check_whole(file)
        except ValueError:
            continue
        _logger.warning("%s. Going on with the newest whole checkpoint, %s", reason, file)
        return str(file), None
    if not tag.is_file():
        return None, None
    return None, (
        f"cannot resume: {reason}, and {folder} has no whole checkpoint. Start without "
        "--resume, or with one as MODEL.WEIGHTS."
    )


def _training_files(folder: str) -> list[Path]:
    """Readable checkpoints of a training in the folder, the newest first."""
    found = []
    for file in Path(folder).glob("*.pth"):
        try:
            iteration = load_checkpoint(file, mmap=True, verify=False).get("iteration")
        except ValueError:
            continue
        if isinstance(iteration, int):
            found.append((iteration, file.stat().st_mtime, file))
    return [file for _, _, file in sorted(found, reverse=True)]


def _prepare(checkpoint: dict[str, Any], model: nn.Module) -> None:
    """Bring the weights of a file to the names of this package, as far as possible."""
    state = checkpoint["model"]
    if all(key.startswith("module.") for key in state):  # of a model in DataParallel
        state = checkpoint["model"] = {key[len("module.") :]: x for key, x in state.items()}
    if checkpoint.pop("matching_heuristics", False):
        author = checkpoint.get("__author__")
        try:
            checkpoint["model"] = align_and_update_state_dicts(
                model.state_dict(), state, c2_conversion=author == "Caffe2"
            )
        except Exception as error:  # names and shapes that the heuristics did not expect
            raise ValueError(f"its names cannot be matched ({one_line(error)})") from error
        return
    source = find_source(state)
    if source is None or any(key.startswith("head.") for key in state):
        return
    converted = convert_state_dict({"model": state, "meta": checkpoint.get("meta")}, source)
    _logger.info("Converted from %s: %s", source, converted.info.architecture)
    checkpoint["model"] = dict(converted)
    checkpoint[INFO_KEY] = converted.info.to_dict()
