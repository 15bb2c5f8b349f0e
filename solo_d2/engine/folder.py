"""The folder of a run: checked before anything is done, and written by one training at a time."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from pathlib import Path

from detectron2.config import CfgNode
from detectron2.utils import comm

from ..checkpoint.checkpointer import find_last
from ..io.atomic import atomic_write
from ..io.errors import one_line
from ..io.lock import LOCK, lock_folder

_WRITTEN = ("config.yaml", "log.txt", "metrics.json", "last_checkpoint", "model_final.pth")


def on_main_process(action: Callable[[], None]) -> None:
    """Run something on the main process; its error is raised in all of them."""
    failure: Exception | None = None
    if comm.is_main_process():
        try:
            action()
        except (ValueError, OSError) as error:
            failure = error
    failure = comm.all_gather(failure)[0]
    if failure is not None:
        raise failure


def check_folder(folder: str) -> None:
    """Check that a run can write to its folder, without making it.

    Raises:
        ValueError: No name, something else in its place, or a folder where a file is written.
        OSError: It cannot be written to.
    """
    if not folder.strip():
        raise ValueError("OUTPUT_DIR is empty; name a folder for checkpoints, log and results")
    path = Path(folder)
    for name in _WRITTEN:
        if Path(path, name).is_dir():
            raise ValueError(f"{path / name} is a folder; a training writes a file of this name")
    there = next(x for x in (path, *path.absolute().parents) if x.exists() or x.is_symlink())
    if not there.is_dir():
        raise ValueError(f"OUTPUT_DIR {folder}: {there} is not a folder; choose another one")
    try:
        tempfile.TemporaryFile(dir=there).close()
    except OSError as error:
        raise OSError(
            f"OUTPUT_DIR {folder}: nothing can be written to {there} ({one_line(error)})"
        ) from error


def has_training(folder: str) -> bool:
    """Return whether a folder holds the checkpoints or the log of a training, or one runs there."""
    return has_checkpoints(folder) or any(
        Path(folder, name).exists() for name in ("metrics.json", LOCK)
    )


def has_checkpoints(folder: str) -> bool:
    """Return whether a folder holds something that `--resume` looks at."""
    return Path(folder, "last_checkpoint").exists() or any(Path(folder).glob("*.pth"))


def check_new(folder: str) -> None:
    """Check that a new training would not write over another one.

    Weights of other names, such as those to start from, may lie there.

    Raises:
        ValueError: The folder has checkpoints.
    """
    if Path(folder, "last_checkpoint").exists() or any(Path(folder).glob("model_*.pth")):
        raise ValueError(
            f"OUTPUT_DIR {folder} has the checkpoints of a training: --resume goes on with it; for "
            "a new one name another folder"
        )


def last_checkpoint(folder: str) -> str:
    """Return the file of the last whole checkpoint.

    Raises:
        ValueError: There is none.
    """
    file, problem = find_last(folder)
    if file is None:
        raise ValueError(
            problem
            or f"OUTPUT_DIR {folder} has no checkpoint; leave --resume out to take MODEL.WEIGHTS"
        )
    return file


def check_weights(cfg: CfgNode, resume: bool) -> None:
    """Check that a local file of `MODEL.WEIGHTS` exists, where it is going to be read.

    Raises:
        ValueError: There is no such file.
    """
    name = cfg.MODEL.WEIGHTS
    if not name or "://" in name or (resume and has_checkpoints(cfg.OUTPUT_DIR)):
        return
    if not os.path.exists(name) and not os.path.exists(name.partition("?")[0]):
        raise ValueError(f"{name}: no such file. Check the path in MODEL.WEIGHTS.")


def open_run(cfg: CfgNode) -> None:
    """Take the folder for a training and write its config there; all processes call it.

    Raises:
        FolderInUseError: Another training has it.
        ValueError: See `check_folder`.
        OSError: It cannot be written to.
    """

    def action() -> None:
        check_folder(cfg.OUTPUT_DIR)
        os.makedirs(cfg.OUTPUT_DIR, exist_ok=True)
        lock_folder(cfg.OUTPUT_DIR)
        _end_last_line(Path(cfg.OUTPUT_DIR, "metrics.json"))
        with atomic_write(Path(cfg.OUTPUT_DIR, "config.yaml")) as file:
            file.write(cfg.dump().encode())

    on_main_process(action)


def _end_last_line(file: Path) -> None:
    """Cut off what a killed run wrote of a line, to which the next line would be appended."""
    if file.is_file():
        whole, newline, rest = file.read_bytes().rpartition(b"\n")
        if rest:
            os.truncate(file, len(whole + newline))
