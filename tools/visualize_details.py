#!/usr/bin/env python
"""Channels of an image before and after Details Refinement (paper Fig. S5).

    python tools/visualize_details.py --config-file CONFIG --weights FILE \
        --input image.jpg --output details.png

Left what enters it of the mask feature, enlarged as in the network; right what it makes of that
and the image. Every channel has its own scale, from dark blue (its minimum) to yellow (its
maximum). For Soft SOLO.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Sequence

import cv2
import numpy as np
from _drawing import heat, load_predictor, model_parser, run_model, run_tool, save, tile
from torch import Tensor, nn

from solo_d2.io.image import read_image


def make_parser() -> argparse.ArgumentParser:
    """All options but the trailing config overrides."""
    parser = model_parser(__doc__)
    add = parser.add_argument
    add("--channels", type=int, nargs="+", metavar="N", help="only these, from 0 (default: all)")
    add("--tile-width", type=int, default=96, metavar="PIXELS", help="default: 96")
    add("--columns", type=int, default=4, metavar="N", help="tiles in a row per side (default: 4)")
    return parser


def details_of(model: nn.Module) -> nn.Module:
    """The model's Details Refinement.

    Raises:
        ValueError: it has none.
    """
    module = getattr(model.get_submodule("head"), "details", None)
    if not isinstance(module, nn.Module):
        raise ValueError(
            f"{type(model.get_submodule('head')).__name__} has no Details Refinement; use a config "
            "of Soft SOLO, or tools/visualize_mask_features.py"
        )
    return module


def without_padding(
    feature: Tensor, image_size: tuple[int, int], canvas: tuple[int, int]
) -> np.ndarray:
    """Channels (C, h, w) of a map (1, C, H, W) of the canvas, cut to the image."""
    height, width = (
        math.ceil(size * image_side / canvas_side)
        for size, image_side, canvas_side in zip(feature.shape[2:], image_size, canvas, strict=True)
    )
    return feature[0, :, :height, :width].float().cpu().numpy()


def draw_channels(
    feature: np.ndarray, channels: Sequence[int], size: tuple[int, int], columns: int
) -> np.ndarray:
    """Tiles of `size` (width, height) of some channels of (C, h, w)."""
    tiles = []
    for channel in channels:
        values = cv2.resize(feature[channel], size, interpolation=cv2.INTER_LINEAR)
        tiles.append(heat(values, float(values.min()), float(values.max())))
    return tile(tiles, [f"{channel}" for channel in channels], columns)


def work(args: argparse.Namespace, overrides: list[str]) -> str:
    """Draw; returns what was written."""
    if args.tile_width < 8 or args.columns < 1:
        raise ValueError("--tile-width must be at least 8 and --columns at least 1")
    predictor = load_predictor(args, overrides)
    image = read_image(args.input, max_value=predictor.max_value)
    details = details_of(predictor.model)
    reduced = []
    hook = details.get_submodule("reduce").register_forward_hook(
        lambda _module, _args, output: reduced.append(output)
    )
    seen = run_model(predictor, image, look=details)
    hook.remove()
    before, after = (
        without_padding(feature, seen.image_size, seen.canvas)
        for feature in (reduced[0], seen.maps)
    )
    channels = range(len(after)) if args.channels is None else args.channels
    if not all(0 <= channel < len(after) for channel in channels):
        raise ValueError(f"--channels must lie in [0, {len(after)}), got {list(channels)}")
    height, width = image.shape[:2]
    size = (args.tile_width, max(1, round(args.tile_width * height / width)))
    sides = [draw_channels(x, channels, size, args.columns) for x in (before, after)]
    names = [f"{name}: {x.shape[2]}x{x.shape[1]}" for name, x in (("in", before), ("out", after))]
    line = save(args.output, tile(sides, names, 2))
    return f"{line}, {len(channels)} of {len(after)} channels, {names[0]}, {names[1]}"


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    return run_tool(make_parser(), work, argv)


if __name__ == "__main__":
    sys.exit(main())
