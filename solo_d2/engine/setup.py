"""What `train_net.py` does before training: arguments, data sets of the user's own, config."""

from __future__ import annotations

import argparse
import functools
import logging
import os
import sys
from collections.abc import Callable, Sequence

import torch
from detectron2.config import CfgNode
from detectron2.engine import default_argument_parser, defaults
from detectron2.utils import comm
from detectron2.utils.env import seed_all_rng

from ..config import resolve_device, split_overrides, validate_config
from ..data.checks import thing_classes
from ..data.datasets.cityscapes import register_cityscapes
from ..data.datasets.coco_json import register_coco_json
from ..data.datasets.lvis import register_lvis_json
from ..data.scenes.register import register_built
from ..io.lock import lock_folder
from ..model_zoo.model_zoo import load_config
from ..modeling.meta_arch import is_panoptic
from .classes import align_datasets, align_with_weights
from .folder import check_folder, check_weights, has_training, on_main_process
from .log import begin_log, end_log, open_log
from .panoptic_setup import (
    add_panoptic_arguments,
    names_panoptic_data,
    register_panoptic_data,
    use_stuff,
)

_logger = logging.getLogger(__name__)

OWN_TRAIN, OWN_VAL = "own_train", "own_val"
"""Names under which the sets of --train-json and --val-json are registered."""

OWN_MORE = "own_more"
"""Name under which the set of --more-json is registered."""

_JSON_FORMATS: dict[str, Callable[[str, str, str], list[str]]] = {
    "coco": register_coco_json,
    "lvis": register_lvis_json,
    "matting": functools.partial(register_coco_json, matting=True),
}


def argument_parser() -> argparse.ArgumentParser:
    """Detectron2's arguments, and those for a COCO-format data set of one's own."""
    parser = default_argument_parser()
    parser.description = "Train or evaluate a model of the SOLO family."
    parser.add_argument(
        "--allow-partial",
        action="store_true",
        help="load what fits of MODEL.WEIGHTS, and log what is left random",
    )
    own = parser.add_argument_group(
        "your own data", "COCO-format files; class count and names are taken from them"
    )
    own.add_argument("--train-json", metavar="FILE", help="annotations for training")
    own.add_argument("--train-images", metavar="DIR", help="folder of the training images")
    own.add_argument("--val-json", metavar="FILE", help="annotations for evaluation")
    own.add_argument("--val-images", metavar="DIR", help="folder of the evaluation images")
    own.add_argument("--stamps", metavar="DIR", help="a stamps dataset of solo_d2.data.scenes")
    own.add_argument("--shapes", metavar="DIR", help="a shapes dataset of solo_d2.data.scenes")
    own.add_argument("--cityscapes", metavar="DIR", help="folder with leftImg8bit and gtFine")
    own.add_argument(
        "--matting",
        metavar="DIR",
        help="an rgba or stamps dataset of solo_d2.data.scenes; evaluates mattes, too",
    )
    own.add_argument(
        "--more-json",
        metavar="FILE",
        help="COCO annotations to train on besides (see DATASETS.TRAIN_SHARES)",
    )
    own.add_argument("--more-images", metavar="DIR", help="folder of their images")
    add_panoptic_arguments(own)
    own.add_argument(
        "--data-format",
        choices=sorted(_JSON_FORMATS),
        default="coco",
        help="format of --train-json and --val-json (default: coco)",
    )
    return parser


def parse_arguments(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse a command line in which KEY VALUE pairs may stand between and behind options.

    Args:
        argv: the command line without the program; by default that of this process.

    Returns:
        The arguments of `argument_parser`; `opts` has all pairs.
    """
    parser = argument_parser()
    try:
        arguments, overrides = split_overrides(sys.argv[1:] if argv is None else argv)
    except ValueError as error:
        parser.error(str(error))
    args = parser.parse_args(arguments)
    args.opts = [*args.opts, *overrides]
    return args


def setup(args: argparse.Namespace) -> CfgNode:
    """Make the config of a run, check all that can be checked, and open its log.

    A training takes its folder for itself. An evaluation in the folder of a training writes to
    ``eval`` in it.

    Args:
        args: of `argument_parser`.

    Returns:
        A frozen config.

    Raises:
        ValueError: no config, a bad key, data sets or weights that cannot be used, or a folder that
            another training writes to.
        OSError: the folder cannot be written to.
    """
    begin_log()
    try:
        cfg = _make_config(args)
        check_weights(cfg, resume=args.resume and not args.eval_only)
        on_main_process(lambda: _take_folder(cfg, lock=not args.eval_only))
        open_log(cfg.OUTPUT_DIR, comm.get_rank())
    except BaseException:
        end_log()
        raise
    _log_start(cfg, args)
    seed_all_rng(None if cfg.SEED < 0 else cfg.SEED + comm.get_rank())
    if not args.eval_only:
        torch.backends.cudnn.benchmark = cfg.CUDNN_BENCHMARK
    return cfg


def _make_config(args: argparse.Namespace) -> CfgNode:
    """Read the config, register the data sets, and bring both together."""
    if not args.config_file:
        raise ValueError("--config-file is missing; configs/README.md lists the configs")
    cfg = load_config(args.config_file, args.opts)
    on_main_process(lambda: check_folder(cfg.OUTPUT_DIR))
    panoptic = is_panoptic(cfg)
    if names_panoptic_data(args) and not panoptic:
        raise ValueError(
            f"--train-panoptic-json and the like need a panoptic config; {args.config_file} has "
            f"MODEL.META_ARCHITECTURE {cfg.MODEL.META_ARCHITECTURE}"
        )
    if args.data_format != "coco" and (panoptic or not (args.train_json or args.val_json)):
        raise ValueError(
            f"--data-format {args.data_format} is that of --train-json and --val-json of a model "
            "for instances; leave it out"
        )
    own = register_panoptic_data(args) if panoptic else register_own_data(args)
    if own:
        use_data(cfg, own, fixed="MODEL.SOLO.NUM_CLASSES" in args.opts[::2])
    if own and panoptic:
        fixed = "MODEL.SEM_SEG_HEAD.NUM_CLASSES" in args.opts[::2]
        use_stuff(cfg, next(iter(own.values())), fixed=fixed)
    if args.more_json or args.more_images:
        add_training_data(cfg, args.more_json, args.more_images)
    if cfg.MODEL.DEVICE == "cuda" and not torch.cuda.is_available():
        if "MODEL.DEVICE" not in args.opts[::2]:
            cfg.MODEL.DEVICE = "cpu"
            _logger.warning("There is no CUDA device here; running on the CPU.")
    cfg.MODEL.DEVICE = str(resolve_device(cfg.MODEL.DEVICE))
    validate_config(cfg, processes=None if args.eval_only else comm.get_world_size())
    if args.eval_only and has_training(cfg.OUTPUT_DIR):
        cfg.OUTPUT_DIR = os.path.join(cfg.OUTPUT_DIR, "eval")
        _logger.info("The folder has a training; the evaluation writes to %s", cfg.OUTPUT_DIR)
    cfg.freeze()
    return cfg


def _take_folder(cfg: CfgNode, lock: bool) -> None:
    os.makedirs(cfg.OUTPUT_DIR, exist_ok=True)
    if lock:
        lock_folder(cfg.OUTPUT_DIR)


def _log_start(cfg: CfgNode, args: argparse.Namespace) -> None:
    """Note who runs what where; the long texts go to the file alone."""
    _logger.info("Process %d of %d, %s", comm.get_rank(), comm.get_world_size(), args)
    _logger.debug("Environment:\n%s", defaults.collect_env_info())
    _logger.debug("Config:\n%s", cfg.dump())


def register_own_data(args: argparse.Namespace) -> dict[str, str]:
    """Register the data sets that the command line names.

    Every process registers for itself, since Detectron2's catalogues are per process.

    Returns:
        Names of the data sets for "TRAIN" and "TEST", as far as given.

    Raises:
        ValueError: half of a pair is missing, two kinds at once, or a file cannot be used.
    """
    given = [kind for kind in ("stamps", "shapes", "cityscapes", "matting") if getattr(args, kind)]
    json_files = {"TRAIN": args.train_json, "TEST": args.val_json}
    if len(given) + any(json_files.values()) > 1:
        raise ValueError(
            "name one data set: --stamps, --shapes, --cityscapes, --matting, or --train-json and "
            "--val-json"
        )
    if args.cityscapes:
        # Reading the large training set takes minutes.
        splits = {"TEST": "val"} if args.eval_only else {"TRAIN": "train", "TEST": "val"}
        registered = register_cityscapes(args.cityscapes, tuple(splits.values()))
        return dict(zip(splits, registered, strict=True))
    if given:
        (prefix,) = given
        matting = prefix == "matting"
        train, val = register_built(
            getattr(args, prefix), prefix, kind="rgba" if matting else prefix, matting=matting
        )
        return {"TRAIN": train, "TEST": val}
    names = {}
    for key, flag, name, images in (
        ("TRAIN", "train", OWN_TRAIN, args.train_images),
        ("TEST", "val", OWN_VAL, args.val_images),
    ):
        file = json_files[key]
        if bool(file) != bool(images):
            raise ValueError(f"--{flag}-json and --{flag}-images go together; one is missing")
        if file:
            _JSON_FORMATS[args.data_format](name, file, images)
            names[key] = name
    return names


def use_data(cfg: CfgNode, names: dict[str, str], *, fixed: bool = False) -> None:
    """Point a config to registered data sets and give the model their number of classes.

    Args:
        cfg: changed in place.
        names: data set for "TRAIN" and "TEST"; a missing one is left out of the run.
        fixed: the number of classes was asked for and must not change.

    Raises:
        ValueError: `fixed`, and the number is another one.
    """
    cfg.DATASETS.TRAIN = (names["TRAIN"],) if "TRAIN" in names else ()
    cfg.DATASETS.TEST = (names["TEST"],) if "TEST" in names else ()
    if not cfg.DATASETS.TRAIN:
        align_with_weights(names["TEST"], cfg.MODEL.WEIGHTS)
    else:
        align_datasets(cfg)
    classes = thing_classes(next(iter(names.values()))) or []
    if fixed and cfg.MODEL.SOLO.NUM_CLASSES != len(classes):
        raise ValueError(
            f"MODEL.SOLO.NUM_CLASSES is {cfg.MODEL.SOLO.NUM_CLASSES}, the data set has "
            f"{len(classes)} classes: {', '.join(classes[:8])}; leave the key out"
        )
    cfg.MODEL.SOLO.NUM_CLASSES = len(classes)


def add_training_data(cfg: CfgNode, json_file: str | None, images: str | None) -> None:
    """Register a COCO-format data set and train on it, too.

    Args:
        cfg: changed in place.
        json_file: the annotations; masks, or mattes where they name them.
        images: folder of the pictures.

    Raises:
        ValueError: one of both is missing, a panoptic model, or files that cannot be used.
    """
    if not (json_file and images):
        raise ValueError("--more-json and --more-images go together; one is missing")
    if is_panoptic(cfg):
        raise ValueError(
            "--more-json has no stuff, from which a panoptic model learns; leave it out"
        )
    register_coco_json(OWN_MORE, json_file, images)
    cfg.DATASETS.TRAIN = (*cfg.DATASETS.TRAIN, OWN_MORE)
