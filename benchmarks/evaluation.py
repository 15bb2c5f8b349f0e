"""Measure the parts of an evaluation: network, post-processing, encoding, scoring.

    python benchmarks/evaluation.py --config-file output/demo/config.yaml \
        --weights output/demo/model_final.pth --stamps datasets/stamps
    python benchmarks/evaluation.py --synthetic 500

The first evaluates a model on the validation split of a dataset, the second scores random
detections (no network). Encoding and scoring are also done as Detectron2 does them, in the same
run: masks one by one with pycocotools, AP with pycocotools. Prints a Markdown table. Exit code 1:
the AP differs; 2: a wrong argument.
"""

from __future__ import annotations

import argparse
import json
import logging
import math
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from _cases import ellipses
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.evaluation.coco_evaluation import instances_to_coco_json
from detectron2.structures import Boxes, Instances
from torch import nn

from solo_d2.checkpoint import load_weights
from solo_d2.data.datasets.coco_json import register_coco_json
from solo_d2.data.scenes.register import register_built
from solo_d2.engine import SOLOTrainer, name_classes
from solo_d2.evaluation import COCOInstanceEvaluator
from solo_d2.evaluation.coco import hotcoco
from solo_d2.layers import encode_masks, masks_to_boxes
from solo_d2.model_zoo.model_zoo import load_config

SIZE = (480, 640)


class Clock:
    """Seconds by part."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    def lap(self, part: str, work: Any, *arguments: Any) -> Any:
        """Run and time one piece of work."""
        start = time.perf_counter()
        result = work(*arguments)
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        spent = time.perf_counter() - start
        self.seconds[part] = spent + self.seconds.get(part, 0.0)
        return result


def outputs_of_model(clock: Clock, model: nn.Module, loader: Any, limit: int) -> Iterator:
    """Return inputs and outputs of every image, with the time of each part."""
    batches = iter(loader)
    for _ in range(min(limit, len(loader))):
        inputs = clock.lap("reading", next, batches)
        with torch.no_grad():
            images = clock.lap("network", model.preprocess_image, inputs)
            features = clock.lap("network", model.backbone, images.tensor)
            predictions = clock.lap("network", model.predict, features, images)
            outputs = clock.lap("post-processing", model.inference, predictions, images, inputs)
        yield inputs, outputs


def synthetic_outputs(folder: Path, count: int, detections: int) -> Iterator:
    """Draw random detections, every third near an object; registers "synthetic"."""
    images, annotations, outputs = [], [], []
    pixels = torch.zeros((1, *SIZE), dtype=torch.bool)
    for image_id in range(1, count + 1):
        masks = ellipses(detections, SIZE, image_id, 10, 400) > 0.5
        labels = torch.arange(detections) * 7 % 80
        found = Instances(SIZE, pred_masks=masks, pred_classes=labels)
        found.pred_boxes = Boxes(masks_to_boxes(masks))
        found.scores = torch.linspace(0.9, 0.05, detections)
        outputs.append(([{"image_id": image_id}], [{"instances": found}]))
        name = f"{image_id}.png"
        images.append({"id": image_id, "height": SIZE[0], "width": SIZE[1], "file_name": name})
        (folder / name).touch()
        for mask, label in zip(masks[::3], labels[::3].tolist(), strict=True):
            pixels[0] = mask.roll(5, 1)
            x0, y0, x1, y1 = masks_to_boxes(pixels)[0].tolist()
            entry = {"id": len(annotations) + 1, "image_id": image_id, "category_id": label + 1}
            entry |= {"segmentation": encode_masks(pixels)[0], "iscrowd": 0}
            entry |= {"area": float(pixels.sum()), "bbox": [x0, y0, x1 - x0, y1 - y0]}
            if entry["area"]:
                annotations.append(entry)
    categories = [{"id": i + 1, "name": str(i)} for i in range(80)]
    content = {"images": images, "annotations": annotations, "categories": categories}
    (folder / "truth.json").write_text(json.dumps(content))
    register_coco_json("synthetic", folder / "truth.json", folder)
    yield from outputs


def detectron2_encoding(inputs: list[dict], outputs: list[dict]) -> None:
    """Encode the same instances with Detectron2's method."""
    for image, output in zip(inputs, outputs, strict=True):
        instances_to_coco_json(output["instances"].to("cpu"), image["image_id"])


def measure(args: argparse.Namespace, folder: Path) -> tuple[Clock, int, int, bool]:
    """Return all times, the numbers of images and instances, and whether both APs are equal."""
    clock, most = Clock(), 100
    if args.synthetic:
        name, steps = "synthetic", list(synthetic_outputs(folder, args.synthetic, args.detections))
    else:
        cfg = load_config(args.config_file)
        if not torch.cuda.is_available():
            cfg.MODEL.DEVICE = "cpu"
        kind = "stamps" if args.stamps else "shapes"
        name = register_built(args.data, kind, kind=kind)[1]
        model = SOLOTrainer.build_model(cfg).eval()
        name_classes(model, name)
        load_weights(model, str(args.weights))
        loader = SOLOTrainer.build_test_loader(cfg, name)
        steps = outputs_of_model(clock, model, loader, args.images or math.inf)
    options = {"max_dets_per_image": most}
    evaluators = {
        "": COCOInstanceEvaluator(name, str(folder), fast=True, **options),
        ", pycocotools": COCOInstanceEvaluator(name, str(folder), fast=False, **options),
    }
    for evaluator in evaluators.values():
        evaluator.reset()
    images = instances = 0
    for inputs, outputs in steps:
        clock.lap("encoding", evaluators[""].process, inputs, outputs)
        clock.lap("encoding, Detectron2", detectron2_encoding, inputs, outputs)
        images += len(outputs)
        instances += sum(len(x["instances"]) for x in outputs)
    evaluators[", pycocotools"]._found = evaluators[""]._found
    results = [clock.lap("scoring" + k, x.evaluate) for k, x in evaluators.items()]
    return clock, images, instances, repr(results[0]) == repr(results[1])


def table(clock: Clock, images: int, instances: int) -> str:
    """Format the times as Markdown."""
    peers = {"encoding": "encoding, Detectron2", "scoring": "scoring, pycocotools"}
    ours = {k: v for k, v in clock.seconds.items() if k not in peers.values()}
    total = sum(ours.values())
    lines = [f"{images} images, {instances} instances, {torch.get_num_threads()} threads", ""]
    lines += [
        "| part | s | ms an image | share | Detectron2, s | ratio |",
        "|---|---|---|---|---|---|",
    ]
    for part, seconds in ours.items():
        peer = clock.seconds.get(peers.get(part, ""))
        other = f"{peer:.2f} | x{peer / seconds:.1f}" if peer else "|"
        share = f"{100 * seconds / total:.1f} %"
        lines.append(
            f"| {part} | {seconds:.2f} | {1e3 * seconds / images:.1f} | {share} | {other} |"
        )
    return "\n".join(lines)


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """Parse and check the arguments."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--config-file", metavar="FILE", help="config of the model")
    add("--weights", metavar="FILE", help="checkpoint of the model")
    add("--stamps", type=Path, metavar="DIR", help="stamps dataset to evaluate on")
    add("--shapes", type=Path, metavar="DIR", help="shapes dataset to evaluate on")
    add("--images", type=int, metavar="N", help="only the first N images")
    add("--synthetic", type=int, metavar="N", help="no model: random detections in N images")
    add("--detections", type=int, default=60, metavar="K", help="of an image (default: 60)")
    add("--threads", type=int, metavar="N", help="CPU threads (default: torch's choice)")
    args = parser.parse_args(argv)
    if hotcoco is None:
        raise ValueError("hotcoco is not installed: pip install hotcoco")
    if args.threads:
        torch.set_num_threads(args.threads)
    if args.synthetic:
        return args
    args.data = args.stamps or args.shapes
    if not (args.config_file and args.weights and args.data):
        raise ValueError(
            "expected --synthetic N, or --config-file, --weights and one of --stamps and --shapes"
        )
    return args


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line `argv`; returns the exit code."""
    try:
        args = parse(argv)
        with tempfile.TemporaryDirectory() as folder:
            clock, images, instances, equal = measure(args, Path(folder))
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    finally:
        if "synthetic" in DatasetCatalog.list():
            DatasetCatalog.remove("synthetic")
            MetadataCatalog.pop("synthetic")
    print(table(clock, images, instances))
    print(f"\nAP and its kin are {'equal' if equal else 'NOT EQUAL'}.")
    return int(not equal)


if __name__ == "__main__":
    warnings.filterwarnings("ignore")  # deprecations inside torch and Detectron2
    logging.disable(logging.INFO)
    sys.exit(main())
