"""Datasets of images and of PNGs whose pixel values number the objects.

    images/NAME.jpg    masks/NAME.png    (or train/images, train/masks, val/images, ...)
    classes.txt                          (a name a line)

0 is background, and 255 in 8 bits is unknown. Without classes.txt a value is the number of an
object of the one class "object". With it a value is 1000 times the class, counted from 1, plus the
number of the object; below 1000 it is a class whose objects were not told apart. Of those, and of
masks that are 0 and 255 alone, every connected part is an object.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from ...io.index_png import COLOUR, VOID, encode_numbers, encode_parts, read_index_png
from .catalog import CocoData
from .entries import class_names
from .folders import Lists, Reader, files_below, images_below, read_lines, split_folders
from .problems import count_of

__all__ = [
    "CLASSES_FILE",
    "IMAGES",
    "MASKS",
    "ONLY_CLASS",
    "PER_CLASS",
    "find",
    "recognise",
]

ONLY_CLASS = "object"
"""Name of the class where no file names any."""

PER_CLASS = 1000
"""Numbers of the objects of a class."""

IMAGES, MASKS, CLASSES_FILE = "images", "masks", "classes.txt"


def recognise(location: Path) -> str | None:
    """Tell whether a folder is laid out so, see `DataSource`."""
    if not location.is_dir():
        return None
    folder = split_folders(location)["train"]
    if not (folder / MASKS).is_dir():
        return None
    return "" if (folder / IMAGES).is_dir() else f"has no folder {IMAGES} beside {MASKS}"


def find(location: Path) -> dict[str, Reader]:
    """Return what reads the splits of a folder."""
    file = location / CLASSES_FILE
    names: dict[Any, str] = {}
    if file.exists():
        entries = {k: {"name": name} for k, name in enumerate(read_lines(file), start=1)}
        names = class_names(file, entries)[0]
    return {
        split: partial(_read, location, folder, names)
        for split, folder in split_folders(location).items()
    }


def _read(root: Path, folder: Path, names: dict[Any, str]) -> CocoData:
    masks = {
        file.relative_to(folder / MASKS).with_suffix(""): file
        for file in files_below(folder / MASKS, [".png"])
    }
    lists = Lists(root, folder)
    bare = 0
    for image in images_below(folder / IMAGES):
        mask = masks.pop(image.relative_to(folder / IMAGES).with_suffix(""), None)
        if mask is None:
            bare += 1
            continue
        objects = list(_objects(mask, bool(names)))
        lists.add(image, None, objects, os.fspath(mask.relative_to(root)))
    if masks:
        file = next(iter(masks.values()))
        raise ValueError(f"{file}: no image of this name in {folder / IMAGES}")
    if bare:
        lists.notes.append(f"{count_of(bare, 'image')} without a mask (a PNG of its name) left out")
    return lists.read(names or {1: ONLY_CLASS})


def _objects(mask: Path, classes: bool) -> Iterator[tuple[int, dict[str, Any]]]:
    """Class and RLE of every object."""
    values, bits = read_index_png(mask)
    if classes and bits == COLOUR:
        raise ValueError(
            f"{mask} is in colour, which says no class; save it with a palette or in one channel, "
            f"or remove {CLASSES_FILE}"
        )
    if bits == 8 and np.isin(values, (0, VOID)).all():
        yield from ((1, rle) for rle in encode_parts(values == VOID))
        return
    if bits == 8:
        values = np.where(values == VOID, 0, values)
    for value, rle in encode_numbers(values):
        if not classes:
            yield 1, rle
        elif value >= PER_CLASS:
            yield value // PER_CLASS, rle
        else:
            yield from ((value, part) for part in encode_parts(values == value))
