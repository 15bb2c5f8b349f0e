"""JSON files that are written whole or not at all, long lists of them entry by entry."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from os import PathLike
from pathlib import Path
from types import TracebackType
from typing import Any

from .atomic import AtomicFile, atomic_write

__all__ = ["JsonListWriter", "save_json"]


class JsonListWriter:
    """Write a JSON list in memory that does not grow, one entry a line.

    Use it in a ``with`` block. The file gets its name at the end, so that an older one stays
    until then; entries are handed to the system at once, so that what a killed process leaves
    under the temporary name misses the closing bracket and nothing else.

    Args:
        path: the file; its folder is made.
        head: other keys of a JSON object around the list, which is its last.
        key: of the list in that object.
        keep: also finish the file when the block raises, with the entries so far; otherwise what
            was there before stays.

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
        keep: bool = False,
    ) -> None:
        self.path = Path(path)
        self.count = 0
        self._keep = keep
        opening, self._closing = "[", "\n]\n"
        if head is not None:
            fields = [f"{json.dumps(k)}: {_dumps(v, self.path)}" for k, v in head.items()]
            opening, self._closing = "{" + ", ".join([*fields, f"{json.dumps(key)}: ["]), "\n]}\n"
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._pending = AtomicFile(self.path)
        except OSError as error:
            raise _unwritable(self.path, error) from error
        self._write(opening)

    def extend(self, entries: Iterable[Any]) -> None:
        """Add entries.

        Raises:
            ValueError: the file cannot be written, or an entry has numbers that JSON has not.
        """
        texts = [_dumps(entry, self.path) for entry in entries]
        if texts:
            self._write(("," if self.count else "") + "\n" + ",\n".join(texts))
            self.count += len(texts)

    def close(self) -> None:
        """Finish the file and give it its name.

        Raises:
            ValueError: it cannot be written; what was there before stays.
        """
        self._write(self._closing)
        try:
            self._pending.commit()
        except OSError as error:
            raise _unwritable(self.path, error) from error

    def _write(self, text: str) -> None:
        try:
            self._pending.file.write(text.encode())
            self._pending.file.flush()
        except OSError as error:
            self._pending.discard()
            raise _unwritable(self.path, error) from error

    def __enter__(self) -> JsonListWriter:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._pending.file.closed:  # an error of writing itself
            return
        if kind is None or self._keep:
            self.close()
        else:
            self._pending.discard()


def save_json(path: str | PathLike[str], content: Any, *, indent: int | None = None) -> None:
    """Write a JSON file, making its folder; an older one is replaced when the new one is whole.

    Raises:
        ValueError: it cannot be written, or has numbers that JSON has not.
    """
    text = _dumps(content, Path(path), indent)
    try:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(path) as file:
            file.write(text.encode())
    except OSError as error:
        raise _unwritable(path, error) from error


def _dumps(value: Any, path: Path, indent: int | None = None) -> str:
    try:
        return json.dumps(value, indent=indent, allow_nan=False)
    except ValueError as error:
        raise ValueError(f"{path}: a value is NaN or infinite, which JSON has not") from error


def _unwritable(path: str | PathLike[str], error: OSError) -> ValueError:
    return ValueError(f"{path}: cannot be written ({error})")
