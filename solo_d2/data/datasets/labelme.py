"""Datasets of LabelMe: a JSON file for each image, with the shapes that somebody drew on it.

FOLDER/NAME.json beside FOLDER/NAME.jpg, or wherever "imagePath" leads; with subfolders "train" and
"val" for splits.
"""

from __future__ import annotations

import base64
import binascii
import io
import math
import os
from collections import Counter
from collections.abc import Sequence
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from pycocotools import mask as mask_util

from ...io.errors import one_line, shown
from ...io.image import IMAGE_EXTENSIONS, MAX_PIXELS, read_size
from ...io.json_reader import read_json_object
from ...io.segmentation import check_segmentations, encode_mask, to_rle
from .catalog import CocoData
from .entries import stated_size
from .folders import Lists, Reader, files_below, images_below, json_keys, split_folders
from .problems import count_of

__all__ = ["NO_CLASSES", "find", "recognise"]

NO_CLASSES = ("__ignore__", "_background_")
"""Labels that mean to LabelMe's own converters that there is no object."""

_KEYS = {"shapes", "imagePath"}
"""Whichever comes first: shapes and copies of images may be long."""

_NO_AREA = ("point", "points", "line", "linestrip")
_LOOKED_AT = 20  # JSON files, until one is of LabelMe
_CIRCLE_POINTS = 64


def recognise(location: Path) -> str | None:
    """Tell by a look at a few files whether a folder is such a dataset, see `DataSource`."""
    files = islice(files_below(location, [".json"]), _LOOKED_AT) if location.is_dir() else ()
    return "" if any(json_keys(file) & _KEYS for file in files) else None


def find(location: Path) -> dict[str, Reader]:
    """Return what reads the splits of a folder."""
    return {
        split: partial(_read, location, folder) for split, folder in split_folders(location).items()
    }


def _read(root: Path, folder: Path) -> CocoData:
    lists = Lists(root, folder)
    counts: Counter[str] = Counter()
    labelled = set()
    for file in files_below(folder, [".json"]):
        # Results and logs may lie there, and be of any form.
        known = json_keys(file) & _KEYS or any(path.is_file() for path in _beside(file))
        content = read_json_object(file) if known else {}
        if not isinstance(content.get("shapes"), list):
            counts["other json file"] += 1
            continue
        image = _image(root, file, content)
        size = _stated_size(file, content) or read_size(image)
        objects = _objects(file, content["shapes"], size, counts)
        lists.add(image, size, objects, os.fspath(file.relative_to(folder)))
        labelled.add(image)
    bare = len(set(images_below(folder)) - labelled)
    if bare:
        counts["unlabelled image"] += bare
    lists.notes += [f"{count_of(n, what)} left out" for what, n in counts.items()]
    return lists.read(lists.number_categories())


def _stated_size(file: Path, content: dict[str, Any]) -> tuple[int, int] | None:
    """The size of the image that LabelMe saw, which it turns upright."""
    size = {"height": content.get("imageHeight"), "width": content.get("imageWidth")}
    return stated_size(file, content.get("imagePath"), size)


def _beside(file: Path) -> list[Path]:
    """Where an image of the name of a JSON file may be."""
    return [file.with_suffix(x) for ending in IMAGE_EXTENSIONS for x in (ending, ending.upper())]


def _image(root: Path, file: Path, content: dict[str, Any]) -> Path:
    """The image of a JSON file: where it says, or of its name beside it."""
    name = content.get("imagePath")
    places = _beside(file)
    if isinstance(name, str) and "\0" not in name:
        places.insert(0, Path(os.path.normpath(file.parent / name.replace("\\", "/"))))
    for path in places:
        if path.is_relative_to(root) and path.is_file():
            return path
    inside = " (its copy in the file is not read)" if content.get("imageData") else ""
    raise ValueError(
        f"{file}: its image {shown(name)} is not in {root}, and there is none of its name beside "
        f"it{inside}; put it there"
    )


def _objects(
    file: Path, shapes: list[Any], size: tuple[int, int], counts: Counter[str]
) -> list[tuple[str, Any]]:
    """Label and segmentation of every object; shapes of one label and one group are one object."""
    groups: dict[Any, list[Any]] = {}
    for number, shape in enumerate(shapes, start=1):
        where = f"{file}: the shape {number}"
        if not isinstance(shape, dict) or not isinstance(shape.get("label"), str):
            raise ValueError(f"{where} has no label: {shown(shape)}")
        label, kind = shape["label"], shape.get("shape_type") or "polygon"
        if label in NO_CLASSES:
            counts["__ignore__ or _background_ shape"] += 1
        elif kind in _NO_AREA:
            counts["point or line shape"] += 1
        else:
            group = shape.get("group_id")
            key = (label, number, None) if group is None else (label, None, str(group))
            groups.setdefault(key, []).append(_area(where, kind, shape, size))
    return [(key[0], _union(parts, size)) for key, parts in groups.items()]


def _area(where: str, kind: str, shape: dict[str, Any], size: tuple[int, int]) -> Any:
    """A polygon x, y, x, y, ..., or the RLE of a mask."""
    points = shape.get("points")
    try:
        array = np.array(points or np.zeros((0, 2)), np.float64)
    except (ValueError, TypeError, OverflowError):
        array = np.zeros(0)
    if array.ndim != 2 or array.shape[1] != 2:
        raise ValueError(f"{where} has the points {shown(points)}; expected pairs of numbers")
    if kind in ("polygon", "oriented_rectangle"):
        return array.ravel().tolist()
    if kind not in ("rectangle", "circle", "mask"):
        raise ValueError(f"{where} is a {shown(kind)}; known are polygon, rectangle, circle, mask")
    if len(array) != 2 or not np.isfinite(array).all():
        raise ValueError(f"{where}, a {kind}, has the points {shown(points)}; expected two")
    if kind == "mask":
        return _mask(where, shape.get("mask"), array[0].astype(int).tolist(), size)
    (x0, y0), (x1, y1) = array.tolist()
    if kind == "rectangle":
        return [x0, y0, x1, y0, x1, y1, x0, y1]
    angles = np.arange(_CIRCLE_POINTS) * (2 * math.pi / _CIRCLE_POINTS)
    radius = math.hypot(x1 - x0, y1 - y0)
    around = np.stack([np.cos(angles), np.sin(angles)], 1) * radius + array[0]
    return around.ravel().tolist()


def _mask(where: str, text: Any, corner: Sequence[int], size: tuple[int, int]) -> dict[str, Any]:
    """The RLE of a crop that is a PNG as text, with its upper left pixel at `corner` (x, y)."""
    try:
        with Image.open(io.BytesIO(base64.b64decode(text)), formats=["PNG"]) as image:
            if image.width * image.height > MAX_PIXELS:
                raise ValueError("too large")
            crop = np.asarray(image.convert("L")) > 0
    except (TypeError, ValueError, OSError, SyntaxError, binascii.Error) as error:
        raise ValueError(f"{where} has a mask that cannot be read ({one_line(error)})") from error
    mask = np.zeros(size, bool)
    x, y = (max(place, 0) for place in corner)
    crop = crop[y - corner[1] :, x - corner[0] :]
    crop = crop[: max(size[0] - y, 0), : max(size[1] - x, 0)]
    mask[y : y + crop.shape[0], x : x + crop.shape[1]] = crop
    return encode_mask(mask)


def _union(parts: list[Any], size: tuple[int, int]) -> Any:
    """One segmentation of an object: polygons, or an RLE where any part is a mask."""
    if not any(isinstance(part, dict) for part in parts):
        return parts
    forms = [part if isinstance(part, dict) else [part] for part in parts]
    kept = check_segmentations(forms, [size] * len(forms)).kept
    rles = [to_rle(part, size) for part in kept if part is not None]
    return to_rle(mask_util.merge(rles), size) if rles else []
