"""Renderers: what an `InferenceRun` shows of the instances that were found in an image."""

from __future__ import annotations

import logging
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from detectron2.structures import Instances

from ..io.results import panoptic_things
from ..layers import dense_masks
from .colors import InstanceColors
from .drawing import draw_instances, draw_panoptic
from .effects import (
    Effect,
    cut_out,
    drop_faint_parts,
    estimate_foreground,
    set_levels,
    union_matte,
)

__all__ = ["CutOutRenderer", "DrawingRenderer", "EffectRenderer", "MatteChoice", "Renderer"]

_logger = logging.getLogger(__name__)


class Renderer(ABC):
    """Makes images to look at of an image and a model's output.

    Attributes:
        separate: whether there are several images of one, which are files of their own in a
            video, too; otherwise the only one has the name "".
    """

    separate = False

    @abstractmethod
    def image(self, image: np.ndarray, prediction: dict[str, Any]) -> dict[str, np.ndarray]:
        """Render one image.

        Args:
            image: uint8 BGR (H, W, 3).
            prediction: the model's output for it.

        Returns:
            Images, uint8 BGR or BGRA, by what is added to the file name; none where there is
            nothing to be shown.
        """

    def for_video(self) -> Renderer:
        """Return the renderer of the frames of one video, in their order."""
        return self


class DrawingRenderer(Renderer):
    """Masks, outlines and labels; of a panoptic model its segments.

    Args:
        class_names: in the order of the labels; numbers where there are none.
        stuff_names: of a panoptic model.
        colors: of the instances; by default one for each track, or each place in the output.
        style: of `draw_instances`; segments of a panoptic model have one style.
    """

    def __init__(
        self,
        class_names: Sequence[str] | None = None,
        stuff_names: Sequence[str] | None = None,
        colors: Callable[[Instances], np.ndarray] | None = None,
        style: str = "masks",
    ) -> None:
        self._names, self._stuff_names, self._colors = class_names, stuff_names, colors
        self._style = style

    @classmethod
    def of(cls, metadata: Any, *, style: str = "masks") -> DrawingRenderer:
        """Make a renderer with the names of metadata, which has `get` as Detectron2's."""
        names, stuff = metadata.get("thing_classes", None), metadata.get("stuff_classes", None)
        return cls(names, stuff, style=style)

    def image(self, image: np.ndarray, prediction: dict[str, Any]) -> dict[str, np.ndarray]:
        """Draw what was found."""
        segments = prediction.get("panoptic_seg")
        if segments is None:
            found = prediction["instances"].to("cpu")
            colors = self._chosen(found)
            drawing = draw_instances(image, found, self._names, colors, style=self._style)
            return {"": drawing}
        colors = self._chosen(panoptic_things(*segments))
        return {"": draw_panoptic(image, segments, self._names, self._stuff_names, colors)}

    def _chosen(self, found: Instances) -> np.ndarray | None:
        tracked = found.has("track_ids")
        return None if self._colors is None or tracked else self._colors(found)

    def for_video(self) -> Renderer:
        """Return a renderer whose colours follow the objects from frame to frame."""
        colors = self._colors or InstanceColors()
        return DrawingRenderer(self._names, self._stuff_names, colors, self._style)


@dataclass
class MatteChoice:
    """Which instances are taken, and what is made of their mattes.

    Attributes:
        label: only this class.
        instance: only this one of them, from 0 by descending score.
        levels: see `set_levels`.
        foreground: estimate the colours of the foreground with pymatting.
    """

    label: int | None = None
    instance: int | None = None
    levels: tuple[float, float] = (0.1, 0.95)
    foreground: bool = True
    _warned: bool = False

    def of(self, prediction: dict[str, Any]) -> Instances:
        """Return the chosen ones of the instances of a model's output, on the CPU."""
        found: Instances = prediction["instances"].to("cpu")
        if self.label is not None:
            found = found[found.pred_classes == self.label]
        return found if self.instance is None else found[self.instance : self.instance + 1]

    def mattes(self, found: Instances) -> np.ndarray:
        """Return mattes (K, H, W) float32 of instances, or their masks, with one warning."""
        if found.has("pred_mattes"):
            mattes = set_levels(found.pred_mattes.numpy(), *self.levels)
            firm = float(set_levels(np.array(0.5, np.float32), *self.levels))
            for matte in mattes:
                matte[:] = drop_faint_parts(matte, firm)
            return mattes
        if not self._warned:
            self._warned = True
            _logger.warning("this model has no mattes, only masks: edges are hard")
        return dense_masks(found.pred_masks).numpy().astype(np.float32)

    def colors(self, image: np.ndarray, matte: np.ndarray) -> np.ndarray | None:
        """Return the colours of the foreground, uint8 BGR (H, W, 3), if they are estimated."""
        return estimate_foreground(image, matte) if self.foreground else None


class EffectRenderer(Renderer):
    """An effect around the chosen instances together.

    Args:
        effect: makes the image.
        choice: of instances; by default the best one.
    """

    def __init__(self, effect: Effect, choice: MatteChoice | None = None) -> None:
        self._effect = effect
        self._choice = MatteChoice(instance=0) if choice is None else choice

    def image(self, image: np.ndarray, prediction: dict[str, Any]) -> dict[str, np.ndarray]:
        """Apply the effect; no image without a chosen instance."""
        found = self._choice.of(prediction)
        if not len(found):
            return {}
        matte = union_matte(self._choice.mattes(found))
        return {"": self._effect(image, matte, self._choice.colors(image, matte))}


class CutOutRenderer(Renderer):
    """Every chosen instance as an image with an alpha channel, cropped to it.

    Args:
        class_names: in the order of the labels; numbers where there are none.
        choice: of instances; by default all.
    """

    separate = True

    def __init__(
        self, class_names: Sequence[str] | None = None, choice: MatteChoice | None = None
    ) -> None:
        self._names = class_names
        self._choice = MatteChoice() if choice is None else choice

    def image(self, image: np.ndarray, prediction: dict[str, Any]) -> dict[str, np.ndarray]:
        """Cut out; names are those of classes behind a number by descending score."""
        found = self._choice.of(prediction)
        pieces = {}
        for index in range(len(found)):
            label = int(found.pred_classes[index])
            name = self._names[label] if self._names else f"class{label}"
            matte = self._choice.mattes(found[index])[0]
            if matte.max() < 0.5 / 255:  # everything is below the levels
                continue
            name = re.sub(r"[^\w-]+", "-", name)[:_LONGEST_NAME]
            colors = self._choice.colors(image, matte)
            pieces[f"_{index:02d}_{name}"] = cut_out(image, matte, colors)
        return pieces


_LONGEST_NAME = 40  # characters of a class name in a file name
