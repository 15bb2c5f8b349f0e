"""Train a SOLO model and Detectron2's Mask R-CNN alike, and compare them.

    python -m solo_d2 scenes stamps --output datasets/stamps
    python benchmarks/against.py --data datasets/stamps --steps 1000 --seeds 3
    python benchmarks/against.py --data datasets/stamps --seconds 90 --amp SOLVER.IMS_PER_BATCH 16

Both have the backbone, FPN, images, augmentation, optimizer, schedule and evaluator of --config,
and the same order of images for each seed. Mask R-CNN's own parts are those of Detectron2's
mask_rcnn_R_50_FPN config, with anchors in proportion to the images. With --seconds, a short pilot
of each model finds the number of its steps. Writes against.json and against.md to --output after
every run; the log is in log.txt. On a GPU let more than the config's one process read images:
DATALOADER.NUM_WORKERS 8. Exit code 2: a wrong argument; 1: a run failed.
"""

from __future__ import annotations

import argparse
import json
import shlex
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path

import torch
from _against_report import Run, markdown
from _runs import log_to
from _training import train, with_steps
from detectron2 import model_zoo as detectron2_zoo
from detectron2.config import CfgNode
from tqdm import tqdm

from solo_d2 import model_zoo
from solo_d2.config import validate_config
from solo_d2.config.merging import merge_overrides
from solo_d2.data.sources import SPLITS, register_folder
from solo_d2.engine import use_data
from solo_d2.inference.cli import split_overrides

RIVAL_CONFIG = "COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_1x.yaml"
RIVAL_NODES = ("ANCHOR_GENERATOR", "RPN", "ROI_HEADS", "ROI_BOX_HEAD", "ROI_MASK_HEAD")
FULL_SIZE = 800  # short side of the images that its anchors are for
PILOT = 40  # steps that are timed for --seconds


def make_parser() -> argparse.ArgumentParser:
    """Make the parser of all options except the trailing config overrides."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        usage="%(prog)s --data DIR (--steps N | --seconds S) [options] [KEY VALUE ...]",
        epilog="KEY VALUE ... override --config for both, such as SOLVER.IMS_PER_BATCH 16",
    )
    add = parser.add_argument
    add("--data", required=True, metavar="[KIND:]DIR", help="training and validation (stamps:)")
    length = parser.add_mutually_exclusive_group(required=True)
    length.add_argument("--steps", type=int, metavar="N", help="train both for N steps")
    length.add_argument("--seconds", type=float, metavar="S", help="train both for about S seconds")
    add("--seeds", type=int, default=1, metavar="K", help="runs of each model (default: 1)")
    add("--config", default="Stamps/solov2_lite0.yaml", help="of SOLO (Stamps/solov2_lite0.yaml)")
    add("--fpn-width", type=int, metavar="C", help="channels of both FPNs (default: the config's)")
    add("--solo", default="", metavar='"KEY VALUE ..."', help="overrides for SOLO alone")
    add("--mask-rcnn", default="", metavar='"KEY VALUE ..."', help="overrides for Mask R-CNN alone")
    add("--amp", action="store_true", help="train in mixed precision")
    add("--device", default="cuda" if torch.cuda.is_available() else "cpu", help="cpu, cuda, ...")
    add("--output", type=Path, default=Path("output/against"), metavar="DIR")
    return parser


def make_configs(args: argparse.Namespace, overrides: Sequence[str]) -> dict[str, CfgNode]:
    """Check the arguments, register the dataset and make the config of either model.

    Raises:
        ValueError: a wrong argument or override, or an unusable dataset.
    """
    for name in ("steps", "seconds", "seeds", "fpn_width"):
        value = getattr(args, name)
        if value is not None and value <= 0:
            raise ValueError(f"--{name.replace('_', '-')} must be above 0, got {value}")
    cfg = model_zoo.get_config(args.config)
    merge_overrides(cfg, overrides)
    kind, _, folder = args.data.rpartition(":")
    names = register_folder(kind or "stamps", folder, SPLITS)
    use_data(cfg, {"TRAIN": names["train"], "TEST": names["val"]})
    cfg.MODEL.DEVICE, cfg.SOLVER.AMP.ENABLED = args.device, args.amp
    cfg.MODEL.FPN.OUT_CHANNELS = args.fpn_width or cfg.MODEL.FPN.OUT_CHANNELS
    cfg.TEST.BOUNDARY_AP, cfg.TEST.EVAL_PERIOD = True, 0  # evaluated once, after training
    cfg.SOLVER.CHECKPOINT_PERIOD = 10**9  # the last one is always written
    configs = {"SOLO": cfg, "Mask R-CNN": mask_rcnn(cfg)}
    for one, text in zip(configs.values(), (args.solo, args.mask_rcnn), strict=True):
        merge_overrides(one, shlex.split(text))
        validate_config(with_steps(one, args.steps or PILOT), processes=1)
    return configs


def mask_rcnn(cfg: CfgNode) -> CfgNode:
    """Return a SOLO config with Detectron2's Mask R-CNN in place of the head."""
    cfg = cfg.clone()
    own = detectron2_zoo.get_config(RIVAL_CONFIG).MODEL
    cfg.MODEL.META_ARCHITECTURE = "GeneralizedRCNN"
    for name in RIVAL_NODES:
        cfg.MODEL[name] = own[name].clone()
    cfg.MODEL.ROI_HEADS.NUM_CLASSES = cfg.MODEL.SOLO.NUM_CLASSES
    ratio = cfg.INPUT.MIN_SIZE_TEST / FULL_SIZE
    cfg.MODEL.ANCHOR_GENERATOR.SIZES = [
        [max(1, round(size * ratio)) for size in sizes] for sizes in own.ANCHOR_GENERATOR.SIZES
    ]
    return cfg


def find_steps(cfg: CfgNode, name: str, seconds: float, folder: Path) -> int:
    """Return how many steps of a model take so long, by a pilot."""
    cfg = with_steps(cfg, PILOT)
    cfg.DATASETS.TEST = ()
    speed = train(cfg, name, 0, folder).train_speed / cfg.SOLVER.IMS_PER_BATCH
    return max(1, round(seconds * speed))


def compare(
    args: argparse.Namespace, configs: dict[str, CfgNode], tell: Callable[[str], None]
) -> None:
    """Train both models with every seed; the report is written after each run."""
    args.output.mkdir(parents=True, exist_ok=True)
    log_to(args.output / "log.txt")
    scheduled = {}
    for name, cfg in configs.items():
        steps = args.steps
        if steps is None:
            steps = find_steps(cfg, name, args.seconds, folder_of(args, name, "pilot"))
            tell(f"{name}: {steps} steps for {args.seconds:g} s")
        scheduled[name] = with_steps(cfg, steps)
    runs: list[Run] = []
    for seed in range(args.seeds):
        for name, cfg in scheduled.items():
            runs.append(train(cfg, name, seed, folder_of(args, name, seed)))
            ap = runs[-1].metrics["AP"]
            tell(f"{name}, seed {seed}: AP {ap:.2f} after {runs[-1].seconds:.0f} s")
            write_report(args, scheduled, runs)


def folder_of(args: argparse.Namespace, name: str, run: int | str) -> Path:
    """Return the folder of a run, such as ``mask_rcnn_0``."""
    return args.output / f"{name.lower().replace(' ', '_').replace('-', '')}_{run}"


def write_report(args: argparse.Namespace, configs: dict[str, CfgNode], runs: list[Run]) -> None:
    """Write against.json and against.md."""
    device = args.device
    if torch.device(device).type == "cuda":
        device = torch.cuda.get_device_name(device)
    conditions = {
        "data": args.data,
        "device": device,
        "torch": torch.__version__,
        "configs": {name: cfg.dump() for name, cfg in configs.items()},
    }
    record = {**conditions, "runs": [asdict(run) for run in runs]}
    (args.output / "against.json").write_text(json.dumps(record, indent=1), encoding="utf-8")
    first, second = configs
    text = markdown(runs, (first, second))
    (args.output / "against.md").write_text(text, encoding="utf-8")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    try:
        arguments, overrides = split_overrides(sys.argv[1:] if argv is None else argv)
        args = make_parser().parse_args(arguments)
        configs = make_configs(args, overrides)
        compare(args, configs, tqdm.write)
    except ValueError as error:
        print(f"against.py: {error}", file=sys.stderr)
        return 2
    except (OSError, FloatingPointError) as error:
        print(f"against.py: {' '.join(str(error).split())}", file=sys.stderr)
        return 1
    print((args.output / "against.md").read_text(encoding="utf-8"))
    return 0


if __name__ == "__main__":
    sys.exit(main())
