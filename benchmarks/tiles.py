"""Find the objects of one very large image, whole and through windows.

    python benchmarks/tiles.py --cache datasets/stamps/cache --side 8000 --objects 2000

Composes a square image of photographic cut-outs (those of the validation split of `solo-d2 scenes
stamps`, fetched to the cache if they are not there) with objects of 24 to 320 pixels, and keeps it
in the output folder. Each row predicts it in another way; AP counts all instances, and recall and
precision are those of instances with a score of at least 0.3 at a mask IoU of one half. Prints a
Markdown table. Exit code 2: a wrong argument.
"""

from __future__ import annotations

import argparse
import json
import logging
import math
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pycocotools.mask as mask_util
import torch
from _timing import peak_memory
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.structures import BoxMode

from solo_d2 import SOLOPredictor, load_config
from solo_d2.data.scenes.compose import Scene
from solo_d2.data.scenes.cutouts import Crowding, SceneOptions
from solo_d2.data.scenes.stamps import StampsSource
from solo_d2.evaluation import COCOInstanceEvaluator
from solo_d2.io.json_file import save_json
from solo_d2.layers import EncodedMasks

SIZES = (24, 320)
THRESHOLD = 0.3
NAME = "benchmark_tiles"


def rows_of(objects: int) -> dict[str, tuple[str, ...]]:
    """Overrides of the config by the name of a row."""
    many = ("TEST.DETECTIONS_PER_IMAGE", str(objects), "MODEL.SOLO.PRE_NMS_TOPK_TEST", "5000")
    large = ("INPUT.MIN_SIZE_TEST", "1536", "INPUT.MAX_SIZE_TEST", "1536")
    return {
        "whole image": (),
        "whole image, 1536 pixels, more candidates": (*many, *large),
        "windows": ("TEST.TILES.ENABLED", "True"),
    }


def draw_scene(cache: Path, side: int, objects: int, seed: int) -> Scene:
    """Compose the image."""
    kind = Crowding(1.0, (objects, objects), (SIZES[0] / side, SIZES[1] / side))
    options = SceneOptions(height=side, width=side, kinds=(kind,))
    source = StampsSource(options, one_class=True, cache=cache)
    return source.load(cache, seed, progress=False)["val"](np.random.default_rng(seed))


def write_scene(scene: Scene, folder: Path) -> None:
    """Write the image and its objects."""
    folder.mkdir(parents=True, exist_ok=True)
    size = scene.image.shape[:2]
    crops = [(matte.x, matte.y, matte.alpha >= 0.5) for matte in scene.mattes]
    objects = []
    for rle in EncodedMasks.from_crops(crops, (size[0], size[1])).rles():
        x, y, width, height = mask_util.toBbox(rle).tolist()
        box = [x, y, x + width, y + height]
        mode = BoxMode.XYXY_ABS.value
        entry = {"segmentation": rle, "bbox": box, "bbox_mode": mode, "category_id": 0}
        objects.append({**entry, "iscrowd": 0})
    cv2.imwrite(str(folder / "image.png"), scene.image[:, :, ::-1])
    save_json(folder / "objects.json", objects)


def register(folder: Path) -> list[dict[str, Any]]:
    """Register the image as a dataset; returns its objects."""
    objects = json.loads((folder / "objects.json").read_text())
    height, width = objects[0]["segmentation"]["size"]
    for entry in objects:
        entry["bbox_mode"] = BoxMode(entry["bbox_mode"])
    record = {"file_name": str(folder / "image.png"), "image_id": 1, "annotations": objects}
    if NAME in DatasetCatalog.list():
        DatasetCatalog.remove(NAME)
        MetadataCatalog.remove(NAME)
    DatasetCatalog.register(NAME, lambda: [{**record, "height": height, "width": width}])
    MetadataCatalog.get(NAME).set(thing_classes=["object"], evaluator_type="coco")
    return objects


def matches(found: Sequence[dict[str, Any]], truth: Sequence[dict[str, Any]]) -> int:
    """Objects that one of the masks covers with an IoU of one half, each mask but one of them."""
    if not found:
        return 0
    crowd = [0] * len(truth)
    ious = mask_util.iou(list(found), [entry["segmentation"] for entry in truth], crowd)
    taken = np.zeros(len(truth), bool)
    for row in ious:  # by descending score
        best = int(np.where(taken, 0, row).argmax())
        taken[best] |= row[best] >= 0.5 and not taken[best]
    return int(taken.sum())


def measure(model: str, overrides: Sequence[str], image: np.ndarray, truth: list) -> str:
    """Predict the image in one way; returns the cells of its row."""
    cfg = load_config(model, overrides, trained=not Path(model).exists())
    predictor = SOLOPredictor(cfg)
    predictor(image[:512, :512])  # whatever is done once
    outputs: list[Any] = []
    start = time.process_time()
    memory = peak_memory(lambda: outputs.append(predictor(image)), predictor.device)
    seconds = time.process_time() - start
    found = outputs.pop()
    evaluator = COCOInstanceEvaluator(NAME, max_dets_per_image=100_000, distributed=False)
    evaluator.process([{"image_id": 1}], [{"instances": found.instances.to("cpu")}])
    metrics = evaluator.evaluate()["segm"]
    sure = [x["segmentation"] for x in found.to_coco() if x["score"] >= THRESHOLD]
    hits = matches(sure, truth)
    figures = [metrics["AP"], metrics["AP50"], 100 * hits / len(truth)]
    figures.append(100 * hits / len(sure) if sure else math.nan)
    cells = [str(len(found.instances)), *(f"{x:.1f}" for x in figures), f"{seconds:.0f}"]
    return " | ".join([*cells, "-" if memory is None else f"{memory:.0f}"])


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--cache", type=Path, default=Path("datasets/stamps/cache"), help="of the cut-outs")
    add("--output", type=Path, default=Path("output/tiles"), help="folder of the image")
    add("--model", default="solo_d2/objects_lite0", help="config or name, of one class")
    add("--side", type=int, default=4000, help="of the image in pixels")
    add("--objects", type=int, default=500, help="that are tried; those without room are left out")
    add("--seed", type=int, default=1)
    add("--threads", type=int, default=1)
    add("--rows", nargs="*", metavar="NAME", help="only these")
    add("opts", nargs="*", metavar="KEY VALUE", help="overrides for all rows, behind --")
    args = parser.parse_args(argv)
    if args.side < 512 or args.objects < 1:
        parser.error("--side must be at least 512 and --objects at least 1")
    unknown = set(args.rows or ()) - set(rows_of(1))
    if unknown:
        parser.error(f"--rows must be of {', '.join(rows_of(1))}; got {', '.join(unknown)}")
    return args


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    logging.basicConfig(level=logging.WARNING)
    args = parse(argv)
    torch.set_num_threads(args.threads)
    folder = args.output / f"{args.side}_{args.objects}_{args.seed}"
    if not (folder / "objects.json").is_file():
        write_scene(draw_scene(args.cache, args.side, args.objects, args.seed), folder)
    truth = register(folder)
    image = cv2.imread(str(folder / "image.png"))
    assert image is not None
    print(f"{len(truth)} objects on {args.side}x{args.side} pixels\n")
    print("| | found | AP | AP50 | recall | precision | CPU s | MiB |")
    print("|---|---|---|---|---|---|---|---|")
    for name, overrides in rows_of(args.objects).items():
        if args.rows is None or name in args.rows:
            cells = measure(args.model, [*overrides, *args.opts], image, truth)
            print(f"| {name} | {cells} |", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
