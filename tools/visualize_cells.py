#!/usr/bin/env python
"""Scores of all grid cells of an image, and the masks that some cells predict.

    python tools/visualize_cells.py --config-file CONFIG --weights FILE \
        --input image.jpg --output cells.png [--top 8 | --cells 0:3:4 1:2:2]

First a tile per level: the best category score of every cell before point NMS, from dark blue (0)
to yellow (the best of all levels). Then a tile per chosen cell: the cell (red), written as
LEVEL:ROW:COLUMN, and its soft mask, from 0 to 1. For every head.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

import cv2
import numpy as np
import torch
from _drawing import Pass, heat, load_predictor, model_parser, run_model, run_tool, save, tile

from solo_d2 import SOLOPredictor
from solo_d2.io.image import read_image
from solo_d2.modeling import GridSpec
from solo_d2.modeling.postprocessing import category_scores

RED = (40, 40, 255)


def make_parser() -> argparse.ArgumentParser:
    """All options but the trailing config overrides."""
    parser = model_parser(__doc__)
    add = parser.add_argument
    add("--top", type=int, default=8, metavar="N", help="cells with the best scores (default: 8)")
    add("--cells", nargs="+", metavar="L:ROW:COL", help="these cells instead, counted from 0")
    add("--class-names", metavar="FILE", help="COCO JSON, or a text file with a name per line")
    add("--class", type=int, dest="label", metavar="C", help="scores of this class only, from 0")
    return parser


def parse_cells(words: Sequence[str], grid: GridSpec) -> list[int]:
    """Flat indices of cells that are written as LEVEL:ROW:COLUMN."""
    cells = []
    for word in words:
        try:
            level, row, column = map(int, word.split(":"))
        except ValueError:
            raise ValueError(f"--cells {word}: expected LEVEL:ROW:COLUMN, e.g. 0:3:4") from None
        if not 0 <= level < grid.num_levels:
            raise ValueError(f"--cells {word}: the levels are 0 to {grid.num_levels - 1}")
        try:
            cells.append(grid.flatten(level, row, column))
        except ValueError as error:
            raise ValueError(f"--cells {word}: {error}") from None
    return cells


def blend(shown: np.ndarray, colors: np.ndarray) -> np.ndarray:
    """Colours over a grey version of the image."""
    gray = cv2.cvtColor(cv2.cvtColor(shown, cv2.COLOR_BGR2GRAY), cv2.COLOR_GRAY2BGR)
    return cv2.addWeighted(gray, 0.4, colors, 0.6, 0)


def cell_box(row: int, column: int, size: int, canvas: Sequence[int]) -> list[int]:
    """X0, y0, x1, y1 of a cell in pixels of the network's input; the grid covers the canvas."""
    edges = [column / size * canvas[1], row / size * canvas[0]]
    edges += [(column + 1) / size * canvas[1] - 1, (row + 1) / size * canvas[0] - 1]
    return [round(edge) for edge in edges]


def score_tiles(
    seen: Pass, shown: np.ndarray, label: int | None
) -> tuple[list[np.ndarray], list[str]]:
    """An image per level with the scores of its cells over it, and what is written above it."""
    height, width = seen.image_size
    scores = [x[0].float().sigmoid().cpu() for x in seen.predictions.category_logits]
    best = [(x.amax(0) if label is None else x[label]).numpy() for x in scores]
    high = max(float(x.max()) for x in best)
    grown = [cv2.resize(x, seen.canvas[::-1], interpolation=cv2.INTER_NEAREST) for x in best]
    tiles = [blend(shown, heat(x[:height, :width], 0, high)) for x in grown]
    sides = [f"level {i}: {len(x)}x{len(x)} cells, best {x.max():.0%}" for i, x in enumerate(best)]
    return tiles, sides


def work(args: argparse.Namespace, overrides: list[str]) -> str:
    """Draw; returns what was written."""
    if args.top < 1:
        raise ValueError(f"--top must be at least 1, got {args.top}")
    predictor = load_predictor(args, overrides)
    image = read_image(args.input, max_value=predictor.max_value)
    head = predictor.model.get_submodule("head")
    if args.label is not None and not 0 <= args.label < head.num_classes:
        raise ValueError(f"--class must lie in [0, {head.num_classes}), got {args.label}")
    grid: GridSpec = head.grid
    asked = parse_cells(args.cells, grid) if args.cells else None
    seen = run_model(predictor, image)
    shown = cv2.resize(image, seen.image_size[::-1], interpolation=cv2.INTER_AREA)
    tiles, captions = score_tiles(seen, shown, args.label)
    drawn, words = mask_tiles(predictor, seen, shown, asked, args)
    tiles, captions = [*tiles, *drawn], captions + words
    return save(args.output, tile(tiles, captions)) + f", {len(tiles)} tiles"


def mask_tiles(
    predictor: SOLOPredictor,
    seen: Pass,
    shown: np.ndarray,
    asked: list[int] | None,
    args: argparse.Namespace,
) -> tuple[list[np.ndarray], list[str]]:
    """An image per chosen cell with its mask, and what is written above it."""
    head = predictor.model.get_submodule("head")
    scores = category_scores(seen.predictions.category_logits)[0].cpu()  # (T, C)
    scores = scores if args.label is None else scores[:, [args.label]]
    best, labels = scores.max(1)
    chosen = best.topk(min(args.top, len(best))).indices if asked is None else torch.tensor(asked)
    with torch.inference_mode():
        cells = chosen.to(predictor.device)
        masks = head.mask_probs(seen.predictions, 0, cells, size=seen.canvas).float().cpu().numpy()
    names = predictor.metadata.get("thing_classes") or []
    height, width = seen.image_size
    tiles, captions = [], []
    places = zip(*(x.tolist() for x in head.grid.locate(chosen)), strict=True)
    for cell, mask, (level, row, column) in zip(chosen.tolist(), masks, places, strict=True):
        drawn = blend(shown, heat(mask[:height, :width], 0, 1))
        x0, y0, x1, y1 = cell_box(row, column, head.grid.num_grids[level], seen.canvas)
        cv2.rectangle(drawn, (x0, y0), (x1, y1), RED, 1)
        label = int(labels[cell]) if args.label is None else args.label
        name = names[label] if label < len(names) else f"class {label}"
        tiles.append(drawn)
        captions.append(f"{level}:{row}:{column} {name} {best[cell]:.0%}")
    return tiles, captions


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    return run_tool(make_parser(), work, argv)


if __name__ == "__main__":
    sys.exit(main())
