"""Datasets of LabelMe: a JSON file beside each image, with polygons that a person can correct."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ...io.json_file import save_json
from .writing import DatasetWriter, LabelledImage, LabelledObject

__all__ = ["LabelMeWriter"]

_VERSION = "5.5.0"  # whose keys these are


class LabelMeWriter(DatasetWriter):
    """``NAME.json`` beside a copy of every image; scores are a key "score" of shapes."""

    kind = "labelme"
    keeps_scores = True

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
