"""Datasets of LabelMe: a JSON file beside each image, with polygons that a person can correct."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ...io.json_file import save_json
from .labelme import NO_CLASSES
from .writing import DatasetWriter, LabelledImage, LabelledObject

__all__ = ["LabelMeWriter"]

_VERSION = "5.5.0"  # whose keys these are


class LabelMeWriter(DatasetWriter):
    """``NAME.json`` beside a copy of every image; scores are a key "score" of shapes."""

    kind = "labelme"
    keeps_scores = has_outlines = True

    def begin(self) -> None:
        """Refuse classes that would not be read again."""
        names = [name for name in self.classes if name in NO_CLASSES]
        if names:
            raise ValueError(
                f"labelme takes the label {names[0]} for no object; rename the class, or take "
                "another format, such as coco"
            )

    def write(self, image: LabelledImage, objects: Sequence[LabelledObject], split: str) -> None:
        """Write the JSON file of an image."""
        copied = self.copy_image(image.file, self.folder(split))
        shapes: list[dict[str, Any]] = []
        for number, thing in enumerate(objects, start=1):
            polygons = self.polygons(thing, image.size)
            group = number if len(polygons) > 1 else None  # parts of one object
            score = {} if thing.score is None else {"score": round(thing.score, 6)}
            shapes += [
                {
                    "label": self.classes[thing.label],
                    "points": polygon.tolist(),
                    "group_id": group,
                    "description": "",
                    "shape_type": "polygon",
                    "flags": {},
                    **score,
                }
                for polygon in polygons
            ]
        content: dict[str, Any] = {
            "version": _VERSION,
            "flags": {},
            "shapes": shapes,
            "imagePath": copied.name,
            "imageData": None,
            "imageHeight": image.size[0],
            "imageWidth": image.size[1],
        }
        save_json(copied.with_suffix(".json"), content, indent=2)
