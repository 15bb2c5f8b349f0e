"""Images of a shard, wherever they lie: in files, rows of Parquet, members of a tar archive."""

from __future__ import annotations

import lzma
import os
import tarfile
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from .errors import one_line, shown
from .image import IMAGE_EXTENSIONS
from .paths import printable

__all__ = [
    "Archive",
    "FileList",
    "ImageSource",
    "Item",
    "ParquetRows",
    "SourceError",
    "is_archive",
    "row_groups",
]

MAX_BYTES = 2**30
"""Largest member of an archive that is read."""

_ARCHIVES = (".tar", ".tgz", ".tbz2", ".txz", ".tar.gz", ".tar.bz2", ".tar.xz")
_EXPECTED = (
    *(OSError, EOFError, ValueError, ArithmeticError, tarfile.TarError),
    *(zlib.error, lzma.LZMAError),
)
_NAMES = ("file_name", "path", "__key__", "key", "name", "url")
_PATHS = ("path", "file_name", "image", "file")
_ROWS = 64


class SourceError(ValueError):
    """Images that cannot be read any further; one line with the name of their file."""


class Item(NamedTuple):
    """An image before it is decoded.

    Attributes:
        name: path, or name in its archive or table.
        content: bytes of the file; None where `name` is a path to read.
    """

    name: str
    content: bytes | None


@dataclass(frozen=True)
class FileList:
    """Image files, by path."""

    files: tuple[str, ...]

    @property
    def text(self) -> str:
        """What the images are, for messages and to tell them from others."""
        return "\n".join(self.files)

    def items(self) -> Iterator[Item]:
        """Yield the images in order."""
        return (Item(file, None) for file in self.files)


@dataclass(frozen=True)
class ParquetRows:
    """The rows of one row group of a Parquet file (extra "parquet").

    Images are the bytes of the first binary column, or of one with fields "bytes" and "path" as
    `datasets` writes it; without such a column they are the paths in "path", "file_name", "image"
    or "file".

    Attributes:
        file: the file.
        group: number of the row group.
        rows: in it.
        before: rows of the file before them.
    """

    file: str
    group: int
    rows: int
    before: int

    @property
    def text(self) -> str:
        """See `FileList.text`."""
        return f"{self.file}, row group {self.group}, {self.rows} rows"

    def items(self) -> Iterator[Item]:
        """Yield the images in order, with a few rows in memory.

        Raises:
            SourceError: the file cannot be read, or has no column of images.
        """
        with _reading(self.file):
            file = _open_parquet(self.file)
            content, path, name = _columns(self.file, file.schema_arrow)
            wanted = list(dict.fromkeys(x for x in (content, path, name) if x))
            row = self.before
            for batch in file.iter_batches(_ROWS, row_groups=[self.group], columns=wanted):
                for record in batch.to_pylist():
                    yield _item(record, content, path, name, f"{self.file}[{row}]")
                    row += 1


@dataclass(frozen=True)
class Archive:
    """The images in a tar archive, such as a shard of WebDataset. Nothing is extracted."""

    file: str
    size: int

    @property
    def text(self) -> str:
        """See `FileList.text`."""
        return f"{self.file}, {self.size} bytes"

    def items(self) -> Iterator[Item]:
        """Yield the images in order, one in memory.

        Raises:
            SourceError: the archive cannot be read to its end.
        """
        with (
            _reading(self.file),
            tarfile.open(self.file, "r:*", tarinfo=_Member) as archive,
        ):
            for member in archive:
                ending = os.path.splitext(member.name)[1].lower()
                if not member.isreg() or ending not in IMAGE_EXTENSIONS:
                    continue
                name = f"{self.file}/{member.name}"
                if member.size > MAX_BYTES:
                    yield Item(name, b"")  # its reader says that this is no image
                    continue
                file = archive.extractfile(member)
                yield Item(name, b"" if file is None else file.read())


class _Member(tarfile.TarInfo):
    """A member before whose header nothing ends but what ends: tarfile stops at a damaged one."""

    @classmethod
    def fromtarfile(cls, archive: tarfile.TarFile) -> _Member:
        try:
            return super().fromtarfile(archive)
        except tarfile.EOFHeaderError:  # type: ignore[attr-defined]
            raise
        except tarfile.HeaderError as error:
            raise tarfile.ReadError(f"cut off or damaged: {error}") from error


def is_archive(name: str) -> bool:
    """Return whether a name is one of a tar archive, compressed or not."""
    return name.lower().endswith(_ARCHIVES)


ImageSource = FileList | ParquetRows | Archive


def row_groups(file: str) -> list[ParquetRows]:
    """Return the row groups of a Parquet file.

    Raises:
        ValueError: it cannot be read, has no column of images, or pyarrow is missing.
    """
    with _reading(file):
        parquet = _open_parquet(file)
        _columns(file, parquet.schema_arrow)
        rows, before = [], 0
        for group in range(parquet.num_row_groups):
            count = parquet.metadata.row_group(group).num_rows
            rows.append(ParquetRows(file, group, count, before))
            before += count
        return rows


class _reading:
    """Turn what readers of archives and tables raise into a line with the file's name."""

    def __init__(self, file: str) -> None:
        self._file = file

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: Any, error: BaseException | None, _: Any) -> None:
        if isinstance(error, _EXPECTED) and not isinstance(error, SourceError):
            raise SourceError(
                f"{printable(self._file)}: cannot be read ({one_line(error)})"
            ) from error


def _open_parquet(file: str) -> Any:
    try:
        import pyarrow.parquet as parquet
    except ImportError as error:
        raise SourceError(
            "Parquet needs pyarrow; install it: pip install 'solo_d2[parquet]'"
        ) from error
    return parquet.ParquetFile(file)


def _columns(file: str, schema: Any) -> tuple[str | None, str | None, str | None]:
    """Names of the columns of bytes, of paths and of names."""
    from pyarrow import types

    def is_image(kind: Any) -> bool:
        if types.is_struct(kind):
            return "bytes" in [kind.field(i).name for i in range(kind.num_fields)]
        return bool(types.is_binary(kind) or types.is_large_binary(kind))

    kinds = dict(zip(schema.names, schema.types, strict=True))
    texts = [x for x, kind in kinds.items() if types.is_string(kind) or types.is_large_string(kind)]
    content = next((x for x, kind in kinds.items() if is_image(kind)), None)
    path = next((x for x in _PATHS if x in texts), None)
    if content is None and path is None:
        raise SourceError(
            f"{printable(file)}: has no column of image bytes and none of paths called "
            f"{', '.join(_PATHS)}; it has {shown(list(kinds))}"
        )
    return content, path, next((x for x in _NAMES if x in texts), None)


def _item(
    record: dict[str, Any], content: str | None, path: str | None, name: str | None, place: str
) -> Item:
    if content is None:
        return Item(str(record[path or ""]), None)
    value = record[content]
    label = record[name] if name else None
    if isinstance(value, dict):
        label = label or value.get("path")
        value = value.get("bytes")
    return Item(str(label or place), value or b"")


def texts_of(sources: Sequence[ImageSource]) -> Iterator[str]:
    """Yield what tells the images of sources from others."""
    return (f"{type(x).__name__}\n{x.text}\n" for x in sources)
