"""The exported graphs: an image goes in, and tensors of constant shape come out.

Shapes: N images, (H, W) the input, T cells, C classes, M slots for instances, S semantic classes.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from detectron2.structures import ImageList
from torch import Tensor, nn

from ..modeling import SOLO, PanopticSOLO, SoftSOLO
from ..modeling.fixed import postprocess_fixed
from ..modeling.postprocessing import MASK_STRIDE, category_scores
from ..modeling.structures import Batched
from .same_padding import with_constant_pads

FULL_OUTPUTS = ("scores", "labels", "masks", "num_candidates")
"""Of every graph of kind "full"; a semantic branch and mattes come behind."""


class FullGraph(nn.Module):
    """A model with its whole post-processing.

    Args:
        model: In evaluation mode.
        max_candidates: K, (cell, class) pairs that are looked at, the best by category score.

    Attributes:
        outputs: Names of the outputs.
    """

    def __init__(self, model: SOLO, max_candidates: int) -> None:
        super().__init__()
        self.model, self.max_candidates = model, max_candidates
        more = {PanopticSOLO: "semantic", SoftSOLO: "mattes"}
        names = [name for kind, name in more.items() if isinstance(model, kind)]
        self.outputs = (*FULL_OUTPUTS, *names)

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        """Find the instances of a batch.

        Args:
            image: (N, 3, H, W) float32 in [0, 255], sides divisible by the model's divisor.

        Returns:
            Scores (N, M), 0 for an empty slot; labels (N, M) int64; soft masks (N, M, H/4, W/4);
            the number of candidates (N,) int64, of which K are looked at. Of a panoptic model
            also logits (N, S, H/4, W/4) of the semantic branch; of a Soft SOLO mattes (N, M, H, W).
        """
        features, predictions = _run(self.model, image)
        size = (image.shape[-2] // MASK_STRIDE, image.shape[-1] // MASK_STRIDE)
        model = self.model
        found = postprocess_fixed(
            model.head, predictions, size, model.settings, max_candidates=self.max_candidates
        )
        outputs = [found.scores, found.labels, found.masks, found.num_candidates]
        if isinstance(model, PanopticSOLO):
            branch: Any = model.sem_seg_head
            outputs.append(branch.layers(features))
        if isinstance(model, SoftSOLO):
            full = (image.shape[-2], image.shape[-1])
            head = model.head
            outputs.append(head.all_mask_probs(predictions, slice(0, None), found.cells, full))
        return tuple(outputs)


class RawGraph(nn.Module):
    """The network alone: what a head predicts, for post-processing on the host.

    Args:
        model: In evaluation mode.

    Attributes:
        outputs: Names of the outputs.
    """

    def __init__(self, model: SOLO) -> None:
        super().__init__()
        self.model = model
        self.outputs = ("category_scores",)

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        """Scores (N, T, C) after point NMS, and the tensors that masks are made of."""
        _, predictions = _run(self.model, image)
        return (category_scores(predictions.category_logits), *flatten(predictions.mask_inputs))


def flatten(inputs: Any) -> tuple[Tensor, ...]:
    """Tensors of a head's `mask_inputs`, each once, in their order."""
    if isinstance(inputs, Tensor | Batched):
        return (inputs.all if isinstance(inputs, Batched) else inputs,)
    tensors = [x for part in inputs for x in flatten(part)]
    return tuple({id(x): x for x in tensors}.values())


def exportable(model: SOLO) -> SOLO:
    """Copy a model to the CPU in a form that exporters take; its results are the same.

    Raises:
        ValueError: It has a layer that cannot be exported.
    """
    model = copy.deepcopy(model).float().cpu().eval()
    with_constant_pads(model.requires_grad_(False))
    return model


def _run(model: SOLO, image: Tensor) -> tuple[dict[str, Tensor], Any]:
    pixels = (image - model.pixel_mean) / model.pixel_std
    features = model.backbone(pixels)
    images = ImageList(pixels, [tuple(image.shape[-2:])])
    return features, model.predict(features, images)


def example(size: tuple[int, int], batch: int, seed: int = 0) -> Tensor:
    """Make images (N, 3, *size) with smooth regions and edges, float32 in [0, 255]."""
    generator = torch.Generator().manual_seed(seed)

    def noise(cells: int) -> Tensor:
        sides = [max(1, side // cells) for side in size]
        return torch.rand(batch, 3, *sides, generator=generator) * 255

    smooth = nn.functional.interpolate(noise(64), size, mode="bilinear")
    fine = nn.functional.interpolate(noise(8), size, mode="bilinear")
    blocks = nn.functional.interpolate(noise(32), size)
    return torch.where(blocks[:, :1] > 140, blocks, 0.7 * smooth + 0.3 * fine)
