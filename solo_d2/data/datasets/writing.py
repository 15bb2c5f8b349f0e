"""Writing datasets: what has an image and its objects becomes files of a format."""

from __future__ import annotations

import shutil
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from ...io.errors import one_line, shown
from ...io.paths import output_problem, printable, unique_name
from ...io.polygons import mask_to_polygons
from ...io.segmentation import decode_mask
from .problems import count_of

__all__ = [
    "DatasetWriter",
    "LabelledImage",
    "LabelledObject",
    "check_folder",
    "write_lines",
    "write_text",
]


@dataclass(frozen=True)
class LabelledObject:
    """An object of an image.

    Attributes:
        label: Its class.
        segmentation: Checked polygons or compressed RLE.
        score: In [0, 1], of a prediction.
        crowd: Whether it is a region of objects that were not told apart.
        matte: uint8 (H, W), if there is one.
    """

    label: int
    segmentation: Any
    score: float | None = None
    crowd: bool = False
    matte: np.ndarray | None = None

    def mask(self, size: tuple[int, int]) -> np.ndarray:
        """Return the mask, boolean (H, W)."""
        return decode_mask(self.segmentation, size)


@dataclass(frozen=True)
class LabelledImage:
    """An image file and what is in it.

    Attributes:
        file: The image.
        size: (height, width) of the upright image.
        objects: By descending score, if they have scores.
    """

    file: Path
    size: tuple[int, int]
    objects: Sequence[LabelledObject]


class DatasetWriter(ABC):
    """Writes a dataset into a folder of its own, image by image.

    Args:
        root: The folder; it is made, and must not have files already.
        classes: Names in the order of the labels.
        splits: That are to come, of "train" and "val".
        tolerance: Pixels by which outlines of masks may be simplified, where a format has outlines.

    Attributes:
        lost: What the format could not hold, and how often.

    Raises:
        ValueError: The folder has files, cannot be made, or the format cannot hold the classes.
    """

    kind: ClassVar[str]
    keeps_scores: ClassVar[bool] = False
    keeps_crowds: ClassVar[bool] = False
    keeps_mattes: ClassVar[bool] = False
    has_outlines: ClassVar[bool] = False

    def __init__(
        self,
        root: Path,
        classes: Sequence[str],
        splits: Sequence[str] = ("train",),
        tolerance: float = 0.0,
    ) -> None:
        self.root, self.classes, self.tolerance = root, list(classes), tolerance
        self.splits = tuple(splits)
        self.lost: Counter[str] = Counter()
        self._taken: dict[Path, set[str]] = {}
        check_folder(root)
        try:
            root.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ValueError(f"{printable(root)}: cannot be made ({one_line(error)})") from error
        self.begin()

    def begin(self) -> None:  # noqa: B027
        """Write what comes at the beginning."""

    def add(self, image: LabelledImage, split: str = "train") -> None:
        """Write an image and its objects.

        Args:
            image: The image.
            split: "train" or "val".

        Raises:
            ValueError: A file cannot be read or written.
        """
        kept = []
        for thing in image.objects:
            if thing.crowd and not self.keeps_crowds:
                self.lost["crowd region"] += 1
                continue
            self.lost["score"] += thing.score is not None and not self.keeps_scores
            kept.append(thing)
        self.write(image, kept, split)

    @abstractmethod
    def write(self, image: LabelledImage, objects: Sequence[LabelledObject], split: str) -> None:
        """Write an image and those of its objects that the format can hold."""

    def close(self) -> None:  # noqa: B027
        """Write what comes at the end."""

    def message(self) -> str:
        """Return a line about what the format could not hold; often empty."""
        told = ", ".join(count_of(n, what) for what, n in self.lost.items() if n)
        return f"{self.kind} cannot hold all that there was; left out: {told}" if told else ""

    def folder(self, split: str) -> Path:
        """Return the folder of a split: a folder below the root only where there are several."""
        return self.root / split if len(self.splits) > 1 else self.root

    def copy_image(self, image: Path, folder: Path) -> Path:
        """Copy an image into a folder and return its place, whose stem no other image there has."""
        target = folder / f"{self.stem(image, folder)}{image.suffix}"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(image, target)
        except OSError as error:
            text = f"{printable(target)}: cannot be written ({one_line(error)})"
            raise ValueError(text) from error
        return target

    def stem(self, image: Path, folder: Path) -> str:
        """Return the stem of an image, with a number where another one in the folder has it."""
        taken = self._taken.setdefault(folder, set())
        longest = ".jsonl"  # leaves room for the endings of labels
        return unique_name(image.stem, longest, taken).removesuffix(longest)

    def polygons(self, thing: LabelledObject, size: tuple[int, int]) -> list[np.ndarray]:
        """Return the outlines of an object, (P, 2) each: of its parts, along bridges to holes."""
        if isinstance(thing.segmentation, list):
            return [np.array(polygon, float).reshape(-1, 2) for polygon in thing.segmentation]
        mask = thing.mask(size)
        # What would be simplified away keeps every corner.
        simple = mask_to_polygons(mask, self.tolerance, holes=True)
        return simple or mask_to_polygons(mask, holes=True)


def check_folder(root: Path) -> None:
    """Raise a `ValueError` if a folder has files, or cannot be made."""
    if root.is_dir():
        if any(root.iterdir()):
            raise ValueError(
                f"{printable(root)}: has files already, which may be somebody's work; name a new "
                "folder"
            )
        return
    problem = output_problem(root)
    if problem is not None:
        raise ValueError(f"{printable(root)}: cannot be made: {problem}; name another folder")


def write_lines(path: Path, lines: Sequence[str]) -> None:
    """Write names as the lines of a text file, which `read_lines` reads again.

    Raises:
        ValueError: A name would come back as another one, or the file cannot be written.
    """
    for line in lines:
        # No half of a surrogate pair, as in names of files that are not UTF-8.
        if line.splitlines() != [line.strip()] or line.encode(errors="ignore").decode() != line:
            raise ValueError(
                f"{printable(path)}: expected names that fit a line, without spaces at its ends, "
                f"got {shown(line)}; rename it, or take another format, such as coco"
            )
    write_text(path, "".join(f"{line}\n" for line in lines))


def write_text(path: Path, text: str) -> None:
    """Write a text file, making its folder.

    Raises:
        ValueError: It cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, "utf-8", newline="\n")
    except OSError as error:
        raise ValueError(f"{printable(path)}: cannot be written ({one_line(error)})") from error
