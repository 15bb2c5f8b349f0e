"""Small configs, models and ground truth that several test modules share."""

from __future__ import annotations

import torch
from detectron2.config import get_cfg
from detectron2.modeling import build_model
from detectron2.structures import BitMasks, Instances

from solo_d2 import add_solo_config

TINY_GRIDS = [12, 10, 8, 6, 4]
TINY_RANGES = [[1, 24], [12, 48], [24, 96], [48, 192], [96, 512]]


# Overrides of `tiny_config` that make it Soft SOLO.
SOFT = (
    *("MODEL.META_ARCHITECTURE", "SoftSOLO", "MODEL.SOLO.HEAD", "SoftDynamicSOLOHead"),
    *("MODEL.SOLO.MASK_LOSS", "matte", "MODEL.SOLO.MASK_LOSS_WEIGHT", 1.0),
)


def tiny_config(*overrides):
    """SOLOv2 on ResNet-18 with 32 channels, for inputs of about 64x96 pixels on the CPU."""
    cfg = get_cfg()
    add_solo_config(cfg)
    cfg.MODEL.META_ARCHITECTURE = "SOLO"
    cfg.MODEL.DEVICE = "cpu"
    cfg.MODEL.WEIGHTS = ""
    cfg.MODEL.MASK_ON = True
    cfg.MODEL.BACKBONE.NAME = "build_resnet_fpn_backbone"
    if "build_timm_fpn_backbone" not in overrides:
        cfg.MODEL.RESNETS.DEPTH = 18
        cfg.MODEL.RESNETS.RES2_OUT_CHANNELS = 64
        cfg.MODEL.RESNETS.OUT_FEATURES = ["res2", "res3", "res4", "res5"]
    cfg.MODEL.FPN.IN_FEATURES = ["res2", "res3", "res4", "res5"]
    cfg.MODEL.FPN.OUT_CHANNELS = 32
    cfg.INPUT.MASK_FORMAT = "bitmask"
    node = cfg.MODEL.SOLO
    node.NUM_CLASSES = 3
    node.NUM_GRIDS = TINY_GRIDS
    node.SCALE_RANGES = TINY_RANGES
    node.NUM_CONVS = 1
    node.CONV_DIM = 32
    # Other heads refuse the keys of those with kernels.
    if "MODEL.SOLO.HEAD" not in overrides or any("Dynamic" in str(x) for x in overrides):
        node.KERNEL_DIM = node.MASK_FEATURE.CONV_DIM = 32
    cfg.merge_from_list(list(overrides))
    return cfg


def tiny_model(*overrides, seed=0):
    """The model of `tiny_config`, with random weights, in training mode."""
    torch.manual_seed(seed)
    return build_model(tiny_config(*overrides))


def rectangles(size, boxes, classes):
    """Ground truth of an image of `size` (height, width): XYXY rectangles and their classes."""
    masks = torch.zeros((len(boxes), *size), dtype=torch.bool)
    for mask, (x0, y0, x1, y1) in zip(masks, boxes, strict=True):
        mask[y0:y1, x0:x1] = True
    return Instances(
        size,
        gt_masks=BitMasks(masks),
        gt_classes=torch.tensor(classes, dtype=torch.int64),
        gt_boxes=BitMasks(masks).get_bounding_boxes(),
    )


def noise_input(size, boxes=(), classes=(), seed=0):
    """One input of a model in training: a picture of noise with rectangles as ground truth."""
    pixels = torch.Generator().manual_seed(seed)
    image = torch.randint(0, 256, (3, *size), generator=pixels, dtype=torch.uint8)
    return {"image": image, "instances": rectangles(size, boxes, classes)}
