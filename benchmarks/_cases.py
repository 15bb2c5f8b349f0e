"""Seeded synthetic inputs and the operations that are measured on them, by group."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from statistics import median
from typing import Any

import torch
import torch.nn.functional as F
from _nms import compare_types
from _peer import AdelaiDet
from _timing import Result, Timer, peak_memory
from detectron2.modeling import build_model
from detectron2.structures import BitMasks, Instances
from torch import Tensor, nn

from solo_d2 import model_zoo
from solo_d2.layers import matrix_nms
from solo_d2.modeling.output import resize_masks
from solo_d2.modeling.postprocessing import select_candidates, suppress

CONFIG = "COCO-InstanceSegmentation/solov2_R_50_FPN_3x.yaml"


@dataclass(frozen=True)
class Sizes:
    """Sizes of the inputs."""

    canvas: tuple[int, int] = (800, 1088)
    objects: tuple[int, ...] = (20, 100)
    nms_masks: int = 500
    candidates: tuple[int, ...] = (300, 2000)
    finish_masks: int = 100
    outputs: tuple[tuple[int, int], ...] = ((480, 640), (3000, 4000))
    conv_dim: int = 0  # the config's own
    depth: int = 50  # of the ResNet

    @property
    def quarter(self) -> tuple[int, int]:
        """Return the canvas size at stride 4."""
        return self.canvas[0] // 4, self.canvas[1] // 4


QUICK = Sizes((96, 128), (3,), 20, (30,), 5, ((60, 80),), 32, 18)


def ellipses(count: int, size: tuple[int, int], seed: int, low: float, high: float) -> Tensor:
    """Draw soft masks (K, H, W) of ellipses, `low` to `high` pixels long (log-uniform)."""
    generator = torch.Generator().manual_seed(seed)
    low, high = min(low, min(size) / 4), min(high, max(size))

    def uniform(a: float, b: float) -> Tensor:
        return torch.empty(count, 1, 1).uniform_(a, b, generator=generator)

    length = uniform(math.log(low), math.log(high)).exp() / 2
    aspect, angle = uniform(-0.5, 0.5).exp(), uniform(0, math.pi)
    y = torch.arange(size[0])[:, None] - uniform(0, size[0])
    x = torch.arange(size[1])[None, :] - uniform(0, size[1])
    u = (x * angle.cos() + y * angle.sin()) / (length * aspect)
    v = (y * angle.cos() - x * angle.sin()) / (length / aspect)
    return torch.sigmoid(8 * (1 - (u.square() + v.square()).sqrt()))


def ground_truth(count: int, canvas: tuple[int, int], seed: int) -> Instances:
    """Draw objects of 20 to 700 pixels."""
    instances = Instances(canvas)
    masks = [ellipses(1, canvas, seed + 1000 * i, 20, 700) > 0.5 for i in range(count)]
    instances.gt_masks = BitMasks(torch.cat(masks))
    instances.gt_boxes = instances.gt_masks.get_bounding_boxes()
    instances.gt_classes = torch.arange(count) * 7 % 80
    return instances


def make_model(sizes: Sizes, device: torch.device, config: str = CONFIG) -> nn.Module:
    """Build a model with random weights whose masks are not blank."""
    cfg = model_zoo.get_config(config)
    cfg.MODEL.WEIGHTS, cfg.MODEL.DEVICE, cfg.MODEL.RESNETS.DEPTH = "", str(device), sizes.depth
    if sizes.depth < 50:
        cfg.MODEL.RESNETS.RES2_OUT_CHANNELS = 64
    if sizes.conv_dim:
        cfg.MODEL.SOLO.CONV_DIM = sizes.conv_dim
    torch.manual_seed(0)
    model = build_model(cfg).eval()
    for name, parameter in model.head.named_parameters():
        if parameter.dim() == 4:
            nn.init.kaiming_normal_(parameter)
        elif name.endswith("bias") and "predictor" in name and not name.startswith("category"):
            nn.init.zeros_(parameter)
    return model


def targets(sizes: Sizes, timer: Timer, peer: AdelaiDet | None, model: nn.Module) -> Iterator:
    """Measure target assignment of two images."""
    for count in sizes.objects:
        batch = [ground_truth(count, sizes.canvas, seed).to(timer.device) for seed in (1, 2)]
        yield timer.compare(
            f"targets, 2 x {count} objects, {sizes.canvas[0]}x{sizes.canvas[1]}",
            partial(model.assigner, batch, sizes.canvas, timer.device),
            peer and partial(peer.model.get_ground_truth, batch, sizes.quarter),
            peer.compare_targets if peer else None,
        )


def crowded_masks(sizes: Sizes) -> Tensor:
    """Draw boolean masks that overlap around 40 objects."""
    which = torch.arange(sizes.nms_masks) * 13 % 40
    cut = torch.linspace(0.2, 0.8, sizes.nms_masks)[:, None, None]
    return ellipses(40, sizes.quarter, 3, 8, 160)[which] > cut


def nms(sizes: Sizes, timer: Timer, peer: AdelaiDet | None, _model: nn.Module) -> Iterator:
    """Matrix NMS of candidates that crowd around 40 objects."""
    count, (height, width) = sizes.nms_masks, sizes.quarter
    which = torch.arange(count) * 13 % 40
    masks = crowded_masks(sizes).to(timer.device)
    areas = masks.sum((1, 2)).float()
    scores = torch.linspace(0.9, 0.1, count, device=timer.device)

    def agree(ours: Tensor, theirs: Tensor) -> str:
        difference = float((ours - theirs).abs().max())
        return f"{'equal' if difference < 1e-5 else 'NO'} (scores to {difference:.0e})"

    for labels, text in ((which * 0, "1 class"), (which * 2, "of 80 classes")):
        labels = labels.to(timer.device)
        yield timer.compare(
            f"Matrix NMS, {count} masks of {height}x{width}, {text}",
            partial(matrix_nms, masks, labels, scores),
            peer and partial(peer.nms, labels, masks, areas, scores),
            agree,
        )


def nms_types(
    sizes: Sizes, timer: Timer, _peer: AdelaiDet | None, _model: nn.Module
) -> Iterator[Result]:
    """Measure all four mask NMS, with and without their IoU."""
    return compare_types(crowded_masks(sizes).to(timer.device), timer)


def inference(sizes: Sizes, timer: Timer, peer: AdelaiDet | None, model: nn.Module) -> Iterator:
    """Selection of candidates (without a counterpart), then all of the post-processing."""
    head, settings, output = model.head, model.settings, sizes.outputs[0]
    generator = torch.Generator().manual_seed(0)
    # A smooth mask feature makes blobs.
    feature = torch.randn(
        (1, 256, sizes.quarter[0] // 8, sizes.quarter[1] // 8), generator=generator
    )
    feature = F.interpolate(feature, size=sizes.quarter, mode="bilinear").to(timer.device)
    kernels = torch.randn((head.grid.num_cells, 256), generator=generator).to(timer.device)

    def cell_masks(cells: Tensor) -> Tensor:
        return (
            (kernels[cells] @ feature.flatten(1).view(256, -1))
            .sigmoid()
            .unflatten(1, sizes.quarter)
        )

    def select(scores: Tensor) -> Any:
        return select_candidates(scores, cell_masks, sizes.quarter, head.grid, settings)

    def ours(scores: Tensor) -> tuple[Tensor, ...]:
        kept, labels, cells = suppress(select(scores), settings)
        probs = cell_masks(cells)
        return kept, labels, resize_masks(probs, sizes.canvas, sizes.canvas, output, 0.5)[0]

    def theirs(scores: Tensor) -> tuple[Tensor, ...]:
        found = peer.model.inference_single_image(scores, kernels, feature, sizes.canvas, output)
        return found.scores, found.pred_classes, found.pred_masks

    def agree(ours: tuple[Tensor, ...], theirs: tuple[Tensor, ...]) -> str:
        if not torch.equal(ours[1], theirs[1]):
            return "NO: other instances"
        return _same_pixels(ours[2], theirs[2])

    for count in sizes.candidates:
        generator.manual_seed(count)
        cells = torch.randint(head.grid.num_cells, (count,), generator=generator)
        scores = torch.zeros((head.grid.num_cells, 80))
        scores[cells, torch.arange(count) * 7 % 80] = torch.linspace(0.9, 0.101, count)
        scores = scores.to(timer.device)
        yield timer.compare(f"selection of {count} candidates", partial(select, scores))
        name = f"post-processing of {count} candidates to {output[0]}x{output[1]}"
        yield timer.compare(name, partial(ours, scores), peer and partial(theirs, scores), agree)


def finish(sizes: Sizes, timer: Timer, peer: AdelaiDet | None, _model: nn.Module) -> Iterator:
    """Soft masks to bitmaps of the output's size; the other side is two plain interpolations."""
    canvas, probs = sizes.canvas, ellipses(sizes.finish_masks, sizes.quarter, 4, 5, 160)
    probs = probs.to(timer.device)

    def plain(output: tuple[int, int]) -> Tensor:
        large = F.interpolate(probs[None], size=canvas, mode="bilinear")
        return F.interpolate(large, size=output, mode="bilinear")[0] > 0.5

    for output in sizes.outputs:
        yield timer.compare(
            f"finish {len(probs)} masks to {output[0]}x{output[1]}",
            lambda output=output: resize_masks(probs, canvas, canvas, output, 0.5)[0],
            peer and partial(plain, output),
            _same_pixels,
        )


def _same_pixels(ours: Tensor, theirs: Tensor) -> str:
    pixels = int((ours != theirs).sum())
    good = pixels <= 1e-6 * ours.numel()
    return f"{'equal' if good else 'NO'} ({pixels} of {ours.numel()} pixels differ)"


def whole_model(
    sizes: Sizes, timer: Timer, _peer: AdelaiDet | None, model: nn.Module
) -> Iterator[Result]:
    """Inference of one image and a training step of two, by phase; post-processing as it falls."""
    batch = make_batch(sizes, 2)
    yield from timer.split("inference", partial(infer, model, batch[:1], None))
    yield from timer.split("training step (2 images)", partial(train, model, batch))


def heads(
    sizes: Sizes, timer: Timer, _peer: AdelaiDet | None, _model: nn.Module
) -> Iterator[Result]:
    """Every head: inference of one image by phase, with planted scores, and a training step."""
    batch = make_batch(sizes, 1)
    batch[0].update(zip(("height", "width"), sizes.outputs[0], strict=True))
    for name, config in HEADS.items():
        model = make_model(sizes, timer.device, config)
        logits = plant_logits(model, CANDIDATES)
        rows = timer.split(f"{name}, inference", partial(infer, model, batch, logits))
        yield from rows[:-1]
        yield _add_ratio(rows, *measure_finish(model, batch, logits))
        step = partial(train, model, batch, lambda _phase: None)
        yield timer.compare(f"{name}, training step (1 image)", step)


HEADS = {
    "vanilla": "COCO-InstanceSegmentation/solo_R_50_FPN_3x.yaml",
    "decoupled": "COCO-InstanceSegmentation/decoupled_solo_R_50_FPN_3x.yaml",
    "decoupled light": "COCO-InstanceSegmentation/decoupled_solo_light_R_50_FPN_3x.yaml",
    "dynamic": "COCO-InstanceSegmentation/solov2_R_50_FPN_3x.yaml",
    "dynamic separate": "Ablations/table5c_mask_feature_separate.yaml",
    "decoupled dynamic": "Ablations/table6c_decoupled_on.yaml",
}
CANDIDATES = 500


def make_batch(sizes: Sizes, count: int) -> list[dict[str, Any]]:
    """Make images of noise with ground truth."""
    generator = torch.Generator().manual_seed(0)
    image = torch.randint(256, (3, *sizes.canvas), generator=generator, dtype=torch.uint8)
    truth = [ground_truth(sizes.objects[0], sizes.canvas, seed) for seed in range(1, count + 1)]
    return [{"image": image, "instances": x} for x in truth]


def plant_logits(model: nn.Module, count: int) -> list[Tensor]:
    """Category logits of one image with `count` scores of 0.9 to 0.15, and no other above 0.

    They lie on cells with an even row and column, so that point NMS keeps them all, spread over
    all levels and classes.
    """
    grid, classes = model.head.grid, model.head.num_classes
    generator = torch.Generator().manual_seed(0)
    _, rows, columns = grid.locate(torch.arange(grid.num_cells))
    cells = ((rows % 2 == 0) & (columns % 2 == 0)).nonzero().squeeze(1)
    cells = cells[torch.randperm(len(cells), generator=generator)[:count]]
    logits = torch.full((1, grid.num_cells, classes), -20.0)
    logits[0, cells, torch.arange(count) * 7 % classes] = torch.linspace(0.9, 0.15, count).logit()
    levels = zip(logits.split(grid.level_sizes, dim=1), grid.num_grids, strict=True)
    return [x.transpose(1, 2).unflatten(2, (s, s)).to(model.device) for x, s in levels]


@torch.no_grad()
def infer(
    model: nn.Module,
    batch: list[dict[str, Any]],
    logits: list[Tensor] | None,
    lap: Callable[[str], None],
) -> list[dict[str, Instances]]:
    """Inference by phase; post-processing sees the planted `logits`, if any."""
    model.eval()
    images = model.preprocess_image(batch)
    features = model.backbone(images.tensor)
    lap("backbone")
    predictions = model.head(features)
    del features
    lap("head")
    if logits is not None:
        predictions = predictions._replace(category_logits=logits)
    found = model.inference(predictions, images, batch)
    lap("post-processing")
    return found


def train(model: nn.Module, batch: list[dict[str, Any]], lap: Callable[[str], None]) -> None:
    """A training step by phase, without the optimiser."""
    model.train()
    model.zero_grad()
    images = model.preprocess_image(batch).tensor
    features = model.backbone(images)
    lap("backbone")
    predictions = model.head(features)
    lap("head")
    truth = [x["instances"] for x in batch]
    assigned = model.assigner(truth, tuple(images.shape[-2:]), model.device)
    lap("targets")
    losses = model.criterion(predictions, assigned, model.head.mask_probs)
    lap("loss")
    sum(losses.values()).backward()
    lap("backward")


@torch.no_grad()
def measure_finish(
    model: nn.Module, batch: list[dict[str, Any]], logits: list[Tensor]
) -> tuple[float | None, int]:
    """Peak memory in MiB of post-processing alone, and the number of detections."""
    model.eval()
    images = model.preprocess_image(batch)
    predictions = model.head(model.backbone(images.tensor))._replace(category_logits=logits)
    finish = partial(model.inference, predictions, images, batch)
    return peak_memory(finish, model.device), len(finish()[0]["instances"])


def _add_ratio(rows: list[Result], mib: float | None, detections: int) -> Result:
    """The row of post-processing, with the median of its share of the network's time."""
    _, backbone, head, finish = rows
    times = zip(backbone.ours_ms, head.ours_ms, finish.ours_ms, strict=True)
    share = median(100 * f / (b + h) for b, h, f in times)
    text = f"{share:.1f} % of the network, {detections} detections"
    return replace(finish, ours_mib=mib, agrees=text)


GROUPS = {
    "targets": targets,
    "nms": nms,
    "nms-types": nms_types,
    "inference": inference,
    "finish": finish,
    "model": whole_model,
    "heads": heads,
}
