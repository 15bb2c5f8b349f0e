"""What a client may ask for, and the answers: JSON, a drawing, cut-outs."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

import cv2
import numpy as np

from ..inference.effects import cut_out
from ..inference.prediction import Prediction
from ..inference.renderers import CutOutRenderer, EffectRenderer, MatteChoice, Renderer
from ..io.errors import shown

__all__ = ["Answer", "Options", "make_answer"]

OUTPUTS = ("json", "overlay", "cutout", "cutouts")
MASKS = ("rle", "polygons", "none")


@dataclass(frozen=True)
class Answer:
    """Bytes and their media type."""

    body: bytes
    media_type: str


@dataclass(frozen=True)
class Options:
    """The query of a request.

    Attributes:
        output: One of `OUTPUTS`.
        masks: Of JSON, one of `MASKS`.
        threshold: Least score of an instance, in [0, 1].
        tolerance: Of polygons, by how many pixels they may be simplified.

    Example:
        >>> Options.from_query({"threshold": "0.5"}).threshold
        0.5
    """

    output: str = "json"
    masks: str = "rle"
    threshold: float = 0.3
    tolerance: float = 1.0

    @classmethod
    def from_query(cls, query: Mapping[str, str], threshold: float = 0.3) -> Options:
        """Read the parameters of a URL.

        Args:
            query: Texts by name.
            threshold: Where the query has none.

        Raises:
            ValueError: A name or a value is not known.
        """
        known = [field.name for field in fields(cls)]
        unknown = [name for name in query if name not in known]
        if unknown:
            raise ValueError(f"{shown(unknown[0])} is no parameter; there are {', '.join(known)}")
        return cls(
            _one_of("output", query.get("output", "json"), OUTPUTS),
            _one_of("masks", query.get("masks", "rle"), MASKS),
            _number("threshold", query.get("threshold", str(threshold)), 1),
            _number("tolerance", query.get("tolerance", "1"), 1000),
        )


def make_answer(prediction: Prediction, options: Options) -> Answer | None:
    """Return what was asked for of an image.

    Args:
        prediction: All instances of the image.
        options: Of the request.

    Returns:
        The answer; None where a cut-out was asked for and nothing was found.
    """
    found = prediction.instances
    prediction["instances"] = found[found.scores >= options.threshold].to("cpu")
    if options.output == "json":
        content = {
            "height": prediction.image.shape[0],
            "width": prediction.image.shape[1],
            "instances": _entries(prediction, options),
        }
        return Answer(json.dumps(content, allow_nan=False).encode(), "application/json")
    if options.output == "overlay":
        return _png(prediction.draw())
    # Without the colours of the foreground, whose estimate takes seconds.
    choice = MatteChoice(foreground=False)
    renderer: Renderer = EffectRenderer(_cut, choice)
    if options.output == "cutouts":
        renderer = CutOutRenderer(prediction.class_names or None, choice)
    images = renderer.image(prediction.image, prediction)
    if not images:
        return None
    return _png(images[""]) if options.output == "cutout" else _zip(images)


def _cut(image: np.ndarray, matte: np.ndarray, foreground: np.ndarray | None) -> np.ndarray:
    return cut_out(image, matte, foreground)


def _entries(prediction: Prediction, options: Options) -> list[dict[str, Any]]:
    entries = prediction.to_coco()
    outlines = prediction.polygons(options.tolerance) if options.masks == "polygons" else []
    for index, entry in enumerate(entries):
        del entry["image_id"]
        if options.masks != "rle":
            del entry["segmentation"]
        if outlines:
            entry["segmentation"] = [polygon.ravel().tolist() for polygon in outlines[index]]
    return entries


def _png(image: np.ndarray) -> Answer:
    return Answer(cv2.imencode(".png", image)[1].tobytes(), "image/png")


def _zip(images: Mapping[str, np.ndarray]) -> Answer:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:  # PNG is compressed already
        for name, image in images.items():
            archive.writestr(f"{name.lstrip('_')}.png", _png(image).body)
    return Answer(buffer.getvalue(), "application/zip")


def _one_of(name: str, value: str, allowed: tuple[str, ...]) -> str:
    if value not in allowed:
        raise ValueError(f"{name} must be one of {', '.join(allowed)}, got {shown(value)}")
    return value


def _number(name: str, text: str, high: float) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= high:
        raise ValueError(f"{name} must be a number in [0, {high:g}], got {shown(text)}")
    return value
