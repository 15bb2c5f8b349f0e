"""Predictions of many images in shards: a plan, a folder of results, and what is done of it.

A shard is done when its record lies in the folder, and its record is written behind its results, at
once or not at all. So a run can be killed at any point and started again, on one machine or many:
what is done stays, what was begun is done anew, and no image comes twice.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ..io.atomic import atomic_write, remove_leftovers
from ..io.errors import one_line, shown
from ..io.image_sources import Archive, FileList, ImageSource, is_archive, row_groups, texts_of
from ..io.json_file import save_json
from ..io.paths import not_a_file, printable
from .dataset_ids import DatasetIds, ImageId
from .inputs import find_images
from .shard_files import FORMATS

__all__ = ["BadImage", "Record", "Shard", "ShardFolder", "Totals", "part_of", "plan_shards"]

ARCHIVE_IDS = 2**20
"""Image ids of an archive, whose images are not counted before they are read."""


@dataclass(frozen=True)
class Shard:
    """Images whose results stand in one file.

    Attributes:
        number: from 0 on.
        first: image id of its first image; the others follow.
        source: the images.
        ids: of a dataset, one for each image, in place of these; see `DatasetIds.images`.
    """

    number: int
    first: int
    source: ImageSource
    ids: tuple[ImageId | None, ...] | None = None

    def image_id(self, index: int) -> ImageId | None:
        """Return the id of an image by its index in the shard; None if its results are not wanted.

        Raises:
            ValueError: an archive has more images than there are ids for them.
        """
        if index >= ARCHIVE_IDS:
            raise ValueError(f"{self.source.text}: has more than {ARCHIVE_IDS} images; divide it.")
        return ImageId(self.first + index) if self.ids is None else self.ids[index]


@dataclass(frozen=True)
class BadImage:
    """An image that could not be used.

    Attributes:
        image_id: that its results would have had.
        file_name: its name.
        reason: in one line.
    """

    image_id: Any
    file_name: str
    reason: str


@dataclass(frozen=True)
class Record:
    """What was done of a shard.

    Attributes:
        images: that the model has seen.
        instances: found in them.
        bad: the other ones.
    """

    images: int
    instances: int
    bad: tuple[BadImage, ...] = ()


@dataclass
class Totals:
    """What was done of all shards; see `Record`."""

    shards: int = 0
    images: int = 0
    instances: int = 0
    bad: list[BadImage] = field(default_factory=list)


def plan_shards(
    inputs: Sequence[str], size: int, ids: DatasetIds | None = None
) -> tuple[list[Shard], list[str]]:
    """Divide inputs into shards; the same inputs always into the same.

    Args:
        inputs: images, folders and globs; text files (.txt) with a path in every line; Parquet
            files, of which every row group is a shard; tar archives (.tar, .tar.gz and the like),
            of which each is one.
        size: files of a shard.
        ids: of the dataset that the files are of.

    Returns:
        The shards, and one line for everything that was meant and cannot be used.

    Raises:
        ValueError: `size` is below 1, an input cannot be read, or `ids` with other inputs than
            files.
    """
    if size < 1:
        raise ValueError(f"--shard-size must be 1 or more, got {size}.")
    kinds = {x: ".tar" if is_archive(x) else Path(x).suffix.lower() for x in inputs}
    plain = [name for name in inputs if kinds[name] not in (".txt", ".parquet", ".tar")]
    files, problems = find_images(plain) if plain else ([], [])
    paths = [str(file) for file in files]
    for name in inputs:
        if kinds[name] == ".txt":
            paths += _lines(name)
    sources: list[ImageSource] = [
        FileList(tuple(paths[start : start + size])) for start in range(0, len(paths), size)
    ]
    for name in inputs:
        if kinds[name] == ".parquet":
            sources += row_groups(name)
        elif kinds[name] == ".tar":
            sources.append(Archive(name, _size(name)))
    if not sources:
        raise ValueError(" ".join(problems) or "the inputs have no images.")
    shards = list(_numbered(sources))
    if ids is None:
        return shards, problems
    if any(not isinstance(source, FileList) for source in sources):
        raise ValueError("--ids goes with image files, not with Parquet and archives.")
    found = ids.images([Path(path) for path in paths])
    return [
        replace(x, ids=tuple(found[x.first - 1 : x.first - 1 + size])) for x in shards
    ], problems


def _numbered(sources: Sequence[ImageSource]) -> Iterator[Shard]:
    first = 1
    for number, source in enumerate(sources):
        yield Shard(number, first, source)
        if isinstance(source, Archive):
            first += ARCHIVE_IDS
        else:
            first += len(source.files) if isinstance(source, FileList) else source.rows


def _size(name: str) -> int:
    problem = not_a_file(name)
    if problem is not None:
        raise ValueError(f"{printable(name)}: {problem}.")
    return Path(name).stat().st_size


def _lines(name: str) -> list[str]:
    _size(name)
    try:
        text = Path(name).read_text("utf-8-sig")  # Windows begins lists with a mark
    except (OSError, UnicodeError) as error:
        raise ValueError(f"{printable(name)}: cannot be read ({one_line(error)}).") from error
    return [line for line in map(str.strip, text.splitlines()) if line]


def part_of(shards: Sequence[Shard], part: str | None) -> list[Shard]:
    """Return the shards of one process of many that share no more than the folder.

    Args:
        shards: all of them.
        part: "K/N": every N-th from the K-th on, K from 1 to N; None for all.

    Raises:
        ValueError: it is no such part.
    """
    if part is None:
        return list(shards)
    first, _, count = part.partition("/")
    if not (first.isdecimal() and count.isdecimal() and 1 <= int(first) <= int(count)):
        raise ValueError(f"--part must be K/N with 1 <= K <= N, such as 3/16, got {part!r}.")
    return list(shards[int(first) - 1 :: int(count)])


class ShardFolder:
    """The results of a plan, in a folder of their own.

    ``plan.json`` says what of, ``results/`` has a file for every shard, ``done/`` the records, and
    ``bad.csv`` is the table of the images that could not be used.

    Args:
        root: the folder; it is made.
        kind: of the results, one of `FORMATS`.
    """

    def __init__(self, root: str | Path, kind: str) -> None:
        self.root = Path(root).absolute()
        self._writer = FORMATS[kind]

    def open(self, shards: Sequence[Shard], settings: dict[str, Any]) -> None:
        """Begin a run, or go on with one.

        Args:
            shards: of the plan.
            settings: on which the results depend, as plain JSON.

        Raises:
            ValueError: the folder has results of other images or settings, or cannot be written.
        """
        digest = hashlib.sha256()
        for text in texts_of([x.source for x in shards]):
            digest.update(text.encode(errors="surrogateescape"))
        plan = {"images": digest.hexdigest(), "shards": len(shards), **settings}
        plan = json.loads(json.dumps(plan))  # tuples are lists in the file
        try:
            for name in ("results", "done"):
                (self.root / name).mkdir(parents=True, exist_ok=True)
                remove_leftovers(self.root / name)
        except OSError as error:
            raise ValueError(
                f"{printable(self.root)}: cannot be written ({one_line(error)})."
            ) from error
        file = self.root / "plan.json"
        if file.exists():
            self._compare(plan, file)
        else:
            save_json(file, plan, indent=1)

    def _compare(self, plan: dict[str, Any], file: Path) -> None:
        try:
            old = json.loads(file.read_text())
            changed = [key for key in {**old, **plan} if old.get(key) != plan.get(key)]
        except (ValueError, AttributeError) as error:
            raise ValueError(
                f"{printable(file)}: is damaged ({one_line(error)}); name another folder."
            ) from error
        if changed:
            key = changed[0]
            there, here = shown(old.get(key)), shown(plan.get(key))
            raise ValueError(
                f"{printable(self.root)}: has results of another run ({key}: {there} there, {here} "
                "here); name another folder."
            )

    def done(self) -> set[int]:
        """Return the numbers of the shards that are done."""
        return {int(x.stem) for x in (self.root / "done").glob("*.json") if x.stem.isdecimal()}

    def commit(self, shard: Shard, results: list[dict[str, Any]], record: Record) -> None:
        """Write the results of a shard, then its record.

        Raises:
            OSError: one of both cannot be written; the shard is not done then.
        """
        name = f"{shard.number:06d}"
        with atomic_write(self.root / "results" / f"{name}{self._writer.suffix}") as file:
            self._writer.write(file, results)
        content = {
            "images": record.images,
            "instances": record.instances,
            "bad": [[x.image_id, x.file_name, x.reason] for x in record.bad],
        }
        with atomic_write(self.root / "done" / f"{name}.json") as file:
            file.write(json.dumps(content).encode())

    def finish(self) -> Totals:
        """Add up the records, and write the table of bad images.

        Raises:
            ValueError: a record is damaged.
            OSError: the table cannot be written.
        """
        totals = Totals()
        for number in sorted(self.done()):
            file = self.root / "done" / f"{number:06d}.json"
            try:
                record = json.loads(file.read_text())
                totals.shards += 1
                totals.images += int(record["images"])
                totals.instances += int(record["instances"])
                totals.bad += [BadImage(*row) for row in record["bad"]]
            except (ValueError, KeyError, TypeError) as error:
                raise ValueError(
                    f"{printable(file)}: is damaged ({one_line(error)}); delete it, and run again."
                ) from error
        table = io.StringIO()
        writer = csv.writer(table, lineterminator="\n")
        writer.writerow(["image_id", "file_name", "reason"])
        writer.writerows([x.image_id, x.file_name, x.reason] for x in totals.bad)
        with atomic_write(self.root / "bad.csv") as output:
            output.write(table.getvalue().encode(errors="backslashreplace"))
        return totals
