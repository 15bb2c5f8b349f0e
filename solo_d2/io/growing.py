"""Long outputs, written beside their place as they come; whatever ends a run, they can be used."""

from __future__ import annotations

import contextlib
import os
import uuid
from os import PathLike
from pathlib import Path
from typing import BinaryIO

from .atomic import sync_folder
from .errors import one_line
from .paths import fit_name, output_problem, printable

__all__ = ["GrowingFile", "OutputError", "check_output"]


class OutputError(OSError):
    """An output that cannot be written any further; the text is one line with its name."""


def check_output(path: str | PathLike[str]) -> None:
    """Raise a `ValueError` if no file of this name can be written, as far as is known by now."""
    problem = output_problem(path)
    if problem is not None:
        raise ValueError(f"{printable(path)}: cannot be written: {problem}. Name another output.")


class GrowingFile:
    """A file that takes its place when it is whole, and until then is called NAME.partial-ID.EXT.

    So a killed process leaves the older file as it was, and beside it what it had written. Nothing
    is buffered here. A link is followed: the file that it names is replaced.

    Args:
        path: the file; its folder is made.

    Attributes:
        target: where it belongs.
        path: where it grows.
        error: of the latest write that failed, for callers whose libraries replace it.

    Raises:
        ValueError: it cannot be written there.
    """

    def __init__(self, path: str | PathLike[str]) -> None:
        check_output(path)
        self.target = Path(os.path.realpath(path))
        ending = f".partial-{uuid.uuid4().hex[:8]}{self.target.suffix}"
        self.path = self.target.with_name(fit_name(self.target.stem, ending))
        self.error: OutputError | None = None
        folder = self.target.parent
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ValueError(
                f"{printable(folder)}: cannot make this folder ({one_line(error)})."
            ) from error
        try:
            self._file: BinaryIO = open(self.path, "xb+", buffering=0)
        except OSError as error:
            raise ValueError(
                f"{printable(path)}: cannot be written ({one_line(error)})."
            ) from error

    def write(self, data: bytes | memoryview) -> int:
        """Write all of the bytes.

        Raises:
            OutputError: they do not fit.
        """
        rest = memoryview(data)
        try:
            while len(rest):
                rest = rest[self._file.write(rest) :]
        except OSError as error:
            self.error = OutputError(
                f"{printable(self.target)}: cannot be written ({one_line(error)})"
            )
            raise self.error from error
        return len(data)

    def read(self, size: int = -1) -> bytes:
        """Read from the current place."""
        return self._file.read(size)

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Go to a place; returns it."""
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        """Return the current place."""
        return self._file.tell()

    def truncate(self, size: int) -> int:
        """Cut the file; returns `size`."""
        return self._file.truncate(size)

    def finish(self, *, whole: bool) -> Path:
        """Close the file and put it in its place, or leave it where it is.

        Args:
            whole: nothing is missing. Otherwise an older file stays as it is.

        Returns:
            Where the file is now.

        Raises:
            OutputError: it cannot be moved; what was written is at `path`.
        """
        if not whole and self.target.exists():
            self._file.close()
            return self.path
        try:
            os.fsync(self._file.fileno())
            self._file.close()
            os.replace(self.path, self.target)
        except OSError as error:
            raise OutputError(
                f"{printable(self.target)}: cannot be written ({one_line(error)}); see "
                f"{printable(self.path)}"
            ) from error
        sync_folder(self.target.parent)
        return self.target

    def discard(self) -> None:
        """Delete what was written."""
        self._file.close()
        with contextlib.suppress(OSError):
            self.path.unlink()
