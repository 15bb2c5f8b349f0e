#!/usr/bin/env python
"""What the training loader yields: augmented images, their masks, and the cells that learn them.

    python tools/visualize_data.py --config-file configs/Shapes/solov2_lite0.yaml \
        --shapes datasets/shapes --output data.png

A tile per image: every object in a colour with its class, and, in the same colour, the outlines
of the grid cells that are assigned to it; small cells belong to finer levels.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Sequence

import cv2
import numpy as np
import torch
from _drawing import check_output, run_tool, save, tile, write
from detectron2.config import CfgNode
from detectron2.modeling import build_model
from detectron2.utils.env import seed_all_rng

from solo_d2.data.arguments import add_data_arguments, register_named_data
from solo_d2.data.checks import check_classes, thing_classes
from solo_d2.engine import SOLOTrainer, use_data
from solo_d2.inference.colors import instance_colors
from solo_d2.model_zoo.model_zoo import load_config
from solo_d2.modeling import GridSpec
from solo_d2.modeling.meta_arch import SOLO
from solo_d2.modeling.targets import SOLOTargetAssigner

SHORT_SIDE = 400  # pixels of a tile, at least


def make_parser() -> argparse.ArgumentParser:
    """All options but the trailing config overrides."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        usage="%(prog)s [options] [KEY VALUE ...]",
    )
    add = parser.add_argument
    add("--config-file", required=True, metavar="CONFIG", help="YAML file or model zoo name")
    add("--output", required=True, metavar="FILE", help="image to write, .png or .jpg")
    add("--count", type=int, default=4, metavar="N", help="images (default: 4)")
    add("--seed", type=int, default=0, metavar="N", help="of order and augmentation (default: 0)")
    add_data_arguments(parser)
    return parser


def make_config(args: argparse.Namespace, overrides: list[str]) -> CfgNode:
    """The config with the dataset asked for, on the CPU and without weights."""
    cfg = load_config(args.config_file, overrides)
    own = register_named_data(args, panoptic=False)
    if own:
        use_data(cfg, {"TRAIN": own["TRAIN"]}, fixed="MODEL.SOLO.NUM_CLASSES" in overrides[::2])
    check_classes(cfg.DATASETS.TRAIN, cfg.MODEL.SOLO.NUM_CLASSES)
    if not cfg.DATASETS.TRAIN:
        raise ValueError("DATASETS.TRAIN is empty; name a dataset, e.g. with --shapes")
    cfg.MODEL.DEVICE, cfg.MODEL.WEIGHTS, cfg.MODEL.TIMM.WEIGHTS = "cpu", "", ""
    # Images one by one, from this process: the same with every number of workers.
    cfg.SOLVER.IMS_PER_BATCH, cfg.DATALOADER.NUM_WORKERS, cfg.SEED = 1, 0, args.seed
    return cfg


def assigned_cells(
    model: SOLO, record: dict, canvas: tuple[int, int]
) -> list[tuple[int, int, int, int]]:
    """Object, level, row and column of all positive cells of an image."""
    assigner: SOLOTargetAssigner = model.assigner
    targets = assigner([record["instances"]], canvas, torch.device("cpu"))
    places = assigner.grid.locate(targets.cells)
    columns = [targets.instances, *places]
    return list(zip(*(x.tolist() for x in columns), strict=True))


def draw(
    record: dict, model: SOLO, cfg: CfgNode, names: Sequence[str] | None
) -> tuple[np.ndarray, str]:
    """The tile of one image, enlarged so that cells can be told apart, and the line above it."""
    image = record["image"].permute(1, 2, 0).numpy()
    image = np.ascontiguousarray(image if cfg.INPUT.FORMAT == "BGR" else image[..., ::-1])
    objects, scale = record["instances"], max(1, math.ceil(SHORT_SIDE / min(image.shape[:2])))
    image = enlarge(image, scale)
    masks = objects.gt_masks.tensor.numpy() if objects.has("gt_masks") else []
    colors = instance_colors(range(len(masks))).tolist()
    for mask, color in zip(masks, colors, strict=True):
        outlines = outlines_of(mask, scale)
        tint = cv2.fillPoly(image.copy(), outlines, color)
        image = cv2.addWeighted(tint, 0.35, image, 0.65, 0)
        cv2.drawContours(image, outlines, -1, color, 2, cv2.LINE_AA)
    canvas = tuple(model.preprocess_image([record]).tensor.shape[-2:])
    cells = assigned_cells(model, record, canvas)
    grid: GridSpec = model.assigner.grid
    for index, level, row, column in cells:
        height, width = (side * scale / grid.num_grids[level] for side in canvas)
        corner = round(column * width), round(row * height)
        end = round((column + 1) * width) - 1, round((row + 1) * height) - 1
        cv2.rectangle(image, corner, end, (255, 255, 255), 3)
        cv2.rectangle(image, corner, end, colors[index], 1)
    for mask, label, color in zip(masks, objects.gt_classes.tolist(), colors, strict=True):
        x, y, _, _ = (side * scale for side in cv2.boundingRect(mask.astype(np.uint8)))
        name = names[label] if names else f"class {label}"
        write(image, name, (x + 2, max(10, y - 3)), [channel // 2 for channel in color])
    without = len(masks) - len({cell[0] for cell in cells})
    caption = f"{len(masks)} objects, {len(cells)} cells"
    return image, caption + (f", {without} objects without" if without else "")


def enlarge(image: np.ndarray, scale: int) -> np.ndarray:
    """Every pixel as a square of `scale` pixels."""
    return np.ascontiguousarray(image.repeat(scale, 0).repeat(scale, 1))


def outlines_of(mask: np.ndarray, scale: int) -> list[np.ndarray]:
    """Contours of an enlarged mask; filled together, they leave its holes out."""
    grown = enlarge(mask.astype(np.uint8), scale)
    return list(cv2.findContours(grown, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)[0])


def work(args: argparse.Namespace, overrides: list[str]) -> str:
    """Draw; returns what was written."""
    if args.count < 1:
        raise ValueError(f"--count must be at least 1, got {args.count}")
    check_output(args.output)
    cfg = make_config(args, overrides)
    seed_all_rng(args.seed)
    model = build_model(cfg)
    loader = iter(SOLOTrainer.build_train_loader(cfg))
    names = thing_classes(cfg.DATASETS.TRAIN[0])
    drawn = [draw(next(loader)[0], model, cfg, names) for _ in range(args.count)]
    line = save(args.output, tile(*map(list, zip(*drawn, strict=True))))
    return f"{line}, {args.count} images"


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    return run_tool(make_parser(), work, argv)


if __name__ == "__main__":
    sys.exit(main())
