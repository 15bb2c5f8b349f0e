"""Measure the cost of many classes outside the network: 80 of COCO against 1203 of LVIS.

    python benchmarks/many_classes.py [--threads 1] [--rounds 7]

Category scores, selection and suppression get the same 1500 lively (cell, class) pairs on the same
masks, so that only the number of classes differs. Prints a Markdown table.
"""

from __future__ import annotations

import argparse
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from functools import partial
from statistics import median
from typing import Any

import torch
from _cases import ellipses
from _timing import peak_memory
from fvcore.nn import sigmoid_focal_loss
from torch import Tensor

from solo_d2.layers import category_focal_loss
from solo_d2.modeling import postprocessing as post
from solo_d2.modeling.grid import GridSpec

GRIDS = (40, 36, 24, 16, 12)
RANGES = ((1, 96), (48, 192), (96, 384), (192, 768), (384, 2048))
SIZE = (200, 272)
CLASSES = (80, 1203)


def lively_logits(classes: int, images: int = 1, lively: int = 1500) -> list[Tensor]:
    """Logits of all levels that are low but for `lively` of them."""
    noise = torch.Generator().manual_seed(0)
    levels = []
    for side in GRIDS:
        level = torch.randn((images, classes, side, side), generator=noise) / 2 - 6
        count = lively * side**2 // sum(x**2 for x in GRIDS)
        chosen = torch.randperm(level.numel(), generator=noise)[:count]
        level.view(-1)[chosen] = 4 * torch.rand(count, generator=noise) - 1.5
        levels.append(level)
    return levels


def fvcore_loss(logits: list[Tensor], labels: list[Tensor]) -> Tensor:
    """Compute the category loss with one-hot targets."""
    flat = torch.cat([x.flatten(2).transpose(1, 2) for x in logits], 1)
    expected = flat.new_zeros((*flat.shape[:2], flat.shape[2] + 1))
    expected.scatter_(2, torch.cat(labels, 1)[..., None], 1.0)
    return sigmoid_focal_loss(flat, expected[..., :-1], alpha=0.25, gamma=2.0, reduction="sum")


def our_loss(logits: list[Tensor], labels: list[Tensor]) -> Tensor:
    """Compute the category loss of this package."""
    parts = zip(logits, labels, strict=True)
    return torch.stack([category_focal_loss(*x, 0.25, 2.0) for x in parts]).sum()


def pieces(classes: int) -> dict[str, Callable[[], Any]]:
    """Return the operations that are measured, for one number of classes."""
    grid = GridSpec(GRIDS, RANGES, (8, 8, 16, 32, 32))
    nms = post.build_nms("matrix", kernel="gaussian", sigma=0.5, threshold=0.5)
    settings = post.InferenceSettings(0.1, 0.5, 500, nms, 0.05, 300)
    soft = ellipses(200, SIZE, 3, 8, 160)
    logits = lively_logits(classes)
    scores = post.category_scores(logits)[0]
    select = partial(
        post.select_candidates, scores, lambda cells: soft[cells % 200], SIZE, grid, settings
    )
    batch = [x.requires_grad_() for x in lively_logits(classes, images=2)]
    labels = [torch.full((2, side**2), classes) for side in GRIDS]
    for level in labels:
        level[:, ::50] = 3
    return {
        "category scores, 1 image": partial(post.category_scores, logits),
        "selection, 500 candidates": select,
        "suppression, 500 candidates": partial(post.suppress, select(), settings),
        "category loss and gradient, 2 images": lambda: our_loss(batch, labels).backward(),
        "the same with fvcore and one-hot targets": lambda: fvcore_loss(batch, labels).backward(),
    }


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line `argv`; returns the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--threads", type=int, default=1, metavar="N", help="default: 1")
    parser.add_argument("--rounds", type=int, default=7, metavar="N", help="default: 7")
    args = parser.parse_args(argv)
    torch.set_num_threads(args.threads)
    works = [pieces(classes) for classes in CLASSES]
    print("| what | " + " | ".join(f"ms, {c}" for c in CLASSES), end=" | ratio | ")
    print(" | ".join(f"MiB, {c}" for c in CLASSES) + f" |\n|{'---|' * 6}")
    for name in works[0]:
        times: list[list[float]] = [[] for _ in CLASSES]
        for _ in range(args.rounds + 1):
            for work, record in zip(works, times, strict=True):
                start = time.perf_counter()
                work[name]()
                record.append(1e3 * (time.perf_counter() - start))
        few, many = (median(record[1:]) for record in times)
        memory = [peak_memory(work[name], torch.device("cpu")) or 0.0 for work in works]
        print(f"| {name} | {few:.1f} | {many:.1f} | x{many / few:.1f}", end="")
        print(f" | {memory[0]:.0f} | {memory[1]:.0f} |", flush=True)
    return 0


if __name__ == "__main__":
    warnings.filterwarnings("ignore")
    sys.exit(main())
