"""Datasets in COCO format, with masks as RLE or as polygons."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

from pycocotools import mask as mask_util

from ...io.growing import GrowingFile
from ...io.json_file import JsonList, dump_json
from ...io.segmentation import mask_box, to_rle
from .writing import DatasetWriter, LabelledImage, LabelledObject

__all__ = ["CocoWriter", "PolygonsWriter"]


class CocoWriter(DatasetWriter):
    """``annotations/train.json`` and images in ``train``, masks as RLE."""

    kind = "coco"
    keeps_scores = keeps_crowds = True
    as_polygons: ClassVar[bool] = False

    def begin(self) -> None:
        """Begin a file for every split."""
        folder = self.root / "annotations"
        self._files = {x: _SplitFile(folder / f"{x}.json", self.classes) for x in self.splits}

    def write(self, image: LabelledImage, objects: Sequence[LabelledObject], split: str) -> None:
        """Add an image and its objects to the file of their split."""
        copied = self.copy_image(image.file, self.root / split)
        height, width = image.size
        entry = {"file_name": copied.name, "height": height, "width": width}
        self._files[split].add(entry, [self._annotation(x, image.size) for x in objects])

    def _annotation(self, thing: LabelledObject, size: tuple[int, int]) -> dict[str, Any]:
        """An entry of "annotations" without ids."""
        rle = to_rle(thing.segmentation, size)
        polygons = self.as_polygons and not thing.crowd  # crowds are RLE in all of COCO
        entry = {
            "category_id": thing.label + 1,
            "segmentation": self._flat_polygons(thing, size) if polygons else rle,
            "area": int(mask_util.area(rle)),
            "bbox": mask_box(rle, size),
            "iscrowd": int(thing.crowd),
        }
        return entry if thing.score is None else {**entry, "score": round(thing.score, 6)}

    def _flat_polygons(self, thing: LabelledObject, size: tuple[int, int]) -> list[list[float]]:
        return [polygon.ravel().tolist() for polygon in self.polygons(thing, size)]

    def close(self) -> None:
        """Write the lists of images."""
        for split in self._files.values():
            split.close()


class PolygonsWriter(CocoWriter):
    """The same with polygons, which run along bridges to holes."""

    kind = "polygons"
    as_polygons = has_outlines = True


class _SplitFile:
    """A file whose list of annotations grows with it; the images come last."""

    def __init__(self, path: Path, classes: Sequence[str]) -> None:
        self._path, self._images = path, list[dict[str, Any]]()
        self._file = GrowingFile(path)
        categories = [{"id": k, "name": name} for k, name in enumerate(classes, start=1)]
        opening = f'{{"categories": {dump_json(categories, path)}, "annotations": ['
        self._list = JsonList(self._file, opening, '\n],\n"images": []}\n')

    def add(self, image: dict[str, Any], annotations: Sequence[dict[str, Any]]) -> None:
        """Add an image and its annotations, and number them from 1."""
        number = len(self._images) + 1
        self._images.append({"id": number, **image})
        self._list.extend(
            dump_json({"id": k, "image_id": number, **entry}, self._path)
            for k, entry in enumerate(annotations, self._list.count + 1)
        )

    def close(self) -> None:
        """Write the list of images, and give the file its name."""
        images = f'\n],\n"images": {dump_json(self._images, self._path)}}}\n'
        self._list.close_with([images.encode()])
        self._file.finish(whole=True)
