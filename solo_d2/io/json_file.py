"""JSON files that are written whole or not at all, long lists of them entry by entry."""

from __future__ import annotations

import contextlib
import json
import math
from collections.abc import Iterable, Iterator, Mapping
from os import PathLike
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol

from .atomic import AtomicFile, atomic_write
from .errors import one_line
from .paths import printable

__all__ = ["JsonList", "JsonListWriter", "dump_json", "save_json", "without_nan"]


class _File(Protocol):
    """What a `JsonList` needs of an unbuffered binary file."""

    def write(self, data: Any, /) -> int: ...

    def seek(self, offset: int, /) -> int: ...

    def truncate(self, size: int, /) -> int: ...


class JsonList:
    """A JSON list at the end of a file that is whole after every `extend`.

    Every write puts the closing brackets behind the new entries, and the next one begins in their
    place, so that the file can be read at any time: by somebody who watches it, after the disk was
    full, and when the process was killed.

    Args:
        file: empty and unbuffered.
        opening: what comes before the entries.
        closing: what comes behind them.
        separator: what comes between them; its first character not before the first one.

    Attributes:
        count: entries so far.
    """

    def __init__(
        self, file: _File, opening: str = "[", closing: str = "\n]\n", separator: str = ",\n"
    ) -> None:
        self.count = 0
        self._file, self._separator, self._closing = file, separator, closing.encode()
        self._end = 0
        self._put(opening.encode())

    def extend(self, texts: Iterable[str]) -> None:
        """Add entries, each the text of `dump_json`: all of them or, with an error, none."""
        texts = list(texts)
        if texts:
            start = self._separator if self.count else self._separator[1:]
            self._put((start + self._separator.join(texts)).encode())
            self.count += len(texts)

    def close_with(self, parts: Iterable[bytes]) -> None:
        """Write the rest of the file in place of the closing brackets; nothing if that fails."""
        with self._repairing():
            self._file.seek(self._end)
            for part in parts:
                _write_all(self._file, part)

    def _put(self, data: bytes) -> None:
        with self._repairing():
            self._file.seek(self._end)
            _write_all(self._file, data + self._closing)
        self._end += len(data)

    @contextlib.contextmanager
    def _repairing(self) -> Iterator[None]:
        try:
            yield
        except BaseException:
            with contextlib.suppress(OSError):  # the cause is on its way already
                # Where the brackets were: that needs no space on the disk.
                self._file.seek(self._end)
                _write_all(self._file, self._closing)
                self._file.truncate(self._end + len(self._closing))
            raise


def _write_all(file: _File, data: bytes) -> None:
    rest = memoryview(data)
    while len(rest):
        rest = rest[file.write(rest) :]


class JsonListWriter:
    """Write a JSON list in memory that does not grow, one entry a line.

    Use it in a ``with`` block. The file gets its name at the end, so that an older one stays
    until then, and what a killed process leaves under the temporary name can be read.

    Args:
        path: the file; its folder is made.
        head: other keys of a JSON object around the list, which is its last.
        key: of the list in that object.

    Attributes:
        count: entries so far.

    Raises:
        ValueError: the file cannot be written; known at once, before the first entry.
    """

    def __init__(
        self,
        path: str | PathLike[str],
        *,
        head: Mapping[str, Any] | None = None,
        key: str = "annotations",
    ) -> None:
        self.path = Path(path)
        opening, closing = "[", "\n]\n"
        if head is not None:
            fields = [f"{json.dumps(k)}: {dump_json(v, self.path)}" for k, v in head.items()]
            opening, closing = "{" + ", ".join([*fields, f"{json.dumps(key)}: ["]), "\n]}\n"
        with self._named():
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._pending = AtomicFile(self.path, buffering=0)
            try:
                self._list = JsonList(self._pending.file, opening, closing)
            except BaseException:
                self._pending.discard()
                raise

    @property
    def count(self) -> int:
        """Entries so far."""
        return self._list.count

    def extend(self, entries: Iterable[Any]) -> None:
        """Add entries.

        Raises:
            ValueError: the file cannot be written, or an entry has numbers that JSON has not.
        """
        texts = [dump_json(entry, self.path) for entry in entries]
        with self._named():
            self._list.extend(texts)

    def close(self) -> None:
        """Give the file its name.

        Raises:
            ValueError: it cannot be written; what was there before stays.
        """
        with self._named():
            self._pending.commit()

    @contextlib.contextmanager
    def _named(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise _unwritable(self.path, error) from error

    def __enter__(self) -> JsonListWriter:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if kind is None:
            self.close()
        else:
            self._pending.discard()


def without_nan(value: Any) -> Any:
    """Return a value with None in place of NaN, which JSON has not, in all dicts below it."""
    if isinstance(value, dict):
        return {k: without_nan(x) for k, x in value.items()}
    return None if isinstance(value, float) and math.isnan(value) else value


def save_json(path: str | PathLike[str], content: Any, *, indent: int | None = None) -> None:
    """Write a JSON file, making its folder; an older one is replaced when the new one is whole.

    Raises:
        ValueError: it cannot be written, or has numbers that JSON has not.
    """
    text = dump_json(content, Path(path), indent)
    try:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(path) as file:
            file.write(text.encode())
    except OSError as error:
        raise _unwritable(path, error) from error


def dump_json(value: Any, path: str | PathLike[str], indent: int | None = None) -> str:
    """Return a value as JSON for a file.

    Raises:
        ValueError: it has numbers that JSON has not.
    """
    try:
        return json.dumps(value, indent=indent, allow_nan=False)
    except ValueError as error:
        raise ValueError(
            f"{printable(path)}: a value is NaN or infinite, which JSON has not"
        ) from error


def _unwritable(path: str | PathLike[str], error: OSError) -> ValueError:
    return ValueError(f"{printable(path)}: cannot be written ({one_line(error)})")
