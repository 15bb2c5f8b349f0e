"""Datasets in Pascal VOC's folders for segmentation, as VOC, CVAT and LabelMe write them.

JPEGImages/ID.jpg, SegmentationObject/ID.png, SegmentationClass/ID.png;
ImageSets/Segmentation/train.txt lists the ids of a split, without it every mask counts;
labelmap.txt or class_names.txt names the classes, without either they are those of VOC.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from ...io.errors import shown
from ...io.image import IMAGE_EXTENSIONS
from ...io.index_png import COLOUR, VOID, IndexImage, colormap, encode_numbers, read_index_png
from ...io.panoptic_png import rgb_to_ids
from .catalog import CocoData
from .entries import class_names
from .folders import SPLIT_NAMES, Lists, Reader, files_below, read_lines
from .problems import count_of

__all__ = [
    "CLASSES",
    "CLASS_MASKS",
    "ID_LISTS",
    "JPEG_IMAGES",
    "OBJECT_MASKS",
    "find",
    "recognise",
]

CLASSES = (
    *("aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow"),
    *("diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa"),
    *("train", "tvmonitor"),
)
"""Names of VOC's own classes, from the number 1 on."""

_BACKGROUND = ("background", "_background_")
JPEG_IMAGES, OBJECT_MASKS, CLASS_MASKS = "JPEGImages", "SegmentationObject", "SegmentationClass"
ID_LISTS = "ImageSets/Segmentation"
_REMEDIES = {
    JPEG_IMAGES: "the images belong there",
    OBJECT_MASKS: "its masks tell the objects of a class apart",
    CLASS_MASKS: "its masks tell the classes of the objects",
}
_ADD = f"add {OBJECT_MASKS} and {CLASS_MASKS}, or polygons in another format (docs/datasets.md)"


def recognise(location: Path) -> str | None:
    """Tell whether a folder is laid out so, see `DataSource`."""
    if not any((location / part).is_dir() for part in (OBJECT_MASKS, CLASS_MASKS)):
        has_boxes = any(location.glob("Annotations/*.xml"))
        return f"its xml files hold boxes, and masks are learnt; {_ADD}" if has_boxes else None
    missing = [part for part in _REMEDIES if not (location / part).is_dir()]
    return f"has no folder {missing[0]}; {_REMEDIES[missing[0]]}" if missing else ""


def find(location: Path) -> dict[str, Reader]:
    """Return what reads the splits of a folder."""
    missing = recognise(location) if location.is_dir() else "is no folder"
    if missing != "":
        raise ValueError(f"{location} {missing or f'has no folder {OBJECT_MASKS}'}")
    colours, names = _classes(location)
    return {
        split: partial(_read, location, file, colours, names)
        for split, file in _lists(location).items()
    }


def _lists(root: Path) -> dict[str, Path]:
    """The files that list the ids of the splits; the folder of masks where there is none."""
    folder = root / ID_LISTS
    files = {file.stem.lower(): file for file in sorted(folder.glob("*.txt"))}
    found = {}
    for split, names in SPLIT_NAMES.items():
        for name in (*names, *("trainval", "default") * (split == "train")):
            if name in files and split not in found:
                found[split] = files[name]
    if "train" in found or (found and files.keys() <= set(SPLIT_NAMES["val"])):
        return found
    if len(files) > 1:
        raise ValueError(f"{folder}: {', '.join(files)}? Name one train.txt")
    return {"train": next(iter(files.values()), root / OBJECT_MASKS)}


def _classes(root: Path) -> tuple[dict[int, int], dict[Any, str]]:
    """Number of a class by its colour, and its name by its number."""
    listed = [root / name for name in ("labelmap.txt", "class_names.txt") if (root / name).exists()]
    colours = {int(colour): k for k, colour in enumerate(rgb_to_ids(colormap()))}
    names = dict(enumerate(CLASSES, start=1))
    if listed and listed[0].name == "labelmap.txt":
        lines = [x for x in read_lines(listed[0]) if x[0] != "#" and x != "__ignore__"]
        numbered = _numbered([line.split(":")[0] for line in lines])
        colours |= {_colour(listed[0], x): k for k, x in zip(numbered, lines, strict=True)}
        names = {k: name for k, name in numbered.items() if name not in _BACKGROUND}
    elif listed:
        lines = read_lines(listed[0])
        names = _numbered(lines[lines[:1] == ["__ignore__"] :])
        names.pop(0, None)  # any other name may be that of a class
    entries = {k: {"name": name} for k, name in names.items()}
    return colours, class_names(listed[0] if listed else root, entries)[0]


def _numbered(names: Sequence[str]) -> dict[int, str]:
    """Names by number, from 0 if the first one is that of the background."""
    return dict(enumerate(names, start=0 if names and names[0] in _BACKGROUND else 1))


def _colour(file: Path, line: str) -> int:
    """The colour of a line NAME:R,G,B:PARTS:ACTIONS as a number."""
    try:
        rgb = np.array([int(x) for x in line.split(":")[1].split(",")], np.uint8)
        return int(rgb_to_ids(rgb.reshape(3)))
    except (IndexError, ValueError, OverflowError) as error:
        raise ValueError(f"{file}: expected NAME:R,G,B:PARTS:ACTIONS, got {shown(line)}") from error


def _read(root: Path, listed: Path, colours: dict[int, int], names: dict[Any, str]) -> CocoData:
    masks = root / OBJECT_MASKS
    if listed.is_dir():
        ids = [
            x.relative_to(masks).with_suffix("").as_posix() for x in files_below(masks, [".png"])
        ]
    else:
        ids = [_listed_id(masks, line) for line in read_lines(listed)]
    bare = 0
    pairs: list[tuple[str, Path, Path]] = []
    for name in ids:
        mask = Path(os.path.normpath(masks / f"{name}.png"))
        if not mask.is_relative_to(masks):
            raise ValueError(f"{listed}: {shown(name)} leads out of {masks}")
        if mask.is_file():
            pairs.append((name, mask, root / CLASS_MASKS / f"{name}.png"))
        else:
            bare += 1
    lists = Lists(root, listed)
    # Reading PNG files is most of the work, and done outside of Python's lock.
    with ThreadPoolExecutor() as pool:
        read = pool.map(lambda pair: _objects(pair[1], pair[2], colours), pairs)
        for (name, mask, _), objects in zip(pairs, read, strict=True):
            image = _image_of(root / JPEG_IMAGES, name)
            lists.add(image, None, objects, os.fspath(mask.relative_to(root)))
    if bare:
        lists.notes.append(f"{count_of(bare, 'image')} without a mask (a PNG of its name) left out")
    return lists.read(names)


def _listed_id(masks: Path, line: str) -> str:
    """The id in a line of a list: all of it, or the first word where VOC's lists have more."""
    first = line.split()[0]
    # CVAT quotes ids with spaces.
    return next((x for x in (line, line.strip('"')) if os.path.isfile(masks / f"{x}.png")), first)


def _image_of(folder: Path, name: str) -> Path:
    """Return the image in a folder that has a name without its extension.

    Raises:
        ValueError: There is none, or it lies elsewhere.
    """
    path = Path(os.path.normpath(folder / name))
    for ending in (y for x in IMAGE_EXTENSIONS for y in (x, x.upper())):
        file = path.with_name(path.name + ending)
        if file.is_relative_to(folder) and file.is_file():
            return file
    raise ValueError(f"{folder}: no image {shown(name)}, though there is a mask of that name")


def _objects(
    mask: Path, class_mask: Path, colours: dict[int, int]
) -> Sequence[tuple[int, dict[str, Any]]]:
    """Class and RLE of every object; its class is that of most of its pixels."""
    numbers, classes = read_index_png(mask), read_index_png(class_mask)
    if numbers.values.shape != classes.values.shape:
        raise ValueError(f"{mask} and {class_mask} differ in size")
    labels = _labels(classes, colours)
    values = np.where(numbers.values == _void(numbers), 0, numbers.values)
    objects = []
    for value, rle in encode_numbers(values):
        inside = labels[values == value]
        votes = np.bincount(inside[inside > 0])
        objects.append((int(votes.argmax()) if len(votes) else 0, rle))
    return objects


def _void(image: IndexImage) -> int:
    """The value of what is not known; none of 16 bits."""
    return {8: VOID, COLOUR: int(rgb_to_ids(colormap())[VOID])}.get(image.bits, -1)


def _labels(image: IndexImage, colours: dict[int, int]) -> np.ndarray:
    """Class of every pixel, 0 for background and void."""
    values = np.where(image.values == _void(image), 0, image.values)
    if image.bits != COLOUR:
        return values
    found, inverse = np.unique(values, return_inverse=True)
    table = np.array([colours.get(value, 0) if value else 0 for value in found.tolist()])
    return table[inverse].reshape(values.shape)
