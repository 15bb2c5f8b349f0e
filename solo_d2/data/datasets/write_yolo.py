"""Datasets of YOLO for segmentation: one polygon for every object."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import yaml

from ...io.polygons import join_polygons, mask_to_polygons
from .writing import DatasetWriter, LabelledImage, LabelledObject, write_text

__all__ = ["YoloWriter"]


class YoloWriter(DatasetWriter):
    """``data.yaml``, ``images/train`` and ``labels/train``.

    A line has one polygon: parts and holes of an object are joined along bridges, as Ultralytics
    joins parts.
    """

    kind = "yolo"
    has_outlines = True

    def begin(self) -> None:
        """Write ``data.yaml``."""
        content = {split: f"images/{split}" for split in self.splits}
        names = dict(enumerate(self.classes))
        text = yaml.safe_dump({**content, "names": names}, allow_unicode=True, sort_keys=False)
        write_text(self.root / "data.yaml", text)

    def write(self, image: LabelledImage, objects: Sequence[LabelledObject], split: str) -> None:
        """Write the labels of an image."""
        copied = self.copy_image(image.file, self.root / "images" / split)
        lines = [self._line(thing, image.size) for thing in objects]
        labels = self.root / "labels" / split / f"{copied.stem}.txt"
        write_text(labels, "".join(f"{line}\n" for line in lines))

    def _line(self, thing: LabelledObject, size: tuple[int, int]) -> str:
        width_height = np.array(size[::-1], float)
        polygons = self.polygons(thing, size)
        inside = all(((x >= 0) & (x <= width_height)).all() for x in polygons)
        if isinstance(thing.segmentation, list) and (len(polygons) > 1 or not inside):
            # The parts of such an object may overlap, and no share may be above 1.
            polygons = mask_to_polygons(thing.mask(size), holes=True)
        shares = join_polygons(polygons) / width_height
        return " ".join([str(thing.label), *(f"{share:.9g}" for share in shares.ravel())])
