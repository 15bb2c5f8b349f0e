"""The optimizers that `SOLVER` names, in this package's trainer and in Detectron2's own."""

from __future__ import annotations

import functools
import logging
import sys
from collections.abc import Callable
from typing import Any

import torch
from detectron2.config import CfgNode
from detectron2.data import MetadataCatalog
from detectron2.solver import LRMultiplier, WarmupParamScheduler
from detectron2.solver import build as detectron2_solver
from detectron2.solver.build import get_default_optimizer_params, maybe_add_gradient_clipping
from fvcore.common.param_scheduler import (
    CompositeParamScheduler,
    ConstantParamScheduler,
    CosineParamScheduler,
)
from torch import nn
from torch.optim import Optimizer

_logger = logging.getLogger(__name__)

_OPTIMIZERS = ("SGD", "ADAMW")
_CLIP_TYPES = ("value", "norm", "full_model")


def build_optimizer(cfg: CfgNode, model: nn.Module) -> Optimizer:
    """Build the optimizer that `SOLVER.OPTIMIZER` names.

    `SOLVER.BACKBONE_MULTIPLIER` and `SOLVER.CLIP_GRADIENTS` apply to each; besides Detectron2's
    types of clipping there is "full_model", of the norm of all gradients together.

    Raises:
        ValueError: an unknown name, or a limit that is not positive.
    """
    solver, clip = cfg.SOLVER, cfg.SOLVER.CLIP_GRADIENTS
    if solver.OPTIMIZER not in _OPTIMIZERS:
        raise ValueError(f'SOLVER.OPTIMIZER must be "SGD" or "ADAMW", got {solver.OPTIMIZER!r}')
    if clip.ENABLED and clip.CLIP_TYPE not in _CLIP_TYPES:
        raise ValueError(
            f"SOLVER.CLIP_GRADIENTS.CLIP_TYPE must be one of {', '.join(_CLIP_TYPES)}, got "
            f"{clip.CLIP_TYPE!r}"
        )
    if clip.ENABLED and not clip.CLIP_VALUE > 0:
        raise ValueError(f"SOLVER.CLIP_GRADIENTS.CLIP_VALUE must be > 0, got {clip.CLIP_VALUE}")
    groups = get_default_optimizer_params(
        model,
        base_lr=solver.BASE_LR,
        weight_decay_norm=solver.WEIGHT_DECAY_NORM,
        bias_lr_factor=solver.BIAS_LR_FACTOR,
        weight_decay_bias=solver.WEIGHT_DECAY_BIAS,
    )
    if solver.BACKBONE_MULTIPLIER != 1.0:
        groups = _scale_backbone(groups, model, solver.BASE_LR, solver.BACKBONE_MULTIPLIER)
    kind: Callable[..., Optimizer] = torch.optim.AdamW
    settings = {"lr": solver.BASE_LR, "weight_decay": solver.WEIGHT_DECAY}
    if solver.OPTIMIZER == "SGD":
        kind = torch.optim.SGD
        settings.update(momentum=solver.MOMENTUM, nesterov=solver.NESTEROV)
    if clip.ENABLED and clip.CLIP_TYPE == "full_model":
        optimizer = kind(groups, **settings)
        optimizer.register_step_pre_hook(functools.partial(_clip, clip.CLIP_VALUE, clip.NORM_TYPE))
        return optimizer
    return maybe_add_gradient_clipping(cfg, kind)(groups, **settings)


def build_flat_cosine(cfg: CfgNode, optimizer: Optimizer) -> LRMultiplier:
    """Build the schedule "WarmupFlatCosineLR": warm-up, `SOLVER.BASE_LR`, then half a cosine.

    It stays at `BASE_LR` for the first `FLAT_SHARE` of the iterations, warm-up included, and falls
    to `BASE_LR_END` (0 where Detectron2 has no such key).
    """
    solver = cfg.SOLVER
    end = solver.get("BASE_LR_END", 0.0) / solver.BASE_LR
    falling = CosineParamScheduler(1.0, end)
    multiplier = falling
    if solver.FLAT_SHARE > 0:
        multiplier = CompositeParamScheduler(
            [ConstantParamScheduler(1.0), falling],
            lengths=[solver.FLAT_SHARE, 1 - solver.FLAT_SHARE],
            interval_scaling=["rescaled", "rescaled"],
        )
    warmup = min(solver.WARMUP_ITERS / solver.MAX_ITER, 1.0)
    multiplier = WarmupParamScheduler(
        multiplier, solver.WARMUP_FACTOR, warmup, solver.WARMUP_METHOD
    )
    return LRMultiplier(optimizer, multiplier=multiplier, max_iter=solver.MAX_ITER)


def below_pyramid(model: nn.Module) -> nn.Module:
    """Return the network below a model's feature pyramid; without a pyramid the whole backbone."""
    backbone = model.get_submodule("backbone")
    return getattr(backbone, "bottom_up", backbone)


def install() -> None:
    """Let Detectron2 build the same optimizer and schedules for configs of this package."""
    plain, plain_schedule = detectron2_solver.build_optimizer, detectron2_solver.build_lr_scheduler

    @functools.wraps(plain)
    def build(cfg: CfgNode, model: nn.Module) -> Optimizer:
        if "SOLO" not in cfg.MODEL or "BACKBONE_MULTIPLIER" not in cfg.SOLVER:
            return plain(cfg, model)
        _warn_of_unknown_keys(cfg)
        return build_optimizer(cfg, model)

    @functools.wraps(plain_schedule)
    def build_schedule(cfg: CfgNode, optimizer: Optimizer) -> Any:
        if "SOLO" in cfg.MODEL:
            _warn_of_warm_up(cfg)
        if cfg.SOLVER.LR_SCHEDULER_NAME == "WarmupFlatCosineLR":
            return build_flat_cosine(cfg, optimizer)
        return plain_schedule(cfg, optimizer)

    # Names are copied where they are imported, by programs, too; what comes later copies these.
    for module in list(sys.modules.values()):
        names = getattr(module, "__dict__", {})
        if names.get("build_optimizer") is plain:
            names["build_optimizer"] = build
        if names.get("build_lr_scheduler") is plain_schedule:
            names["build_lr_scheduler"] = build_schedule


def _warn_of_warm_up(cfg: CfgNode) -> None:
    """Name a warm-up that leads to the rate at its own end, where a cosine has fallen."""
    solver = cfg.SOLVER
    if "Cosine" not in solver.LR_SCHEDULER_NAME:
        return
    flat = solver.FLAT_SHARE if solver.LR_SCHEDULER_NAME == "WarmupFlatCosineLR" else 0.0
    most = int(max(flat, 0.5) * solver.MAX_ITER)
    if solver.WARMUP_ITERS > most:
        _logger.warning(
            "The learning rate never comes near SOLVER.BASE_LR %g: SOLVER.WARMUP_ITERS %d of "
            "SOLVER.MAX_ITER %d end when %s has fallen. Set %d or less",
            solver.BASE_LR,
            solver.WARMUP_ITERS,
            solver.MAX_ITER,
            solver.LR_SCHEDULER_NAME,
            most,
        )


def _warn_of_unknown_keys(cfg: CfgNode) -> None:
    """Name what Detectron2's own trainer and loader leave out without a word."""
    asked = {
        "DATASETS.TRAIN_SHARES": bool(cfg.DATASETS.TRAIN_SHARES),
        "DATALOADER.SKIP_UNREADABLE": cfg.DATALOADER.SKIP_UNREADABLE,
        "INPUT.RESIZE_FILTER": cfg.INPUT.get("RESIZE_FILTER", "pillow") != "pillow",
        "SOLVER.CHECKPOINTS_TO_KEEP": cfg.SOLVER.CHECKPOINTS_TO_KEEP,
        "SOLVER.ACCUMULATE_STEPS": cfg.SOLVER.ACCUMULATE_STEPS > 1,
        "SOLVER.TRACKERS": bool(cfg.SOLVER.TRACKERS),
        "TEST.DRAWN_IMAGES": cfg.TEST.DRAWN_IMAGES > 0,
        "VIS_PERIOD": cfg.VIS_PERIOD > 0,
        "SOLVER.EMA.ENABLED": cfg.SOLVER.EMA.ENABLED,
        "SOLVER.FREEZE_BACKBONE_ITERS": cfg.SOLVER.FREEZE_BACKBONE_ITERS > 0,
        "INPUT.LSJ.ENABLED": cfg.INPUT.LSJ.ENABLED,
        "INPUT.COPY_PASTE.ENABLED": cfg.INPUT.COPY_PASTE.ENABLED,
    }
    names = [name for name, is_asked in asked.items() if is_asked]
    if names:
        _logger.warning(
            "%s: known to solo_d2.engine.SOLOTrainer, and not to Detectron2's DefaultTrainer",
            ", ".join(names),
        )
    for name in cfg.DATASETS.TRAIN:
        classes = MetadataCatalog.get(name).get("thing_classes")
        if classes is not None and len(classes) != cfg.MODEL.SOLO.NUM_CLASSES:
            _logger.warning(
                "MODEL.SOLO.NUM_CLASSES is %d, the dataset %s has %d classes",
                cfg.MODEL.SOLO.NUM_CLASSES,
                name,
                len(classes),
            )


def _clip(limit: float, norm_type: float, optimizer: Optimizer, *_: Any) -> None:
    """Scale all gradients by one factor, so that their common norm is at most `limit`."""
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    nn.utils.clip_grad_norm_(parameters, limit, norm_type)


def _scale_backbone(
    groups: list[dict[str, Any]], model: nn.Module, base_lr: float, factor: float
) -> list[dict[str, Any]]:
    """Split parameter groups so that the network below the FPN learns `factor` times as fast."""
    inside = {id(parameter) for parameter in below_pyramid(model).parameters()}
    scaled = []
    for group in groups:
        for is_inside in (True, False):
            chosen = [p for p in group["params"] if (id(p) in inside) == is_inside]
            if chosen:
                lr = group.get("lr", base_lr) * (factor if is_inside else 1.0)
                scaled.append({**group, "params": chosen, "lr": lr})
    return scaled


install()
