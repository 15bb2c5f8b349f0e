"""The report of a check as one page with histograms and the worst images."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from detectron2.structures import Instances

from ..data.masks import checked_masks
from ..data.records import is_crowd
from ..inference.drawing import draw_instances
from ..io.charts import bar_chart
from ..io.image import ImageError, read_image
from ..io.page import Page, beside, code, image, paragraph, table
from ..io.paths import printable
from ..io.segmentation import decode_mask
from .report import Split
from .suspects import SUSPECTS
from .text import overview, proposal_lines

__all__ = ["write_page"]

_LONGEST = 900  # pixels of the longer side of an image that is drawn on

# BGR.
_STATES: dict[str, tuple[int, int, int]] = {
    "green: owns a cell": (80, 200, 60),
    "red: smaller objects have its cells": (60, 60, 230),
    "orange: outside of all SCALE_RANGES": (30, 150, 255),
    "violet: too small to be found": (220, 80, 170),
    "yellow: suspicious": (40, 230, 250),
}


def write_page(
    folder: str | os.PathLike[str],
    report: Mapping[str, Any],
    splits: Any,
    *,
    max_value: float = 0,
) -> Path:
    """Write ``index.html`` into a folder.

    Args:
        folder: exists.
        report: of `check_datasets`, and the name of the "config".
        splits: likewise.
        max_value: of the images, see `read_image`.

    Returns:
        The file.

    Raises:
        OSError: it cannot be written.
    """
    page = Page("Dataset check", f"config: {report['config']}")
    rows = [
        [name.replace("  ", "\u2003", 1), *texts] for name, *texts in overview(report["splits"])
    ]
    page.section("Overview", table(["", *splits], rows))
    page.section("Proposal", *_proposal(report))
    for key, split in splits.items():
        page.section(f"{key}: sizes and classes", *_tables(report["splits"][key]))
        page.section(f"{key}: histograms", *_histograms(split))
        page.section(f"{key}: suspicious labels", *_suspects(report["splits"][key]))
        page.section(f"{key}: worst images", *_worst(split, max_value))
    shared = report.get("in_both_splits") or []
    if shared:
        page.section("Images of train that are in val, too", table(["train", "val"], shared[:100]))
    path = Path(folder) / "index.html"
    page.save(path)
    return path


def _proposal(report: Mapping[str, Any]) -> list[str]:
    """The paragraphs of the text; what is indented there are lines of a config."""
    lines = proposal_lines(report["proposal"], report["config"])
    return [code(line) if line.startswith("    ") else paragraph(line) for line in lines]


def _tables(found: Mapping[str, Any]) -> list[str]:
    headers = ["", "objects", "without a cell", "too small", "best possible AP"]
    return [
        beside(
            *(
                table(
                    headers,
                    [
                        [name, x["objects"], x["without_cell"], x["too_small"], x["best_ap"]]
                        for name, x in found[key].items()
                    ],
                )
                for key in ("by_size", "by_class")
            )
        )
    ]


def _histograms(split: Split) -> list[str]:
    scales, counts = split.claims.scales, split.objects.per_image
    cells = np.bincount(np.minimum(split.claims.cells, 20), minlength=21).tolist()
    names = [*map(str, range(20)), "20+"]
    charts = [
        bar_chart(_by_octave(scales), "sqrt(w · h) in pixels of the network's input", "objects"),
        bar_chart(_by_octave(counts), "objects of an image", "images"),
        bar_chart(list(zip(names, cells, strict=True)), "cells that an object owns", "objects"),
    ]
    return [beside(*charts)]


def _by_octave(values: np.ndarray) -> list[tuple[str, float]]:
    """Numbers of values between powers of the square root of two."""
    if not len(values):
        return []
    steps = np.floor(2 * np.log2(np.maximum(values, 0.5))).astype(np.int64)
    low = int(steps.min())
    counts = np.bincount(steps - low).tolist()
    return [(f"{2 ** ((low + k) / 2):.3g}", count) for k, count in enumerate(counts)]


def _suspects(found: Mapping[str, Any]) -> list[str]:
    rows = [
        [SUSPECTS[kind], x["count"], x["images"], ", ".join(map(_name, x["first"]))]
        for kind, x in found["suspects"].items()
        if x["count"]
    ]
    problems = found["problems"]
    if problems["count"]:
        first = "; ".join(problems["first"])
        rows.append(["an annotation without a usable mask", problems["count"], None, first])
    return [table(["", "objects", "images", "such as"], rows)] if rows else []


def _worst(split: Split, max_value: float) -> list[str]:
    images = split.worst()
    if not images:
        return []
    figures = [_figure(split, i, max_value) for i in images]
    return [paragraph("; ".join(_STATES)), beside(*figures)]


def _figure(split: Split, index: int, max_value: float) -> str:
    """One image with its objects in the colours of their states."""
    record = split.records[index]
    chosen = split.objects.images == index
    claims = split.claims
    suspicious = np.logical_or.reduce(list(split.suspects.values()))[chosen]
    flags = [claims.beaten[chosen], claims.outside[chosen], claims.dropped[chosen], suspicious]
    caption = (
        f"{_name(str(record['file_name']))}: {int(chosen.sum())} objects, "
        f"{int(claims.lost[chosen].sum())} without a cell, {int(suspicious.sum())} suspicious"
    )
    try:
        pixels = read_image(str(record["file_name"]), "BGR", max_value=max_value)
    except ImageError as error:
        return paragraph(f"{caption}; {error}")
    colors = np.array(list(_STATES.values()))
    state = np.zeros(int(chosen.sum()), np.int64)
    for number, flag in enumerate(flags, 1):
        state[flag] = number
    return image(_draw(pixels, record, colors[state], split), caption)


def _draw(
    pixels: np.ndarray, record: Mapping[str, Any], colors: np.ndarray, split: Split
) -> np.ndarray:
    size = (int(record["height"]), int(record["width"]))
    annotations = [x for x in record.get("annotations") or () if not is_crowd(x)]
    checked = checked_masks(annotations, size, str(record["file_name"]))
    used = [i for i, mask in enumerate(checked) if mask is not None]
    factor = min(1.0, _LONGEST / max(size))
    small = (max(1, math.floor(size[1] * factor)), max(1, math.floor(size[0] * factor)))
    masks = [cv2.resize(decode_mask(checked[i], size).astype(np.uint8), small) for i in used]
    found = Instances((small[1], small[0]))
    found.pred_masks = torch.from_numpy(np.stack(masks) > 0)
    found.pred_classes = torch.tensor([int(annotations[i]["category_id"]) for i in used])
    names = [""] * len(split.classes) if len(used) > 20 else split.classes
    return draw_instances(cv2.resize(pixels, small), found, names, colors[: len(used)], 0.35)


def _name(file: str) -> str:
    return printable(os.path.basename(file))
