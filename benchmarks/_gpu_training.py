"""A training step of ours and of the peers, for `gpu.py`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from _cases import CONFIG, QUICK, Sizes
from _gpu_models import calibrated, mask_rcnn, on_device, training_batch
from _gpu_peers import copies
from _gpu_rows import HALF, Peers, Row, few, measure
from detectron2.utils.events import EventStorage
from torch import nn

from solo_d2.modeling.towers import Tower


def training(sizes: Sizes, device: torch.device, peers: Peers = ()) -> Iterator[Row]:
    """A step of training in half precision, the optimizer's included; then its phases."""
    quick, half = sizes is QUICK, HALF[device.type]
    batch = training_batch(2 if quick else 4, min(10, sizes.objects[0]), sizes.canvas)
    ours = calibrated(CONFIG, sizes, device, few(sizes, 100))
    yield from _step_rows("SOLOv2 R50", ours, _sum_of(ours), batch, half, quick)
    ours.to(memory_format=torch.channels_last)
    yield from _step_rows("SOLOv2 R50, channels last", ours, _sum_of(ours), batch, half, quick)
    ours.to(memory_format=torch.contiguous_format)
    for recompute in (True, False):
        for part in ours.modules():
            if isinstance(part, Tower):
                part.recompute = recompute
        if recompute:
            name = "SOLOv2 R50, RECOMPUTE_TOWERS"
            yield from _step_rows(name, ours, _sum_of(ours), batch, half, quick)
    yield from _phases(ours, on_device(batch, device), half, device, quick)
    for make in peers:
        peer = make(ours)
        yield from _step_rows(peer.name, peer.model, peer.losses, batch, half, quick)
        del peer
    del ours
    model = mask_rcnn(sizes, device)
    yield from _step_rows("Mask R-CNN R50", model, _sum_of(model), batch, half, quick)


def _sum_of(model: nn.Module) -> Callable[[Any], torch.Tensor]:
    return lambda batch: torch.stack(list(model(batch).values())).sum()


def _step_rows(
    name: str,
    model: nn.Module,
    losses: Callable[[Any], torch.Tensor],
    batch: list[dict[str, Any]],
    half: torch.dtype,
    quick: bool,
) -> Iterator[Row]:
    device = next(model.parameters()).device
    optimizer = torch.optim.SGD(model.train().parameters(), lr=1e-6)
    scaler = torch.amp.GradScaler(device.type, enabled=device.type == "cuda")

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        with EventStorage(), torch.autocast(device.type, dtype=half):  # Detectron2 logs there
            loss = losses(copies(batch))
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()

    row = measure(name, step, device, quick)
    yield {**row, "batch": len(batch), "images/s": len(batch) / row["ms"] * 1e3}
    optimizer.zero_grad(set_to_none=True)


def _phases(
    model: nn.Module,
    batch: list[dict[str, Any]],
    half: torch.dtype,
    device: torch.device,
    quick: bool,
) -> Iterator[Row]:
    """Targets, losses and backward pass alone."""
    truth = [x["instances"] for x in batch]
    with torch.autocast(device.type, dtype=half):
        images = model.preprocess_image(batch)
        canvas = (images.tensor.shape[-2], images.tensor.shape[-1])
        predictions = model.head(model.backbone(images.tensor))
        assigned = model.assigner(truth, canvas, device)

    def losses() -> torch.Tensor:
        with torch.autocast(device.type, dtype=half):
            found = model.criterion(predictions, assigned, model.head.mask_probs)
        return torch.stack(list(found.values())).sum()

    works: dict[str, Callable[[], Any]] = {
        "targets": lambda: model.assigner(truth, canvas, device),
        "losses": losses,
        "losses and backward pass": lambda: losses().backward(retain_graph=True),
    }
    for name, work in works.items():
        yield measure(name, work, device, quick)
