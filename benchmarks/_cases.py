"""Synthetic inputs and the pieces of work that are measured. Everything is seeded."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from detectron2.structures import BitMasks, Instances
from torch import Tensor

from solo_d2.layers import matrix_nms
from solo_d2.modeling.criterion import SOLOCriterion
from solo_d2.modeling.grid import GridSpec
from solo_d2.modeling.heads import DynamicSOLOHead
from solo_d2.modeling.heads.dynamic import DynamicMaskInputs
from solo_d2.modeling.postprocessing import (
    InferenceSettings,
    build_nms,
    resize_masks,
    select_candidates,
    suppress,
)
from solo_d2.modeling.structures import SOLOPredictions
from solo_d2.modeling.targets import SOLOTargetAssigner

from _peer import AdelaiDet  # isort: skip

NUM_CLASSES = 80
KERNEL_DIM = 256
GRID = GridSpec.build(
    (40, 36, 24, 16, 12),
    ((1, 96), (48, 192), (96, 384), (192, 768), (384, 2048)),
    (4, 8, 16, 32, 64),
)
Agree = Callable[[Any, Any], str]


@dataclass(frozen=True)
class Sizes:
    """How large the work is."""

    canvas: tuple[int, int] = (800, 1088)
    objects: tuple[int, ...] = (20, 100)
    nms_masks: int = 500
    candidates: tuple[int, ...] = (300, 2000)
    finish_masks: int = 100
    outputs: tuple[tuple[int, int], ...] = ((480, 640), (3000, 4000))
    loss_objects: int = 80


QUICK = Sizes((96, 128), (3,), 20, (30,), 5, ((60, 80),), 3)


@dataclass(frozen=True)
class Case:
    """One row of the table; `agree` says in words whether the two results are equal."""

    name: str
    ours: Callable[[], Any]
    peer: Callable[[], Any] | None
    agree: Agree = lambda _ours, _peer: ""


def soft_ellipses(
    count: int, size: tuple[int, int], generator: torch.Generator, low: float, high: float
) -> Tensor:
    """Soft masks (K, H, W) of ellipses, `low` to `high` pixels long (log-uniform)."""

    def uniform(a: float, b: float) -> Tensor:
        return (torch.rand(count, generator=generator) * (b - a) + a)[:, None, None]

    height, width = size
    length = uniform(math.log(low), math.log(high)).exp() / 2
    aspect, angle = uniform(-0.5, 0.5).exp(), uniform(0, math.pi)
    y = torch.arange(height)[:, None] - uniform(0, height)
    x = torch.arange(width)[None, :] - uniform(0, width)
    u = (x * angle.cos() + y * angle.sin()) / (length * aspect)
    v = (y * angle.cos() - x * angle.sin()) / (length / aspect)
    return torch.sigmoid(8 * (1 - (u.square() + v.square()).sqrt()))


def ground_truth(count: int, canvas: tuple[int, int], seed: int) -> Instances:
    """Objects of 20 to 700 pixels on an image."""
    generator = torch.Generator().manual_seed(seed)
    high = min(700, max(canvas))
    masks = torch.cat(
        [soft_ellipses(1, canvas, generator, min(20, high / 4), high) > 0.5 for _ in range(count)]
    )
    masks[:, canvas[0] // 2, canvas[1] // 2] |= ~masks.flatten(1).any(1)  # none is empty
    instances = Instances(canvas)
    instances.gt_masks = BitMasks(masks)
    instances.gt_boxes = instances.gt_masks.get_bounding_boxes()
    instances.gt_classes = torch.randint(NUM_CLASSES, (count,), generator=generator)
    return instances


def head_outputs(canvas: tuple[int, int], device: torch.device) -> tuple[Tensor, Tensor]:
    """Kernels (1, T, E) and a smooth mask feature (1, E, H / 4, W / 4), which make blobs."""
    generator = torch.Generator().manual_seed(0)
    size = (canvas[0] // 4, canvas[1] // 4)
    coarse = torch.randn((1, KERNEL_DIM, size[0] // 8, size[1] // 8), generator=generator)
    feature = F.interpolate(coarse, size=size, mode="bilinear", align_corners=False)
    kernels = torch.randn((1, GRID.num_cells, KERNEL_DIM), generator=generator) / 2
    return kernels.to(device), feature.to(device)


def targets_cases(sizes: Sizes, device: torch.device, peer: AdelaiDet | None) -> Iterator[Case]:
    """Target assignment of two images."""
    assigner = SOLOTargetAssigner(GRID, NUM_CLASSES, 0.2, (4,))
    height, width = sizes.canvas
    for count in sizes.objects:
        batch = [ground_truth(count, sizes.canvas, seed).to(device) for seed in (1, 2)]
        yield Case(
            f"targets, 2 x {count} objects, {height}x{width}",
            lambda batch=batch: assigner(batch, sizes.canvas, device),
            peer
            and (lambda batch=batch: peer.model.get_ground_truth(batch, (height // 4, width // 4))),
            peer.compare_targets if peer else Case.agree,
        )


def nms_cases(sizes: Sizes, device: torch.device, peer: AdelaiDet | None) -> Iterator[Case]:
    """Matrix NMS of candidates that crowd around a few objects."""
    generator = torch.Generator().manual_seed(3)
    size = (sizes.canvas[0] // 4, sizes.canvas[1] // 4)
    count = sizes.nms_masks
    objects = soft_ellipses(40, size, generator, min(8, min(size) / 2), max(size) * 0.6)
    which = torch.randint(40, (count,), generator=generator)
    cut = 0.2 + 0.6 * torch.rand((count, 1, 1), generator=generator)
    masks = (objects[which] > cut).to(device)
    areas = masks.sum((1, 2)).float()
    scores = torch.rand(count, generator=generator).sort(descending=True).values.to(device)
    classes = torch.randint(NUM_CLASSES, (40,), generator=generator)[which].to(device)
    for labels, text in ((torch.zeros_like(classes), "1 class"), (classes, "80 classes")):
        yield Case(
            f"Matrix NMS, {count} masks of {size[0]}x{size[1]}, {text}",
            lambda labels=labels: matrix_nms(masks, labels, scores),
            peer and (lambda labels=labels: peer.nms(labels, masks, areas, scores)),
            _close,
        )


def _close(ours: Tensor, theirs: Tensor) -> str:
    difference = float((ours - theirs).abs().max())
    return f"{'equal' if difference < 1e-5 else 'NO'} (max. difference {difference:.0e})"


def inference_cases(sizes: Sizes, device: torch.device, peer: AdelaiDet | None) -> Iterator[Case]:
    """Candidate selection alone (no counterpart), and all of the post-processing."""
    kernels, feature = head_outputs(sizes.canvas, device)
    head = DynamicSOLOHead.__new__(DynamicSOLOHead)  # mask_probs needs no parameter
    predictions = SOLOPredictions([], DynamicMaskInputs(kernels, feature))
    size = (feature.shape[2], feature.shape[3])
    nms = build_nms("matrix", kernel="gaussian", sigma=0.5, threshold=0.5)
    settings = InferenceSettings(0.1, 0.5, 500, nms, 0.05, 100)

    def cell_masks(cells: Tensor) -> Tensor:
        return head.mask_probs(predictions, 0, cells, size=size)

    for count in sizes.candidates:
        generator = torch.Generator().manual_seed(count)
        # Some cells are candidates of several classes.
        cells = torch.randint(GRID.num_cells, (count,), generator=generator)
        labels = torch.randint(NUM_CLASSES, (count,), generator=generator)
        scores = torch.zeros((GRID.num_cells, NUM_CLASSES))
        scores[cells, labels] = 0.1 + 0.8 * torch.rand(count, generator=generator) ** 3
        scores = scores.to(device)

        def select(scores: Tensor = scores) -> Any:
            return select_candidates(scores, cell_masks, size, GRID, settings)

        yield Case(f"selection of {count} candidates", select, None)
        output = sizes.outputs[0]

        def ours(select: Callable = select, output: tuple[int, int] = output) -> Any:
            kept, labels, cells = suppress(select(), settings)
            masks, _ = resize_masks(cell_masks(cells), sizes.canvas, sizes.canvas, output, 0.5)
            return kept, labels, masks

        def theirs(scores: Tensor = scores, output: tuple[int, int] = output) -> Any:
            found = peer.model.inference_single_image(
                scores, kernels[0], feature, sizes.canvas, output
            )
            return found.scores, found.pred_classes, found.pred_masks

        yield Case(
            f"post-processing of {count} candidates to {output[0]}x{output[1]}",
            ours,
            peer and theirs,
            _same_instances,
        )


def _same_instances(ours: tuple[Tensor, ...], theirs: tuple[Tensor, ...]) -> str:
    if len(ours[0]) != len(theirs[0]) or not torch.equal(ours[1], theirs[1]):
        return "NO: other instances"
    pixels = int((ours[2] != theirs[2]).sum())
    difference = float((ours[0] - theirs[0]).abs().max())
    good = difference < 1e-5 and pixels <= 1e-6 * ours[2].numel()
    return f"{'equal' if good else 'NO'} ({pixels} pixels, scores {difference:.0e})"


def finish_cases(sizes: Sizes, device: torch.device, peer: AdelaiDet | None) -> Iterator[Case]:
    """Soft masks to bitmaps of the original size; the other side is two plain interpolations."""
    size = (sizes.canvas[0] // 4, sizes.canvas[1] // 4)
    generator = torch.Generator().manual_seed(4)
    probs = soft_ellipses(sizes.finish_masks, size, generator, 5, max(size) * 0.6).to(device)

    def plain(output: tuple[int, int]) -> Tensor:
        large = F.interpolate(probs[None], size=sizes.canvas, mode="bilinear")
        return F.interpolate(large, size=output, mode="bilinear")[0] > 0.5

    def same(ours: Tensor, theirs: Tensor) -> str:
        pixels = int((ours != theirs).sum())
        good = pixels <= 1e-6 * ours.numel()
        return f"{'equal' if good else 'NO'} ({pixels} of {ours.numel()} pixels)"

    for output in sizes.outputs:
        yield Case(
            f"finish {sizes.finish_masks} masks to {output[0]}x{output[1]}",
            lambda output=output: resize_masks(probs, sizes.canvas, sizes.canvas, output, 0.5)[0],
            peer and (lambda output=output: plain(output)),
            same,
        )


def loss_cases(sizes: Sizes, device: torch.device, peer: AdelaiDet | None) -> Iterator[Case]:
    """Losses and their gradients with respect to the head's outputs, on our targets."""
    criterion = SOLOCriterion(
        num_classes=NUM_CLASSES,
        category_weight=1.0,
        mask_weight=3.0,
        focal_alpha=0.25,
        focal_gamma=2.0,
        mask_strides=(4,) * GRID.num_levels,
    )
    head = DynamicSOLOHead.__new__(DynamicSOLOHead)
    batch = [ground_truth(sizes.loss_objects, sizes.canvas, seed).to(device) for seed in (5, 6)]
    targets = SOLOTargetAssigner(GRID, NUM_CLASSES, 0.2, (4,))(batch, sizes.canvas, device)
    kernels, feature = (
        x.repeat(2, *[1] * (x.dim() - 1)) for x in head_outputs(sizes.canvas, device)
    )
    logits = [torch.full((2, NUM_CLASSES, s, s), -4.6, device=device) for s in GRID.num_grids]
    leaves = [*logits, kernels, feature]
    for leaf in leaves:
        leaf.requires_grad_()
    positives = len(targets.cells)

    def ours() -> tuple[Tensor, ...]:
        predictions = SOLOPredictions(logits, DynamicMaskInputs(kernels, feature))
        losses = criterion(predictions, targets, head.mask_probs)
        # The peer divides the category loss by one more.
        losses["loss_category"] = losses["loss_category"] * (positives / (positives + 1))
        return torch.autograd.grad(sum(losses.values()), leaves)

    def theirs() -> tuple[Tensor, ...]:
        return torch.autograd.grad(peer.loss(logits, kernels, feature, converted), leaves)

    def same(ours: tuple[Tensor, ...], theirs: tuple[Tensor, ...]) -> str:
        worst = max(float((a - b).norm() / b.norm()) for a, b in zip(ours, theirs, strict=True))
        return f"{'equal' if worst < 1e-4 else 'NO'} (gradients to {worst:.0e})"

    converted = peer and peer.as_peer_targets(targets)
    yield Case(f"loss and its gradients, {positives} positive cells", ours, peer and theirs, same)


GROUPS = {
    "targets": targets_cases,
    "nms": nms_cases,
    "inference": inference_cases,
    "finish": finish_cases,
    "loss": loss_cases,
}
