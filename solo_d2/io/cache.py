"""The folder of what was downloaded, shared by processes."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from iopath.common.file_io import file_lock, get_cache_dir

from .errors import one_line


@contextlib.contextmanager
def cached(folder: str, name: str) -> Iterator[Path]:
    """Hold the lock of one file in a folder of the cache, which is made.

    Args:
        folder: relative to ``solo_d2/`` in the cache.
        name: of the file, without folders.

    Yields:
        The file's path. Processes that ask for it at once wait for one another.

    Raises:
        OSError: The folder cannot be made, or the file not be locked.
    """
    path = cache_root() / "solo_d2" / folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(file_lock(os.fspath(path)))
        except OSError:
            raise
        except Exception as error:  # of the package behind it
            raise OSError(f"{path}.lock: cannot be had ({one_line(error)})") from error
        yield path


def cache_root() -> Path:
    """Return the cache of Detectron2: ``FVCORE_CACHE``, by default ``~/.torch/iopath_cache``."""
    return Path(get_cache_dir())
