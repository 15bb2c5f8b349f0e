"""Faults of configs: wrong values, keys without effect, contradictions, hostile files, typing."""

from __future__ import annotations

import importlib.util
import socket
from pathlib import Path

import detectron2.model_zoo
import numpy as np
import pytest
import torch
from builders import RESNET18, SOFT, noise_input, tiny_config
from detectron2.config import configurable, get_cfg
from detectron2.data import detection_utils
from detectron2.data import transforms as T
from detectron2.modeling import build_model
from detectron2.solver import build_lr_scheduler
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn

from solo_d2 import SOLO_HEAD_REGISTRY, SOLOPredictor, add_solo_config, model_zoo
from solo_d2.config import (
    HEAD_KEYS,
    merge_file,
    merge_overrides,
    resolve_device,
    split_overrides,
    validate_config,
)
from solo_d2.config.rules import choice, integer, items, like, norm, number
from solo_d2.config.unused import default_values, get
from solo_d2.config.values import RULES
from solo_d2.engine import SOLOTrainer
from solo_d2.io.config_file import MAX_BYTES, is_remote
from solo_d2.layers import MASK_NMS
from solo_d2.model_zoo import load_config
from solo_d2.modeling import DynamicSOLOHead, VanillaSOLOHead
from solo_d2.modeling.model_config import reset_unused_keys
from solo_d2.solver import build_optimizer

ROOT = Path(__file__).resolve().parents[2]
NAN, INF = float("nan"), float("inf")


def with_values(*pairs, base=()):
    """`tiny_config` with values put in as Python code does, past all checks of yacs."""
    cfg = tiny_config(*base)
    for key, value in zip(pairs[::2], pairs[1::2], strict=True):
        *nodes, name = key.split(".")
        node = cfg
        for part in nodes:
            node = node[part]
        node[name] = value
    return cfg


def refused(cfg, *said, processes=None):
    """The one line in which a config is refused; it has all of `said`."""
    with pytest.raises(ValueError) as caught:
        validate_config(cfg, processes=processes)
    message = str(caught.value)
    assert "\n" not in message
    assert all(part in message for part in said), message
    return message


# Values: key, what is refused, what is allowed (both sides of every boundary).
VALUES = [
    ("OUTPUT_DIR", ["", "  ", 3, None], ["out", "../a b"]),
    ("SEED", [2**32, 1.5, "1", True], [-1, 0, 4_000_000_000]),
    ("DATASETS.TRAIN", ["coco", (1,), ("",), None], [(), ("a",), ["a", "b"]]),
    ("DATASETS.TRAIN_SHARES", [[-1], ["a"], [NAN], 1], [[], [0, 1.5]]),
    ("DATALOADER.NUM_WORKERS", [-1, 0.5, "2", 10**6], [0, 8]),
    ("DATALOADER.SAMPLER_TRAIN", ["", "Training", None], ["TrainingSampler"]),
    ("DATALOADER.FILTER_EMPTY_ANNOTATIONS", [None, 1, "yes"], [True, False]),
    ("DATALOADER.SKIP_UNREADABLE", [None, 0], [True]),
    ("SOLVER.TRACKERS", ["wandb", ["wandbs"], ["comet:cups"], [1], None], [[], ["wandb:cups"]]),
    ("TEST.DRAWN_IMAGES", [-1, 101, True, 0.5], [0, 100]),
    ("INPUT.MIN_SIZE_TRAIN", [(), (-1,), -5, (64.5,), "64", None], [(0,), (64,), 64, [1, 2, 3]]),
    ("INPUT.MAX_SIZE_TRAIN", [0, -1, 1.5, NAN], [1, 100_000]),
    ("INPUT.MIN_SIZE_TEST", [-1, "800", (800,)], [0, 1]),
    ("INPUT.MAX_SIZE_TEST", [0, None], [1]),
    ("INPUT.MIN_SIZE_TRAIN_SAMPLING", ["random", ""], ["choice"]),
    ("INPUT.MAX_VALUE", [-1, float("nan")], [0, 0.5, 4095]),
    ("INPUT.RANDOM_FLIP", ["both", "Horizontal", True], ["horizontal", "vertical", "none"]),
    ("INPUT.RESIZE_FILTER", ["cv2", "OpenCV", "", None], ["pillow", "opencv"]),
    ("INPUT.FORMAT", ["L", "bgr", "", 3], ["BGR", "RGB"]),
    ("INPUT.MASK_FORMAT", ["polygons", "rle"], ["polygon", "bitmask"]),
    ("INPUT.CROP.TYPE", ["random", ""], ["relative", "absolute_range"]),
    ("INPUT.CROP.SIZE", [[0.5], [0.0, 0.5], [0.5, NAN], 0.5], [[0.5, 1.0], (384, 600)]),
    ("SOLVER.MAX_ITER", [0, -1, 1.5, "10", None, True], [1, np.int64(3)]),
    ("SOLVER.BASE_LR", [0.0, -0.1, NAN, INF, "0.1"], [1e-8, 1]),
    ("SOLVER.CHECKPOINTS_TO_KEEP", [-1, 1.5, None], [0, 1]),
    ("SOLVER.FREEZE_BACKBONE_ITERS", [-1, 1.5], [0, 100]),
    ("SOLVER.BACKBONE_MULTIPLIER", [-1.0, INF], [0.0, 1.0]),
    ("SOLVER.MOMENTUM", [-0.1, 1.0], [0.0, 0.99]),
    ("SOLVER.WEIGHT_DECAY", [-1e-4, NAN, None], [0.0]),
    ("SOLVER.WEIGHT_DECAY_NORM", [-1.0], [0.0, None]),
    ("SOLVER.BIAS_LR_FACTOR", [-1.0], [None, 2.0]),
    ("SOLVER.GAMMA", [0.0, -0.1, NAN], [0.1]),
    ("SOLVER.STEPS", [(0,), (1.5,), ("a",), 3, (5, 3), (3, 3)], [(), (3, 5)]),
    ("SOLVER.WARMUP_ITERS", [-1, 0.5], [0, 10**6]),
    ("SOLVER.WARMUP_FACTOR", [-0.1, 1.1, NAN], [0.0, 1.0]),
    ("SOLVER.WARMUP_METHOD", ["cosine", ""], ["linear", "constant"]),
    ("SOLVER.LR_SCHEDULER_NAME", ["WarmupCosine", "cosine"], ["WarmupCosineLR"]),
    ("SOLVER.OPTIMIZER", ["ADAM", "sgd", ""], ["ADAMW"]),
    ("SOLVER.IMS_PER_BATCH", [0, -2, 1.5], [1]),
    ("SOLVER.CHECKPOINT_PERIOD", [0, -1], [1]),
    ("SOLVER.CLIP_GRADIENTS.CLIP_TYPE", ["l2", ""], ["norm", "value", "full_model"]),
    ("SOLVER.CLIP_GRADIENTS.CLIP_VALUE", [0.0, -1.0, INF], [35.0]),
    ("SOLVER.AMP.ENABLED", [None, "yes", 1], [True]),
    ("TEST.EVAL_PERIOD", [-1, 0.5], [0]),
    ("TEST.DETECTIONS_PER_IMAGE", [0, -1, 1e3], [1, 100]),
    ("TEST.EXPECTED_RESULTS", [[["segm", "AP", 1]], [3]], [[["segm", "AP", 30.0, 0.5]]]),
    ("TEST.AUG.MIN_SIZES", [(), (0,), 400], [(400,)]),
    ("TEST.PRECISE_BN.NUM_ITER", [0], [1]),
    ("VIS_PERIOD", [-1, None], [0, 20]),
    ("MODEL.DEVICE", ["gpu", "", "cuda:x", 0, None], ["cpu", "cuda", "cuda:1", "auto"]),
    ("MODEL.WEIGHTS", [3], ["", "a.pth", None]),
    ("MODEL.PIXEL_MEAN", [[1.0], [1, 2, NAN], 3.0, "abc"], [[127, 127, 127], (0.0, -1.0, 2.0)]),
    ("MODEL.PIXEL_STD", [[1.0, 1.0, 0.0], [1.0] * 4, [-1.0] * 3], [[58, 57.0, 57.5]]),
    ("MODEL.BACKBONE.FREEZE_AT", [-1, 6, 1.5], [0, 5]),
    ("MODEL.FPN.OUT_CHANNELS", [0, -256, 10**9], [32]),
    ("MODEL.FPN.FUSE_TYPE", ["max"], ["avg"]),
    ("MODEL.FPN.NORM", ["gn", "foo", None], ["", "GN"]),
    ("MODEL.RESNETS.DEPTH", [20, 0, "50"], [18, 34]),
    ("MODEL.RESNETS.NORM", ["LayerNorm", None], ["BN", "FrozenBN"]),
    ("MODEL.RESNETS.OUT_FEATURES", [[], ["res6"], "res4"], [["res2", "res3", "res4", "res5"]]),
    ("MODEL.SOLO.NUM_CLASSES", [0, -1, 2.0, 10**9], [1, 1203]),
    ("MODEL.SOLO.NUM_GRIDS", [[0] * 5, [12.0] * 5, 12], [[2, 2, 2, 2, 2]]),
    (
        "MODEL.SOLO.SCALE_RANGES",
        [[[1]] * 5, [[1, NAN]] * 5, [[-1, 2]] * 5, [[2, 1]] * 5],
        [[[0, INF]] * 5, [(1, 1)] * 5],
    ),
    ("MODEL.SOLO.CENTER_REGION", [-0.1, 1.1, NAN], [0, 1]),
    ("MODEL.SOLO.NUM_CONVS", [-1, 0.5, 10**6], [1, 4]),
    ("MODEL.SOLO.CONV_DIM", [0, -32, 10**9, 64.0], [64]),
    ("MODEL.SOLO.NORM", ["foo", "gn", None], ["", "BN"]),
    ("MODEL.SOLO.PRIOR_PROB", [0.0, 1.0, NAN, "0.1"], [0.5]),
    ("MODEL.SOLO.MASK_FEATURE.COORDS", [None, 0], [False]),
    ("MODEL.SOLO.CATEGORY_LOSS_WEIGHT", [-1.0, NAN, INF], [0.0]),
    ("MODEL.SOLO.MASK_LOSS_WEIGHT", [-3.0], [0, 20]),
    ("MODEL.SOLO.FOCAL_LOSS_ALPHA", [-0.1, 1.1], [0.0, 1.0]),
    ("MODEL.SOLO.FOCAL_LOSS_GAMMA", [-1.0, NAN], [0.0]),
    ("MODEL.SOLO.SCORE_THRESH_TEST", [-0.1, 1.0], [0.0, 0.99]),
    ("MODEL.SOLO.MASK_THRESH_TEST", [1.0, NAN], [0.0]),
    ("MODEL.SOLO.PRE_NMS_TOPK_TEST", [0, -1, 0.5], [100]),
    ("MODEL.SOLO.NMS_SIGMA", [0.0, -1.0, INF], [2.0]),
    ("MODEL.SOLO.FINAL_SCORE_THRESH_TEST", [-1.0, 1.0], [0.5]),
]


@pytest.mark.parametrize(
    ("key", "value"),
    [
        pytest.param(key, value, id=f"{key}={value!r}"[:70])
        for key, wrong, _ in VALUES
        for value in wrong
    ],
)
def test_a_wrong_value_is_one_line_with_its_key(key, value):
    message = refused(with_values(key, value), key)
    assert repr(value).strip("[]()")[:5] in message


@pytest.mark.parametrize(
    ("key", "value"),
    [pytest.param(key, x, id=f"{key}={x!r}"[:70]) for key, _, right in VALUES for x in right],
)
def test_what_works_is_allowed(key, value):
    validate_config(with_values(key, value, base=RESNET18))


@pytest.mark.parametrize("key", RULES)
def test_no_key_takes_a_value_of_another_kind(key):
    if get(tiny_config(), key) is None and key not in default_values():
        pytest.skip("a key of another Detectron2")
    for value in (object(), {"a": 1}, b"x", 1j):
        with pytest.raises(ValueError, match=key):
            RULES[key].check(key, value)


@pytest.mark.parametrize(
    ("key", "value", "suggested"),
    [
        ("MODEL.SOLO.HEAD", "DynamicSoloHead", "DynamicSOLOHead"),
        ("MODEL.SOLO.HEAD", "VanillaHead", "VanillaSOLOHead"),
        ("MODEL.META_ARCHITECTURE", "Solo", "SOLO"),
        ("MODEL.META_ARCHITECTURE", "PanopticSolo", "PanopticSOLO"),
        ("MODEL.BACKBONE.NAME", "build_resnet_fpn_backbon", "build_resnet_fpn_backbone"),
        ("MODEL.SOLO.NMS_TYPE", "matrx", "matrix"),
        ("MODEL.SOLO.NMS_KERNEL", "gauss", "gaussian"),
        ("MODEL.SOLO.MASK_LOSS", "Dice", "dice"),
        ("MODEL.SOLO.ALIGN", "bilnear", "bilinear"),
        ("MODEL.SOLO.DEFORM", "lst", "last"),
        ("MODEL.SOLO.MASK_FEATURE.TYPE", "separated", "separate"),
        ("MODEL.SOLO.NORM", "gn", "GN"),
        ("SOLVER.OPTIMIZER", "adamw", "ADAMW"),
        ("SOLVER.LR_SCHEDULER_NAME", "WarmupCosinLR", "WarmupCosineLR"),
        ("DATALOADER.SAMPLER_TRAIN", "RepeatFactorSampler", "RepeatFactorTrainingSampler"),
        ("INPUT.MASK_FORMAT", "bitmasks", "bitmask"),
    ],
)
def test_a_misspelt_name_gets_a_suggestion(key, value, suggested):
    assert f"did you mean {suggested}" in refused(with_values(key, value), key, repr(value))


def test_an_unknown_timm_model_is_named_before_anything_is_built():
    pytest.importorskip("timm")
    name = ("MODEL.BACKBONE.NAME", "build_timm_fpn_backbone", "MODEL.TIMM.NAME", "test_resnett")
    refused(tiny_config(*name), "MODEL.TIMM.NAME", "test_resnet")


# Keys without effect: what is chosen, and the key with a value other than its default.
TIMM = ("MODEL.BACKBONE.NAME", "build_timm_fpn_backbone", "MODEL.TIMM.NAME", "test_efficientnet")
DEFORM = ("MODEL.BACKBONE.NAME", "build_deform_resnet_fpn_backbone")
UNUSED = [
    *(((), f"MODEL.SOLO.DETAILS.{k}", v) for k, v in (("FUSE", False), ("CONV_DIM", 64))),
    ((), "MODEL.SOLO.DETAILS.NUM_CONVS", 2),
    ((), "MODEL.SOLO.NUM_KERNEL_GROUPS", 2),
    (("MODEL.SOLO.HEAD", "DecoupledDynamicSOLOHead"), "MODEL.SOLO.DETAILS.IMAGE", False),
    *(
        (("MODEL.SOLO.HEAD", head), f"MODEL.SOLO.{key}", value)
        for head in ("VanillaSOLOHead", "DecoupledSOLOHead", "DecoupledLightSOLOHead")
        for key, value in (
            ("KERNEL_DIM", 64),
            ("KERNEL_SIZE", 3),
            ("NUM_KERNEL_GROUPS", 2),
            ("MASK_FEATURE.CONV_DIM", 64),
            ("MASK_FEATURE.IN_FEATURES", ["p2"]),
            ("DETAILS.FUSE", False),
        )
    ),
    (SOFT, "MODEL.SOLO.KERNEL_SIZE", 3),
    (SOFT, "MODEL.SOLO.REFINE_MASKS_TEST", True),
    (SOFT, "MODEL.SOLO.MASK_FEATURE.TYPE", "separate"),
    ((), "MODEL.SOLO.MASK_FEATURE.NUM_CONVS", 4),
    (
        ("MODEL.SOLO.MASK_FEATURE.TYPE", "separate"),
        "MODEL.SOLO.MASK_FEATURE.IN_FEATURES",
        ["p2", "p3"],
    ),
    ((), "MODEL.SOLO.DEFORM_MODULATED", False),
    ((), "MODEL.SOLO.NMS_THRESH_TEST", 0.3),
    (("MODEL.SOLO.NMS_TYPE", "soft"), "MODEL.SOLO.NMS_THRESH_TEST", 0.3),
    (("MODEL.SOLO.NMS_TYPE", "soft"), "MODEL.SOLO.NMS_KERNEL", "linear"),
    (("MODEL.SOLO.NMS_TYPE", "hard"), "MODEL.SOLO.NMS_SIGMA", 1.0),
    (("MODEL.SOLO.NMS_TYPE", "fast"), "MODEL.SOLO.NMS_SIGMA", 1.0),
    (("MODEL.SOLO.NMS_KERNEL", "linear"), "MODEL.SOLO.NMS_SIGMA", 1.0),
    ((), "MODEL.TIMM.NAME", "resnet18"),
    ((), "MODEL.TIMM.FREEZE_AT", 3),
    ((), "MODEL.FPN.PATH_AGGREGATION", True),
    (TIMM, "MODEL.RESNETS.DEPTH", 101),
    (TIMM, "MODEL.RESNETS.DEFORM_ON_PER_STAGE", [False, True, True, True]),
    (TIMM, "MODEL.BACKBONE.FREEZE_AT", 0),
    ((), "MODEL.RESNETS.DEFORM_MODULATED", True),
    (("SOLVER.OPTIMIZER", "ADAMW"), "SOLVER.MOMENTUM", 0.8),
    (("SOLVER.OPTIMIZER", "ADAMW"), "SOLVER.NESTEROV", True),
    ((), "SOLVER.CLIP_GRADIENTS.NORM_TYPE", 1.0),
    ((), "DATALOADER.REPEAT_THRESHOLD", 0.001),
    ((), "MODEL.LOAD_PROPOSALS", True),
    ((), "MODEL.KEYPOINT_ON", True),
    ((), "MODEL.ROI_HEADS.NUM_CLASSES", 7),
]


@pytest.mark.parametrize(
    ("chosen", "key", "value"), [pytest.param(*x, id=f"{x[0][-1:]}-{x[1]}") for x in UNUSED]
)
def test_a_key_without_effect_is_refused(chosen, key, value):
    validate_config(tiny_config(*chosen))
    refused(with_values(key, value, base=chosen), key, "has no use for it")


def test_a_message_about_a_key_without_effect_says_what_to_do():
    message = refused(with_values("MODEL.SOLO.DETAILS.FUSE", False))
    assert message == (
        "MODEL.SOLO.DETAILS.FUSE is False, but DynamicSOLOHead has no use for it; leave it at True "
        "or choose another MODEL.SOLO.HEAD: SoftDynamicSOLOHead"
    )


def test_keys_without_effect_can_be_set_back():
    cfg = with_values("MODEL.SOLO.DETAILS.FUSE", False, "MODEL.SOLO.NMS_THRESH_TEST", 0.3)
    reset_unused_keys(cfg)
    assert cfg == tiny_config()


# Contradictions: values that are allowed one by one, and what the message names.
ADAPTED = ("MODEL.SOLO.NUM_GRIDS", [8, 4], "MODEL.SOLO.SCALE_RANGES", [[1, 64], [32, 512]])
PANOPTIC = (
    *("MODEL.META_ARCHITECTURE", "PanopticSOLO", "MODEL.SEM_SEG_HEAD.NAME", "SOLOSemSegHead"),
    *("MODEL.SEM_SEG_HEAD.NUM_CLASSES", 3, "MODEL.SEM_SEG_HEAD.CONVS_DIM", 32),
)
R50 = (*DEFORM, "MODEL.RESNETS.DEPTH", 50, "MODEL.RESNETS.RES2_OUT_CHANNELS", 256)
CONTRADICTIONS = {
    "more instances than candidates": (
        ("TEST.DETECTIONS_PER_IMAGE", 900),
        ("TEST.DETECTIONS_PER_IMAGE 900", "PRE_NMS_TOPK_TEST"),
    ),
    "two grids for five levels": (("MODEL.SOLO.NUM_GRIDS", [8, 4]), ("NUM_GRIDS with 2",)),
    "no feature": (("MODEL.SOLO.IN_FEATURES", [], *ADAPTED), ("MODEL.SOLO.IN_FEATURES",)),
    "unknown feature": (("MODEL.SOLO.IN_FEATURES", ["p2", "p9"], *ADAPTED), ("'p9'", "yields")),
    "features coarsest first": (
        ("MODEL.SOLO.IN_FEATURES", ["p6", "p2"], *ADAPTED),
        ("IN_FEATURES", "finest first"),
    ),
    "a gap in the mask feature": (
        ("MODEL.SOLO.MASK_FEATURE.IN_FEATURES", ["p2", "p4"]),
        ("MASK_FEATURE.IN_FEATURES", "neighbouring"),
    ),
    "a mask feature of P6": (
        ("MODEL.SOLO.MASK_FEATURE.IN_FEATURES", ["p5", "p6"]),
        ("MASK_FEATURE.IN_FEATURES", "up to p5"),
    ),
    "coordinates in more layers than there are": (
        ("MODEL.SOLO.NUM_COORD_CONVS", 2),
        ("NUM_COORD_CONVS", "NUM_CONVS"),
    ),
    "GN of 48 channels": (("MODEL.SOLO.CONV_DIM", 48), ("MODEL.SOLO.CONV_DIM", "multiple of 32")),
    "GN of kernels": (("MODEL.SOLO.KERNEL_DIM", 48), ("KERNEL_DIM", "multiple of 32")),
    "GN of the mask feature": (
        ("MODEL.SOLO.MASK_FEATURE.CONV_DIM", 40),
        ("MASK_FEATURE.CONV_DIM", "multiple of 32"),
    ),
    "GN of details": ((*SOFT, "MODEL.SOLO.DETAILS.CONV_DIM", 24), ("DETAILS.CONV_DIM",)),
    "GN of one value": (("MODEL.SOLO.NUM_GRIDS", [8, 4, 2, 2, 1]), ("NUM_GRIDS", "GN")),
    "GN in the pyramid": (
        ("MODEL.FPN.NORM", "GN", "MODEL.FPN.OUT_CHANNELS", 40),
        ("MODEL.FPN.OUT_CHANNELS",),
    ),
    "groups of kernels": (
        (
            *("MODEL.SOLO.HEAD", "DecoupledDynamicSOLOHead"),
            *("MODEL.SOLO.KERNEL_DIM", 64, "MODEL.SOLO.NUM_KERNEL_GROUPS", 3),
        ),
        ("NUM_KERNEL_GROUPS must divide",),
    ),
    "a soft head in a plain model": (
        ("MODEL.SOLO.HEAD", "SoftDynamicSOLOHead"),
        ("MODEL.SOLO.HEAD", "SoftSOLO"),
    ),
    "a plain head in a soft model": (
        (*SOFT, "MODEL.SOLO.HEAD", "DynamicSOLOHead"),
        ("MODEL.SOLO.HEAD",),
    ),
    "a hard loss of soft masks": ((*SOFT, "MODEL.SOLO.MASK_LOSS", "bce"), ("MASK_LOSS", "'bce'")),
    "a wide ResNet-18": (
        (*RESNET18, "MODEL.RESNETS.RES2_OUT_CHANNELS", 256),
        ("RES2_OUT_CHANNELS",),
    ),
    "a grouped ResNet-18": ((*RESNET18, "MODEL.RESNETS.NUM_GROUPS", 2), ("RESNETS.NUM_GROUPS",)),
    "a deformable ResNet-18": (
        (*DEFORM, *RESNET18, "MODEL.RESNETS.DEFORM_ON_PER_STAGE", [False, False, False, True]),
        ("DEFORM_ON_PER_STAGE", "DEPTH 18"),
    ),
    "fixed statistics of no norm": (
        (*DEFORM, "MODEL.RESNETS.NORM_EVAL", True),
        ("MODEL.RESNETS.NORM_EVAL True needs MODEL.RESNETS.NORM BN", "got FrozenBN"),
    ),
    "fixed statistics in Detectron2's ResNet": (
        ("MODEL.RESNETS.NORM", "BN", "MODEL.RESNETS.NORM_EVAL", True),
        ("MODEL.RESNETS.NORM_EVAL", "build_deform_resnet_fpn_backbone", "build_resnet_fpn"),
    ),
    "groups of offsets": (
        (
            *(*R50, "MODEL.RESNETS.DEFORM_ON_PER_STAGE", [False, True, True, True]),
            *("MODEL.RESNETS.DEFORM_NUM_GROUPS", 3),
        ),
        ("DEFORM_NUM_GROUPS",),
    ),
    "dilation under a pyramid": ((*R50, "MODEL.RESNETS.RES5_DILATION", 2), ("RES5_DILATION",)),
    "a stem is no stage": (("MODEL.RESNETS.OUT_FEATURES", ["stem"]), ("OUT_FEATURES",)),
    "a pyramid without its stages": (
        ("MODEL.RESNETS.OUT_FEATURES", ["res4", "res5"]),
        ("FPN.IN_FEATURES", "OUT_FEATURES"),
    ),
    "a gap in the pyramid": (
        ("MODEL.FPN.IN_FEATURES", ["res2", "res4"]),
        ("FPN.IN_FEATURES", "neighbouring"),
    ),
    "a pyramid without its top": (
        ("MODEL.FPN.IN_FEATURES", ["res2", "res3", "res4"]),
        ("FPN.IN_FEATURES", "up to res5"),
    ),
    "no pyramid at all": (("MODEL.FPN.IN_FEATURES", []), ("MODEL.FPN.IN_FEATURES",)),
    "a label that is a class": (
        (*PANOPTIC, "MODEL.SEM_SEG_HEAD.IGNORE_VALUE", 2),
        ("IGNORE_VALUE", "NUM_CLASSES"),
    ),
    "the stride of stuff": ((*PANOPTIC, "MODEL.SEM_SEG_HEAD.COMMON_STRIDE", 8), ("COMMON_STRIDE",)),
    "an unknown branch of stuff": (
        (*PANOPTIC, "MODEL.SEM_SEG_HEAD.NAME", "SOLOSemSeg"),
        ("SEM_SEG_HEAD.NAME", "did you mean SOLOSemSegHead"),
    ),
    "several scales of stuff": ((*PANOPTIC, "TEST.AUG.ENABLED", True), ("TEST.AUG.ENABLED",)),
    "one scale twice": (
        ("TEST.AUG.ENABLED", True, "TEST.AUG.MIN_SIZES", [64, 64]),
        ("TEST.AUG.MIN_SIZES",),
    ),
    "a limit below the scales": (
        ("TEST.AUG.ENABLED", True, "TEST.AUG.MIN_SIZES", [64], "TEST.AUG.MAX_SIZE", 32),
        ("TEST.AUG.MAX_SIZE",),
    ),
    "a step at the end": (
        ("SOLVER.STEPS", (5,), "SOLVER.MAX_ITER", 5),
        ("SOLVER.STEPS", "MAX_ITER 5"),
    ),
    "Nesterov without momentum": (
        ("SOLVER.NESTEROV", True, "SOLVER.MOMENTUM", 0.0),
        ("SOLVER.NESTEROV", "MOMENTUM"),
    ),
    "a batch for three workers": (
        ("SOLVER.REFERENCE_WORLD_SIZE", 3),
        ("SOLVER.IMS_PER_BATCH", "REFERENCE_WORLD_SIZE 3"),
    ),
    "a range of one": (
        ("INPUT.MIN_SIZE_TRAIN_SAMPLING", "range", "INPUT.MIN_SIZE_TRAIN", (64,)),
        ("INPUT.MIN_SIZE_TRAIN",),
    ),
    "a range that falls": (
        ("INPUT.MIN_SIZE_TRAIN_SAMPLING", "range", "INPUT.MIN_SIZE_TRAIN", (96, 64)),
        ("INPUT.MIN_SIZE_TRAIN",),
    ),
    "a share of more than all": (
        ("INPUT.CROP.ENABLED", True, "INPUT.CROP.SIZE", [1.5, 0.5]),
        ("INPUT.CROP.SIZE", "(0, 1]"),
    ),
    "half a pixel": (
        (
            *("INPUT.CROP.ENABLED", True, "INPUT.CROP.TYPE", "absolute"),
            *("INPUT.CROP.SIZE", [0.5, 0.5]),
        ),
        ("INPUT.CROP.SIZE", "integers"),
    ),
    "a cut whose range falls": (
        (
            *("INPUT.CROP.ENABLED", True, "INPUT.CROP.TYPE", "absolute_range"),
            *("INPUT.CROP.SIZE", [64, 32]),
        ),
        ("INPUT.CROP.SIZE",),
    ),
}


@pytest.mark.parametrize(("values", "said"), CONTRADICTIONS.values(), ids=CONTRADICTIONS)
def test_values_that_contradict_one_another_are_refused(values, said):
    refused(tiny_config(*values), *said)


# What only matters when a training begins: values, number of processes, what the message names.
STARTS = {
    "a batch for two": (("SOLVER.IMS_PER_BATCH", 3), 2, ("IMS_PER_BATCH", "2 processes")),
    "shares of no data": (("DATASETS.TRAIN_SHARES", [1, 1]), 1, ("TRAIN_SHARES",)),
    "shares of nothing": (
        ("DATASETS.TRAIN_SHARES", [0, 0], "DATASETS.TRAIN", ("a", "b")),
        1,
        ("TRAIN_SHARES",),
    ),
    "shares and another sampler": (
        (
            *("DATASETS.TRAIN_SHARES", [1], "DATASETS.TRAIN", ("a",)),
            *("DATALOADER.SAMPLER_TRAIN", "RepeatFactorTrainingSampler"),
        ),
        1,
        ("TRAIN_SHARES", "SAMPLER_TRAIN"),
    ),
    "SyncBN on two CPUs": (("MODEL.SOLO.NORM", "SyncBN"), 2, ("MODEL.SOLO.NORM", "CPU")),
}


@pytest.mark.parametrize(("values", "processes", "said"), STARTS.values(), ids=STARTS)
def test_a_training_that_cannot_start_is_refused(values, processes, said):
    cfg = tiny_config(*values)
    validate_config(cfg)  # nothing is wrong with it for inference
    refused(cfg, *said, processes=processes)


# Names that a user's own code registers.


class OwnHead(VanillaSOLOHead):
    """Reads a key of its own, and says so."""

    uses = ("RELATIVE_COORDS",)

    @classmethod
    def from_config(cls, cfg, input_shape, grid):
        assert isinstance(cfg.MODEL.SOLO.RELATIVE_COORDS, bool)
        return super().from_config(cfg, input_shape, grid)

    @configurable
    def __init__(self, **kwargs):
        super().__init__(**kwargs)


class SilentHead(DynamicSOLOHead):
    """Reads keys of another head, and declares nothing."""

    @classmethod
    def from_config(cls, cfg, input_shape, grid):
        assert cfg.MODEL.SOLO.DETAILS.CONV_DIM
        return super().from_config(cfg, input_shape, grid)

    @configurable
    def __init__(self, **kwargs):
        super().__init__(**kwargs)


@pytest.fixture
def own_heads():
    """What importing one file of a user's does."""
    for head in (OwnHead, SilentHead):
        SOLO_HEAD_REGISTRY.register(head)
    HEAD_KEYS["RELATIVE_COORDS"] = False
    yield
    for head in (OwnHead, SilentHead):
        del SOLO_HEAD_REGISTRY._obj_map[head.__name__]
    del HEAD_KEYS["RELATIVE_COORDS"]


def test_a_head_with_keys_of_its_own_is_one_file(own_heads):
    key = ("MODEL.SOLO.RELATIVE_COORDS", True)
    cfg = tiny_config("MODEL.SOLO.HEAD", "OwnHead", *key)
    validate_config(cfg)
    assert build_model(cfg).head.__class__ is OwnHead
    # All other heads refuse the key without having heard of it.
    refused(tiny_config(*key), "RELATIVE_COORDS is True, but DynamicSOLOHead has no use")
    refused(
        with_values("MODEL.SOLO.KERNEL_SIZE", 3, base=("MODEL.SOLO.HEAD", "OwnHead")), "OwnHead"
    )


def test_a_head_that_declares_nothing_may_read_anything(own_heads):
    cfg = tiny_config("MODEL.SOLO.HEAD", "SilentHead", "MODEL.SOLO.DETAILS.CONV_DIM", 64)
    validate_config(cfg)
    build_model(cfg)


def test_an_nms_of_ones_own_says_by_its_parameters_what_it_uses(monkeypatch):
    def own_nms(masks, labels, scores, *, threshold):
        return scores

    monkeypatch.setitem(MASK_NMS, "own", own_nms)
    own = ("MODEL.SOLO.NMS_TYPE", "own")
    model = build_model(tiny_config(*own, "MODEL.SOLO.NMS_THRESH_TEST", 0.3))
    assert model.settings.nms.keywords == {"threshold": 0.3}
    refused(tiny_config(*own, "MODEL.SOLO.NMS_SIGMA", 1.0), "NMS_SIGMA", "own has no use")


# What must stay valid.


@pytest.mark.parametrize(
    "path", sorted(Path(detectron2.model_zoo.__file__).parent.rglob("*.yaml")), ids=lambda p: p.stem
)
def test_detectron2s_own_configs_are_valid(path):
    load_config(path)


def test_a_config_without_our_keys_is_valid_for_their_models():
    validate_config(get_cfg())
    cfg = get_cfg()
    cfg.MODEL.META_ARCHITECTURE = "SOLO"
    refused(cfg, "MODEL.SOLO", "add_solo_config")


def test_a_dumped_config_is_read_back(tmp_path):
    cfg = tiny_config("SOLVER.BASE_LR", 1.0, "MODEL.SOLO.SCALE_RANGES", [[0, INF]] * 5)
    (tmp_path / "config.yaml").write_text(cfg.dump())
    read = load_config(tmp_path / "config.yaml")
    assert (read.MODEL.SOLO, read.SOLVER, read.INPUT) == (cfg.MODEL.SOLO, cfg.SOLVER, cfg.INPUT)


# Files: content of a.yaml, and what the one line says. b.yaml and l.yaml lie beside it.
REMOTE = (
    *("http://127.0.0.1:1/x.yaml", "https://h/x.yaml", "HTTP://h/x.yaml", "ftp:x.yaml"),
    *("file:///etc/passwd", "detectron2://x.yaml", "catalog://x", "solo://x", "s3://b/x.yaml"),
    *("//host/share/x.yaml", "\\\\host\\share\\x.yaml", "data:text/yaml,SEED: 1"),
)
FILES = {
    **{f"base {name}": (f"_BASE_: '{name}'", "_BASE_ must be a local file") for name in REMOTE},
    **{
        f"second base {name}": (f"_BASE_: [b.yaml, '{name}']", "_BASE_ must be a local file")
        for name in REMOTE[:2]
    },
    "a base of a base": ("_BASE_: c.yaml", "c.yaml: _BASE_ must be a local file"),
    "itself": ("_BASE_: a.yaml", "leads in a circle"),
    "a circle": ("_BASE_: l.yaml", "leads in a circle"),
    "a base that is missing": ("_BASE_: none.yaml", "none.yaml: no such file"),
    "a base that is a folder": ("_BASE_: .", "is not a regular file"),
    "a base that is a device": ("_BASE_: /dev/zero", "is not a regular file"),
    "a base that is a number": ("_BASE_: 3", "_BASE_ must be a path"),
    "a base that is nothing": ("_BASE_:", "_BASE_ must be a path"),
    "a base that is empty": ("_BASE_: ''", "_BASE_ must be a path"),
    "bases below bases": ("_BASE_: [[b.yaml]]", "_BASE_ must be a path"),
    "a base inside": ("MODEL: {_BASE_: b.yaml}", "_BASE_ can only stand at the top"),
    "a call": ("SEED: !!python/object/apply:os.getpid []", "python/object"),
    "an object": ("SEED: !!python/object/new:os.getpid []", "python/object"),
    "a name": ("SEED: !!python/name:os.system", "python/name"),
    "a module": ("SEED: !!python/module:os", "python/module"),
    "a tuple": ("SOLVER: {STEPS: !!python/tuple [1]}", "python/tuple"),
    "a list": ("- a\n- b", "expected a mapping"),
    "a word": ("just words", "expected a mapping"),
    "a number": ("3", "expected a mapping"),
    "no yaml": ("a: [", "while parsing"),
    "two colons": ("a: b: c", "mapping values are not allowed"),
    "two documents": ("SEED: 1\n---\nSEED: 2", "single document"),
    "a section twice": ("MODEL: {MASK_ON: True}\nMODEL: {WEIGHTS: x}", "MODEL stands twice"),
    "a key twice": (
        "SOLVER:\n  MAX_ITER: 3\n  MAX_ITER: 4",
        "MAX_ITER stands twice, again in line 3",
    ),
    "a bare section": ("SOLVER:", "SOLVER is a node"),
    "a value for a section": ("MODEL: 3", "MODEL is a node"),
    "a section for a value": ("SEED: {A: 1}", "SEED must be an integer, got keys below it"),
    "a misspelt key": (
        "SOLVER: {BASE_LRR: 1.0}",
        "no key SOLVER.BASE_LRR; did you mean SOLVER.BASE_LR",
    ),
    "a misspelt section": (
        "SOLVR: {MAX_ITER: 1}",
        "no key SOLVR.MAX_ITER; did you mean SOLVER.MAX_ITER",
    ),
    "a key of one level": ("NUM_GRIDS: [1]", "did you mean MODEL.SOLO.NUM_GRIDS"),
    "a key of two lines": ('"SE\\nED": 1', "no key SE ED"),
    "a base of two lines": ('_BASE_: "no\\nne.yaml"', "no ne.yaml: no such file"),
    "a number as key": ("3: 4", "no key 3"),
    "a text for a number": ("SEED: text", "SEED must be an integer, got 'text'"),
    "a float for an integer": (
        "SOLVER: {MAX_ITER: 1.5}",
        "SOLVER.MAX_ITER must be an integer, got 1.5",
    ),
    "a number for a text": ("OUTPUT_DIR: 3", "OUTPUT_DIR must be a text"),
    "a number for a list": ("SOLVER: {STEPS: 3}", "SOLVER.STEPS must be a list, got 3"),
    "a number for a flag": ("MODEL: {MASK_ON: 1}", "MODEL.MASK_ON must be True or False, got 1"),
    "a date": ("SEED: 2020-01-01", "SEED must be an integer"),
    "no integer": ("SEED: !!int foo", "invalid literal"),
    "no boolean": ("SEED: !!bool foo", "a value cannot be read"),
    "no time": ("SEED: !!timestamp foo", "a value cannot be read"),
    "endless digits": (f"SEED: {'9' * 5000}", "4300 digits"),
    "a number beyond floats": (
        f"SOLVER: {{BASE_LR: {'9' * 400}}}",
        "SOLVER.BASE_LR must be a number",
    ),
    "another version": ("VERSION: 1", "VERSION must be 2, got 1"),
    "nested 1200 deep": ("[" * 1200, "nested too deeply"),
    "nested 60 deep": ("SEED: " + "[" * 60 + "]" * 60, "levels"),
    "a value in itself": ("SEED: &a [*a]", "levels"),
    "anchors of anchors": (
        "a0: &a0 [x]\n"
        + "".join(f"a{i}: &a{i} [{','.join([f'*a{i - 1}'] * 10)}]\n" for i in range(1, 9)),
        "values",
    ),
    "no utf-8": (b"SEED: \xff\xfe", "utf-8"),
    "too large": (b"# " + b"x" * MAX_BYTES, "larger than"),
    "a pickle": (b"\x80\x04K\x01.", "not a usable config"),
}


@pytest.fixture
def no_network(monkeypatch):
    """A test fails if anything connects."""

    def connect(*_):
        raise AssertionError("something connects")

    monkeypatch.setattr(socket.socket, "connect", connect)
    monkeypatch.setattr(socket, "getaddrinfo", connect)


@pytest.mark.parametrize(("content", "said"), FILES.values(), ids=FILES)
def test_a_file_that_is_no_config_is_refused(content, said, tmp_path, no_network):
    path = tmp_path / "a.yaml"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    (tmp_path / "b.yaml").write_text("SEED: 1")
    (tmp_path / "c.yaml").write_text("_BASE_: http://127.0.0.1:1/x.yaml")
    (tmp_path / "l.yaml").write_text("_BASE_: ./a.yaml")
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(ValueError) as caught:
        load_config(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: not a usable config: ")
    assert said in message
    assert "\n" not in message
    assert sorted(tmp_path.rglob("*")) == before


def test_merging_mappings_stays_bounded(tmp_path):
    """PyYAML before 6.0.2 makes a hundred million pairs of these lines."""
    lines = ["SOLVER: &a0 {MAX_ITER: 7}"]
    lines += [f"a{i}: &a{i} {{<<: [{','.join([f'*a{i - 1}'] * 10)}]}}" for i in range(1, 9)]
    (tmp_path / "a.yaml").write_text("\n".join(lines))
    with pytest.raises(ValueError, match=r"no key a1|more than .* values"):
        load_config(tmp_path / "a.yaml")


def test_many_files_are_too_many(tmp_path):
    (tmp_path / "0.yaml").write_text("SEED: 1")
    for i in range(1, 5):
        (tmp_path / f"{i}.yaml").write_text(f"_BASE_: [{', '.join([f'{i - 1}.yaml'] * 9)}]")
    with pytest.raises(ValueError, match="more than 100 files"):
        load_config(tmp_path / "4.yaml")


def test_bases_apply_in_order_and_paths_are_relative_to_their_file(tmp_path, monkeypatch):
    (tmp_path / "deep").mkdir()
    (tmp_path / "home").mkdir()
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "home" / "h.yaml").write_text("SOLVER: {MAX_ITER: 1, STEPS: []}\nSEED: 1")
    (tmp_path / "deep" / "x.yaml").write_text("_BASE_: ../y.yaml\nSOLVER: {WARMUP_ITERS: 3}")
    (tmp_path / "y.yaml").write_text("SEED: 2\nSOLVER: {WARMUP_ITERS: 2, BASE_LR: 1}")
    text = f"_BASE_: ['~/h.yaml', deep/x.yaml, {tmp_path}/y.yaml]\nTEST: {{EVAL_PERIOD: 4}}"
    (tmp_path / "a.yaml").write_text(text)
    (tmp_path / "link.yaml").symlink_to(tmp_path / "a.yaml")
    cfg = load_config(tmp_path / "a.yaml")
    assert (cfg.SOLVER.MAX_ITER, cfg.SEED, cfg.SOLVER.WARMUP_ITERS) == (1, 2, 2)
    assert (cfg.SOLVER.BASE_LR, type(cfg.SOLVER.BASE_LR)) == (1.0, float)
    assert cfg.TEST.EVAL_PERIOD == 4
    assert load_config(tmp_path / "link.yaml") == cfg


def test_a_byte_order_mark_and_anchors_are_read(tmp_path):
    text = "SOLVER: &s {MAX_ITER: 7}\nINPUT:\n  MIN_SIZE_TRAIN: (8, 9)\n"
    (tmp_path / "a.yaml").write_text(text, encoding="utf-8-sig")
    cfg = load_config(tmp_path / "a.yaml")
    assert (cfg.SOLVER.MAX_ITER, cfg.INPUT.MIN_SIZE_TRAIN) == (7, (8, 9))


@pytest.mark.parametrize("name", REMOTE[:6])
def test_a_config_is_never_fetched(name, no_network):
    with pytest.raises(ValueError) as caught:
        load_config(name)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "remote"),
    [
        *((name, True) for name in REMOTE),
        *((name, False) for name in ("a.yaml", "../a.yaml", "/a b/c.yaml", "~/a.yaml")),
        *((name, False) for name in ("C:\\a.yaml", "a/b:c.yaml", "")),
    ],
)
def test_what_counts_as_remote(name, remote):
    assert is_remote(name) == remote


@pytest.mark.parametrize(
    ("name", "similar"),
    [
        ("COCO-InstanceSegmentation/solov2_R50_FPN_3x.yaml", "solov2_R_50_FPN_3x.yaml"),
        ("solov2_R_50_FPN_3x", "COCO-InstanceSegmentation/solov2_R_50_FPN_3x.yaml"),
        ("backbones/DNC.yaml", ""),
        ("", ""),
        ("x\0y", ""),
        ("x" * 5000, ""),
    ],
)
def test_suggested_configs_can_be_run(name, similar):
    with pytest.raises(ValueError) as caught:
        load_config(name)
    message = str(caught.value)
    assert similar in message
    assert len(message) < 1000
    _, _, offered = message.partition("similar:")
    assert not any(part in offered for part in ("backbones/", "heads/", "schedules/"))


# Command lines: words, and what the one line says.
OVERRIDES = {
    "a misspelt key": (["SOLVER.BASE_LRR", "1"], "did you mean SOLVER.BASE_LR"),
    "a key without its section": (["MAX_ITER", "1"], "did you mean SOLVER.MAX_ITER"),
    "an unknown key": (["MODEL.XYZZY", "1"], "no key MODEL.XYZZY"),
    "below a key": (["SEED.A", "1"], "no key SEED.A"),
    "a text": (["SOLVER.MAX_ITER", "ten"], "SOLVER.MAX_ITER must be an integer, got 'ten'"),
    "code": (["SEED", "__import__('os').getpid()"], "SEED must be an integer"),
    "brackets": (["SEED", "(" * 400], "SEED must be an integer"),
    "a section": (["MODEL.SOLO", "{'HEAD': 'x'}"], "MODEL.SOLO is a node"),
    "no value": (["SEED"], "SEED has no value"),
    "a key as value": (["SEED", "1", "INPUT.FORMAT"], "INPUT.FORMAT has no value"),
    "an equals sign": (["SEED=1"], "write KEY VALUE, without ="),
    "an option": (["SEED", "1", "--resume"], "--resume is no option"),
    "a base": (["_BASE_", "x.yaml"], "_BASE_ can only stand at the top of a file"),
}


@pytest.mark.parametrize(("words", "said"), OVERRIDES.values(), ids=OVERRIDES)
def test_a_wrong_override_is_named(words, said):
    with pytest.raises(ValueError) as caught:
        merge_overrides(tiny_config(), words)
    assert str(caught.value).startswith("Bad config override: ")
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("key", "word", "value"),
    [
        ("OUTPUT_DIR", "2024", "2024"),
        ("OUTPUT_DIR", "a b", "a b"),
        ("SOLVER.BASE_LR", "1", 1.0),
        ("SOLVER.BASE_LR", "1e-3", 0.001),
        ("SOLVER.STEPS", "[3]", (3,)),
        ("MODEL.SOLO.NUM_GRIDS", "(3, 2)", [3, 2]),
        ("SOLVER.WEIGHT_DECAY_BIAS", "None", None),
        ("SEED", "-1", -1),
        ("SOLVER.AMP.ENABLED", "True", True),
    ],
)
def test_values_get_the_type_of_their_key(key, word, value):
    cfg = tiny_config()
    merge_overrides(cfg, [key, word])
    assert get(cfg, key) == value
    assert type(get(cfg, key)) is type(value)


@pytest.mark.parametrize(
    ("words", "rest", "pairs"),
    [
        ("--a x SEED 3 --b", "--a x --b", "SEED 3"),
        ("SEED -1 --a INPUT.FORMAT RGB", "--a", "SEED -1 INPUT.FORMAT RGB"),
        ("--in MODEL.json a.PNG", "--in MODEL.json a.PNG", ""),
        ("--in MODEL x", "--in MODEL x", ""),
        ("SOLVR.X 1 --a", "SOLVR.X 1 --a", ""),  # fails as an override later
    ],
)
def test_pairs_stand_anywhere(words, rest, pairs):
    assert split_overrides(words.split()) == (rest.split(), pairs.split())


@pytest.mark.parametrize("words", ["SEED", "SEED --resume", "SEED INPUT.FORMAT RGB"])
def test_a_key_without_value_is_named_where_it_stands(words):
    with pytest.raises(ValueError, match="SEED has no value"):
        split_overrides(words.split())


# Commands: exit code 2 and one line, before anything is written.


def command(name):
    """`main` of a command, without a process of its own."""
    path = {"train_net": ROOT / "train_net.py", "demo": ROOT / "demo" / "demo.py"}[name]
    spec = importlib.util.spec_from_file_location(f"fault_{name}", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.invoke_main if name == "train_net" else module.main


@pytest.fixture
def tiny_yaml(tmp_path):
    path = tmp_path / "tiny.yaml"
    path.write_text(tiny_config().dump())
    return str(path)


@pytest.mark.parametrize(
    "pair",
    [
        ("SOLVER.IMS_PER_BATCH", "0"),
        ("SOLVER.CHECKPOINT_PERIOD", "0"),
        ("MODEL.SOLO.CONV_DIM", "0"),
        ("MODEL.SOLO.NORM", "foo"),
        ("MODEL.BACKBONE.NAME", "foo"),
        ("MODEL.META_ARCHITECTURE", "foo"),
        ("INPUT.MIN_SIZE_TRAIN", "()"),
        ("MODEL.SOLO.DETAILS.FUSE", "False"),
        ("TEST.DETECTIONS_PER_IMAGE", "900"),
        ("SOLVER.BASE_LRR", "1"),
        ("MODEL.DEVICE", "meta"),
        ("MODEL.DEVICE", "gpu"),
        ("OUTPUT_DIR", ""),
    ],
    ids="=".join,
)
@pytest.mark.parametrize("mode", [[], ["--eval-only"]], ids=["train", "eval"])
def test_train_net_refuses_before_it_writes(pair, mode, tiny_yaml, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = [] if pair[0] == "OUTPUT_DIR" else ["OUTPUT_DIR", str(tmp_path / "out")]
    # Behind the pairs, where Detectron2's parser would take them for pairs as well.
    code = command("train_net")(["--config-file", tiny_yaml, *folder, *pair, *mode])
    said = capsys.readouterr().err.strip().splitlines()[-1]
    assert code == 2
    assert pair[0].split(".")[-1] in said or "meta" in said or "gpu" in said
    assert sorted(path.name for path in tmp_path.iterdir()) == ["tiny.yaml"]


@pytest.mark.parametrize(
    "words",
    [
        ["INPUT.MIN_SIZE_TEST", "-5"],
        ["INPUT.MAX_SIZE_TEST", "0"],
        ["MODEL.SOLO.NMS_SIGMA", "0"],
        ["MODEL.SOLO.NMS_TYPE", "matrx"],
        ["INPUT.FORMAT", "L"],
        ["--device", "meta"],
        ["--device", "gpu"],
    ],
    ids=" ".join,
)
def test_demo_refuses_before_it_writes(words, tiny_yaml, tmp_path, capsys):
    detection_utils.Image.new("RGB", (9, 9)).save(tmp_path / "p.png")
    paths = ["--input", str(tmp_path / "p.png"), "--output", str(tmp_path / "o.png")]
    code = command("demo")(["--config-file", tiny_yaml, *words, *paths])
    said = capsys.readouterr().err.strip().splitlines()[-1]
    assert code == 2
    assert words[0].split(".")[-1] in said or words[1] in said
    assert not (tmp_path / "o.png").exists()


def test_the_api_validates_too():
    cfg = tiny_config()
    cfg.SOLVER.MAX_ITER = 0
    for use in (SOLOTrainer, SOLOPredictor, validate_config):
        with pytest.raises(ValueError, match=r"SOLVER\.MAX_ITER"):
            use(cfg)
    with pytest.raises(ValueError, match=r"NMS_SIGMA"):
        build_model(with_values("MODEL.SOLO.NMS_SIGMA", 0.0))
    with pytest.raises(ValueError, match="meta"):
        model_zoo.get("COCO-InstanceSegmentation/solov2_R_50_FPN_3x.yaml", device="meta")


@pytest.mark.parametrize("name", ["meta", "gpu", "", "cpu:", "xla", "privateuseone", "cuda:99"])
def test_a_device_that_cannot_compute_is_named(name):
    with pytest.raises(ValueError, match=f"{name}'"):
        resolve_device(name)


def test_whole_numbers_as_mean_and_deviation_are_no_integers(training_batch):
    whole = ("MODEL.PIXEL_MEAN", [100, 110, 120], "MODEL.PIXEL_STD", [50, 60, 70])
    model = build_model(with_values(*whole))
    assert model.pixel_mean.dtype == model.pixel_std.dtype == torch.float32
    assert all(loss.isfinite() for loss in model(training_batch).values())


# Whatever is accepted runs.

HEADS = (
    (),
    ("MODEL.SOLO.HEAD", "VanillaSOLOHead"),
    ("MODEL.SOLO.HEAD", "DecoupledSOLOHead"),
    (
        *("MODEL.SOLO.HEAD", "DecoupledDynamicSOLOHead", "MODEL.SOLO.KERNEL_DIM", 64),
        *("MODEL.SOLO.NUM_KERNEL_GROUPS", 2),
    ),
    SOFT,
    PANOPTIC,
)
ANYTHING = st.one_of(
    st.integers(-2, 70),
    st.sampled_from([0.0, 0.25, 0.5, 1.0, -0.5, 2.5, NAN, INF, True, False, None, "", "x"]),
    st.sampled_from(["GN", "BN", "hard", "soft", "fast", "linear", "all", "last", "separate"]),
    st.sampled_from(["bce", "focal", "mae", "avg", "region_grid", "adaptive_max_pool", "RGB"]),
    st.lists(st.integers(-1, 40), max_size=6),
    st.lists(st.sampled_from(["p2", "p3", "p4", "p5", "p6", "p7"]), max_size=5),
    st.lists(st.sampled_from(["stem", "res2", "res3", "res4", "res5"]), max_size=5),
    st.lists(st.floats(0, 2), min_size=3, max_size=3),
    st.sampled_from([[[1, 24]] * 5, [[0, INF]] * 5, [[5, 1]] * 5, [[1, 2]]]),
)
MODEL_NODES = ("MODEL.SOLO.", "MODEL.FPN.", "MODEL.RESNETS.", "MODEL.PIXEL_", "TEST.DETECTIONS")
MODEL_KEYS = [
    key for key in default_values() if key.startswith(MODEL_NODES) and key != "MODEL.SOLO.HEAD"
]
MODEL_KEYS += ["MODEL.SEM_SEG_HEAD.IN_FEATURES", "MODEL.SEM_SEG_HEAD.NORM"]


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_a_model_that_is_accepted_trains_and_predicts(data):
    head = data.draw(st.sampled_from(HEADS))
    key = data.draw(st.sampled_from(MODEL_KEYS))
    value = data.draw(ANYTHING)
    cfg = with_values(key, value, base=head)
    try:
        validate_config(cfg)
    except ValueError as error:
        assert key in str(error) or key.split(".", 2)[-1] in str(error)
        assert "\n" not in str(error)
        return
    model = build_model(cfg)
    batch = [noise_input((64, 96), [(4, 4, 40, 60)], [0]), noise_input((64, 96))]
    batch = [{**x, "sem_seg": torch.zeros((64, 96), dtype=torch.int64)} for x in batch]
    sum(model(batch).values()).backward()
    model.eval()
    assert model([{**noise_input((50, 70)), "height": 30, "width": 40}])


RUN_NODES = ("SOLVER.", "INPUT.", "DATALOADER.", "TEST.", "SEED", "VIS_PERIOD")
RUN_KEYS = [key for key in default_values() if key.startswith(RUN_NODES)]
NAMES = [name for key in RUN_KEYS if key in RULES for name in RULES[key].names()]


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    pairs=st.dictionaries(
        st.sampled_from(RUN_KEYS),
        st.one_of(ANYTHING, st.sampled_from(NAMES)),
        min_size=1,
        max_size=3,
    )
)
def test_a_run_that_is_accepted_has_a_schedule_and_augmentations(pairs):
    cfg = with_values(*(part for pair in pairs.items() for part in pair))
    try:
        validate_config(cfg, processes=1)
    except ValueError as error:
        assert any(key in str(error) for key in pairs)
        assert "\n" not in str(error)
        return
    model = nn.Module()
    model.backbone = nn.Conv2d(3, 3, 1)
    optimizer = build_optimizer(cfg, model)
    schedule = build_lr_scheduler(cfg, optimizer)
    for _ in range(min(3, cfg.SOLVER.MAX_ITER)):
        model.backbone(torch.ones(1, 3, 4, 4)).sum().backward()
        optimizer.step()
        schedule.step()
    for is_train in (True, False):
        steps = detection_utils.build_augmentation(cfg, is_train)
        if is_train and cfg.INPUT.CROP.ENABLED:
            steps = [T.RandomCrop(cfg.INPUT.CROP.TYPE, cfg.INPUT.CROP.SIZE), *steps]
        T.AugmentationList(steps)(T.AugInput(np.zeros((50, 70, 3), np.uint8)))


# The kinds of rules themselves.


@pytest.mark.parametrize(
    ("rule", "right", "wrong"),
    [
        (integer(1, 3), [1, 3, np.int32(2)], [0, 4, 1.0, True, "1", None]),
        (number(0, 1), [0, 1, 0.5, np.float32(0.5)], [-1e-9, 1.1, NAN, INF, True, "0"]),
        (number(0, above=True), [1e-9, 10**9], [0, 0.0, INF]),
        (number(0, 1, below=True), [0], [1, 1.0]),
        (items(integer(1), 2), [[1, 2], (3, 4)], [[1], [1, 2, 3], [0, 1], "12", None]),
        (items(integer(1), least=1), [[1]], [[], ()]),
        (choice(("a", 1)), ["a", 1], ["A", True, 1.5, None, [1]]),
        (norm(), ["", "GN", "BN"], ["gn", None, 3]),
        (like(False), [True], [1, None]),
        (like(1.0), [1, 0.5], [NAN, True, "1"]),
        (like(None), [None, "x", 3], []),
    ],
    ids=lambda x: x.allowed() if hasattr(x, "allowed") else None,
)
def test_a_rule_takes_and_refuses(rule, right, wrong):
    assert all(rule.accepts(value) for value in right)
    assert not any(rule.accepts(value) for value in wrong)


def test_every_rule_is_about_a_key_that_there_is():
    newer = {  # keys of Detectron2's main branch
        *("FLOAT32_PRECISION", "DATALOADER.RANDOM_SUBSET_RATIO"),
        *("SOLVER.BASE_LR_END", "SOLVER.NUM_DECAYS"),
    }
    assert set(RULES) - newer <= set(default_values())


def test_merging_needs_the_keys_first(tmp_path):
    (tmp_path / "a.yaml").write_text("MODEL: {SOLO: {HEAD: DynamicSOLOHead}}")
    cfg = get_cfg()
    with pytest.raises(ValueError, match=r"no key MODEL\.SOLO\.HEAD"):
        merge_file(cfg, tmp_path / "a.yaml")
    add_solo_config(cfg)
    merge_file(cfg, tmp_path / "a.yaml")
