"""Keys that must fit together, of Detectron2's parts of a config."""

from __future__ import annotations

from collections.abc import Callable

from detectron2.config import CfgNode, get_cfg

from .rules import integer, shorten

OWN_ARCHITECTURES = ("SOLO", "PanopticSOLO", "SoftSOLO")
"""This package's values of `MODEL.META_ARCHITECTURE`; classes derived from them may read more."""


def _check_schedule(cfg: CfgNode) -> None:
    solver = cfg.SOLVER
    if solver.LR_SCHEDULER_NAME == "WarmupMultiStepLR":
        steps = list(solver.STEPS)
        if steps != sorted(set(steps)) or solver.MAX_ITER in steps:
            raise ValueError(
                "SOLVER.STEPS must be increasing iterations other than SOLVER.MAX_ITER "
                f"{solver.MAX_ITER}, got {shorten(solver.STEPS)}"
            )
    if solver.NESTEROV and solver.MOMENTUM == 0:
        raise ValueError("SOLVER.NESTEROV is True, which needs SOLVER.MOMENTUM > 0, got 0")
    workers = solver.REFERENCE_WORLD_SIZE
    if workers and solver.IMS_PER_BATCH % workers:
        raise ValueError(
            f"SOLVER.IMS_PER_BATCH must be a multiple of SOLVER.REFERENCE_WORLD_SIZE {workers}, "
            f"got {solver.IMS_PER_BATCH}"
        )


def _check_sizes(cfg: CfgNode) -> None:
    sizes = cfg.INPUT.MIN_SIZE_TRAIN
    if cfg.INPUT.MIN_SIZE_TRAIN_SAMPLING == "range" and not isinstance(sizes, int):
        if len(sizes) != 2 or not 1 <= sizes[0] <= sizes[1]:
            raise ValueError(
                "INPUT.MIN_SIZE_TRAIN must be (smallest, largest), both >= 1, with "
                f"INPUT.MIN_SIZE_TRAIN_SAMPLING range, got {shorten(sizes)}"
            )
    aug = cfg.TEST.AUG
    if aug.ENABLED and (len(set(aug.MIN_SIZES)) < len(aug.MIN_SIZES)):
        raise ValueError(f"TEST.AUG.MIN_SIZES names a size twice: {shorten(aug.MIN_SIZES)}")
    if aug.ENABLED and aug.MAX_SIZE < max(aug.MIN_SIZES):
        raise ValueError(
            f"TEST.AUG.MAX_SIZE must be >= {max(aug.MIN_SIZES)}, the largest of "
            f"TEST.AUG.MIN_SIZES, got {aug.MAX_SIZE}"
        )


def _check_tiles(cfg: CfgNode) -> None:
    tiles = cfg.TEST.get("TILES")  # None: a config of Detectron2's keys alone
    if tiles is None or not tiles.ENABLED:
        return
    if cfg.TEST.AUG.ENABLED:
        raise ValueError("TEST.TILES and TEST.AUG are both enabled; leave one of them disabled")
    if not tiles.SIZE and not cfg.INPUT.MIN_SIZE_TEST:
        raise ValueError("TEST.TILES.SIZE must be >= 1 with INPUT.MIN_SIZE_TEST 0, got 0")


def _check_crop(cfg: CfgNode) -> None:
    crop = cfg.INPUT.CROP
    if not crop.ENABLED:
        return
    if crop.TYPE.startswith("relative"):
        valid, allowed = max(crop.SIZE) <= 1, "two numbers in (0, 1]"
    else:
        valid, allowed = all(map(integer(1).accepts, crop.SIZE)), "two integers >= 1"
        if crop.TYPE == "absolute_range":
            valid, allowed = valid and crop.SIZE[0] <= crop.SIZE[1], f"{allowed}, the larger last"
    if not valid:
        raise ValueError(
            f"INPUT.CROP.SIZE must be {allowed} with INPUT.CROP.TYPE {crop.TYPE}, "
            f"got {shorten(crop.SIZE)}"
        )


def _check_recipe(cfg: CfgNode) -> None:
    if "LSJ" not in cfg.INPUT:  # a config of Detectron2's keys alone
        return
    jitter, paste = cfg.INPUT.LSJ, cfg.INPUT.COPY_PASTE
    if jitter.ENABLED and cfg.INPUT.CROP.ENABLED:
        raise ValueError("INPUT.LSJ and INPUT.CROP both crop; leave one of them disabled")
    ranges = {
        "INPUT.LSJ.MIN_SCALE and MAX_SCALE": (jitter.MIN_SCALE, jitter.MAX_SCALE),
        "INPUT.COPY_PASTE.NUM_OBJECTS": paste.NUM_OBJECTS,
        "INPUT.COPY_PASTE.SCALES": paste.SCALES,
    }
    for key, (low, high) in ranges.items():
        if low > high:
            raise ValueError(f"{key} must be (smallest, largest), got {low} and {high}")


def _check_classes(cfg: CfgNode) -> None:
    """The number of classes stands at another key for Detectron2's own models."""
    if cfg.MODEL.META_ARCHITECTURE not in OWN_ARCHITECTURES:
        return
    own, theirs = cfg.MODEL.SOLO.NUM_CLASSES, cfg.MODEL.ROI_HEADS.NUM_CLASSES
    if theirs not in (own, get_cfg().MODEL.ROI_HEADS.NUM_CLASSES):
        raise ValueError(
            f"MODEL.ROI_HEADS.NUM_CLASSES is {theirs}, but {cfg.MODEL.META_ARCHITECTURE} has no "
            f"use for it; set MODEL.SOLO.NUM_CLASSES, which is {own}"
        )


def _check_batch(cfg: CfgNode, processes: int) -> None:
    solver = cfg.SOLVER
    batch, steps = solver.IMS_PER_BATCH, solver.get("ACCUMULATE_STEPS", 1)
    processes = solver.REFERENCE_WORLD_SIZE or processes
    if batch % (processes * steps):
        parts = f"the {processes} processes" + (
            f" times SOLVER.ACCUMULATE_STEPS {steps}" if steps > 1 else ""
        )
        below = batch - batch % (processes * steps)
        near = [x for x in (below, below + processes * steps) if x]
        raise ValueError(
            f"SOLVER.IMS_PER_BATCH must be a multiple of {parts}, such as "
            f"{' or '.join(map(str, near))}, got {batch}"
        )


def _check_shares(cfg: CfgNode, processes: int) -> None:  # noqa: ARG001 - one kind of function
    shares, names = cfg.DATASETS.TRAIN_SHARES, cfg.DATASETS.TRAIN
    if not shares:
        return
    if len(shares) != len(names) or sum(shares) <= 0:
        raise ValueError(
            f"DATASETS.TRAIN_SHARES needs a number >= 0 for each of the {len(names)} datasets of "
            f"DATASETS.TRAIN, and one above 0; got {shorten(list(shares))}"
        )
    if cfg.DATALOADER.SAMPLER_TRAIN != "TrainingSampler":
        raise ValueError(
            "DATASETS.TRAIN_SHARES says how often images are drawn, and so does "
            f"DATALOADER.SAMPLER_TRAIN {cfg.DATALOADER.SAMPLER_TRAIN!r}; leave one of them out"
        )


def _check_sync_norm(cfg: CfgNode, processes: int) -> None:
    if processes == 1 or not str(cfg.MODEL.DEVICE).startswith("cpu"):
        return
    for node in ("RESNETS", "FPN", "SOLO", "SEM_SEG_HEAD"):
        norm = cfg.MODEL[node].NORM
        if norm in ("SyncBN", "nnSyncBN"):
            raise ValueError(
                f"MODEL.{node}.NORM must be another one for several processes on the CPU, such as "
                f"GN or naiveSyncBN, got {norm!r}"
            )


COMBINATIONS: tuple[Callable[[CfgNode], None], ...] = (
    *(_check_schedule, _check_sizes, _check_tiles, _check_crop, _check_recipe, _check_classes),
)
"""Raise a `ValueError` for a config that cannot run."""

TRAINING_COMBINATIONS: tuple[Callable[[CfgNode, int], None], ...] = (
    *(_check_batch, _check_shares, _check_sync_norm),
)
"""Raise a `ValueError` for a training with so many processes that cannot start."""
