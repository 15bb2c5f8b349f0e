"""What `gpu.py` measures."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from statistics import median
from typing import Any

import torch
from _cases import CONFIG, QUICK, Sizes, crowded_masks, ellipses, ground_truth
from _gpu_checks import compare
from _gpu_models import calibrated, mask_rcnn, smooth_images
from _gpu_peers import Peer, copies
from _timing import peak_memory
from torch import nn
from torch.profiler import ProfilerActivity, profile

from solo_d2 import SOLO, compile
from solo_d2.layers import matrix_nms
from solo_d2.modeling.fixed import postprocess_fixed
from solo_d2.modeling.output import resize_masks

Row = dict[str, Any]
Peers = Sequence[Callable[[nn.Module], Peer]]
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
    model: Callable[[Any], Any],
    inputs: list[dict[str, Any]],
    half: torch.dtype | None,
    kind: str | None = None,
) -> Callable[[], Any]:
    """Inference as a user calls it."""
    kind = kind or str(getattr(model, "device", "cpu")).partition(":")[0]

    def call() -> Any:
        with (
            torch.inference_mode(),
            torch.autocast(kind, dtype=half or torch.bfloat16, enabled=half is not None),
        ):
            return model(copies(inputs))

    return call


def inference(sizes: Sizes, device: torch.device, peers: Peers = ()) -> Iterator[Row]:
    """Whole inference: models, precisions, batches, eager and compiled; of SOLOv2 also the peers'.

    Equality with a peer is that of instances, see `compare`.
    """
    quick = sizes is QUICK
    light = sizes if quick else Sizes((448, 608), depth=18)
    output = {"height": sizes.outputs[0][0], "width": sizes.outputs[0][1]}
    # 500 candidates of batches would be more than 500 for some image of it.
    builders = {
        "SOLOv2 R50, 400 candidates": lambda: calibrated(CONFIG, sizes, device, few(sizes, 400)),
        "light R18 448, 100 candidates": lambda: calibrated(LIGHT, light, device, few(sizes, 100)),
        "Mask R-CNN R50": lambda: mask_rcnn(sizes, device),
    }
    for name, build in builders.items():
        model = build()
        others = [make(model) for make in peers] if "SOLOv2" in name else []
        canvas = light.canvas if "light" in name else sizes.canvas
        batches = {n: [{**x, **output} for x in smooth_images(n, canvas)] for n in (1, 8)}
        half = HALF[device.type]
        for batch, inputs in batches.items():
            for dtype in (None, half):
                same = {"name": name, "batch": batch, "precision": _name(dtype)}
                for mode in _modes(model, dtype):
                    yield {**_in_mode(mode, model, inputs, dtype, quick), **same}
                for peer in others:
                    yield {**_beside(peer, model, inputs, dtype, quick), **same}
        # Last: of this model nothing is timed after `torch.compile` has run.
        for batch, inputs in batches.items() if isinstance(model, SOLO) else ():
            same = {"name": name, "batch": batch, "precision": _name(half)}
            yield {**_in_mode("fused", model, inputs, half, quick), **same}
        del model, others


def _name(half: torch.dtype | None) -> str:
    return "float32" if half is None else str(half)[6:]


def _modes(model: nn.Module, half: torch.dtype | None) -> list[str]:
    """Ways to run a model that need no compiler."""
    if not isinstance(model, SOLO):
        return ["eager"]
    return ["eager", "compiled"] if half is None else ["eager", "channels last", "compiled"]


def _in_mode(
    mode: str,
    model: nn.Module,
    inputs: list[dict[str, Any]],
    half: torch.dtype | None,
    quick: bool,
) -> Row:
    last = mode == "channels last"
    model.to(memory_format=torch.channels_last if last else torch.contiguous_format)
    if mode in ("compiled", "fused"):
        compile(model, fuse=mode == "fused")
    call = predictor(model, inputs, half)
    start = time.perf_counter()
    call()
    first = time.perf_counter() - start
    row = {**_whole(mode, call, model, inputs, quick), "first call, s": first}
    model.runner = None
    return row


def _beside(
    peer: Peer,
    model: nn.Module,
    inputs: list[dict[str, Any]],
    half: torch.dtype | None,
    quick: bool,
) -> Row:
    """Measure a peer, and compare its instances with ours."""
    peer.model.eval()
    call = predictor(peer.predict, inputs, half, model.device.type)
    expected = [x["instances"].to("cpu") for x in predictor(model, inputs, half)()]
    alike = compare([x.to("cpu") for x in call()], expected)
    return {**_whole(peer.name, call, model, inputs, quick), **alike}


def _whole(
    mode: str, call: Callable[[], Any], model: nn.Module, inputs: list[Any], quick: bool
) -> Row:
    row = measure(mode, call, model.device, quick)
    found = [len(x["instances"] if isinstance(x, dict) else x) for x in call()]
    return {
        **row,
        "mode": mode,
        "images/s": len(inputs) / row["ms"] * 1e3,
        "instances": sum(found) / len(inputs),
    }


def few(sizes: Sizes, count: int) -> int:
    return min(count, sizes.candidates[0])


def stages(sizes: Sizes, device: torch.device) -> Iterator[Row]:
    """SOLOv2 R50 in half precision: parts of an inference, launches and host waits."""
    quick, half = sizes is QUICK, HALF[device.type]
    model = calibrated(CONFIG, sizes, device, few(sizes, 400))
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
