"""One run in a folder at a time, also over a network and after a crash."""

from __future__ import annotations

import atexit
import contextlib
import json
import logging
import os
import tempfile
import threading
import time
import uuid
from os import PathLike
from pathlib import Path

from .processes import Owner, is_alive, this_process

_logger = logging.getLogger(__name__)

LOCK = "training.lock"
"""Name of the lock in the folder."""
BEAT = 15.0
"""Seconds between two signs of life of the one who has the lock."""
DEAD = 180.0
"""Seconds without a sign of life after which a run on another machine counts as dead."""

_held: dict[str, FolderLock] = {}


class FolderInUseError(ValueError):
    """Another run works in the folder."""


class FolderLock:
    """The right to write to a folder; given back when the process ends, however it ends.

    The file in the folder names process and machine. On its own machine a dead process is known at
    once, elsewhere when its file has not been touched for `DEAD` seconds.

    Args:
        folder: of the run; it exists.
    """

    def __init__(self, folder: str | PathLike[str]) -> None:
        self.path = Path(folder, LOCK)
        self._owner = this_process()
        self._ended = threading.Event()

    def acquire(self) -> None:
        """Take the lock.

        Raises:
            FolderInUseError: A living run has it, or one that may live.
            OSError: The folder cannot be written to.
        """
        content = json.dumps({**self._owner._asdict(), "since": time.strftime("%F %T")}).encode()
        for _ in range(3):
            try:
                descriptor = os.open(self.path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644)
            except FileExistsError:
                self._remove_stale()
                continue
            with os.fdopen(descriptor, "wb") as file:
                file.write(content)
            threading.Thread(target=self._beat, daemon=True).start()
            return
        raise FolderInUseError(f"{self.path}: others are taking this lock at the same time")

    def release(self) -> None:
        """Give the lock back; not in a forked process, and not one that others took over."""
        self._ended.set()
        if self._owner.pid == os.getpid() and self._is_ours():
            with contextlib.suppress(OSError):
                self.path.unlink()

    def _remove_stale(self) -> None:
        """Remove the lock of a dead run; a living one is an error."""
        try:
            content = self.path.read_bytes()
            age = _clock(self.path.parent) - self.path.stat().st_mtime
        except FileNotFoundError:  # given back meanwhile
            return
        owner, since = _read(content)
        alive = None if owner is None else is_alive(owner)
        if alive or (alive is None and age < DEAD):
            who = "another run" if owner is None else f"process {owner.pid} on {owner.host}"
            remedy = "Choose another OUTPUT_DIR, or wait until it ends"
            if alive is None:
                remedy += f"; if it is dead, try again in {DEAD - age:.0f} s, or delete that file"
            raise FolderInUseError(
                f"{self.path.parent} is in use by {who}{since} ({self.path.name}). {remedy}."
            )
        # Whoever renames it first removes it; a lock that came in between is put back.
        aside = self.path.with_name(f".{LOCK}.{uuid.uuid4().hex[:8]}")
        with contextlib.suppress(FileNotFoundError):
            self.path.rename(aside)
            if aside.read_bytes() != content:
                aside.rename(self.path)
                return
            aside.unlink()
            _logger.warning("%s: removed the lock of a run that is dead%s", self.path, since)

    def _is_ours(self) -> bool:
        try:
            return _read(self.path.read_bytes())[0] == self._owner
        except OSError:
            return False

    def _beat(self) -> None:
        while not self._ended.wait(BEAT):
            with contextlib.suppress(OSError):  # a network that is away may come back
                os.utime(self.path)


def lock_folder(folder: str | PathLike[str]) -> None:
    """Take the lock of a folder for this process, which may have it already.

    Raises:
        FolderInUseError: A living run has it, or one that may live.
        OSError: The folder cannot be written to.
    """
    key = os.path.realpath(folder)
    held = _held.get(key)
    if held is not None and held._owner.pid == os.getpid() and held._is_ours():
        return
    lock = FolderLock(key)
    lock.acquire()
    _held[key] = lock


def unlock_folder(folder: str | PathLike[str]) -> None:
    """Give the lock of a folder back, if this process has it."""
    lock = _held.pop(os.path.realpath(folder), None)
    if lock is not None:
        lock.release()


@atexit.register
def unlock_all() -> None:
    """Give back all locks of this process."""
    for key in list(_held):
        unlock_folder(key)


def _read(content: bytes) -> tuple[Owner | None, str]:
    """Return whose lock it is, and since when, as part of a sentence; None if it does not say."""
    try:
        values = json.loads(content)
        host, boot, space, start = (str(values[x]) for x in ("host", "boot", "space", "start"))
        return Owner(host, boot, space, int(values["pid"]), start), f" since {values['since']}"
    except (ValueError, KeyError, TypeError):  # just made, or of something else
        return None, ""


def _clock(folder: Path) -> float:
    """Return the time of the file system, which is not that of this machine on a network."""
    with tempfile.NamedTemporaryFile(dir=folder, prefix=f".{LOCK}.") as file:
        return os.fstat(file.fileno()).st_mtime
