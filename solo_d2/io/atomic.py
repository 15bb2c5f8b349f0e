"""Files that are either whole or not there, also when the process or the machine dies."""

from __future__ import annotations

import contextlib
import os
import uuid
from collections.abc import Iterator
from os import PathLike
from pathlib import Path
from typing import BinaryIO

_SUFFIX = ".partial"


@contextlib.contextmanager
def atomic_write(path: str | PathLike[str]) -> Iterator[BinaryIO]:
    """Write a file under a temporary name beside it, and rename it when it is on the disk.

    A link is followed: the file that it names is replaced. If the block raises, what was there
    before stays, and the temporary file goes.

    Args:
        path: the file; its folder must exist.

    Yields:
        The temporary file, open for writing bytes.
    """
    target = Path(os.path.realpath(path))
    temporary = target.with_name(f".{target.name}.{os.getpid()}-{uuid.uuid4().hex[:8]}{_SUFFIX}")
    try:
        with open(temporary, "xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, target)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise
    _sync_folder(target.parent)


def remove_leftovers(folder: str | PathLike[str]) -> list[str]:
    """Delete temporary files that killed processes left in a folder.

    Only for a folder that nobody else writes to at the time.

    Returns:
        Names of the deleted files.
    """
    removed = []
    for path in Path(folder).glob(f".*{_SUFFIX}"):
        with contextlib.suppress(OSError):
            path.unlink()
            removed.append(path.name)
    return removed


def _sync_folder(folder: Path) -> None:
    # Without it a power failure may undo the renaming. Not every system opens folders.
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
