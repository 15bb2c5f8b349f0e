#!/usr/bin/env python
"""Build data, train a light SOLOv2, evaluate it, draw.

    make demo-train
    python demo/quickstart.py --data-kind shapes --iterations 200

Everything lands in --output: metrics.json, images of validation scenes beside their ground
truth, loss and AP curves, a short annotated video, the checkpoint and the log.
"""

from __future__ import annotations

import argparse
import json
import logging
import shutil
import sys
import time
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import torch
from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.structures import BitMasks, Instances
from detectron2.utils.env import seed_all_rng
from tqdm import tqdm

from solo_d2 import SOLOPredictor, model_zoo
from solo_d2.config import merge_overrides
from solo_d2.data.scenes.build import build
from solo_d2.data.scenes.register import register_built
from solo_d2.data.scenes.shapes import ShapesSource
from solo_d2.data.scenes.stamps import StampsSource, StampsUnavailableError
from solo_d2.engine import SOLOTrainer, use_data
from solo_d2.engine.log import begin_log, end_log, open_log
from solo_d2.engine.processes import exit_code, tell
from solo_d2.inference.colors import InstanceColors
from solo_d2.inference.drawing import draw_instances
from solo_d2.io.image import read_image, write_image
from solo_d2.io.video import VideoWriter

matplotlib.use("Agg")
from matplotlib import pyplot as plt

CONFIGS = {"stamps": "Stamps/solov2_lite0.yaml", "shapes": "Shapes/solov2_lite0.yaml"}
IMAGES = 8
VIDEO_SCENES, FRAMES_PER_SCENE, FPS = 3, 20, 10
METRICS = ("AP", "AP50", "AP75", "APs", "APm", "APl")


def parse_args(argv: list[str] | None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--output", default="output/demo", help="folder of all results")
    parser.add_argument("--data", default="datasets", help="folder of the datasets")
    parser.add_argument(
        "--data-kind",
        choices=["auto", "stamps", "shapes"],
        default="auto",
        help="photographic stamps (fetched through apt), procedural shapes, or what can be had",
    )
    parser.add_argument("--deb", nargs="+", default=[], help="package files instead of apt")
    parser.add_argument("--train", type=int, default=1500, help="training scenes")
    parser.add_argument("--val", type=int, default=120, help="validation scenes")
    parser.add_argument("--iterations", type=int, help="training iterations (the config's)")
    parser.add_argument(
        "--weights",
        choices=["shipped", "backbone"],
        default="shipped",
        help="start from solo_d2/stamps_lite0 (stamps only), or from ImageNet",
    )
    parser.add_argument("--setup-seconds", type=float, default=0.0, help="reported as it is")
    parser.add_argument("opts", nargs="*", default=[], help="config overrides, KEY VALUE ...")
    return parser.parse_args(argv)


def build_data(args: argparse.Namespace) -> tuple[str, tuple[str, str]]:
    """Build and register a dataset; returns its kind and the names of its two splits."""
    if args.data_kind != "shapes":
        root = Path(args.data) / "stamps"
        try:
            build(StampsSource(debs=args.deb), root, train=args.train, val=args.val)
            return "stamps", register_built(root, "stamps", kind="stamps")
        except StampsUnavailableError as error:
            if args.data_kind == "stamps":
                raise
            print(f"The stamps cannot be had here ({error}).\nUsing procedural shapes instead.")
    root = Path(args.data) / "shapes"
    build(ShapesSource(), root, train=args.train, val=args.val)
    return "shapes", register_built(root, "shapes", kind="shapes")


def make_config(args: argparse.Namespace, kind: str, splits: tuple[str, str]) -> CfgNode:
    """Load the config of the dataset and adapt it to the command line."""
    cfg = model_zoo.get_config(CONFIGS[kind])
    if kind == "stamps" and args.weights == "shipped":
        merge_overrides(cfg, ["MODEL.WEIGHTS", "solo://solo_d2/stamps_lite0"])
        merge_overrides(cfg, ["MODEL.TIMM.WEIGHTS", ""])
    cfg.OUTPUT_DIR = str(args.output)
    cfg.MODEL.DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
    if args.iterations:
        cfg.SOLVER.MAX_ITER = args.iterations
        cfg.SOLVER.WARMUP_ITERS = min(cfg.SOLVER.WARMUP_ITERS, args.iterations // 10)
        cfg.TEST.EVAL_PERIOD = min(cfg.TEST.EVAL_PERIOD, args.iterations)
    merge_overrides(cfg, args.opts)
    use_data(cfg, {"TRAIN": splits[0], "TEST": splits[1]})
    cfg.freeze()
    return cfg


def train(cfg: CfgNode) -> tuple[SOLOTrainer, float, float]:
    """Train and evaluate; returns the trainer and the seconds of both."""
    trainer = SOLOTrainer(cfg)
    trainer.resume_or_load(resume=False)
    evaluation = 0.0
    test = trainer.test

    def timed_test(*arguments: Any, **keywords: Any) -> Any:
        nonlocal evaluation
        start = time.perf_counter()
        try:
            return test(*arguments, **keywords)
        finally:
            evaluation += time.perf_counter() - start

    trainer.test = timed_test  # the evaluation hook looks the method up on the trainer
    start = time.perf_counter()
    trainer.train()
    return trainer, time.perf_counter() - start - evaluation, evaluation


def read_log(folder: Path, final: dict[str, dict[str, float]]) -> list[dict[str, float]]:
    """Read the records of Detectron2's metrics.json, one JSON object per line.

    The last evaluation comes after the last record and is added to it.
    """
    lines = (folder / "metrics_log.json").read_text().splitlines()
    log = [json.loads(line) for line in lines]
    log[-1].update({f"{task}/{key}": x for task in final for key, x in final[task].items()})
    return log


def training_minutes(log: list[dict[str, float]], iterations: list[float]) -> np.ndarray:
    """Minutes of training until some iterations; evaluations have records of their own."""
    timed = [x for x in log if "time" in x]
    stops = np.array([-1.0] + [x["iteration"] for x in timed])
    seconds = np.cumsum(np.diff(stops) * [x["time"] for x in timed])
    return np.interp(iterations, stops, np.concatenate([[0.0], seconds])) / 60


def draw_curves(folder: Path, log: list[dict[str, float]]) -> Path:
    """Plot the losses, and AP on validation over training time."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4))
    records = [x for x in log if "total_loss" in x]
    for key in ("total_loss", "loss_category", "loss_mask"):
        left.plot([x["iteration"] for x in records], [x[key] for x in records], label=key)
    left.set(xlabel="iteration", ylabel="loss", ylim=(0, None))
    evaluated = [x for x in log if "segm/AP" in x]
    minutes = training_minutes(log, [x["iteration"] for x in evaluated])
    for key in ("segm/AP", "segm/AP50", "bbox/AP"):
        right.plot(minutes, [x[key] for x in evaluated], marker="o", label=key)
    right.set(xlabel="minutes of training", ylabel="validation AP", ylim=(0, None))
    for axis in (left, right):
        axis.legend()
        axis.grid(alpha=0.3)
    figure.tight_layout()
    path = folder / "curves.png"
    figure.savefig(path, dpi=110)
    plt.close(figure)
    return path


def ground_truth(record: dict[str, Any]) -> Instances:
    """Annotations of a dataset dict as instances that can be drawn."""
    from pycocotools import mask as coco_mask

    size = (record["height"], record["width"])
    masks = [coco_mask.decode(x["segmentation"]) for x in record["annotations"]]
    instances = Instances(size)
    stacked = np.stack(masks) if masks else np.zeros((0, *size))
    instances.pred_masks = BitMasks(torch.from_numpy(stacked.astype(bool))).tensor
    instances.pred_classes = torch.tensor([x["category_id"] for x in record["annotations"]])
    return instances


def draw_images(folder: Path, predictor: SOLOPredictor, dataset: str) -> list[Path]:
    """Draw predictions (left) beside the ground truth (right) of some validation scenes."""
    names = MetadataCatalog.get(dataset).thing_classes
    paths = []
    for i, record in enumerate(DatasetCatalog.get(dataset)[:IMAGES]):
        image = read_image(record["file_name"], "BGR")
        predicted = draw_instances(image, predictor(image)["instances"].to("cpu"), names)
        pair = np.hstack([predicted, draw_instances(image, ground_truth(record), names)])
        paths.append(folder / "images" / f"scene_{i}.jpg")
        paths[-1].parent.mkdir(parents=True, exist_ok=True)
        write_image(paths[-1], pair)
    return paths


def draw_video(folder: Path, predictor: SOLOPredictor, dataset: str) -> Path:
    """Annotate a short film: a camera that pans over validation scenes."""
    names = MetadataCatalog.get(dataset).thing_classes
    records = DatasetCatalog.get(dataset)[IMAGES : IMAGES + VIDEO_SCENES]
    path = folder / "video.mp4"
    colors = InstanceColors()
    total = len(records) * FRAMES_PER_SCENE
    with VideoWriter(path, FPS) as writer, tqdm(total=total, desc="video") as progress:
        for record in records:
            image = read_image(record["file_name"], "BGR")
            colors.reset()
            for frame in pan(image, FRAMES_PER_SCENE):
                instances = predictor(frame)["instances"].to("cpu")
                writer.write(draw_instances(frame, instances, names, colors(instances)))
                progress.update()
    return path


def pan(image: np.ndarray, frames: int) -> list[np.ndarray]:
    """Views of the image through a window of three quarters of its size that moves across."""
    height, width = (side * 3 // 4 // 2 * 2 for side in image.shape[:2])
    free = np.array([image.shape[0] - height, image.shape[1] - width])
    corners = (np.linspace(0, 1, frames)[:, None] * free).round().astype(int)
    return [image[y : y + height, x : x + width].copy() for y, x in corners]


def report(folder: Path, metrics: dict[str, Any], drawn: list[Path]) -> None:
    """Write metrics.json and print the table and where everything is."""
    (folder / "metrics.json").write_text(json.dumps(metrics, indent=1) + "\n")
    print(f"\n{'':6}" + "".join(f"{name:>8}" for name in METRICS))
    for task in ("segm", "bbox"):
        values = (metrics[task][name] for name in METRICS)
        print(f"{task:6}" + "".join(f"{value:8.2f}" for value in values))
    seconds = ", ".join(f"{key} {value:.0f} s" for key, value in metrics["seconds"].items())
    print(f"\n{seconds}\n")
    for path in [folder / "metrics.json", *drawn, folder / "model_final.pth"]:
        print(f"  {path}")


def main(argv: list[str] | None = None) -> int:
    """Run everything; returns the exit code."""
    args = parse_args(argv)
    try:
        run(args)
    except StampsUnavailableError as error:
        print(f"quickstart: {error}", file=sys.stderr)
        return 1
    except BaseException as error:
        code = exit_code(error)
        if code is None:
            raise
        tell(error, "quickstart")
        return code
    finally:
        end_log()
    return 0


def run(args: argparse.Namespace) -> None:
    """Build, train, evaluate and draw."""
    folder = Path(args.output)
    seconds = {"setup": args.setup_seconds}
    start = time.perf_counter()
    kind, splits = build_data(args)
    seconds["data"] = time.perf_counter() - start
    cfg = make_config(args, kind, splits)
    shutil.rmtree(folder, ignore_errors=True)
    begin_log()
    open_log(str(folder))
    seed_all_rng(None if cfg.SEED < 0 else cfg.SEED)
    logging.getLogger("detectron2.config").setLevel(logging.WARNING)
    trainer, seconds["train"], seconds["eval"] = train(cfg)
    # Detectron2's log has the name that the summary is to have.
    (folder / "metrics.json").rename(folder / "metrics_log.json")
    start = time.perf_counter()
    predictor = SOLOPredictor(
        cfg, model=trainer.model, confidence_threshold=0.3, device=cfg.MODEL.DEVICE
    )
    results = trainer._last_eval_results
    metrics = {task: dict(results[task]) for task in ("segm", "bbox")}
    drawn = [
        draw_curves(folder, read_log(folder, metrics)),
        *draw_images(folder, predictor, splits[1]),
        draw_video(folder, predictor, splits[1]),
    ]
    seconds["draw"] = time.perf_counter() - start
    report(folder, {**metrics, "data": kind, "seconds": seconds}, drawn)


if __name__ == "__main__":
    sys.exit(main())
