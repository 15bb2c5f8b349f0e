"""Copy-paste with soft edges: objects of another training image on the one that is loaded."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
from detectron2.config import CfgNode

from .dataset_mapper import SOLODatasetMapper
from .matting_mapper import native_mattes
from .records import is_crowd
from .scenes.compose import Layer, Matte, compose
from .scenes.cutouts import Cutout, transform_cutout
from .seeded import new_generator

__all__ = ["CopyPaste"]

_MIN_PIXELS = 16
"""Visible pixels of a pasted object, at least."""

_MAX_UPSCALE = 2.0
"""Largest enlargement of an object; a larger one would be a blur."""


class CopyPaste:
    """A mapper that pastes before the augmentations of another one.

    An object that would hide too much of another one is left out, so that nothing that can be seen
    goes without a label.

    Args:
        mapper: reads and augments.
        records: of all training images; an image gets objects of a random one.
        probability: that an image gets some, in [0, 1].
        count: smallest and largest number of objects that are tried.
        scales: smallest and largest size, relative to that in the object's own image.
        min_visible: share of every object that must stay visible, in [0, 1].
    """

    def __init__(
        self,
        mapper: SOLODatasetMapper,
        records: Sequence[dict[str, Any]],
        *,
        probability: float = 0.5,
        count: tuple[int, int] = (1, 5),
        scales: tuple[float, float] = (0.5, 2.0),
        min_visible: float = 0.5,
    ) -> None:
        self.mapper = mapper
        self.records = records
        self.probability = probability
        self.count = count
        self.scales = scales
        self.min_visible = min_visible

    @classmethod
    def from_config(cls, cfg: CfgNode, mapper: Any, records: Sequence[dict[str, Any]]) -> CopyPaste:
        """Make one of `INPUT.COPY_PASTE`.

        Raises:
            ValueError: the mapper is no `SOLODatasetMapper`.
        """
        if not isinstance(mapper, SOLODatasetMapper):
            raise ValueError(
                "INPUT.COPY_PASTE needs a mapper derived from SOLODatasetMapper, got "
                f"{type(mapper).__name__}"
            )
        node = cfg.INPUT.COPY_PASTE
        return cls(
            mapper,
            records,
            probability=node.PROB,
            count=tuple(node.NUM_OBJECTS),
            scales=tuple(node.SCALES),
            min_visible=node.MIN_VISIBLE,
        )

    def __call__(self, record: dict[str, Any]) -> dict[str, Any]:
        """Read, paste, augment and annotate one image; see `SOLODatasetMapper`."""
        image = self.mapper.read(record)
        rng = new_generator()
        if rng.random() < self.probability:
            other = self.records[int(rng.integers(len(self.records)))]
            self.paste(image, self.mapper.read(other), rng)
        return self.mapper.augment(image)

    def paste(self, image: dict[str, Any], other: dict[str, Any], rng: np.random.Generator) -> None:
        """Paste some objects of `other` on `image`, in place; both are of the mapper's `read`."""
        layers = self._layers(image["image"].shape[:2], other, rng)
        if not layers:
            return
        size = image["image"].shape[:2]
        own = [x for x in image.get("annotations") or () if not is_crowd(x)]
        crowds = [x for x in image.get("annotations") or () if is_crowd(x)]
        present = [_crop(x) for x in native_mattes(own, size, image["file_name"])]
        scene = compose(
            image["image"],
            layers,
            present=present,
            min_visible=self.min_visible,
            min_pixels=_MIN_PIXELS,
        )
        image["image"] = scene.image
        for i, (before, after) in enumerate(zip(present, scene.mattes, strict=False)):
            if after.alpha is not before.alpha:  # something lies above
                own[i] = {**own[i], **_annotation(after, size)}
        pasted = scene.mattes[len(present) :]
        labels = scene.categories[len(present) :].tolist()
        for label, matte in zip(labels, pasted, strict=True):
            own.append({"category_id": label, "iscrowd": 0, **_annotation(matte, size)})
        if image["sem_seg"] is not None:
            things = [x["segmentation"] for x in own[len(present) :]]
            image["sem_seg"] = np.where(np.any(things, axis=0), 0, image["sem_seg"])
        image["annotations"] = own + crowds

    def _layers(
        self, size: tuple[int, int], other: dict[str, Any], rng: np.random.Generator
    ) -> list[Layer]:
        """Objects of `other`, resized for an image of `size`, each at a random place."""
        objects = [x for x in other.get("annotations") or () if not is_crowd(x)]
        count = min(len(objects), int(rng.integers(self.count[0], self.count[1] + 1)))
        chosen = [objects[i] for i in rng.choice(len(objects), count, replace=False)]
        native = other["image"].shape[:2]
        ratio = math.sqrt(math.prod(size) / math.prod(native))
        layers = []
        for x, full in zip(chosen, native_mattes(chosen, native, other["file_name"]), strict=True):
            cutout = _cut(other["image"], full, x)
            scale = math.exp(rng.uniform(*np.log(self.scales))) * ratio
            flip = bool(rng.random() < 0.5)
            place = rng.uniform(size=2)
            if cutout is not None:
                layers.append(_layer(cutout, scale, flip, place, size))
        return layers


def _cut(image: np.ndarray, full: np.ndarray, annotation: dict[str, Any]) -> Cutout | None:
    """Cut an object out of its image; None where it has no pixel, or is all edge.

    A mask gets a soft edge inside of it, so that nothing of its background comes along.
    """
    if "alpha" not in annotation:
        full = np.minimum(full, cv2.GaussianBlur(full, (0, 0), 1.0))
    if not (full >= 128).any():
        return None
    rgba = np.dstack([image, full])
    return Cutout.from_straight(rgba, annotation["category_id"], max_side=max(full.shape))


def _layer(
    cutout: Cutout, scale: float, flip: bool, place: np.ndarray, size: tuple[int, int]
) -> Layer:
    """Resize a cut-out and put its centre on a place, (x, y) in [0, 1] of an image of `size`."""
    extent = np.ptp(cutout.hull, axis=0)
    wanted = math.sqrt(float(extent.prod())) * scale
    rgba = transform_cutout(cutout, wanted, flip=flip, max_upscale=_MAX_UPSCALE)
    canvas, layer = np.array(size[::-1]), np.array(rgba.shape[1::-1])
    margin = np.minimum(0.3 * layer, canvas / 2)  # at most a fifth sticks out on a side
    centre = np.clip(place * canvas, margin, canvas - margin)
    x, y = np.rint(centre - layer / 2).astype(int)
    return Layer(rgba, int(x), int(y), cutout.category)


def _crop(matte: np.ndarray) -> Matte:
    """Crop a matte (H, W), uint8, to what it covers."""
    x, y, w, h = cv2.boundingRect(matte)
    return Matte(matte[y : y + h, x : x + w].astype(np.float32) / 255, x, y)


def _annotation(matte: Matte, size: tuple[int, int]) -> dict[str, Any]:
    """Return mask and matte of an annotation in memory, and no box: it follows from the mask."""
    pixels = np.rint(matte.alpha * 255).astype(np.uint8)
    return {
        "segmentation": matte.on_canvas(*size) >= 0.5,
        "alpha": {"pixels": pixels, "offset": [matte.x, matte.y]},
    }
