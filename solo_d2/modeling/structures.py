"""What flows between the head, the targets, the criterion and the post-processing.

Shapes: N images, L levels, S_l cells a side on level l, T cells in all, C classes, P positive
cells, I objects of the whole batch, (H, W) the canvas, i.e. the padded input of the batch.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor

from ..layers import exporting


class Batched(NamedTuple):
    """A tensor of a whole batch, and its views of single images.

    It is split once, because the backward pass of ``batch[image]`` fills a whole batch with zeros,
    for every image anew.

    Attributes:
        all: (N, ...).
        each: (1, ...) per image; none where a graph is recorded, which knows no N.
    """

    all: Tensor
    each: tuple[Tensor, ...]

    @classmethod
    def split(cls, x: Tensor) -> Batched:
        """Split a tensor (N, ...)."""
        return cls(x, () if exporting() else x.split(1))

    def of(self, images: int | slice) -> Tensor:
        """Return the tensor of one image (1, ...), or of several (n, ...)."""
        if isinstance(images, slice):
            return self.all[images]
        return self.each[images] if self.each else self.all[images : images + 1]


class SOLOPredictions(NamedTuple):
    """Raw output of a head for one batch.

    A tuple rather than a dataclass, so that ``torch.compile`` and ``torch.export`` can return it.

    Attributes:
        category_logits: one (N, C, S_l, S_l) tensor per level.
        mask_inputs: what the `mask_probs` of the same head makes masks from; private to it.
        guide: the images, for masks that are refined by them; see `refinement.make_guide`.
    """

    category_logits: list[Tensor]
    mask_inputs: Any
    guide: Tensor | None = None


MaskProbs = Callable[..., Tensor]
"""`SOLOHead.mask_probs`, for those who call it without knowing the head."""


_Targets = TypeVar("_Targets", bound="SOLOTargets")


@dataclass
class SOLOTargets:
    """Training targets of one batch.

    Attributes:
        labels: class of every cell (N, T), int64; C means background.
        cells: flat cell index of every positive (P,), sorted by image, then by cell.
        instances: row of `masks` that belongs to every positive (P,).
        counts: number of positives per image and level, ``counts[n][l]``.
        classes: class of every object (I,).
        images: index of every object's image (I,).
        masks: mask targets of all objects, boolean or floats in [0, 1]:
            {stride: (I, H / stride, W / stride)}.
    """

    labels: Tensor
    cells: Tensor
    instances: Tensor
    counts: list[list[int]]
    classes: Tensor
    images: Tensor
    masks: dict[int, Tensor]

    def to(self: _Targets, device: torch.device) -> _Targets:
        """Return the targets on a device, for which, coming from the host, nobody waits."""
        pinned = device.type == "cuda" and self.labels.device.type == "cpu"

        def move(x: Any) -> Any:
            if isinstance(x, dict):
                return {key: move(value) for key, value in x.items()}
            if not isinstance(x, Tensor):
                return x
            return (x.pin_memory() if pinned else x).to(device, non_blocking=True)

        return replace(self, **{x.name: move(getattr(self, x.name)) for x in fields(self)})
