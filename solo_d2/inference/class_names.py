"""Class names and category ids from a file that somebody else wrote."""

from __future__ import annotations

import logging
from collections import Counter
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

from ..data.datasets.entries import class_names, index_entries
from ..io.errors import one_line
from ..io.json_reader import read_json_object
from ..io.paths import not_a_file, printable

__all__ = ["ClassNames", "read_categories", "read_class_names"]

_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class ClassNames:
    """Names of classes in the order of their labels, and category ids where a file has them.

    Attributes:
        things: names.
        thing_ids: category ids of `things`; () if unknown.
        stuff: names from label 0, "things", on; () if the file is not panoptic.
        stuff_ids: category ids of `stuff`, 0 of "things".
    """

    things: tuple[str, ...]
    thing_ids: tuple[Any, ...] = ()
    stuff: tuple[str, ...] = ()
    stuff_ids: tuple[Any, ...] = ()


def read_class_names(path: str | PathLike[str]) -> ClassNames:
    """Read class names in the order of the labels.

    Args:
        path: A COCO JSON file (its `categories` by id, as Detectron2 orders them), or a text file
            with one name per line, which has no ids.

    Raises:
        ValueError: The file cannot be read, or has no names.
    """
    path = Path(path)
    try:
        if path.suffix.lower() == ".json":
            things, stuff = read_categories(path)
            names = ClassNames(tuple(things.values()), tuple(things))
            if stuff:
                names = ClassNames(
                    names.things, names.thing_ids, ("things", *stuff.values()), (0, *stuff)
                )
        else:
            names = ClassNames(tuple(_lines(path)))
    except (OSError, ValueError) as error:
        text = one_line(error).removeprefix(f"{path}: ")
        raise ValueError(
            f"{printable(path)}: no class names can be read: {text}. Expected a COCO JSON file "
            "with categories, or a text file with one name per line."
        ) from error
    if not names.things:
        raise ValueError(f"{printable(path)}: has no class names.")
    return names


def read_categories(path: Path) -> tuple[dict[Any, str], dict[Any, str]]:
    """Read the categories of a COCO JSON file.

    Returns:
        Names of things and of stuff by category id, each in the order of the ids; whatever is not
        said to be stuff is a thing.

    Raises:
        ValueError: The file cannot be read, or an entry is no category.
    """
    entries = read_json_object(path).get("categories")
    if not isinstance(entries, list):
        raise ValueError(f"{path}: has no list of categories")
    by_id = index_entries(path, "categories", entries, ("name",))
    kinds = []
    for isthing in (True, False):
        chosen = {k: x for k, x in by_id.items() if bool(x.get("isthing", 1)) is isthing}
        names, note = class_names(path, chosen)
        if note:
            _logger.warning("%s: %s", printable(path), note)
        kinds.append(names)
    return kinds[0], kinds[1]


def _lines(path: Path) -> list[str]:
    problem = not_a_file(path)
    if problem is not None:
        raise ValueError(problem)
    text = path.read_text(encoding="utf-8-sig")
    names = [line.strip() for line in text.splitlines() if line.strip()]
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        _logger.warning("%s: several classes have the name %r", printable(path), twice[0])
    return names
