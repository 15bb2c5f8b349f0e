"""Datasets of YOLO for segmentation: ``data.yaml``, and a text file of polygons for each image.

A line is CLASS x y x y ..., the class from 0 and coordinates as shares of the image. The labels of
``images/a.jpg`` are in ``labels/a.txt``; an image without such a file has no objects.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from ...io.config_file import read_yaml
from ...io.errors import one_line, shown
from ...io.image import IMAGE_EXTENSIONS, read_size
from .catalog import CocoData
from .entries import class_names
from .folders import SPLIT_NAMES, Lists, Reader, images_below, read_lines

__all__ = ["find", "recognise"]

_CLASSES = "classes.txt"
"""A name a line, where there is no YAML file: Label Studio writes such folders."""

_BOX = 4
"""Numbers behind the class where a line is a box; YOLO's files for detection have only such."""


def recognise(location: Path) -> str | None:
    """Tell whether a path is such a dataset or its YAML file, see `DataSource`."""
    if location.is_file():
        return "" if location.suffix.lower() in (".yaml", ".yml") else None
    if _yaml_files(location):
        return ""
    if not any(x.is_dir() for x in (location / "labels", *location.glob("*/labels"))):
        return None
    if (location / _CLASSES).is_file():
        return ""
    return "has no data.yaml with the names of the classes; write one: names: [cup, spoon]"


def find(location: Path) -> dict[str, Reader]:
    """Return what reads the splits that a YAML file, or the one in a folder, names."""
    file, content = _description(location)
    classes = _classes(file, content)
    if not any(content.get(x) for keys in SPLIT_NAMES.values() for x in keys):
        content["train"] = "images"  # the only folder there can be
    readers: dict[str, Reader] = {}
    for split, keys in SPLIT_NAMES.items():
        key = next((x for x in keys if content.get(x)), None)
        if key is not None:
            readers[split] = partial(_read, file, key, content, classes)
    return readers


def _description(location: Path) -> tuple[Path, dict[str, Any]]:
    """The file that describes a dataset, and what it says."""
    files = [location] if location.is_file() else _yaml_files(location)
    if len(files) == 1:
        return files[0], read_yaml(files[0])
    names = location / _CLASSES
    if files or not names.is_file():
        some = ", ".join(file.name for file in files) or "none"
        raise ValueError(f"{location}: expected one YAML file with 'names', got {some}; name it")
    return names, {"names": read_lines(names)}


def _yaml_files(folder: Path) -> list[Path]:
    """``data.yaml`` of a folder, or else its YAML files that name classes."""
    files = [x for ending in ("yaml", "yml") for x in sorted(folder.glob(f"*.{ending}"))]
    usual = [file for file in files if file.stem == "data"]
    return usual or [file for file in files if "names" in _keys(file)]


def _keys(file: Path) -> set[str]:
    """The keys of a YAML file, none of one that is no dataset's and has another form."""
    try:
        return set(read_yaml(file))
    except ValueError:
        return set()


def _classes(file: Path, content: dict[str, Any]) -> dict[Any, str]:
    names = content.get("names")
    if isinstance(names, list):
        names = dict(enumerate(names))
    if not isinstance(names, dict) or not names or not all(type(x) is int for x in names):
        raise ValueError(
            f"{file}: 'names' is {shown(names)}; expected the names of the classes, from 0"
        )
    count = content.get("nc", len(names))
    if count != len(names):
        raise ValueError(f"{file}: 'nc' is {shown(count)}, there are {len(names)} 'names'")
    return class_names(file, {key: {"name": name} for key, name in names.items()})[0]


def _places(file: Path, key: str, content: dict[str, Any]) -> list[Path]:
    """Folders of images, or lists of them in text files, that a key names.

    They are relative to "path", which is that of the computer on which the file was written, or to
    the YAML file; Roboflow's begin with "../" though they lie beside it.
    """
    names = content[key] if isinstance(content[key], list) else [content[key]]
    root = file.parent
    paths = []
    for name in names:
        if not isinstance(name, str) or "\0" in name:
            raise ValueError(f"{file}: '{key}' is {shown(content[key])}; expected a folder")
        bases = [x for x in (content.get("path"),) if isinstance(x, str) and "\0" not in x]
        tried = [root / base / name for base in bases] + [root / name]
        tried.append(root / name.removeprefix("../"))
        places = [Path(os.path.normpath(path)) for path in tried]
        found = [path for path in places if path.is_relative_to(root) and path.exists()]
        if not found:
            raise ValueError(
                f"{file}: '{key}' is {shown(name)}, which is not in {root}; put the YAML file into "
                "the folder of the dataset"
            )
        paths.append(found[0])
    return paths


def _images(place: Path, root: Path) -> Iterator[Path]:
    """Images in a folder, or of a list in a text file."""
    if place.is_dir():
        yield from images_below(place)
        return
    for line in read_lines(place):
        base = place.parent if line.startswith("./") else root
        path = Path(os.path.normpath(base / line))
        if not path.is_relative_to(root) or not path.is_file():
            raise ValueError(f"{place}: {shown(line)} is no file in {root}")
        if path.suffix.lower() in IMAGE_EXTENSIONS:
            yield path


def _read(file: Path, key: str, content: dict[str, Any], classes: dict[Any, str]) -> CocoData:
    places, lists = _places(file, key, content), Lists(file.parent, file)
    labelled = False
    for image in (image for place in places for image in _images(place, file.parent)):
        labels, size = _labels_of(image), read_size(image)
        objects = list(_objects(labels, size)) if labels.is_file() else []
        labelled |= labels.is_file()
        lists.add(image, size, objects, os.path.relpath(labels, file.parent))
        expected = labels
    data = lists.read(classes)
    if not labelled:
        raise ValueError(f"{file}: no image has a file of labels; expected such as {expected}")
    return data


def _labels_of(image: Path) -> Path:
    """The text file of an image: in "labels" where that is in the last "images" of its path."""
    parts = list(image.parts)
    for k in range(len(parts) - 2, 0, -1):
        if parts[k] == "images":
            parts[k] = "labels"
            break
    return Path(*parts).with_suffix(".txt")


def _objects(labels: Path, size: tuple[int, int]) -> Iterator[tuple[int, Any]]:
    """Class and polygon of every line; None in place of a polygon for a box."""
    height, width = size
    try:
        rows = [
            list(map(float, line.split())) for line in labels.read_text("utf-8-sig").split("\n")
        ]
    except (OSError, ValueError) as error:
        raise ValueError(f"{labels}: cannot be read ({one_line(error)})") from error
    for number, row in enumerate(rows, start=1):
        if not row:
            continue
        if not row[0].is_integer():
            raise ValueError(f"{labels}: line {number} begins with {row[0]:g}; expected a class")
        sides = [width, height] * (len(row) // 2) + [width]
        polygon = [share * side for share, side in zip(row[1:], sides, strict=False)]
        yield int(row[0]), None if len(polygon) == _BOX else [polygon]
