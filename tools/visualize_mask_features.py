#!/usr/bin/env python
"""Channels of the mask feature of an image, one tile each (paper Fig. 7).

    python tools/visualize_mask_features.py --config-file CONFIG --weights FILE \
        --input image.jpg --output channels.png

Every channel has its own scale, from dark blue (its minimum) to yellow (its maximum). For heads
with a mask feature: DynamicSOLOHead (SOLOv2) and DecoupledDynamicSOLOHead.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Sequence

import cv2
from _drawing import heat, load_predictor, model_parser, run_model, run_tool, save, tile
from torch import Tensor, nn

from solo_d2.io.image import read_image


def make_parser() -> argparse.ArgumentParser:
    """All options but the trailing config overrides."""
    parser = model_parser(__doc__)
    add = parser.add_argument
    add("--channels", type=int, nargs="+", metavar="N", help="only these, from 0 (default: all)")
    add("--level", type=int, metavar="L", help="of a separate mask feature, from 0 (default: 0)")
    add("--tile-width", type=int, default=160, metavar="PIXELS", help="default: 160")
    add("--columns", type=int, metavar="N", help="tiles in a row (default: a square)")
    return parser


def mask_feature_of(model: nn.Module) -> nn.Module:
    """The part of the head that makes the mask feature.

    Raises:
        ValueError: the head has none.
    """
    head = model.get_submodule("head")
    module = getattr(head, "mask_feature", None)
    if not isinstance(module, nn.Module):
        raise ValueError(
            f"{type(head).__name__} has no mask feature; use a config with DynamicSOLOHead or "
            "DecoupledDynamicSOLOHead, or tools/visualize_cells.py"
        )
    return module


def choose_map(maps: list[Tensor], shared: bool, level: int | None) -> Tensor:
    """The feature (E, h, w) of the level asked for."""
    if shared and level is not None:
        raise ValueError("--level: this model has one mask feature for all levels; leave it out")
    if not 0 <= (level or 0) < len(maps):
        raise ValueError(f"--level must lie in [0, {len(maps)}), got {level}")
    return maps[level or 0][0].float().cpu()


def work(args: argparse.Namespace, overrides: list[str]) -> str:
    """Draw; returns what was written."""
    if args.tile_width < 8 or (args.columns or 1) < 1:
        raise ValueError("--tile-width must be at least 8 and --columns at least 1")
    predictor = load_predictor(args, overrides)
    image = read_image(args.input, max_value=predictor.max_value)
    module = mask_feature_of(predictor.model)
    seen = run_model(predictor, image, look=module)
    feature = choose_map(seen.maps, bool(getattr(module, "shared", False)), args.level)
    # Without the padding, which is at the bottom and on the right.
    height, width = (
        math.ceil(size * image_side / canvas_side)
        for size, image_side, canvas_side in zip(
            feature.shape[1:], seen.image_size, seen.canvas, strict=True
        )
    )
    feature = feature[:, :height, :width]
    channels = range(len(feature)) if args.channels is None else args.channels
    if not all(0 <= channel < len(feature) for channel in channels):
        raise ValueError(f"--channels must lie in [0, {len(feature)}), got {list(channels)}")
    size = (args.tile_width, max(1, round(args.tile_width * height / width)))
    tiles = [
        cv2.resize(
            heat(feature[c], float(feature[c].min()), float(feature[c].max())),
            size,
            interpolation=cv2.INTER_NEAREST,
        )
        for c in channels
    ]
    line = save(args.output, tile(tiles, [f"{c}" for c in channels], args.columns))
    return f"{line}, {len(tiles)} of {len(feature)} channels of {width}x{height}"


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    return run_tool(make_parser(), work, argv)


if __name__ == "__main__":
    sys.exit(main())
