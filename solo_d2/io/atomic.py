"""Atomic file writes: a file is complete or absent, even if the process or the machine dies."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import socket
import uuid
from collections.abc import Iterator
from os import PathLike
from pathlib import Path
from typing import BinaryIO

__all__ = [
    "AtomicFile",
    "atomic_write",
    "host_name",
    "is_running",
    "remove_leftovers",
    "sync_folder",
]

_SUFFIX = ".partial"
_LEFTOVER = re.compile(r"\.(?P<host>[\w-]+)-(?P<pid>\d+)-[0-9a-f]{8}" + re.escape(_SUFFIX) + r"\Z")
_open: set[Path] = set()  # temporary files of this process


class AtomicFile:
    """A file that is written under a temporary name beside its place, then renamed.

    A link is followed: the file that it names is replaced. The temporary name tells host and
    process, so that `remove_leftovers` spares the files of living processes.

    Args:
        path: the file; its folder must exist.
        sync: wait until the disk has it, so that it also survives a power failure; of thousands of
            small files that takes longer than making them.
        buffering: as of `open`; 0 for none.

    Attributes:
        file: the temporary file, open for writing bytes.

    Raises:
        OSError: nothing can be written there.
    """

    def __init__(
        self, path: str | PathLike[str], *, sync: bool = True, buffering: int = -1
    ) -> None:
        self._sync = sync
        self._target = Path(os.path.realpath(path))
        if self._target.exists() and not self._target.is_file():
            # Replacing /dev/null would be worse than an error.
            raise OSError(errno.EINVAL, "is a folder or a device, not a file", str(self._target))
        owner = f"{host_name()}-{os.getpid()}-{uuid.uuid4().hex[:8]}"
        # Names have at most 255 bytes, a character up to four.
        self._temporary = self._target.with_name(f".{self._target.name[:32]}.{owner}{_SUFFIX}")
        self.file: BinaryIO = open(self._temporary, "xb", buffering=buffering)
        _open.add(self._temporary)

    def commit(self) -> None:
        """Give the file its name once it is whole."""
        try:
            self.file.flush()
            if self._sync:
                os.fsync(self.file.fileno())
            self.file.close()
            os.replace(self._temporary, self._target)
        except BaseException:
            self.discard()
            raise
        _open.discard(self._temporary)
        if self._sync:
            sync_folder(self._target.parent)

    def discard(self) -> None:
        """Delete what was written; what was there before stays."""
        with contextlib.suppress(OSError):  # a full disk: closing flushes
            self.file.close()
        with contextlib.suppress(OSError):
            self._temporary.unlink()
        _open.discard(self._temporary)


@contextlib.contextmanager
def atomic_write(path: str | PathLike[str], *, sync: bool = True) -> Iterator[BinaryIO]:
    """Write a file as `AtomicFile` does; if the block raises, what was there before stays.

    Args:
        path: the file; its folder must exist.
        sync: see `AtomicFile`.

    Yields:
        The temporary file, open for writing bytes.

    Raises:
        OSError: it cannot be written.
    """
    pending = AtomicFile(path, sync=sync)
    try:
        yield pending.file
    except BaseException:
        pending.discard()
        raise
    pending.commit()


def remove_leftovers(folder: str | PathLike[str]) -> list[str]:
    """Delete temporary files that killed processes of this machine left in a folder.

    Those of living processes and of other machines stay.

    Returns:
        Names of the deleted files.
    """
    removed = []
    for path in Path(folder).glob(f".*{_SUFFIX}"):
        if _is_abandoned(path):
            with contextlib.suppress(OSError):
                path.unlink()
                removed.append(path.name)
    return removed


def _is_abandoned(path: Path) -> bool:
    owner = _LEFTOVER.search(path.name)
    if owner is None or owner["host"] != host_name():
        return False
    if int(owner["pid"]) == os.getpid():  # in a container the next process may have the same one
        return Path(os.path.realpath(path)) not in _open
    return not is_running(int(owner["pid"]))


def host_name() -> str:
    """Return the machine's name in at most 32 letters, digits, "-" and "_"."""
    return re.sub(r"[^A-Za-z0-9-]", "_", socket.gethostname())[:32] or "host"


def is_running(pid: int) -> bool:
    """Tell whether a process of this machine lives; True where the system does not say."""
    if os.name != "posix":  # os.kill would end it
        return True
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except OSError:  # of another user
        return True
    try:
        # A process that ended but was not waited for, as is common in containers.
        state = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()[0]
    except (OSError, IndexError):
        return True
    return state not in (b"Z", b"X")


def sync_folder(folder: Path) -> None:
    """Write a folder's names to the disk: without it a power failure may undo a renaming."""
    # Not every system opens folders.
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
