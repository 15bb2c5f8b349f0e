"""What `train_net.py` does before training: arguments, datasets of the user's own, config."""

from __future__ import annotations

import argparse
import logging
import os
from collections.abc import Sequence

import torch
from detectron2.config import CfgNode
from detectron2.engine import defaults
from detectron2.utils import comm
from detectron2.utils.env import seed_all_rng

from ..checkpoint.places import public_name
from ..config import merge_overrides, resolve_device, validate_config
from ..data.arguments import register_named_data
from ..data.checks import stuff_classes, thing_classes
from ..data.records import count_training_images
from ..data.sources import JSON_FORMATS
from ..export import exported_config, is_exported
from ..io.lock import lock_folder
from ..io.plugins import import_plugins
from ..model_zoo.model_zoo import load_config
from ..modeling.meta_arch import is_panoptic
from .classes import align_datasets, align_with_weights
from .folder import (
    check_folder,
    check_new,
    check_weights,
    has_training,
    last_checkpoint,
    on_main_process,
)
from .log import begin_log, end_log, open_log
from .schedule import plan_schedule
from .trainer import check_data

_logger = logging.getLogger(__name__)

_IN_PROGRESS = ("solo_d2.engine.hooks", "solo_d2.checkpoint.checkpointer")

OWN_MORE = "own_more"
"""Name under which the dataset of --more-json is registered."""


def setup(args: argparse.Namespace) -> CfgNode:
    """Make the config of a run, check all that can be checked, and open its log.

    A training takes its folder for itself, and one that is not resumed takes none that has
    checkpoints. An evaluation in the folder of a training writes to
    ``eval`` in it.

    Args:
        args: of `argument_parser`.

    Returns:
        A frozen config.

    Raises:
        ValueError: no config, a bad key, datasets or weights that cannot be used, or a folder that
            another training writes to or has checkpoints in.
        OSError: the folder cannot be written to.

    Example:
        >>> setup(parse_arguments([]))
        Traceback (most recent call last):
            ...
        ValueError: --config-file is missing; configs/README.md lists the configs
    """
    begin_log()
    try:
        cfg = _make_config(args)
        check_weights(cfg, resume=args.resume and not args.eval_only)
        on_main_process(lambda: _take_folder(cfg, args))
        open_log(cfg.OUTPUT_DIR, comm.get_rank(), _hidden(args))
    except BaseException:
        end_log()
        raise
    _log_start(cfg, args)
    seed_all_rng(None if cfg.SEED < 0 else cfg.SEED + comm.get_rank())
    if not args.eval_only:
        torch.backends.cudnn.benchmark = cfg.CUDNN_BENCHMARK
    return cfg


def _read_config(args: argparse.Namespace) -> CfgNode:
    """Read the config, with the weights that are asked for."""
    exported = args.eval_only and is_exported(args.weights)
    if not args.config_file and not exported:
        raise ValueError("--config-file is missing; configs/README.md lists the configs")
    import_plugins(args.imports)
    source = args.config_file or exported_config(args.weights)
    cfg = load_config(source, args.opts, trained=args.weights == "published")
    if args.weights not in (None, "published", "backbone"):
        cfg.MODEL.WEIGHTS = args.weights
    on_main_process(lambda: check_folder(cfg.OUTPUT_DIR))
    if args.eval_only and args.resume:
        cfg.MODEL.WEIGHTS = last_checkpoint(cfg.OUTPUT_DIR)
    return cfg


def _make_config(args: argparse.Namespace) -> CfgNode:
    """Read the config, register the datasets, and bring both together."""
    cfg = _read_config(args)
    panoptic = is_panoptic(cfg)
    own = register_named_data(args, panoptic=panoptic)
    if own:
        use_data(cfg, own, fixed="MODEL.SOLO.NUM_CLASSES" in args.opts[::2])
    if own and panoptic:
        fixed = "MODEL.SEM_SEG_HEAD.NUM_CLASSES" in args.opts[::2]
        use_stuff(cfg, next(iter(own.values())), fixed=fixed)
    if args.more_json or args.more_images:
        add_training_data(cfg, args.more_json, args.more_images)
    if args.epochs is not None or args.batch_size is not None:
        _use_schedule(cfg, args)
    device = choose_device(cfg, args.opts)
    if (cfg.MODEL.DEVICE, device) == ("cuda", "cpu"):
        _logger.warning("There is no CUDA device here; running on the CPU.")
    cfg.MODEL.DEVICE = device
    validate_config(cfg, processes=None if args.eval_only else comm.get_world_size())
    if args.eval_only and has_training(cfg.OUTPUT_DIR):
        cfg.OUTPUT_DIR = os.path.join(cfg.OUTPUT_DIR, "eval")
        _logger.info("The folder has a training; the evaluation writes to %s", cfg.OUTPUT_DIR)
    cfg.freeze()
    _check_data(cfg, args.eval_only)
    return cfg


def choose_device(cfg: CfgNode, overrides: Sequence[str]) -> str:
    """Return the device of a run: the CPU where CUDA is the config's wish alone and not there.

    Args:
        cfg: with all overrides.
        overrides: KEY VALUE pairs of the command line.

    Raises:
        ValueError: The device does not exist.
    """
    wished = cfg.MODEL.DEVICE == "cuda" and "MODEL.DEVICE" not in overrides[::2]
    return str(resolve_device("auto" if wished else cfg.MODEL.DEVICE))


def _check_data(cfg: CfgNode, eval_only: bool) -> None:
    if eval_only and not cfg.DATASETS.TEST:
        raise ValueError(
            "--eval-only needs a dataset: --val-json and --val-images, or --data, or DATASETS.TEST"
        )
    if not eval_only and not cfg.DATASETS.TRAIN:
        raise ValueError(
            "no data to train on: --data, or --train-json and --train-images, or DATASETS.TRAIN"
        )
    check_data(cfg, [*(() if eval_only else cfg.DATASETS.TRAIN), *cfg.DATASETS.TEST])


def _take_folder(cfg: CfgNode, args: argparse.Namespace) -> None:
    """Make the folder of a run; that of a training is empty or its own, and locked."""
    if not (args.eval_only or args.resume):
        check_new(cfg.OUTPUT_DIR)
    os.makedirs(cfg.OUTPUT_DIR, exist_ok=True)
    if not args.eval_only:
        lock_folder(cfg.OUTPUT_DIR)


def _hidden(args: argparse.Namespace) -> Sequence[str] | None:
    """What the console does not show of this package; None for a console like Detectron2's.

    The progress of a training has a line for what is hidden here.
    """
    if args.verbose:
        return None
    return () if args.eval_only else ("solo_d2.evaluation", *_IN_PROGRESS)


def _log_start(cfg: CfgNode, args: argparse.Namespace) -> None:
    """Note who runs what where; the long texts go to the file alone."""
    weights = public_name(cfg.MODEL.WEIGHTS) if cfg.MODEL.WEIGHTS else "random"
    _logger.info("Weights: %s; device: %s; folder: %s", weights, cfg.MODEL.DEVICE, cfg.OUTPUT_DIR)
    _logger.debug("Process %d of %d, %s", comm.get_rank(), comm.get_world_size(), args)
    _logger.debug("Environment:\n%s", defaults.collect_env_info())
    _logger.debug("Config:\n%s", cfg.dump())


def _use_schedule(cfg: CfgNode, args: argparse.Namespace) -> None:
    """Write the schedule of --epochs and --batch-size into a config; its own keys come first."""
    if args.epochs is None:
        raise ValueError("--batch-size needs --epochs; otherwise set SOLVER.IMS_PER_BATCH")
    if not cfg.DATASETS.TRAIN:
        raise ValueError("--epochs needs data to train on, such as --data or --train-json")
    filter_empty = cfg.DATALOADER.FILTER_EMPTY_ANNOTATIONS
    images = 0
    for name in cfg.DATASETS.TRAIN:
        thing_classes(name)  # raises where it is not registered
        images += count_training_images(name, filter_empty=filter_empty)
    plan = plan_schedule(cfg, images, args.epochs, args.batch_size)
    plan.apply(cfg)
    merge_overrides(cfg, args.opts)
    _logger.info("%s", plan)


def use_data(cfg: CfgNode, names: dict[str, str], *, fixed: bool = False) -> None:
    """Point a config to registered datasets and give the model their number of classes.

    Args:
        cfg: changed in place.
        names: dataset for "TRAIN" and "TEST"; a missing one is left out of the run.
        fixed: the number of classes was asked for and must not change.

    Raises:
        ValueError: `fixed`, and the number is another one.

    Example:
        >>> from solo_d2.testing import tiny_config, tiny_dataset
        >>> cfg = tiny_config()
        >>> use_data(cfg, {"TRAIN": tiny_dataset()})
        >>> cfg.DATASETS.TRAIN, cfg.MODEL.SOLO.NUM_CLASSES
        (('solo_d2_tiny',), 3)
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
            f"MODEL.SOLO.NUM_CLASSES is {cfg.MODEL.SOLO.NUM_CLASSES}, the dataset has "
            f"{len(classes)} classes: {', '.join(classes[:8])}; leave the key out"
        )
    cfg.MODEL.SOLO.NUM_CLASSES = len(classes)


def use_stuff(cfg: CfgNode, name: str, *, fixed: bool = False) -> None:
    """Give the semantic branch the number of classes of a registered dataset.

    Args:
        cfg: changed in place.
        name: of the dataset.
        fixed: the number was asked for and must not change.

    Raises:
        ValueError: `fixed`, and the number is another one; or the dataset has no stuff.
    """
    classes = stuff_classes(name)
    node = cfg.MODEL.SEM_SEG_HEAD
    if fixed and node.NUM_CLASSES != len(classes):
        raise ValueError(
            f"MODEL.SEM_SEG_HEAD.NUM_CLASSES is {node.NUM_CLASSES}, the dataset has "
            f"{len(classes) - 1} stuff classes, and one counts for things; leave the key out"
        )
    node.NUM_CLASSES = len(classes)


def add_training_data(cfg: CfgNode, json_file: str | None, images: str | None) -> None:
    """Register a COCO-format dataset and train on it, too.

    Args:
        cfg: changed in place.
        json_file: the annotations; masks, or mattes where they name them.
        images: folder of the images.

    Raises:
        ValueError: one of both is missing, a panoptic model, or files that cannot be used.
    """
    if not (json_file and images):
        raise ValueError("--more-json and --more-images go together; one is missing")
    if is_panoptic(cfg):
        raise ValueError(
            "--more-json has no stuff, from which a panoptic model learns; leave it out"
        )
    JSON_FORMATS["coco"](OWN_MORE, json_file, images)
    cfg.DATASETS.TRAIN = (*cfg.DATASETS.TRAIN, OWN_MORE)
