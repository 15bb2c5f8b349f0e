"""What is made of single objects: images with an alpha channel, and lines of a table."""

from __future__ import annotations

import csv
import io
import os
import re
from collections.abc import Sequence

import numpy as np
from pycocotools import mask as mask_util

from ...io.growing import GrowingFile
from ...io.image import read_image, write_image
from ...io.paths import unique_name
from ...io.segmentation import mask_box, to_rle
from .problems import listed
from .writing import DatasetWriter, LabelledImage, LabelledObject

__all__ = ["CutOutWriter", "TableWriter"]

_COLUMNS = ("split", "file_name", "class", "score", "x", "y", "width", "height", "area")


class CutOutWriter(DatasetWriter):
    """``CLASS/NAME_00.png``: every object on its own, from which scenes can be composed."""

    kind = "rgba"
    keeps_mattes = True

    def begin(self) -> None:
        """Name the folders of the classes."""
        taken: set[str] = set()
        self._folders = [
            unique_name(re.sub(r"[^\w-]+", "-", name), "", taken) for name in self.classes
        ]

    def write(self, image: LabelledImage, objects: Sequence[LabelledObject], split: str) -> None:
        """Cut the objects out."""
        pixels = read_image(image.file)
        stem = self.stem(image.file, self.root)
        for number, thing in enumerate(objects):
            alpha = thing.matte
            if alpha is None:
                alpha = thing.mask(image.size).view(np.uint8) * np.uint8(255)
            rows, columns = (np.flatnonzero(alpha.any(axis)) for axis in (1, 0))
            if not len(rows):
                continue
            crop = np.s_[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
            folder = self.folder(split) / self._folders[thing.label]
            write_image(folder / f"{stem}_{number:02d}.png", np.dstack([pixels[crop], alpha[crop]]))

    def message(self) -> str:
        """Say also which classes have other names as folders."""
        pairs = zip(self.classes, self._folders, strict=True)
        other = [f"{name} is {folder}" for name, folder in pairs if name != folder]
        told = f"folders are not called as their classes: {listed(other)}" if other else ""
        return "; ".join(filter(None, [super().message(), told]))


class TableWriter(DatasetWriter):
    """``objects.csv``: a line for every object, with its box and area in pixels."""

    kind = "csv"
    keeps_scores = True

    def begin(self) -> None:
        """Write the names of the columns."""
        self._file = GrowingFile(self.root / "objects.csv")
        self._put([_COLUMNS])

    def write(self, image: LabelledImage, objects: Sequence[LabelledObject], split: str) -> None:
        """Add the lines of an image."""
        rows = []
        for thing in objects:
            rle = to_rle(thing.segmentation, image.size)
            box = [f"{value:g}" for value in mask_box(rle, image.size)]
            score = "" if thing.score is None else f"{thing.score:.6g}"
            begin = [split, os.fspath(image.file), self.classes[thing.label], score]
            rows.append([*begin, *box, str(int(mask_util.area(rle)))])
        self.lost["mask"] += len(rows)
        self._put(rows)

    def _put(self, rows: Sequence[Sequence[str]]) -> None:
        text = io.StringIO(newline="")
        csv.writer(text, lineterminator="\n").writerows(rows)
        self._file.write(text.getvalue().encode("utf-8", "backslashreplace"))

    def close(self) -> None:
        """Give the table its name."""
        self._file.finish(whole=True)
