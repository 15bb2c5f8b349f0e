"""Validate a whole config: every value, choices and the keys they use, and combinations."""

from __future__ import annotations

from collections.abc import Iterable

from detectron2.config import CfgNode

from .combinations import COMBINATIONS, OWN_ARCHITECTURES, TRAINING_COMBINATIONS
from .rules import choice, like
from .unused import Choice, default_values, get, leaves
from .values import LR_SCHEDULERS, RULES

_GENERAL = (
    *("DATALOADER", "DATASETS", "INPUT", "SOLVER", "TEST", "OUTPUT_DIR", "SEED", "VIS_PERIOD"),
    *("CUDNN_BENCHMARK", "FLOAT32_PRECISION", "MODEL.DEVICE", "MODEL.WEIGHTS"),
)
"""Keys and nodes that every run reads, whatever the model."""

_CHOICES = (
    Choice(
        "MODEL.META_ARCHITECTURE",
        lambda: {
            **dict.fromkeys(OWN_ARCHITECTURES, ()),
            "GeneralizedRCNN": (
                "MODEL.LOAD_PROPOSALS",
                "MODEL.KEYPOINT_ON",
                "MODEL.PANOPTIC_FPN.INSTANCE_LOSS_WEIGHT",
            ),
        },
    ),
    Choice(
        "SOLVER.OPTIMIZER",
        lambda: {"SGD": ("SOLVER.MOMENTUM", "SOLVER.NESTEROV"), "ADAMW": ()},
    ),
    Choice(
        "SOLVER.LR_SCHEDULER_NAME",
        lambda: {
            **dict.fromkeys(LR_SCHEDULERS, ()),
            "WarmupFlatCosineLR": ("SOLVER.FLAT_SHARE",),
        },
    ),
    Choice(
        "SOLVER.CLIP_GRADIENTS.CLIP_TYPE",
        lambda: {
            "norm": ("SOLVER.CLIP_GRADIENTS.NORM_TYPE",),
            "full_model": ("SOLVER.CLIP_GRADIENTS.NORM_TYPE",),
            "value": (),
        },
    ),
    Choice(
        "DATALOADER.SAMPLER_TRAIN",
        lambda: {
            "TrainingSampler": (),
            "RepeatFactorTrainingSampler": ("DATALOADER.REPEAT_THRESHOLD",),
            "RandomSubsetTrainingSampler": ("DATALOADER.RANDOM_SUBSET_RATIO",),
        },
    ),
)


_MISSING = object()


def validate_config(cfg: CfgNode, *, processes: int | None = None) -> None:
    """Check everything in a config that can break a run or would have no effect.

    Checked are the values of all keys that a run reads, the names in registries, the keys that
    the chosen head, NMS, backbone, optimizer and so on do not use, and combinations of keys. What
    only a `SOLO` reads is checked for a `MODEL.META_ARCHITECTURE` with a method `check_config`.
    Neither files nor datasets nor devices are looked for.

    Args:
        cfg: a config with the keys of `add_solo_config`; not changed.
        processes: number of processes of a training that is about to start, for which more must
            fit together; None if there is none.

    Raises:
        ValueError: the first thing that is wrong: key, value, and what is allowed, in one line.
    """
    # Late: the keys alone must not load all of Detectron2's models.
    from detectron2.modeling import META_ARCH_REGISTRY

    check_values(cfg, _GENERAL)
    check_choices(cfg, _CHOICES)
    names = choice(lambda: sorted(name for name, _ in META_ARCH_REGISTRY))
    names.check("MODEL.META_ARCHITECTURE", cfg.MODEL.META_ARCHITECTURE)
    architecture = META_ARCH_REGISTRY.get(cfg.MODEL.META_ARCHITECTURE)
    if hasattr(architecture, "check_config"):
        if get(cfg, "MODEL.SOLO") is None:
            raise ValueError("MODEL.SOLO is missing; call solo_d2.add_solo_config(cfg) first")
        architecture.check_config(cfg)
    # Detectron2's own models have several scales of their own, but no tight boxes.
    for node, others in (("TEST.AUG", True), ("TEST.TILES", False)):
        if get(cfg, f"{node}.ENABLED") and not getattr(architecture, "supports_tta", others):
            raise ValueError(
                f"{node}.ENABLED must be False with MODEL.META_ARCHITECTURE "
                f"{cfg.MODEL.META_ARCHITECTURE}, got True"
            )
    for check in COMBINATIONS:
        check(cfg)
    if processes is not None:
        for check_training in TRAINING_COMBINATIONS:
            check_training(cfg, processes)


def check_values(cfg: CfgNode, nodes: Iterable[str]) -> None:
    """Check the values of keys, by `RULES` or else by the type of the default.

    Args:
        cfg: the config.
        nodes: keys, and nodes of which all keys are meant; what the config lacks is left out.

    Raises:
        ValueError: a value that is not allowed.
    """
    defaults = default_values()
    for name in nodes:
        value = get(cfg, name, _MISSING)
        if value is _MISSING:
            continue
        found = leaves(value, f"{name}.") if isinstance(value, CfgNode) else [(name, value)]
        for key, entry in found:
            if key in RULES:
                RULES[key].check(key, entry)
            elif key in defaults:
                like(defaults[key]).check(key, entry)


def check_choices(cfg: CfgNode, choices: Iterable[Choice]) -> None:
    """Raise a `ValueError` for the first key that has no effect with one of the choices."""
    defaults = default_values()
    for entry in choices:
        entry.check(cfg, defaults)
