"""Small configs, models and ground truth that several test modules share."""

from __future__ import annotations

import torch
from detectron2.modeling import build_model
from detectron2.structures import BitMasks, Instances

from solo_d2.testing import tiny_config

# Overrides of `tiny_config` that make it Soft SOLO.
SOFT = (
    *("MODEL.META_ARCHITECTURE", "SoftSOLO", "MODEL.SOLO.HEAD", "SoftDynamicSOLOHead"),
    *("MODEL.SOLO.MASK_LOSS", "matte", "MODEL.SOLO.MASK_LOSS_WEIGHT", 1.0),
)

RESNET18 = (
    *("MODEL.RESNETS.DEPTH", 18, "MODEL.RESNETS.STEM_OUT_CHANNELS", 64),
    *("MODEL.RESNETS.RES2_OUT_CHANNELS", 64, "MODEL.RESNETS.WIDTH_PER_GROUP", 64),
)
"""Overrides of `tiny_config` for the real one instead of a narrow ResNet-50; four times as slow."""


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
    """One input of a model in training: an image of noise with rectangles as ground truth."""
    pixels = torch.Generator().manual_seed(seed)
    image = torch.randint(0, 256, (3, *size), generator=pixels, dtype=torch.uint8)
    return {"image": image, "instances": rectangles(size, boxes, classes)}
