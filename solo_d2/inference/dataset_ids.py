"""Ids of a COCO file for what is found in its images, so that results fit the file."""

from __future__ import annotations

import logging
import os
import unicodedata
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

from ..data.datasets.entries import index_entries, stated_size
from ..io.errors import shown
from ..io.json_reader import read_json_object
from ..io.paths import printable
from .class_names import read_categories

__all__ = ["DatasetIds", "ImageId"]

_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class ImageId:
    """An image of a dataset.

    Attributes:
        id: in the file.
        size: (height, width) that the file states, or None.
        source: name of the file.
    """

    id: Any
    size: tuple[int, int] | None = None
    source: str = ""

    def check(self, size: tuple[int, int]) -> None:
        """Raise a `ValueError` if an image of another size was found in its place."""
        if self.size is not None and self.size != tuple(size):
            raise ValueError(
                f"has {size[1]}x{size[0]} pixels, {self.source} says "
                f"{self.size[1]}x{self.size[0]}; left out of the results"
            )


class DatasetIds:
    """Ids of images by file name, and of categories by class name.

    Args:
        path: A COCO JSON file with the lists `images` and `categories`.

    Raises:
        ValueError: The file cannot be used.
    """

    def __init__(self, path: str | PathLike[str]) -> None:
        self.path = Path(path)
        self._name = printable(self.path)
        images = read_json_object(self.path).get("images")
        if not isinstance(images, list) or not images:
            raise ValueError(f"{self._name}: has no list of images. Pass the dataset's COCO json.")
        self._categories = read_categories(self.path)
        self._by_name: dict[str, list[tuple[tuple[str, ...], ImageId]]] = {}
        for key, image in index_entries(self.path, "images", images, ()).items():
            *folders, name = _parts(image.get("file_name") or image.get("coco_url"))
            found = ImageId(key, stated_size(self.path, key, image), self._name)
            self._by_name.setdefault(name, []).append((tuple(folders), found))

    def images(self, files: Sequence[Path]) -> list[ImageId | None]:
        """Find the images that files are.

        The folders of a name in the COCO file count, where a file lies in such folders. Where no
        file does, the name alone decides, with a warning.

        Args:
            files: Images.

        Returns:
            The id of each; None, with one warning for all, for those that the COCO file lacks.

        Raises:
            ValueError: None is in it, or there are several files for one image or several images
                for one file.
        """
        count = Counter(_parts(file)[-1] for file in files)
        found, bare = [], []
        for file in files:
            folders, name = _parts(os.path.abspath(file))[:-1], _parts(file)[-1]
            known = self._by_name.get(name, [])
            fitting = [x for x in known if _ends_with(folders, x[0])]
            best = max((len(x[0]) for x in fitting), default=0)
            fitting = [x for x in fitting if len(x[0]) == best]
            if not fitting and len(known) == count[name] == 1:
                fitting = known
                bare.append(file)
            if len(fitting) > 1:
                ids = " and ".join(shown(x[1].id) for x in fitting[:2])
                raise ValueError(f"{printable(file)}: has the ids {ids} in {self._name}.")
            found.append(fitting[0][1] if fitting else None)
        self._check(files, found)
        if bare:
            _logger.warning(
                "%d images are known by their names alone, since %s has them in other folders; "
                "first %s",
                len(bare),
                self._name,
                printable(bare[0]),
            )
        return found

    def _check(self, files: Sequence[Path], found: Sequence[ImageId | None]) -> None:
        missing = [file for file, image in zip(files, found, strict=True) if image is None]
        if len(missing) == len(files):
            raise ValueError(
                f"{self._name}: none of the {len(files)} images is in it, such as "
                f"{printable(files[0])}."
            )
        if missing:
            _logger.warning(
                "%d of %d images are not in %s: their results are not written; first %s",
                len(missing),
                len(files),
                self._name,
                printable(missing[0]),
            )
        taken: dict[Any, Path] = {}
        for file, image in zip(files, found, strict=True):
            if image is not None and taken.setdefault(image.id, file) is not file:
                raise ValueError(
                    f"{printable(file)} and {printable(taken[image.id])} are both the image "
                    f"{shown(image.id)} of {self._name}. Leave one out."
                )

    @property
    def has_stuff(self) -> bool:
        """Whether there are categories of stuff."""
        return bool(self._categories[1])

    def category_ids(self, names: Sequence[str], *, things: bool = True) -> list[Any]:
        """Return the category id of each class, by its name.

        Args:
            names: Of the classes, in the order of the labels.
            things: Or else stuff.

        Returns:
            An id for each; classes that the file lacks get one that is not in it, with a warning.

        Raises:
            ValueError: The file has none of them.
        """
        by_id = self._categories[0 if things else 1]
        by_name = {name: key for key, name in by_id.items()}
        missing = [name for name in names if name not in by_name]
        if names and len(missing) == len(names):
            raise ValueError(
                f"{self._name}: has none of the model's classes, such as {printable(names[0])}; "
                f"its categories are {', '.join(map(printable, list(by_name)[:10]))}."
            )
        if missing:
            _logger.warning(
                "%d of %d classes are not in %s, such as %s: they get ids of their own",
                len(missing),
                len(names),
                self._name,
                printable(missing[0]),
            )
        largest = max(
            (key for kind in self._categories for key in kind if type(key) is int), default=0
        )
        new = {name: largest + 1 + k for k, name in enumerate(missing)}
        return [by_name.get(name, new.get(name)) for name in names]


def _parts(name: Any) -> list[str]:
    """Folders and name of a file, in one form of Unicode; macOS has another one in its names."""
    text = unicodedata.normalize("NFC", str(name)).replace("\\", "/")
    return [part for part in text.split("/") if part not in ("", ".")] or [""]


def _ends_with(folders: Sequence[str], wanted: Sequence[str]) -> bool:
    return not wanted or list(folders[-len(wanted) :]) == list(wanted)
