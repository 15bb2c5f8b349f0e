"""Check the part of a config that a `SOLO` is built from: names, values, unused keys, levels."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterable, Mapping
from typing import Any

from detectron2.config import CfgNode
from detectron2.modeling import BACKBONE_REGISTRY

from ..config.rules import Rule, choice, shorten
from ..config.unused import Choice, covers, default_values, get
from ..config.validation import check_choices, check_values
from ..layers import MASK_NMS
from ..layers.nms import KERNELS
from ..layers.resize import ALIGN_MODES
from .backbone.timm import check_timm_name
from .heads import SOLO_HEAD_REGISTRY, DynamicSOLOHead, SoftDynamicSOLOHead
from .heads.base import PYRAMID_REMEDY
from .heads.dynamic import KERNEL_SIZES, MASK_FEATURE_TYPES
from .loss_config import LOSS_CHOICES, LOSS_NAMES, check_losses
from .postprocessing import nms_parameters
from .towers import DEFORM_TYPES

NORM_GROUPS = 32
"""Groups of Detectron2's group normalisation."""

_RESNET = ("MODEL.RESNETS", "MODEL.BACKBONE.FREEZE_AT")
_PATHS = ("MODEL.FPN.PATH_AGGREGATION",)
_REFINED = ("MODEL.SOLO.REFINE_MASKS_TEST",)

BACKBONES: Mapping[str, tuple[str, ...]] = {
    "build_resnet_backbone": _RESNET,
    "build_resnet_fpn_backbone": (*_RESNET, "MODEL.FPN"),
    "build_retinanet_resnet_fpn_backbone": (*_RESNET, "MODEL.FPN"),
    "build_deform_resnet_backbone": _RESNET,
    "build_deform_resnet_fpn_backbone": (*_RESNET, "MODEL.FPN", *_PATHS),
    "build_merged_resnet_backbone": (*_RESNET, "MODEL.FPN"),
    "build_timm_fpn_backbone": ("MODEL.TIMM", "MODEL.FPN", *_PATHS),
}
"""Keys that backbones read; of others in the registry nothing is known."""

_OWN_RESNETS = (
    *("build_deform_resnet_backbone", "build_deform_resnet_fpn_backbone"),
    "build_merged_resnet_backbone",
)

_TOP_LEVELS = {
    "build_resnet_fpn_backbone": 1,
    "build_retinanet_resnet_fpn_backbone": 2,
    "build_deform_resnet_fpn_backbone": 1,
    "build_timm_fpn_backbone": 1,
}
"""Levels that the feature pyramids have above the backbone's last feature."""


def _names(registry: Iterable[tuple[str, Any]]) -> list[str]:
    return sorted(name for name, _ in registry)


_NAMES: dict[str, Rule] = {
    "MODEL.BACKBONE.NAME": choice(lambda: _names(BACKBONE_REGISTRY)),
    "MODEL.SOLO.HEAD": choice(lambda: _names(SOLO_HEAD_REGISTRY)),
    "MODEL.SOLO.NMS_TYPE": choice(lambda: MASK_NMS),
    "MODEL.SOLO.NMS_KERNEL": choice(KERNELS),
    **LOSS_NAMES,
    "MODEL.SOLO.ALIGN": choice(ALIGN_MODES),
    "MODEL.SOLO.DEFORM": choice(DEFORM_TYPES),
    "MODEL.SOLO.KERNEL_SIZE": choice(KERNEL_SIZES),
    "MODEL.SOLO.MASK_FEATURE.TYPE": choice(MASK_FEATURE_TYPES),
}

_NMS_KEYS = {"kernel": "NMS_KERNEL", "sigma": "NMS_SIGMA", "threshold": "NMS_THRESH_TEST"}


def head_uses(name: str) -> list[str] | None:
    """Return the keys of `MODEL.SOLO` that only some heads use and this one does; None: unknown.

    A class that reads the config in a `from_config` of its own and declares nothing is unknown,
    whatever it inherits.
    """
    for cls in getattr(SOLO_HEAD_REGISTRY.get(name), "__mro__", ()):
        if "uses" in vars(cls):
            return [f"MODEL.SOLO.{key}" for key in cls.uses]
        if "from_config" in vars(cls):
            return None
    return None


def _without_pyramid(keys: tuple[str, ...]) -> tuple[str, ...]:
    """The keys whose change would surprise: every base config sets those of the pyramid."""
    return tuple(key for key in keys if key != "MODEL.FPN")


_CHOICES = (
    Choice(
        "MODEL.META_ARCHITECTURE",  # mattes have detail of their own
        lambda: {"SOLO": _REFINED, "PanopticSOLO": _REFINED, "SoftSOLO": ()},
    ),
    Choice("MODEL.SOLO.HEAD", lambda: {x: head_uses(x) for x in _names(SOLO_HEAD_REGISTRY)}),
    Choice(
        "MODEL.SOLO.MASK_FEATURE.TYPE",
        lambda: {
            "unified": ("MODEL.SOLO.MASK_FEATURE.IN_FEATURES",),
            "separate": ("MODEL.SOLO.MASK_FEATURE.NUM_CONVS",),
        },
    ),
    Choice(
        "MODEL.SOLO.NMS_TYPE",
        lambda: {x: [f"MODEL.SOLO.{_NMS_KEYS[k]}" for k in nms_parameters(x)] for x in MASK_NMS},
    ),
    *LOSS_CHOICES,
    Choice("MODEL.SOLO.NMS_KERNEL", lambda: {"gaussian": ("MODEL.SOLO.NMS_SIGMA",), "linear": ()}),
    Choice(
        "MODEL.SOLO.DEFORM",
        lambda: {x: ("MODEL.SOLO.DEFORM_MODULATED",) if x != "none" else () for x in DEFORM_TYPES},
    ),
    Choice(
        "MODEL.BACKBONE.NAME",
        lambda: {name: _without_pyramid(keys) for name, keys in BACKBONES.items()},
    ),
    Choice(
        "MODEL.RESNETS.DEFORM_ON_PER_STAGE",
        lambda: {
            True: ("MODEL.RESNETS.DEFORM_MODULATED", "MODEL.RESNETS.DEFORM_NUM_GROUPS"),
            False: (),
        },
        of=lambda cfg: any(cfg.MODEL.RESNETS.DEFORM_ON_PER_STAGE),
    ),
)


def check_model_config(cfg: CfgNode) -> None:
    """Check what a `SOLO` is built from: `MODEL.SOLO`, its backbone, and the input's colours.

    Args:
        cfg: a config with the keys of `add_solo_config`.

    Raises:
        ValueError: a value that is not allowed, a key without effect, or levels that do not fit.
    """
    for key, rule in _NAMES.items():
        rule.check(key, get(cfg, key))
    backbone = BACKBONES.get(cfg.MODEL.BACKBONE.NAME, ())
    limit = "TEST.DETECTIONS_PER_IMAGE"
    check_values(cfg, ("MODEL.PIXEL_MEAN", "MODEL.PIXEL_STD", "MODEL.SOLO", limit, *backbone))
    check_choices(cfg, _CHOICES)
    if "MODEL.RESNETS" in backbone:
        _check_resnet(cfg.MODEL.RESNETS)
        _check_norm_eval(cfg)
    if "MODEL.TIMM" in backbone and importlib.util.find_spec("timm"):
        check_timm_name(cfg.MODEL.TIMM.NAME)
    if cfg.MODEL.BACKBONE.NAME in _TOP_LEVELS:
        _check_pyramid(cfg)
    check_feature_names(cfg, "MODEL.SOLO.IN_FEATURES")
    _check_levels(cfg.MODEL.SOLO)
    _check_head(cfg)
    check_losses(cfg)


def reset_unused_keys(cfg: CfgNode) -> None:
    """Set the keys that the chosen head, NMS, backbone and so on ignore to their defaults."""
    defaults = default_values()
    for entry in _CHOICES:
        for key, default in list(entry.ignored(cfg, defaults)):
            cfg.merge_from_list([key, default])


def _check_levels(node: CfgNode) -> None:
    counts = [len(node[key]) for key in ("NUM_GRIDS", "SCALE_RANGES", "IN_FEATURES")]
    if len(set(counts)) > 1:
        raise ValueError(
            "every level needs one grid, one scale range and one input feature, got "
            "MODEL.SOLO.NUM_GRIDS with {}, MODEL.SOLO.SCALE_RANGES with {} and "
            "MODEL.SOLO.IN_FEATURES with {} entries".format(*counts)
        )
    for low, high in node.SCALE_RANGES:
        if low > high:
            raise ValueError(
                f"MODEL.SOLO.SCALE_RANGES must be pairs (low, high), got {[low, high]}"
            )


def _check_head(cfg: CfgNode) -> None:
    node = cfg.MODEL.SOLO
    if node.NUM_COORD_CONVS > node.NUM_CONVS:
        raise ValueError(
            f"MODEL.SOLO.NUM_COORD_CONVS must lie between 0 and {node.NUM_CONVS} (NUM_CONVS), "
            f"got {node.NUM_COORD_CONVS}"
        )
    most = cfg.TEST.DETECTIONS_PER_IMAGE
    if most > node.PRE_NMS_TOPK_TEST:
        raise ValueError(
            f"TEST.DETECTIONS_PER_IMAGE {most} cannot come out of the {node.PRE_NMS_TOPK_TEST} "
            f"candidates that enter NMS; set MODEL.SOLO.PRE_NMS_TOPK_TEST to at least {most}"
        )
    head = SOLO_HEAD_REGISTRY.get(node.HEAD)
    uses, features = set(head_uses(node.HEAD) or ()), "MODEL.SOLO.MASK_FEATURE.IN_FEATURES"
    if covers(uses, features) and node.MASK_FEATURE.TYPE == "unified":
        check_feature_names(cfg, features, merged=True)
    if covers(uses, "MODEL.SOLO.NUM_KERNEL_GROUPS") and node.KERNEL_DIM % node.NUM_KERNEL_GROUPS:
        raise ValueError(
            f"MODEL.SOLO.NUM_KERNEL_GROUPS must divide KERNEL_DIM {node.KERNEL_DIM}, "
            f"got {node.NUM_KERNEL_GROUPS}"
        )
    channels = {"CONV_DIM": node.CONV_DIM} if node.NUM_CONVS else {}
    if isinstance(head, type) and issubclass(head, DynamicSOLOHead):
        channels["KERNEL_DIM / NUM_KERNEL_GROUPS"] = node.KERNEL_DIM // node.NUM_KERNEL_GROUPS
        channels["MASK_FEATURE.CONV_DIM"] = node.MASK_FEATURE.CONV_DIM
    if isinstance(head, type) and issubclass(head, SoftDynamicSOLOHead):
        channels["DETAILS.CONV_DIM"] = node.DETAILS.CONV_DIM
    check_norm_channels("MODEL.SOLO", node.NORM, channels)
    if node.RECOMPUTE_TOWERS and node.NORM.endswith(("BN", "BN_N")) and node.NORM != "FrozenBN":
        raise ValueError(
            "MODEL.SOLO.RECOMPUTE_TOWERS True runs layers twice, so that the running statistics of "
            f"MODEL.SOLO.NORM {node.NORM!r} would count a batch twice; set NORM GN, or False"
        )
    _check_towers(node)


def _check_towers(node: CfgNode) -> None:
    if node.DEFORM != "none" and not node.NUM_CONVS:
        raise ValueError(f'MODEL.SOLO.DEFORM must be "none" with NUM_CONVS 0, got {node.DEFORM!r}')
    if node.NORM == "GN" and node.NUM_CONVS and node.CONV_DIM == NORM_GROUPS:
        if min(node.NUM_GRIDS) == 1:
            raise ValueError(
                f"MODEL.SOLO.NUM_GRIDS must be 2 or more with MODEL.SOLO.CONV_DIM {NORM_GROUPS}, "
                f"since GN needs two values in a group, got {list(node.NUM_GRIDS)}"
            )


def check_norm_channels(node: str, norm: str, channels: Mapping[str, int]) -> None:
    """Raise a `ValueError` unless group normalisation can divide the channels of a node's keys."""
    for key, value in channels.items():
        if norm == "GN" and value % NORM_GROUPS:
            raise ValueError(
                f"{node}.{key} must be a multiple of {NORM_GROUPS}, the groups of {node}.NORM GN, "
                f"got {value}"
            )


def _check_resnet(node: CfgNode) -> None:
    if node.DEPTH < 50:
        for key, only in (("RES2_OUT_CHANNELS", 64), ("RES5_DILATION", 1), ("NUM_GROUPS", 1)):
            if node[key] != only:
                raise ValueError(
                    f"MODEL.RESNETS.{key} must be {only} with MODEL.RESNETS.DEPTH {node.DEPTH}, "
                    f"got {node[key]}"
                )
        if any(node.DEFORM_ON_PER_STAGE):
            raise ValueError(
                "MODEL.RESNETS.DEFORM_ON_PER_STAGE must be [False, False, False, False] with "
                f"MODEL.RESNETS.DEPTH {node.DEPTH}, which has no bottleneck blocks, got "
                f"{list(node.DEFORM_ON_PER_STAGE)}"
            )
    if not set(node.OUT_FEATURES) - {"stem"}:
        raise ValueError("MODEL.RESNETS.OUT_FEATURES must have a stage from res2 to res5, got stem")
    width = node.NUM_GROUPS * node.WIDTH_PER_GROUP
    if any(node.DEFORM_ON_PER_STAGE) and width % node.DEFORM_NUM_GROUPS:
        raise ValueError(
            f"MODEL.RESNETS.DEFORM_NUM_GROUPS must divide NUM_GROUPS * WIDTH_PER_GROUP {width}, "
            f"got {node.DEFORM_NUM_GROUPS}"
        )
    channels = {key: node[key] for key in ("STEM_OUT_CHANNELS", "RES2_OUT_CHANNELS")}
    if node.DEPTH >= 50:
        channels["NUM_GROUPS * WIDTH_PER_GROUP"] = width
    check_norm_channels("MODEL.RESNETS", node.NORM, channels)


def _check_norm_eval(cfg: CfgNode) -> None:
    name, norm = cfg.MODEL.BACKBONE.NAME, cfg.MODEL.RESNETS.NORM
    if cfg.MODEL.RESNETS.NORM_EVAL and (name not in _OWN_RESNETS or norm != "BN"):
        raise ValueError(
            "MODEL.RESNETS.NORM_EVAL True needs MODEL.RESNETS.NORM BN and a MODEL.BACKBONE.NAME of "
            f"{', '.join(_OWN_RESNETS)}, got {norm} and {name}"
        )


def _check_pyramid(cfg: CfgNode) -> None:
    names, node = list(cfg.MODEL.FPN.IN_FEATURES), cfg.MODEL.RESNETS
    check_norm_channels(
        "MODEL.FPN", cfg.MODEL.FPN.NORM, {"OUT_CHANNELS": cfg.MODEL.FPN.OUT_CHANNELS}
    )
    stages = [int(name[-1]) for name in names]
    # Detectron2 makes P6 of P5, whatever the last stage is.
    if stages != list(range(stages[0], 6)):
        raise ValueError(
            "MODEL.FPN.IN_FEATURES must be neighbouring stages up to res5, finest first, got "
            f"{names}"
        )
    if "MODEL.RESNETS" not in BACKBONES[cfg.MODEL.BACKBONE.NAME]:
        return
    if not set(names) <= set(node.OUT_FEATURES):
        raise ValueError(
            f"MODEL.FPN.IN_FEATURES must be among MODEL.RESNETS.OUT_FEATURES "
            f"{list(node.OUT_FEATURES)}, got {names}"
        )
    if node.RES5_DILATION == 2 and "res5" in names:
        raise ValueError("MODEL.RESNETS.RES5_DILATION must be 1 under a feature pyramid, got 2")


def feature_names(cfg: CfgNode) -> list[str] | None:
    """Names of the features of a known backbone, finest first; None: unknown."""
    name, stages = cfg.MODEL.BACKBONE.NAME, list(cfg.MODEL.FPN.IN_FEATURES)
    if name in _TOP_LEVELS:
        first = int(stages[0][-1])
        return [f"p{first + i}" for i in range(len(stages) + _TOP_LEVELS[name])]
    if name == "build_merged_resnet_backbone":
        return [f"p{stages[0][-1]}"]
    if name in ("build_resnet_backbone", "build_deform_resnet_backbone"):
        return list(cfg.MODEL.RESNETS.OUT_FEATURES)
    return None


def check_feature_names(cfg: CfgNode, key: str, *, merged: bool = False) -> None:
    """Check names of features against those that a known backbone yields.

    Args:
        cfg: the config.
        key: of the names.
        merged: the features become one map, for which each must be twice as coarse as the one
            before, and the canvas must be a multiple of the coarsest's stride, 32.

    Raises:
        ValueError: a feature that there is not, or an order that does not work.
    """
    known, names = feature_names(cfg), list(get(cfg, key))
    if known is None:
        return
    if not names or not set(names) <= set(known):
        raise ValueError(
            f"{key} is {shorten(names)}, but the backbone yields {known}; {PYRAMID_REMEDY}"
        )
    places = [known.index(name) for name in names]
    stages = [int(name[-1]) if name != "stem" else 1 for name in names]
    if places != sorted(places) or stages[0] > 5:
        raise ValueError(f"{key} must name features finest first, p5 or finer, got {names}")
    if merged and (stages != list(range(stages[0], stages[0] + len(stages))) or stages[-1] > 5):
        raise ValueError(
            f"{key} must be neighbouring levels, finest first, up to p5, got {shorten(names)}"
        )
