"""From predictions to instances: the visit in chunks, or a whole batch in constant shapes."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from detectron2.modeling import Backbone
from detectron2.structures import ImageList, Instances
from torch import Tensor, nn

from ...layers import exporting
from ..fixed import FixedInstances, decay_of, postprocess_fixed
from ..heads import SOLOHead
from ..inputs import wanted_size
from ..output import assemble_instances, make_instances, resize_masks
from ..postprocessing import (
    MASK_STRIDE,
    Frame,
    InferenceSettings,
    View,
    category_scores,
    select_candidates,
    suppress,
)
from ..refinement import refine_masks
from ..structures import SOLOPredictions


class FixedOutputs(NamedTuple):
    """All that the network and the post-processing make of the pixels of a batch.

    Attributes:
        instances: found, masks at stride 4.
        predictions: of the head.
        semantic: logits of a semantic branch (N, C, H, W), if there is one.
    """

    instances: FixedInstances
    predictions: SOLOPredictions
    semantic: Tensor | None


class Inference(nn.Module):
    """The test path: constant shapes on a GPU, which is hardly waited for, visits in chunks else.

    Attributes:
        fixed: whether to use constant shapes; None for "on a GPU". Where the NMS takes one mask
            after the other, and where a graph is recorded, images are visited in chunks anyway.
        runner: called instead of `run_fixed`, if given; see `solo_d2.compile`.
        keep_kernels: instances get ``pred_kernels``, float32 (K, D), of a head that predicts
            kernels; see `SOLOHead.cell_kernels`.
    """

    backbone: Backbone
    head: SOLOHead
    settings: InferenceSettings
    fixed: bool | None = None
    runner: Callable[[Tensor], FixedOutputs] | None = None
    keep_kernels: bool = False

    @abstractmethod
    def predict(self, features: dict[str, Tensor], images: ImageList) -> SOLOPredictions:
        """Run the head on the backbone's features of `images`."""

    def semantic_logits(self, features: dict[str, Tensor]) -> Tensor | None:  # noqa: ARG002
        """Logits (N, C, H, W) of a semantic branch; a model of instances has none."""
        return None

    def complete(
        self,
        results: list[dict[str, Any]],
        semantic: Tensor | None,  # noqa: ARG002 - for a subclass that has such a branch
        images: ImageList,  # noqa: ARG002
    ) -> list[dict[str, Any]]:
        """Add to the instances of every image what a semantic branch has found."""
        return results

    @torch.no_grad()
    def inference(
        self, predictions: SOLOPredictions, images: ImageList, batched_inputs: list[dict[str, Any]]
    ) -> list[dict[str, Instances]]:
        """Instances of every image of a batch."""
        canvas = (images.tensor.shape[-2], images.tensor.shape[-1])
        results = []
        # Counting pixels and comparing scores needs float32 (fp16 is not exact above 2048).
        device = images.tensor.device
        with torch.autocast(device.type, enabled=False):
            if self.uses_fixed(device):
                size = (canvas[0] // MASK_STRIDE, canvas[1] // MASK_STRIDE)
                found = postprocess_fixed(self.head, predictions, size, self.settings)
                return self.finish(found, predictions, images, batched_inputs)
            scores = category_scores(predictions.category_logits)
            for i, (inputs, image_size) in enumerate(
                zip(batched_inputs, images.image_sizes, strict=True)
            ):
                output = wanted_size(inputs, image_size)
                frame = Frame(canvas, image_size)
                instances = self.inference_single_image(predictions, i, scores[i], frame, output)
                results.append({"instances": instances})
        return results

    def inference_single_image(
        self,
        predictions: SOLOPredictions,
        image: int,
        scores: Tensor,
        frame: Frame,
        output_size: tuple[int, int],
    ) -> Instances:
        """Instances of one image; see `postprocessing` for the steps.

        Args:
            predictions: of the head, for the batch.
            image: index in the batch.
            scores: category scores (T, C) of the image.
            frame: where the image lies on the padded canvas of the batch.
            output_size: (height, width) wanted.
        """
        view = self.view(predictions, image, scores, frame)
        scores, labels, cells = suppress(view.candidates, self.settings)
        probs = view.cell_masks(cells)
        masks, boxes, fields = self.resize_instances(
            predictions, image, cells, probs, frame, output_size
        )
        fields |= self.kernels(predictions, image, cells)
        return make_instances(scores, labels, masks, boxes, **fields)

    def kernels(self, predictions: SOLOPredictions, image: int, cells: Tensor) -> dict[str, Tensor]:
        """Return the field of the kernels of cells (K,), if it is wanted and there are some."""
        if not self.keep_kernels:
            return {}
        kernels = self.head.cell_kernels(predictions.mask_inputs, image, cells)
        return {} if kernels is None else {"pred_kernels": kernels.float()}

    def resize_instances(
        self,
        predictions: SOLOPredictions,
        image: int,
        cells: Tensor,  # noqa: ARG002 - for a subclass with other fields
        probs: Tensor,
        frame: Frame,
        output_size: tuple[int, int],
    ) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        """Bring the instances of one image to the output's size.

        Args:
            predictions: of the head, for the batch.
            image: index in the batch.
            cells: flat cell indices (K,) of the instances.
            probs: their soft masks (K, h, w).
            frame: where the image lies on the padded canvas of the batch.
            output_size: (height, width) wanted.

        Returns:
            Boolean masks (K, height, width), their boxes (K, 4), and further fields.
        """
        threshold = self.settings.mask_thresh
        if predictions.guide is not None:
            probs = refine_masks(probs, predictions.guide[image], threshold)
        masks, boxes = resize_masks(probs, *frame, output_size, threshold)
        return masks, boxes, {}

    def view(self, predictions: SOLOPredictions, image: int, scores: Tensor, frame: Frame) -> View:
        """Find the candidates of one image; arguments as of `inference_single_image`."""
        size = (frame.canvas[0] // MASK_STRIDE, frame.canvas[1] // MASK_STRIDE)

        def cell_masks(cells: Tensor) -> Tensor:
            return self.head.mask_probs(predictions, image, cells, size=size)

        candidates = select_candidates(scores, cell_masks, size, self.head.grid, self.settings)
        return View(candidates, cell_masks)

    def uses_fixed(self, device: torch.device) -> bool:
        """Return whether instances are found in constant shapes."""
        wanted = device.type == "cuda" if self.fixed is None else self.fixed
        return wanted and not exporting() and decay_of(self.settings.nms) is not None

    def run_network(self, pixels: Tensor) -> tuple[SOLOPredictions, Tensor | None]:
        """Predictions of the head, and logits of a semantic branch, of pixels (N, 3, H, W)."""
        features = self.backbone(pixels)
        return self.predict(features, ImageList(pixels, [])), self.semantic_logits(features)

    @torch.no_grad()
    def run_fixed(
        self,
        pixels: Tensor,
        *,
        max_candidates: int | None = None,
        network: Callable[[Tensor], tuple[SOLOPredictions, Tensor | None]] | None = None,
    ) -> FixedOutputs:
        """Run the network and the post-processing.

        Args:
            pixels: normalised images (N, 3, H, W), sides divisible by `SOLO.size_divisibility`.
            max_candidates: as for `postprocess_fixed`.
            network: in place of `run_network`.
        """
        predictions, semantic = (network or self.run_network)(pixels)
        size = (pixels.shape[-2] // MASK_STRIDE, pixels.shape[-1] // MASK_STRIDE)
        with torch.autocast(pixels.device.type, enabled=False):  # as in `SOLO.inference`
            instances = postprocess_fixed(
                self.head, predictions, size, self.settings, max_candidates=max_candidates
            )
        return FixedOutputs(instances, predictions, semantic)

    @torch.no_grad()
    def finish(
        self,
        found: FixedInstances,
        predictions: SOLOPredictions,
        images: ImageList,
        batched_inputs: list[dict[str, Any]],
    ) -> list[dict[str, Instances]]:
        """Make instances at the outputs' sizes; a GPU is waited for twice, however many images.

        An image with more candidates than there were slots is visited in chunks.
        """
        # First wait: which slots are filled, and where they were too few.
        counts = torch.stack([found.num_candidates, (found.scores > 0).sum(1)], dim=1).tolist()
        limit, parts = self.settings.pre_nms_topk, []
        canvas = (images.tensor.shape[-2], images.tensor.shape[-1])
        instances: list[Instances | None] = []
        with torch.autocast(images.tensor.device.type, enabled=False):
            for image, (inputs, (candidates, count), image_size) in enumerate(
                zip(batched_inputs, counts, images.image_sizes, strict=True)
            ):
                place = Frame(canvas, image_size), wanted_size(inputs, image_size)
                if candidates > limit:
                    scores = category_scores(predictions.category_logits)[image]
                    whole = self.inference_single_image(predictions, image, scores, *place)
                    instances.append(whole)
                    continue
                instances.append(None)
                scores, labels, probs, cells = (
                    x[image, :count] for x in (found.scores, found.labels, found.masks, found.cells)
                )
                resized = self.resize_instances(predictions, image, cells, probs, *place)
                resized[2].update(self.kernels(predictions, image, cells))
                # A runner writes the next result where this one lies.
                parts.append((scores.clone(), labels.clone(), *resized))
        # Second wait: which masks have lost all pixels.
        ready = iter(_without_empty(parts))
        return [{"instances": next(ready) if x is None else x} for x in instances]


def _without_empty(
    parts: list[tuple[Tensor, Tensor, Tensor, Tensor, dict[str, Tensor]]],
) -> list[Instances]:
    """Assemble the instances of every image, but those whose masks have no pixel."""
    if not parts:
        return []
    counts = [len(part[0]) for part in parts]
    boxes = torch.cat([part[3] for part in parts])
    present = (boxes[:, 2] > boxes[:, 0]).cpu().split(counts)
    found = []
    for (scores, labels, masks, box, fields), kept in zip(parts, present, strict=True):
        if not bool(kept.all()):
            rows = kept.nonzero().squeeze(1).to(box.device, non_blocking=True)
            scores, labels, masks, box = scores[rows], labels[rows], masks[rows], box[rows]
            fields = {name: value[rows] for name, value in fields.items()}
        found.append(assemble_instances(scores, labels, masks, box, **fields))
    return found
