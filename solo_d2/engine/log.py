"""The log of a run: on the console and in a file, from the first message on, each of them once."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
from pathlib import Path
from typing import TextIO

from termcolor import colored

_NAMES = ("detectron2", "fvcore", "solo_d2")
_FORMAT = "[%(asctime)s] %(name)s %(levelname)s: %(message)s"
_DATE = "%m/%d %H:%M:%S"

_handlers: list[logging.Handler] = []


def begin_log() -> None:
    """Keep the messages of this package and Detectron2 until `open_log` says where they go."""
    end_log()
    _attach([_Memory()])


def open_log(folder: str, rank: int = 0) -> None:
    """Send all messages, those kept included, to the console and to ``log.txt`` in a folder.

    Args:
        folder: is made where it is missing, as on another machine.
        rank: of the process; all but 0 are silent and write to ``log.txt.rankN``.

    Raises:
        OSError: The file cannot be written.
    """
    kept = [record for x in _handlers if isinstance(x, _Memory) for record in x.take()]
    os.makedirs(folder, exist_ok=True)
    name = f"log.txt.rank{rank}" if rank else "log.txt"
    opened: list[logging.Handler] = [_File(Path(folder, name))]
    if rank == 0:
        opened.append(_Console(sys.stdout))
    end_log()
    _attach(opened)
    for record in kept:
        logging.getLogger(record.name).callHandlers(record)


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


class _Console(logging.StreamHandler):
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
