"""Whether a GPU finds what a CPU finds, for `gpu.py`."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import torch
from _cases import CONFIG, Sizes
from _gpu_models import CASES, calibrated, smooth_images, tiny_case
from detectron2.structures import Instances
from torch import nn

from solo_d2 import compile

Row = dict[str, Any]
CANVAS = (128, 192)


@torch.no_grad()
def find(model: nn.Module, inputs: list[dict[str, Any]], dtype: torch.dtype | None) -> Any:
    """Instances of the images on the host; under autocast if there is a type."""
    kind = model.device.type
    with torch.autocast(kind, dtype=dtype or torch.bfloat16, enabled=dtype is not None):
        return [x["instances"].to("cpu") for x in model(inputs)]


def compare(found: list[Instances], expected: list[Instances]) -> Row:
    """Share of the expected instances that were found with their label and a mask IoU of 0.9."""
    matched, total, score, flips, pixels = 0, 0, 0.0, 0, 0
    for one, other in zip(found, expected, strict=True):
        total += len(other)
        if not len(one) or not len(other):
            continue
        a, b = one.pred_masks.flatten(1).float(), other.pred_masks.flatten(1).float()
        shared = a @ b.T
        iou = shared / (a.sum(1)[:, None] + b.sum(1) - shared).clamp(min=1)
        iou *= one.pred_classes[:, None] == other.pred_classes
        gap = (one.scores[:, None] - other.scores).abs()
        # Of equal masks the one with the nearest score.
        best, index = (iou - 0.01 * gap).max(0)
        hit = best >= 0.89
        matched += int(hit.sum())
        if hit.any():
            columns = torch.arange(len(other))[hit]
            score = max(score, float(gap[index[hit], columns].max()))
            flips += int((a[index[hit]] != b[columns]).sum())
            pixels += int(hit.sum()) * a.shape[1]
    return {
        "expected": total,
        "found": sum(len(x) for x in found),
        "matched": matched,
        "largest score difference": score,
        "flipped pixels": flips,
        "pixels": pixels,
    }


def check_case(name: str, device: torch.device) -> Iterator[Row]:
    """One tiny model: float32, both kinds of half precision, compiled."""
    model = tiny_case(name)
    inputs = smooth_images(2, CANVAS)
    expected = find(model, inputs, None)
    gpu = copy.deepcopy(model).to(device)
    gpu.fixed = True
    eager = find(gpu, inputs, None)
    row = {"name": name, "precision": "float32", **compare(eager, expected)}
    # Of two instances with nearly equal scores either may be the last one that is kept.
    yield {**row, "ok": row["matched"] >= 0.99 * row["expected"] > 0}
    for dtype in (torch.float16, torch.bfloat16):
        half = find(gpu, inputs, dtype)
        row = {"name": name, "precision": str(dtype)[6:], **compare(half, expected)}
        near = abs(row["found"] - row["expected"]) <= 0.3 * row["expected"]
        yield {**row, "ok": near}
    compile(gpu)
    for dtype, plain in ((None, eager), (torch.float16, None)):
        if plain is None:
            gpu.runner, runner = None, gpu.runner
            plain = find(gpu, inputs, dtype)
            gpu.runner = runner
        find(gpu, inputs, dtype)
        row = compare(find(gpu, inputs, dtype), plain)
        recorded = [x is not None for x in getattr(gpu.runner, "graphs", {}).values()]
        same = row["matched"] == row["expected"] == row["found"]
        # torchvision's deformable convolution is not recorded, and must be noticed.
        graphs = name == "deformable" or device.type == "cpu" or (recorded and all(recorded))
        ok = same and bool(graphs)
        precision = "compiled, " + ("float32" if dtype is None else "float16")
        yield {"name": name, "precision": precision, **row, "ok": ok}


def check_large(sizes: Sizes, device: torch.device) -> Iterator[Row]:
    """A whole SOLOv2 R50, as it is used."""
    model = calibrated(CONFIG, sizes, device, min(300, sizes.candidates[0]))
    inputs = [{**x, "height": 480, "width": 640} for x in smooth_images(1, sizes.canvas)]
    found = find(model, inputs, None)
    expected = find(model.to("cpu"), inputs, None)
    row = compare(found, expected)
    yield {
        "name": "SOLOv2 R50",
        "precision": "float32",
        **row,
        "ok": row["matched"] >= 0.98 * row["expected"],
    }


def checks(sizes: Sizes, device: torch.device) -> Iterator[Row]:
    """All of them; one that fails is a row with its error."""
    for name in CASES:
        try:
            yield from check_case(name, device)
        except Exception as error:
            yield {"name": name, "ok": False, "error": f"{type(error).__name__}: {error}"[:300]}
    yield from check_large(sizes, device)
