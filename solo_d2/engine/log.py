"""The log of a run: on the console and in a file, from the first message on, each of them once."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TextIO

from termcolor import colored
from tqdm import tqdm

_NAMES = ("detectron2", "fvcore", "solo_d2")
_FOREIGN = ("py.warnings", "torch")
_FORMAT = "[%(asctime)s] %(name)s %(levelname)s: %(message)s"
_DATE = "%m/%d %H:%M:%S"

_handlers: list[logging.Handler] = []
_foreign: list[tuple[logging.Logger, list[logging.Handler], bool]] = []


def begin_log() -> None:
    """Keep the messages of this package and Detectron2 until `open_log` says where they go."""
    end_log()
    _attach([_Memory()])


def open_log(folder: str, rank: int = 0, hidden: Sequence[str] | None = None) -> None:
    """Send all messages, those kept included, to the console and to ``log.txt`` in a folder.

    Args:
        folder: is made where it is missing, as on another machine.
        rank: of the process; all but 0 are silent and write to ``log.txt.rankN``.
        hidden: None shows on the console what Detectron2 shows. Otherwise it is quiet: warnings,
            each once, and what this package has to tell but for the modules named here. What torch
            and Python warn about is in the file alone then.

    Raises:
        OSError: The file cannot be written.
    """
    kept = [record for x in _handlers if isinstance(x, _Memory) for record in x.take()]
    os.makedirs(folder, exist_ok=True)
    name = f"log.txt.rank{rank}" if rank else "log.txt"
    file = _File(Path(folder, name))
    opened: list[logging.Handler] = [file]
    if rank == 0:
        opened.append(_Console(sys.stdout) if hidden is None else _Quiet(hidden))
    end_log()
    _attach(opened)
    if hidden is not None:
        _divert(file)
    for record in kept:
        logging.getLogger(record.name).callHandlers(record)


def open_console() -> None:
    """Send what a user wants to know to the console, and nothing to a file."""
    end_log()
    _attach([_Quiet(())])


def end_log() -> None:
    """Close the log; warnings that are still kept go to the standard error."""
    for handler in _handlers:
        for name in _NAMES:
            logging.getLogger(name).removeHandler(handler)
        handler.close()
    for name in _NAMES if _handlers else ():
        logging.getLogger(name).propagate = True
        logging.getLogger(name).setLevel(logging.NOTSET)
    _handlers.clear()
    for logger, before, propagated in _foreign:
        logger.handlers[:], logger.propagate = before, propagated
    _foreign.clear()


def _attach(handlers: list[logging.Handler]) -> None:
    for name in _NAMES:
        logger = logging.getLogger(name)
        for other in list(logger.handlers):  # of Detectron2's own set-up
            logger.removeHandler(other)
        logger.setLevel(logging.DEBUG)
        logger.propagate = False
        for handler in handlers:
            logger.addHandler(handler)
    _handlers.extend(handlers)


def _divert(file: logging.Handler) -> None:
    """Let what other packages say go to a file instead of where it goes."""
    for name in _FOREIGN:
        logger = logging.getLogger(name)
        _foreign.append((logger, list(logger.handlers), logger.propagate))
        logger.handlers[:], logger.propagate = [file], False


class _Memory(logging.Handler):
    """Keeps records."""

    def __init__(self) -> None:
        super().__init__()
        self._records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self._records.append(record)

    def take(self) -> list[logging.LogRecord]:
        taken, self._records = self._records, []
        return taken

    def close(self) -> None:
        for record in self.take():
            if record.levelno >= logging.WARNING:
                sys.stderr.write(f"{record.levelname}: {record.getMessage()}\n")
        super().close()


class _Console(logging.StreamHandler):  # type: ignore[type-arg]  # generic from Python 3.11
    """Messages from INFO on, in colour on a terminal."""

    def __init__(self, stream: TextIO) -> None:
        super().__init__(stream)
        self.setLevel(logging.INFO)
        self._colour = stream.isatty()
        self.setFormatter(logging.Formatter(_FORMAT, _DATE))

    def format(self, record: logging.LogRecord) -> str:
        text = super().format(record)
        if not self._colour:
            return text
        head, colon, rest = text.partition(": ")
        return colored(head + colon, "red" if record.levelno >= logging.WARNING else "green") + rest


class _Quiet(logging.Handler):
    """What a user wants to know, above a progress bar if there is one: one line each, and once."""

    def __init__(self, hidden: Sequence[str]) -> None:
        super().__init__(logging.INFO)
        self._hidden = tuple(hidden)
        self._told: set[str] = set()

    def filter(self, record: logging.LogRecord) -> bool:
        if record.levelno >= logging.WARNING:
            return record.getMessage() not in self._told
        return record.name.startswith("solo_d2.") and not record.name.startswith(self._hidden)

    def emit(self, record: logging.LogRecord) -> None:
        text = record.getMessage()
        if record.levelno >= logging.WARNING:
            self._told.add(text)
            text = f"{record.levelname.lower()}: {' '.join(text.split())}"
        tqdm.write(text)


class _File(logging.FileHandler):
    """Everything, as long as it can be written: a full disk ends the log and not the run."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, encoding="utf-8", errors="backslashreplace")
        self.setFormatter(logging.Formatter(_FORMAT, _DATE))

    def handleError(self, record: logging.LogRecord) -> None:
        error = sys.exc_info()[1]
        if not isinstance(error, OSError):
            super().handleError(record)
            return
        self.setLevel(logging.CRITICAL + 1)
        sys.stderr.write(f"{self.baseFilename}: no more is written ({error.strerror})\n")

    def close(self) -> None:
        with contextlib.suppress(OSError):  # told when it was written to
            super().close()
