"""Heads on random features without a backbone, and literal references of their parts."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from builders import tiny_config
from detectron2.layers import ShapeSpec

from solo_d2.modeling import GridSpec, build_solo_head

STRIDES = {"p2": 4, "p3": 8, "p4": 16, "p5": 32, "p6": 64}

# What selects each member of the family, for `tiny_config`.
HEADS = {
    "vanilla": ("MODEL.SOLO.HEAD", "VanillaSOLOHead"),
    "decoupled": ("MODEL.SOLO.HEAD", "DecoupledSOLOHead"),
    "decoupled_light": ("MODEL.SOLO.HEAD", "DecoupledLightSOLOHead"),
    "dynamic": (),
    "dynamic_3x3": ("MODEL.SOLO.KERNEL_SIZE", 3),
    "dynamic_separate": ("MODEL.SOLO.MASK_FEATURE.TYPE", "separate"),
    "decoupled_dynamic": (
        *("MODEL.SOLO.HEAD", "DecoupledDynamicSOLOHead"),
        *("MODEL.SOLO.NUM_KERNEL_GROUPS", 2, "MODEL.SOLO.KERNEL_DIM", 64),
    ),
}


def make_head(*overrides, channels=32, cfg=None):
    cfg = cfg or tiny_config(*overrides)
    node = cfg.MODEL.SOLO
    torch.manual_seed(0)
    shapes = {name: ShapeSpec(channels=channels, stride=s) for name, s in STRIDES.items()}
    strides = [STRIDES[name] for name in node.IN_FEATURES]
    return build_solo_head(cfg, shapes, GridSpec.build(node.NUM_GRIDS, node.SCALE_RANGES, strides))


def make_features(size=(64, 96), count=2, channels=32):
    generator = torch.Generator().manual_seed(1)
    return {
        name: torch.randn(
            count, channels, math.ceil(size[0] / s), math.ceil(size[1] / s), generator=generator
        )
        for name, s in STRIDES.items()
    }


def perturb(head):
    """Give all parameters values that leave no mask near a constant."""
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for parameter in head.parameters():
            spread = 0.1 if parameter.dim() > 1 else 0.5
            parameter += spread * torch.randn(parameter.shape, generator=generator)
    return head


def resize(x, size):
    return F.interpolate(x, size=size, mode="bilinear", align_corners=False)


def double(x):
    return resize(x, (2 * x.shape[-2], 2 * x.shape[-1]))


def with_coords(x, axes="xy"):
    """The features, then coordinates from -1 to 1 with both ends."""
    count, _, height, width = x.shape
    ys, xs = torch.meshgrid(
        torch.linspace(-1, 1, height), torch.linspace(-1, 1, width), indexing="ij"
    )
    maps = {"x": xs, "y": ys}
    return torch.cat([x, *(maps[axis].expand(count, 1, -1, -1) for axis in axes)], 1)


def slow_levels(features):
    p2, p3, p4, p5, p6 = (features[name] for name in STRIDES)
    return [resize(p2, p3.shape[-2:]), p3, p4, p5, resize(p6, p5.shape[-2:])]


def layer(conv, x, padding=1):
    return F.relu(conv.norm(F.conv2d(x, conv.weight, conv.bias, padding=padding)))


def tower(module, x):
    for conv in module:
        x = layer(conv, x)
    return x
