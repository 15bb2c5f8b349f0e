"""What every key may be: one row per key, for Detectron2's keys that a run reads and for ours.

Keys without a row must have the type of their default. Names that users register (heads, NMS,
losses) have their rows where their tables are, in `solo_d2.modeling.model_config`.
"""

from __future__ import annotations

import math

from detectron2.config import get_cfg

from .rules import Rule, choice, device, either, exactly, flag, integer, items, norm, number, text

OPTIMIZERS = ["SGD", "ADAMW"]
"""Values of `SOLVER.OPTIMIZER`."""

LR_SCHEDULERS = ["WarmupMultiStepLR", "WarmupCosineLR", "WarmupFlatCosineLR"]
if "NUM_DECAYS" in get_cfg().SOLVER:  # newer than Detectron2 0.6
    LR_SCHEDULERS.append("WarmupStepWithFixedGammaLR")
"""Values of `SOLVER.LR_SCHEDULER_NAME`; a trainer with schedules of its own adds their names."""

SAMPLERS = ["TrainingSampler", "RepeatFactorTrainingSampler"]
if "RANDOM_SUBSET_RATIO" in get_cfg().DATALOADER:
    SAMPLERS.append("RandomSubsetTrainingSampler")
"""Values of `DATALOADER.SAMPLER_TRAIN`; a trainer with samplers of its own adds their names."""

CLIP_TYPES = ["value", "norm", "full_model"]
"""Values of `SOLVER.CLIP_GRADIENTS.CLIP_TYPE`."""

TRACKERS = ["wandb", "trackio", "mlflow"]
"""Packages that `SOLVER.TRACKERS` may name."""

NONE = exactly(None)
POSITIVE = number(0, above=True)
NOT_NEGATIVE = number(0)
SHARE = number(0, 1)
THRESHOLD = number(0, 1, below=True)
# Beyond any network; a slip of zeros is told before memory runs out.
COUNT = integer(1, 100_000)
CHANNELS = integer(1, 65_536)
STAGES = ("res2", "res3", "res4", "res5")

RULES: dict[str, Rule] = {
    "OUTPUT_DIR": text(),
    # Detectron2 adds the rank of the process, and numpy's seeds have 32 bits.
    "SEED": integer(-(2**31), 2**32 - 2**16),
    "VIS_PERIOD": integer(0),
    "FLOAT32_PRECISION": choice(("", "highest", "high", "medium")),
    "DATASETS.TRAIN": items(text()),
    "DATASETS.TEST": items(text()),
    "DATASETS.TRAIN_SHARES": items(NOT_NEGATIVE),
    "DATALOADER.NUM_WORKERS": integer(0, 1024),
    "DATALOADER.SAMPLER_TRAIN": choice(lambda: SAMPLERS),
    "DATALOADER.REPEAT_THRESHOLD": NOT_NEGATIVE,
    "DATALOADER.RANDOM_SUBSET_RATIO": number(0, 1, above=True),
    # 0 leaves images as they are.
    "INPUT.MIN_SIZE_TRAIN": either(integer(0), items(integer(0), least=1)),
    "INPUT.MIN_SIZE_TRAIN_SAMPLING": choice(("choice", "range")),
    "INPUT.MAX_SIZE_TRAIN": integer(1),
    "INPUT.MIN_SIZE_TEST": integer(0),
    "INPUT.MAX_SIZE_TEST": integer(1),
    "INPUT.RANDOM_FLIP": choice(("horizontal", "vertical", "none")),
    "INPUT.CROP.TYPE": choice(("relative_range", "relative", "absolute", "absolute_range")),
    "INPUT.CROP.SIZE": items(POSITIVE, 2),
    "INPUT.MAX_VALUE": NOT_NEGATIVE,
    "INPUT.LSJ.MIN_SCALE": POSITIVE,
    "INPUT.LSJ.MAX_SCALE": POSITIVE,
    "INPUT.LSJ.SIZE": integer(32, 8192),
    "INPUT.COPY_PASTE.PROB": SHARE,
    "INPUT.COPY_PASTE.NUM_OBJECTS": items(integer(1, 1000), 2),
    "INPUT.COPY_PASTE.SCALES": items(POSITIVE, 2),
    "INPUT.COPY_PASTE.MIN_VISIBLE": SHARE,
    "INPUT.FORMAT": choice(("BGR", "RGB")),
    "INPUT.RESIZE_FILTER": choice(("pillow", "opencv")),
    "INPUT.MASK_FORMAT": choice(("polygon", "bitmask")),
    "SOLVER.OPTIMIZER": choice(lambda: OPTIMIZERS),
    "SOLVER.LR_SCHEDULER_NAME": choice(lambda: LR_SCHEDULERS),
    "SOLVER.MAX_ITER": integer(1),
    "SOLVER.BASE_LR": POSITIVE,
    "SOLVER.BASE_LR_END": NOT_NEGATIVE,
    "SOLVER.BACKBONE_MULTIPLIER": NOT_NEGATIVE,
    "SOLVER.FREEZE_BACKBONE_ITERS": integer(0),
    "SOLVER.FLAT_SHARE": THRESHOLD,
    "SOLVER.EMA.DECAY": THRESHOLD,
    "SOLVER.MOMENTUM": number(0, 1, below=True),
    "SOLVER.WEIGHT_DECAY": NOT_NEGATIVE,
    "SOLVER.WEIGHT_DECAY_NORM": either(NONE, NOT_NEGATIVE),
    "SOLVER.WEIGHT_DECAY_BIAS": either(NONE, NOT_NEGATIVE),
    "SOLVER.BIAS_LR_FACTOR": either(NONE, NOT_NEGATIVE),
    "SOLVER.GAMMA": POSITIVE,
    "SOLVER.STEPS": items(integer(1)),
    "SOLVER.NUM_DECAYS": integer(1),
    "SOLVER.WARMUP_FACTOR": SHARE,
    "SOLVER.WARMUP_ITERS": integer(0),
    "SOLVER.WARMUP_METHOD": choice(("linear", "constant")),
    "SOLVER.CHECKPOINT_PERIOD": integer(1),
    "SOLVER.CHECKPOINTS_TO_KEEP": integer(0),
    "SOLVER.IMS_PER_BATCH": integer(1),
    "SOLVER.ACCUMULATE_STEPS": integer(1, 65_536),
    "SOLVER.REFERENCE_WORLD_SIZE": integer(0),
    "SOLVER.CLIP_GRADIENTS.CLIP_TYPE": choice(lambda: CLIP_TYPES),
    "SOLVER.CLIP_GRADIENTS.CLIP_VALUE": POSITIVE,
    "SOLVER.CLIP_GRADIENTS.NORM_TYPE": either(POSITIVE, exactly(math.inf)),
    "SOLVER.TRACKERS": items(
        Rule(
            lambda: f"PACKAGE or PACKAGE:PROJECT with one of {', '.join(TRACKERS)}",
            lambda value: isinstance(value, str) and value.partition(":")[0] in TRACKERS,
        )
    ),
    "TEST.EVAL_PERIOD": integer(0),
    "TEST.DRAWN_IMAGES": integer(0, 100),
    "TEST.DETECTIONS_PER_IMAGE": COUNT,
    "TEST.EXPECTED_RESULTS": items(
        Rule(
            lambda: "[task, metric, value, tolerance]",
            lambda row: (
                isinstance(row, list | tuple)
                and len(row) == 4
                and all(map(text().accepts, row[:2]))
                and all(map(number().accepts, row[2:]))
            ),
        )
    ),
    "TEST.AUG.MIN_SIZES": items(integer(1), least=1),
    "TEST.AUG.MAX_SIZE": integer(1),
    "TEST.AUG.MIN_SHARE": number(0, 1),
    "TEST.TILES.SIZE": either(exactly(0), integer(32)),
    "TEST.TILES.OVERLAP": number(0, 0.9),
    "TEST.TILES.BATCH_SIZE": integer(1),
    "TEST.TILES.DETECTIONS_PER_IMAGE": integer(1),
    "TEST.PRECISE_BN.NUM_ITER": integer(1),
    "MODEL.DEVICE": device(),
    "MODEL.WEIGHTS": either(NONE, text(empty=True)),
    "MODEL.PIXEL_MEAN": items(number(), 3),
    "MODEL.PIXEL_STD": items(POSITIVE, 3),
    "MODEL.BACKBONE.FREEZE_AT": integer(0, 5),
    "MODEL.FPN.IN_FEATURES": items(choice(("res1", *STAGES)), least=1),
    "MODEL.FPN.OUT_CHANNELS": CHANNELS,
    "MODEL.FPN.NORM": norm(),
    "MODEL.FPN.FUSE_TYPE": choice(("sum", "avg")),
    "MODEL.RESNETS.DEPTH": choice((18, 34, 50, 101, 152)),
    "MODEL.RESNETS.OUT_FEATURES": items(choice(("stem", *STAGES)), least=1),
    "MODEL.RESNETS.NUM_GROUPS": CHANNELS,
    "MODEL.RESNETS.NORM": norm(),
    "MODEL.RESNETS.WIDTH_PER_GROUP": CHANNELS,
    "MODEL.RESNETS.RES5_DILATION": choice((1, 2)),
    "MODEL.RESNETS.RES2_OUT_CHANNELS": CHANNELS,
    "MODEL.RESNETS.STEM_OUT_CHANNELS": CHANNELS,
    "MODEL.RESNETS.DEFORM_ON_PER_STAGE": items(flag(), 4),
    "MODEL.RESNETS.DEFORM_NUM_GROUPS": CHANNELS,
    "MODEL.TIMM.NAME": text(),
    "MODEL.TIMM.WEIGHTS": text(empty=True),
    "MODEL.TIMM.FREEZE_AT": integer(0, 5),
    "MODEL.SOLO.NUM_CLASSES": COUNT,
    "MODEL.SOLO.IN_FEATURES": items(text()),
    "MODEL.SOLO.NUM_GRIDS": items(integer(1, 1000), least=1),
    "MODEL.SOLO.SCALE_RANGES": items(items(either(NOT_NEGATIVE, exactly(math.inf)), 2), least=1),
    "MODEL.SOLO.CENTER_REGION": SHARE,
    "MODEL.SOLO.NUM_CONVS": integer(0, 100),
    "MODEL.SOLO.NUM_COORD_CONVS": integer(0, 100),
    "MODEL.SOLO.CONV_DIM": CHANNELS,
    "MODEL.SOLO.NORM": norm(),
    "MODEL.SOLO.PRIOR_PROB": number(0, 1, above=True, below=True),
    "MODEL.SOLO.KERNEL_DIM": CHANNELS,
    "MODEL.SOLO.NUM_KERNEL_GROUPS": CHANNELS,
    "MODEL.SOLO.MASK_FEATURE.IN_FEATURES": items(text()),
    "MODEL.SOLO.MASK_FEATURE.NUM_CONVS": integer(2, 100),
    "MODEL.SOLO.MASK_FEATURE.CONV_DIM": CHANNELS,
    "MODEL.SOLO.DETAILS.CONV_DIM": CHANNELS,
    "MODEL.SOLO.DETAILS.NUM_CONVS": integer(1, 100),
    "MODEL.SOLO.CATEGORY_LOSS_WEIGHT": NOT_NEGATIVE,
    "MODEL.SOLO.MASK_LOSS_WEIGHT": NOT_NEGATIVE,
    "MODEL.SOLO.MASK_LOSS_POINTS": integer(0, 1_000_000),
    "MODEL.SOLO.AUX_SEMANTIC_LOSS_WEIGHT": NOT_NEGATIVE,
    "MODEL.SOLO.FOCAL_LOSS_ALPHA": SHARE,
    "MODEL.SOLO.FOCAL_LOSS_GAMMA": NOT_NEGATIVE,
    "MODEL.SOLO.SCORE_THRESH_TEST": THRESHOLD,
    "MODEL.SOLO.MASK_THRESH_TEST": THRESHOLD,
    "MODEL.SOLO.PRE_NMS_TOPK_TEST": integer(1),
    "MODEL.SOLO.NMS_SIGMA": POSITIVE,
    "MODEL.SOLO.NMS_THRESH_TEST": SHARE,
    "MODEL.SOLO.FINAL_SCORE_THRESH_TEST": THRESHOLD,
    "MODEL.SOLO.SCORE_TEMPERATURE": number(0.2, 5),
    "MODEL.SEM_SEG_HEAD.NUM_CLASSES": COUNT,
    "MODEL.SEM_SEG_HEAD.IN_FEATURES": items(text()),
    "MODEL.SEM_SEG_HEAD.CONVS_DIM": CHANNELS,
    "MODEL.SEM_SEG_HEAD.COMMON_STRIDE": integer(1, 64),
    "MODEL.SEM_SEG_HEAD.NORM": norm(),
    "MODEL.SEM_SEG_HEAD.LOSS_WEIGHT": NOT_NEGATIVE,
    "MODEL.PANOPTIC_FPN.COMBINE.OVERLAP_THRESH": SHARE,
    "MODEL.PANOPTIC_FPN.COMBINE.STUFF_AREA_LIMIT": NOT_NEGATIVE,
    "MODEL.PANOPTIC_FPN.COMBINE.INSTANCES_CONFIDENCE_THRESH": SHARE,
}
