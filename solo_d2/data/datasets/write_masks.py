"""Datasets of masks whose pixel values number objects: VOC's folders, and images beside masks."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from ...io.index_png import VOID, write_index_png
from .masks import CLASSES_FILE, IMAGES, MASKS, ONLY_CLASS, PER_CLASS
from .voc import CLASS_MASKS, ID_LISTS, JPEG_IMAGES, OBJECT_MASKS
from .writing import DatasetWriter, LabelledImage, LabelledObject, write_lines

__all__ = ["MasksWriter", "VocWriter"]

_LARGEST = 2**16 - 1


class _IndexWriter(DatasetWriter):
    """Paints objects into one mask, the better or smaller ones in front."""

    def paint(
        self, image: LabelledImage, objects: Sequence[LabelledObject], numbers: Sequence[int]
    ) -> np.ndarray:
        """Return int32 (H, W) with a number for every object, and count what is hidden."""
        values = np.zeros(image.size, np.int32)
        masks = [thing.mask(image.size) for thing in objects]
        areas = np.array([mask.sum() for mask in masks], np.int64)
        scores = [thing.score for thing in objects]
        front = [-a if x is None else x for x, a in zip(scores, areas, strict=True)]
        for k in np.argsort(np.array(front), kind="stable"):
            values[masks[k]] = numbers[k]
        seen = np.bincount(values.ravel(), minlength=max(numbers, default=0) + 1)[list(numbers)]
        self.lost["hidden object"] += int((seen == 0).sum())
        self.lost["partly hidden object"] += int(((seen > 0) & (seen < areas)).sum())
        return values


class VocWriter(_IndexWriter):
    """VOC's folders for segmentation, with the names of the classes as LabelMe writes them."""

    kind = "voc"

    def begin(self) -> None:
        """Write the names of the classes."""
        if len(self.classes) >= VOID:
            raise ValueError(f"voc holds {VOID - 1} classes, here are {len(self.classes)}")
        write_lines(self.root / "class_names.txt", ["_background_", *self.classes])
        self._ids: dict[str, list[str]] = {split: [] for split in self.splits}

    def write(self, image: LabelledImage, objects: Sequence[LabelledObject], split: str) -> None:
        """Write the masks of an image."""
        stem = self.copy_image(image.file, self.root / JPEG_IMAGES).stem
        # 255 is left out: in 8 bits it belongs to no object.
        numbers = [k + (k >= VOID) for k in range(1, len(objects) + 1)]
        values = self.paint(image, objects, numbers)
        labels = np.zeros(max(numbers, default=0) + 1, np.int32)
        labels[numbers] = [thing.label + 1 for thing in objects]
        write_index_png(self.root / OBJECT_MASKS / f"{stem}.png", values)
        write_index_png(self.root / CLASS_MASKS / f"{stem}.png", labels[values])
        self._ids[split].append(stem)

    def close(self) -> None:
        """Write the lists of images."""
        for split, ids in self._ids.items():
            write_lines(self.root / ID_LISTS / f"{split}.txt", ids)


class MasksWriter(_IndexWriter):
    """``images`` and ``masks``; with ``classes.txt`` values are 1000 x class + number."""

    kind = "masks"

    def begin(self) -> None:
        """Write the names of the classes, unless there is only one without a name."""
        most = _LARGEST // PER_CLASS - 1
        if len(self.classes) > most:
            raise ValueError(f"masks hold {most} classes, here are {len(self.classes)}; use coco")
        self._per_class = self.classes != [ONLY_CLASS]
        if self._per_class:
            write_lines(self.root / CLASSES_FILE, self.classes)

    def write(self, image: LabelledImage, objects: Sequence[LabelledObject], split: str) -> None:
        """Write the mask of an image."""
        folder = self.folder(split)
        values = self.paint(image, objects, [*map(self._counter(), objects)])
        stem = self.copy_image(image.file, folder / IMAGES).stem
        write_index_png(folder / MASKS / f"{stem}.png", values)

    def _counter(self) -> Callable[[LabelledObject], int]:
        """Return a function that numbers the objects of one image."""
        counts = dict.fromkeys(range(len(self.classes)), 0)

        def number(thing: LabelledObject) -> int:
            counts[thing.label] += 1
            count = counts[thing.label]
            if self._per_class and count >= PER_CLASS:
                raise ValueError(f"masks hold {PER_CLASS - 1} objects of a class in an image")
            if self._per_class:
                return (thing.label + 1) * PER_CLASS + count
            return count + (count >= VOID)

        return number
