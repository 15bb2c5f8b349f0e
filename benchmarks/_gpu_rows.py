"""What `gpu.py` measures."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from statistics import median
from typing import Any

import torch
from _cases import CONFIG, QUICK, Sizes, crowded_masks, ellipses, ground_truth
from _gpu_models import calibrated, mask_rcnn, on_device, smooth_images, training_batch
from _timing import peak_memory
from detectron2.utils.events import EventStorage
from torch import nn
from torch.profiler import ProfilerActivity, profile

from solo_d2 import SOLO, compile
from solo_d2.layers import matrix_nms
from solo_d2.modeling.fixed import postprocess_fixed
from solo_d2.modeling.output import resize_masks

Row = dict[str, Any]
LIGHT = "COCO-InstanceSegmentation/solov2_light_448_R_18_FPN_3x.yaml"
HALF = {"cuda": torch.float16, "cpu": torch.bfloat16}
SECONDS, ROUNDS = 0.8, (5, 60)


def milliseconds(work: Callable[[], Any], device: torch.device, quick: bool) -> list[float]:
    """Times of a call that has run three times before."""
    low, high = (1, 1) if quick else ROUNDS
    for _ in range(1 if quick else 3):
        work()
    times: list[float] = []
    start = time.perf_counter()
    while len(times) < low or (len(times) < high and time.perf_counter() - start < SECONDS):
        before = _now(device)
        work()
        times.append((_now(device) - before) * 1e3)
    return times


def _now(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def measure(name: str, work: Callable[[], Any], device: torch.device, quick: bool) -> Row:
    """One row: median time, its spread, and peak memory of a call."""
    times = milliseconds(work, device, quick)
    return {
        "name": name,
        "ms": median(times),
        "least ms": min(times),
        "MiB": peak_memory(work, device),
        "rounds": len(times),
    }


def predictor(
    model: nn.Module, inputs: list[dict[str, Any]], half: torch.dtype | None
) -> Callable[[], Any]:
    """Inference as a user calls it."""
    kind = model.device.type

    def call() -> Any:
        with (
            torch.inference_mode(),
            torch.autocast(kind, dtype=half or torch.bfloat16, enabled=half is not None),
        ):
            return model(inputs)

    return call


def inference(sizes: Sizes, device: torch.device) -> Iterator[Row]:
    """Whole inference: models, precisions, batches, eager and compiled."""
    quick = sizes is QUICK
    light = sizes if quick else Sizes((448, 608), depth=18)
    output = {"height": sizes.outputs[0][0], "width": sizes.outputs[0][1]}
    # 500 candidates of batches would be more than 500 for some image of it.
    builders = {
        "SOLOv2 R50, 400 candidates": lambda: calibrated(CONFIG, sizes, device, _few(sizes, 400)),
        "SOLOv2 R50, 100 candidates": lambda: calibrated(CONFIG, sizes, device, _few(sizes, 100)),
        "light R18 448, 100 candidates": lambda: calibrated(LIGHT, light, device, _few(sizes, 100)),
        "Mask R-CNN R50": lambda: mask_rcnn(sizes, device),
    }
    for name, build in builders.items():
        model = build()
        canvas = light.canvas if "light" in name else sizes.canvas
        for batch in (1, 8):
            inputs = [{**x, **output} for x in smooth_images(batch, canvas)]
            for half in (None, HALF[device.type]):
                for row in _modes(model, inputs, half, quick):
                    yield {**row, "name": name, "batch": batch}
        del model


def _modes(
    model: nn.Module, inputs: list[dict[str, Any]], half: torch.dtype | None, quick: bool
) -> Iterator[Row]:
    """Eager, compiled, and for half precision with weights that need no cast at every call."""
    is_solo = isinstance(model, SOLO)
    modes = ["eager", "compiled"] if is_solo else ["eager"]
    if half is not None and is_solo:
        modes += ["half weights", "half weights, compiled", "channels last, compiled"]
    for mode in modes:
        if mode == "half weights":
            model.to(half)
        if mode.startswith("channels"):
            model.to(memory_format=torch.channels_last)
        if mode.endswith("compiled"):
            compile(model)
        call = predictor(model, inputs, None if "half w" in mode or "last" in mode else half)
        row = measure(mode, call, model.device, quick)
        found = [len(x["instances"]) for x in call()]
        yield {
            **row,
            "mode": mode,
            "precision": "float32" if half is None else str(half)[6:],
            "images/s": len(inputs) / row["ms"] * 1e3,
            "instances": sum(found) / len(inputs),
        }
        model.runner = None
    model.float().to(memory_format=torch.contiguous_format)


def _few(sizes: Sizes, count: int) -> int:
    return min(count, sizes.candidates[0])


def stages(sizes: Sizes, device: torch.device) -> Iterator[Row]:
    """SOLOv2 R50 in half precision: parts of an inference, launches and host waits."""
    quick, half = sizes is QUICK, HALF[device.type]
    model = calibrated(CONFIG, sizes, device, _few(sizes, 400))
    output = {"height": sizes.outputs[0][0], "width": sizes.outputs[0][1]}
    for batch in (1, 8):
        inputs = [{**x, **output} for x in smooth_images(batch, sizes.canvas)]
        for name, work in _stage_works(model, inputs, sizes, half).items():
            yield {**measure(name, work, device, quick), "batch": batch}
        for mode in ("eager", "compiled"):
            if mode == "compiled":
                compile(model)
            yield {"batch": batch, "mode": mode, **launches(predictor(model, inputs, half), device)}
            model.runner = None


def _stage_works(
    model: nn.Module, inputs: list[dict[str, Any]], sizes: Sizes, half: torch.dtype
) -> dict[str, Callable[[], Any]]:
    """Stages of an inference, each on what the one before it has made."""

    def network(part: Callable[..., Any], *arguments: Any) -> Any:
        with torch.no_grad(), torch.autocast(model.device.type, dtype=half):
            return part(*arguments)

    images = model.preprocess_image(inputs)
    features = network(model.backbone, images.tensor)
    predictions = network(model.head, features)
    with torch.no_grad():
        found = postprocess_fixed(model.head, predictions, sizes.quarter, model.settings)

    @torch.no_grad()
    def post_process() -> Any:
        return postprocess_fixed(model.head, predictions, sizes.quarter, model.settings)

    return {
        "preprocessing": lambda: model.preprocess_image(inputs),
        "backbone": lambda: network(model.backbone, images.tensor),
        "head": lambda: network(model.head, features),
        "post-processing in constant shapes": post_process,
        "masks at output size": lambda: model.finish(found, predictions, images, inputs),
    }


def launches(call: Callable[[], Any], device: torch.device) -> Row:
    """Count kernels, graph launches and host waits of one call, and the time the GPU is busy."""
    activities = [ProfilerActivity.CPU]
    if device.type == "cuda":
        activities.append(ProfilerActivity.CUDA)
    for _ in range(2):
        call()
    with profile(activities=activities) as run:
        call()
        _now(device)
    averages = run.key_averages()
    counts = {x.key: x.count for x in averages}

    def total(*parts: str) -> int:
        return sum(n for key, n in counts.items() if any(part in key for part in parts))

    busy = sum(getattr(x, "self_device_time_total", 0) for x in averages) / 1e3
    return {
        "name": "launches",
        "kernel launches": total("LaunchKernel"),
        "graph launches": total("cudaGraphLaunch"),
        "copies to the host": total("Memcpy DtoH"),
        # The last one is that of the measurement.
        "waits": total("cudaStreamSynchronize", "cudaDeviceSynchronize", "cudaEventSynchronize"),
        "operators": total("aten::"),
        "busy ms": busy,
    }


def parts(sizes: Sizes, device: torch.device) -> Iterator[Row]:
    """Matrix NMS, the final resizing, and training targets."""
    quick = sizes is QUICK
    masks = crowded_masks(sizes).to(device)
    labels = torch.zeros(len(masks), dtype=torch.int64, device=device)
    scores = torch.linspace(0.9, 0.1, len(masks), device=device)
    name = f"Matrix NMS of {len(masks)} masks"
    yield measure(name, lambda: matrix_nms(masks, labels, scores), device, quick)
    probs = ellipses(sizes.finish_masks, sizes.quarter, 5, 8, 160).to(device)
    for output in sizes.outputs:
        name = f"{len(probs)} soft masks to {output[0]}x{output[1]}"
        arguments = sizes.canvas, sizes.canvas, output, 0.5
        yield measure(name, lambda a=arguments: resize_masks(probs, *a), device, quick)
    model = calibrated(CONFIG, sizes, device, 10)
    for count in sizes.objects:
        truth = [ground_truth(count, sizes.canvas, seed) for seed in (1, 2)]
        for where, batch in (("host", truth), ("device", [x.to(device) for x in truth])):
            name = f"targets of 2 x {count} objects on the {where}"
            yield measure(
                name, lambda b=batch: model.assigner(b, sizes.canvas, device), device, quick
            )


def training(sizes: Sizes, device: torch.device) -> Iterator[Row]:
    """A step of training in half precision, the optimizer's included; then its phases."""
    quick, half = sizes is QUICK, HALF[device.type]
    batch = training_batch(2 if quick else 4, min(10, sizes.objects[0]), sizes.canvas)
    builders = {
        "SOLOv2 R50": lambda: calibrated(CONFIG, sizes, device, _few(sizes, 100)),
        "Mask R-CNN R50": lambda: mask_rcnn(sizes, device),
    }
    for name, build in builders.items():
        model = build().train()
        optimizer = torch.optim.SGD(model.parameters(), lr=1e-6)
        scaler = torch.amp.GradScaler(device.type, enabled=device.type == "cuda")

        def step(model=model, optimizer=optimizer, scaler=scaler) -> None:
            optimizer.zero_grad(set_to_none=True)
            with EventStorage(), torch.autocast(device.type, dtype=half):  # Detectron2 logs there
                loss = torch.stack(list(model(batch).values())).sum()
            scaler.scale(loss).backward()
            scaler.step(optimizer)
            scaler.update()

        row = measure(name, step, device, quick)
        yield {**row, "batch": len(batch), "images/s": len(batch) / row["ms"] * 1e3}
        if name.startswith("SOLO"):
            yield from _phases(model, on_device(batch, device), half, device, quick)
        del model, optimizer, step


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
