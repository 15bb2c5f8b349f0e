"""Results of many images in one file that grows with them."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from os import PathLike
from pathlib import Path
from typing import Any

from .growing import GrowingFile, OutputError
from .json_file import JsonList, dump_json
from .paths import printable

__all__ = ["ResultList", "ResultsFile"]

_CHUNK = 2**20


class ResultList:
    """Results of many images in memory.

    Attributes:
        results: COCO results.
        panoptic: annotations of a panoptic model, see `panoptic_to_json`.
    """

    def __init__(self) -> None:
        self.results: list[dict[str, Any]] = []
        self.panoptic: list[dict[str, Any]] = []

    def add(self, results: Sequence[dict[str, Any]], panoptic: dict[str, Any] | None) -> None:
        """Add what was found in an image."""
        self.results += results
        if panoptic is not None:
            self.panoptic.append(panoptic)


class ResultsFile:
    """Results of many images in a file that grows with them, in memory that does not.

    A .json file is a list of COCO results, of a panoptic model a dict of the lists "results" and
    "panoptic". A .jsonl file has a line for each of their entries. While it grows it is a
    `GrowingFile` that can be read at any time; the panoptic part is in a second one beside it
    until the end.

    Args:
        path: the file.

    Raises:
        ValueError: it cannot be written.
    """

    def __init__(self, path: str | PathLike[str]) -> None:
        self._path = Path(path)
        self._lines = self._path.suffix.lower() == ".jsonl"
        self._file = GrowingFile(path)
        self._results: JsonList | None = None
        self._panoptic_file: GrowingFile | None = None
        self._panoptic: JsonList | None = None

    def add(self, results: Sequence[dict[str, Any]], panoptic: dict[str, Any] | None) -> None:
        """Add what was found in an image.

        Args:
            results: COCO results.
            panoptic: see `panoptic_to_json`; given for every image or for none.

        Raises:
            OutputError: the file cannot be written any further.
            ValueError: a number is NaN or infinite.
        """
        texts = [dump_json(entry, self._path) for entry in results]
        more = [] if panoptic is None else [dump_json(panoptic, self._path)]
        if self._lines:
            if self._results is None and (texts or more):
                self._results = JsonList(self._file, "", "\n", "\n")
            if self._results is not None:
                self._results.extend([*texts, *more])
            return
        if self._results is None:
            self._begin(panoptic is not None)
        assert self._results is not None
        self._results.extend(texts)
        if self._panoptic is not None:
            self._panoptic.extend(more)

    def _begin(self, panoptic: bool) -> None:
        if not panoptic:
            self._results = JsonList(self._file)
            return
        ending = f"_panoptic{self._path.suffix}"
        self._panoptic_file = GrowingFile(self._path.with_name(self._path.stem + ending))
        self._panoptic = JsonList(self._panoptic_file)
        self._results = JsonList(self._file, '{"results": [', '\n],\n"panoptic": []}\n')

    def finish(self, *, whole: bool) -> Path:
        """Close the file; see `GrowingFile.finish`.

        Raises:
            OutputError: it cannot be written; what there is stays under a temporary name.
        """
        if self._results is None and not self._lines:
            try:
                JsonList(self._file, "[", "]\n")
            except OutputError:
                self.discard()
                raise
        if self._panoptic_file is not None:
            assert self._results is not None
            try:
                self._results.close_with(_panoptic_part(self._panoptic_file))
            except OutputError as error:
                raise OutputError(
                    f"{error}; what was found is in {printable(self._file.path)} and "
                    f"{printable(self._panoptic_file.path)}"
                ) from error
            self._panoptic_file.discard()
        return self._file.finish(whole=whole)

    def discard(self) -> None:
        """Delete what was written."""
        for file in (self._file, self._panoptic_file):
            if file is not None:
                with contextlib.suppress(OSError):
                    file.discard()


def _panoptic_part(file: GrowingFile) -> Iterator[bytes]:
    """The end of a file of a panoptic model, behind the results."""
    yield b'\n],\n"panoptic": '
    file.seek(0)
    while chunk := file.read(_CHUNK):
        yield chunk
    yield b"}\n"
