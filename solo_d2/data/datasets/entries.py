"""The lists of an annotation file: ids, categories and images, checked before they are used."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Sequence
from operator import itemgetter
from pathlib import Path
from typing import Any

from ...io.errors import shown
from ...io.image import MAX_PIXELS, read_size
from ...io.json_reader import read_json_object
from ...io.paths import not_a_file, printable
from .files import find_file, missing_files
from .problems import listed

__all__ = [
    "Ids",
    "class_names",
    "image_records",
    "index_entries",
    "read_coco",
    "repeated_files",
    "stated_size",
    "whole_number",
]

_LARGEST_ID = 2**63 - 1


def read_coco(path: Path) -> dict[str, Any]:
    """Read a file with the lists of COCO; "annotations" is empty where the file has none.

    Raises:
        ValueError: not such a file.
    """
    problem = not_a_file(path)
    if problem is not None:
        raise ValueError(f"{path}: {problem}; pass the COCO json of the dataset")
    content = read_json_object(path)
    if content.get("annotations") is None:
        content["annotations"] = []
    for key in ("images", "annotations", "categories"):
        if not isinstance(content.get(key), list):
            raise ValueError(
                f"{path} is not in COCO format: expected the lists 'images', 'categories' and, "
                f"but for a test set, 'annotations', got the keys {listed(sorted(content))}"
            )
    if not content["categories"]:
        raise ValueError(f"{path} has no categories; list at least one {{'id', 'name'}}")
    if not content["images"]:
        raise ValueError(f"{path} lists no images")
    return content


def whole_number(value: Any) -> int | None:
    """Return a value that is a whole number, also one written as a float; None for any other."""
    if type(value) is int:
        return value
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return None


def index_entries(
    path: Path,
    kind: str,
    entries: Sequence[Any],
    keys: tuple[str, ...],
    drop: Callable[[Any, str], None] | None = None,
) -> dict[Any, dict[str, Any]]:
    """Return the entries of one list by their ids.

    Args:
        path: of the file.
        kind: name of the list.
        entries: of the list.
        keys: that each must have, besides "id".
        drop: is called with an entry that lacks a key, is of another type or has an id that is
            none, and with what is wrong; by default the file is refused.

    Returns:
        The entries by id, in the order of the file; whole numbers are ints.

    Raises:
        ValueError: such an entry without `drop`, an id that comes twice, ids of two types.
    """

    def refuse(entry: Any, text: str) -> None:
        text = f"an entry of '{kind}' {text}"
        if drop is None:
            raise ValueError(f"{path}: {text}")
        drop(entry, text)

    needed, usable = {"id", *keys}, list(entries)
    if not _have(entries, needed):
        for entry in entries:
            if not _have([entry], needed):
                missing = sorted(needed - entry.keys() if type(entry) is dict else needed)
                refuse(entry, f"lacks {missing}: {shown(entry)}")
        usable = [entry for entry in entries if _have([entry], needed)]
    ids = [entry["id"] for entry in usable]
    if not set(map(type, ids)) <= {int}:
        for entry in usable:
            if _plain_id(entry["id"]) is None:
                refuse(entry, f"has the id {shown(entry['id'])}; expected a whole number or a text")
        usable = [entry for entry in usable if _plain_id(entry["id"]) is not None]
        ids = [_plain_id(entry["id"]) for entry in usable]
    by_id = dict(zip(ids, usable, strict=True))
    _check_ids(path, kind, ids, by_id)
    return by_id


def _have(entries: Sequence[Any], keys: set[str]) -> bool:
    """Return whether all entries are objects with these keys."""
    if not set(map(type, entries)) <= {dict}:
        return False
    try:
        return all(len(list(map(itemgetter(key), entries))) for key in keys) or not entries
    except KeyError:
        return False


def _plain_id(value: Any) -> int | str | None:
    number = whole_number(value)
    return number if number is not None else value if isinstance(value, str) and value else None


def _check_ids(path: Path, kind: str, ids: Sequence[Any], by_id: dict[Any, Any]) -> None:
    """Check that ids are unique, of one type, and of a size that a scorer takes."""
    if len(by_id) < len(ids):
        twice = next(i for i, count in Counter(ids).items() if count > 1)
        raise ValueError(f"{path}: the id {shown(twice)} comes twice in '{kind}'; make it unique")
    numbers = [i for i in by_id if type(i) is int]
    if numbers and len(numbers) < len(by_id):
        text = next(i for i in by_id if type(i) is str)
        raise ValueError(
            f"{path}: the ids in '{kind}' are of two types, as {numbers[0]} and {shown(text)}; "
            "make all of them numbers, or all texts"
        )
    if numbers and max(map(abs, numbers)) > _LARGEST_ID:
        raise ValueError(
            f"{path}: the id {shown(max(numbers, key=abs))} in '{kind}' is too large for a scorer"
        )


class Ids:
    """The ids of one list, to which entries of another list refer.

    Args:
        ids: as `index_entries` returns them.
    """

    def __init__(self, ids: Sequence[Any]) -> None:
        self._ids = set(ids)
        self._by_text = {str(i): i for i in ids}

    def find(self, value: Any) -> Any:
        """Return the id that is meant, also a number by its text and the reverse, or None."""
        if type(value) is bool or not isinstance(value, (int, float, str)):
            return None
        if value in self._ids:
            return int(value) if isinstance(value, float) else value
        number = whole_number(value)
        return self._by_text.get(str(value if number is None else number))


def class_names(path: Path, categories: dict[Any, dict[str, Any]]) -> tuple[dict[Any, str], str]:
    """Return the names of categories by id, in the order of the ids, and what to say about them.

    Names that come twice are made different by their ids, since classes are known by their names.

    Raises:
        ValueError: a name that is none.
    """
    names = {}
    for key in sorted(categories):
        name = categories[key]["name"]
        if type(name) is int:
            name = str(name)
        if not isinstance(name, str) or not name.strip() or not _is_clean(name):
            raise ValueError(
                f"{path}: the category {shown(key)} has the name {shown(name)}; expected a text"
            )
        names[key] = name
    twice = [name for name, count in Counter(names.values()).items() if count > 1]
    if not twice:
        return names, ""
    shared = set(twice)
    unique = {k: f"{v} (id {k})" if v in shared else v for k, v in names.items()}
    return unique, f"categories share the names {listed(twice)}; their ids were added"


def _is_clean(text: str) -> bool:
    """Return whether a text can be written anywhere: half of a surrogate pair cannot."""
    return not any("\ud800" <= character <= "\udfff" for character in text)


def image_records(
    path: Path,
    images: dict[Any, dict[str, Any]],
    root: Path,
    name_of: Callable[[dict[str, Any]], Any] = itemgetter("file_name"),
) -> dict[Any, dict[str, Any]]:
    """Return Detectron2's records of images by id, in the order of the ids, without annotations.

    Sizes that the file does not give are those of the images' headers.

    Args:
        path: of the annotation file.
        images: its entries by id.
        root: folder of the images.
        name_of: gives the name of an image relative to `root`.

    Raises:
        ValueError: no folder, images that it lacks, a bad name or a bad size.
    """
    if not root.is_dir():
        raise ValueError(f"{root}: no such folder; it should hold the images of {path}")
    folder = os.fspath(root)
    files = {}
    for key, image in images.items():
        try:
            files[key] = find_file(folder, name_of(image))
        except ValueError as error:
            raise ValueError(f"{path}: the image {shown(key)} {error}") from error
    missing = missing_files(list(files.values()))
    if missing:
        count = f"{len(missing)} of {len(files)} images are missing; " if len(missing) > 1 else ""
        raise ValueError(
            f"{printable(missing[0][:400])}, named in {path}, does not exist; {count}file names "
            "are taken relative to the image folder"
        )
    records = {}
    for key in sorted(images):
        size = stated_size(path, key, images[key]) or read_size(files[key])
        records[key] = {
            "file_name": files[key],
            "image_id": key,
            "height": size[0],
            "width": size[1],
            "annotations": [],
        }
    return records


def repeated_files(path: Path, records: Sequence[dict[str, Any]]) -> str:
    """Say how many files are named by several images; empty if none is.

    Args:
        path: of the annotation file.
        records: of Detectron2, with their annotations.

    Raises:
        ValueError: Most images lack objects that another image of the same file has, as where a
            program wrote an image for every annotation.
    """
    of_file: dict[str, list[dict[str, Any]]] = {}
    for record in records:
        of_file.setdefault(os.path.normpath(record["file_name"]), []).append(record)
    shared = [twins for twins in of_file.values() if len(twins) > 1]
    if not shared:
        return ""
    first = shared[0]
    said = (
        f"{len(shared)} of {len(of_file)} files are named by several images, such as "
        f"{printable(os.path.basename(first[0]['file_name']))} by those with the ids "
        f"{listed([x['image_id'] for x in first])}; what one of them lacks counts as background "
        "there: write one image for every file, with all of its objects"
    )
    divided = sum(len(twins) for twins in shared if any(map(_differ, twins, twins[1:])))
    if 2 * divided > len(records):
        raise ValueError(f"{path}: {said}")
    return said


def _differ(one: dict[str, Any], other: dict[str, Any]) -> bool:
    """Return whether two images have different objects."""
    keys = itemgetter("category_id", "bbox")
    return [*map(keys, one["annotations"])] != [*map(keys, other["annotations"])]


def stated_size(path: Path, key: Any, image: dict[str, Any]) -> tuple[int, int] | None:
    """Return (height, width) of an entry of "images"; None where the file does not say.

    Raises:
        ValueError: a size that no image has.
    """
    height, width = image.get("height"), image.get("width")
    if height is None or width is None:
        return None
    rows, columns = whole_number(height), whole_number(width)
    if rows is None or columns is None or not (0 < rows and 0 < columns <= MAX_PIXELS // rows):
        raise ValueError(
            f"{path}: the image {shown(key)} has the height {shown(height)} and the width "
            f"{shown(width)}; expected whole numbers from 1, of at most {MAX_PIXELS} pixels"
        )
    return rows, columns
