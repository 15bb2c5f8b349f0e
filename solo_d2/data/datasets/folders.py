"""Datasets in folders of other formats than COCO's, read as the lists that COCO's reader checks."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from ...io.decode import WITH_ALPHA
from ...io.errors import one_line
from ...io.image import IMAGE_EXTENSIONS, ImageError, open_image
from ...io.paths import not_a_file
from .catalog import CocoData, register_data
from .coco_json import parse_coco
from .problems import Findings

__all__ = [
    "HEAD",
    "SPLIT_NAMES",
    "Lists",
    "Reader",
    "choose_splits",
    "files_below",
    "images_below",
    "json_keys",
    "read_lines",
    "recognise_cutouts",
    "register_splits",
    "split_folders",
]

SPLIT_NAMES = {"train": ("train",), "val": ("val", "valid", "validation", "test")}
"""How splits are called in lower case; the first that is found counts."""

Reader = Callable[[], CocoData]
"""Reads one split."""

_Split = TypeVar("_Split")

HEAD = 2**16
"""Bytes in which a file shows what it is."""

_TRAINING = ("last_checkpoint", "metrics.json")
"""Files of a training, whose drawings and results are no data."""

_KEY = re.compile(r'"(\w+)"\s*:')


class Lists:
    """Images and their objects as the lists of a COCO file.

    Args:
        root: Folder of the dataset, below which all images are.
        where: What was read, for messages.

    Attributes:
        notes: What is to be said about the dataset.
    """

    def __init__(self, root: Path, where: Path) -> None:
        self.notes: list[str] = []
        self._root, self._where = root, where
        self._images: list[dict[str, Any]] = []
        self._annotations: list[dict[str, Any]] = []

    def add(
        self,
        image: Path,
        size: tuple[int, int] | None,
        objects: Sequence[tuple[Any, Any]],
        source: str,
    ) -> None:
        """Add an image and its objects.

        Args:
            image: The file.
            size: (height, width), or None for that of its header.
            objects: Category and segmentation, in any form that a COCO file may have, of each.
            source: Name of the file in which the objects are, for messages.
        """
        name = image.relative_to(self._root).as_posix()
        entry: dict[str, Any] = {"id": name, "file_name": name}
        if size is not None:
            entry["height"], entry["width"] = size
        self._images.append(entry)
        for number, (category, segmentation) in enumerate(objects, start=1):
            annotation = {"id": f"{source} #{number}", "image_id": name, "iscrowd": 0}
            annotation |= {"category_id": category, "segmentation": segmentation}
            self._annotations.append(annotation)

    def number_categories(self) -> dict[int, str]:
        """Put numbers in the place of categories that are names, and return the names by them."""
        names = sorted({annotation["category_id"] for annotation in self._annotations})
        numbers = {name: number for number, name in enumerate(names, start=1)}
        for annotation in self._annotations:
            annotation["category_id"] = numbers[annotation["category_id"]]
        return {number: name for name, number in numbers.items()}

    def read(self, categories: Mapping[Any, str]) -> CocoData:
        """Check everything as a COCO file.

        Args:
            categories: Names by id.

        Raises:
            ValueError: See `load_coco_json`; or there are no images or no classes.
        """
        if not self._images:
            why = f" ({'; '.join(self.notes)})" if self.notes else ""
            raise ValueError(f"{self._where}: no images with annotations{why}")
        if not categories:
            raise ValueError(f"{self._where}: no object in {len(self._images)} images has a class")
        content = {
            "images": self._images,
            "annotations": self._annotations,
            "categories": [{"id": key, "name": name} for key, name in categories.items()],
        }
        findings = Findings(self._where, len(self._annotations), list(self.notes), boxes=False)
        return parse_coco(self._where, content, self._root, findings=findings)


def choose_splits(splits: Sequence[str], found: Mapping[str, _Split]) -> dict[str, _Split]:
    """Choose those of the wanted splits that there are."""
    return {split: found[split] for split in splits if split in found}


def register_splits(
    kind: str, root: Path, splits: Sequence[str], readers: Mapping[str, Reader]
) -> dict[str, str]:
    """Register the splits of a dataset with Detectron2.

    Args:
        kind: Of the dataset.
        root: Its folder, or a file that describes it; absolute.
        splits: Wanted, of "train" and "val".
        readers: Of the splits that there are.

    Returns:
        Registered names of those of `splits` that there are, see `choose_splits`.

    Raises:
        ValueError: A split cannot be used.
    """
    names = {}
    for split, read in choose_splits(splits, readers).items():
        names[split] = f"{kind}_{root.name}_{split}"
        register_data(names[split], (str(root), str(root), split), read, "coco", lambda _: {})
    return names


def split_folders(root: Path) -> dict[str, Path]:
    """Return the folders of "train" and of "val" in a folder, or else itself as "train"."""
    inside = {path.name.lower(): path for path in root.iterdir() if path.is_dir()}
    found = {
        split: next((inside[name] for name in names if name in inside), None)
        for split, names in SPLIT_NAMES.items()
    }
    if found["train"] is None:
        return {"train": root}
    return {split: folder for split, folder in found.items() if folder is not None}


def files_below(folder: Path, endings: Sequence[str]) -> Iterator[Path]:
    """Yield the files below a folder, in order, by their endings in lower case.

    None that are hidden, and none of a training whose folder is inside.
    """
    for place, folders, files in os.walk(folder):
        if Path(place) != folder and not set(_TRAINING).isdisjoint(files):
            folders.clear()
            continue
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(files):
            if name.lower().endswith(tuple(endings)) and not name.startswith("."):
                yield Path(place, name)


def images_below(folder: Path) -> list[Path]:
    """Return the images below a folder, in order."""
    return list(files_below(folder, IMAGE_EXTENSIONS))


def read_lines(file: Path) -> list[str]:
    """Return the lines of a text file that are not empty, without spaces around them.

    Raises:
        ValueError: It cannot be read.
    """
    try:
        lines = file.read_text("utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{file}: cannot be read ({one_line(error)})") from error
    return [line for line in map(str.strip, lines) if line]


def recognise_cutouts(location: Path) -> str | None:
    """Tell whether a folder holds cut-outs, of which scenes can be composed, see `DataSource`."""
    image = next(files_below(location, (".png", ".webp")), None) if location.is_dir() else None
    if image is None:
        return None
    try:
        with open_image(image) as opened:
            transparent = opened.mode in WITH_ALPHA
    except ImageError:  # told where it is used
        return None
    remedy = "compose scenes of them first: solo-d2 scenes rgba --cutouts DIR --backgrounds DIR"
    return f"holds cut-outs alone; {remedy}" if transparent else None


def json_keys(file: Path) -> set[str]:
    """Return the keys that the head of a JSON file shows, of any depth, without reading it all."""
    if not_a_file(file) is not None:
        return set()
    with open(file, "rb") as opened:
        head = opened.read(HEAD)
    return set(_KEY.findall(head.decode(json.detect_encoding(head), "replace")))
