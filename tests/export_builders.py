"""Small models that find many instances, and quick to export: a few poolings as their backbone."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from builders import SOFT
from detectron2.modeling import build_model
from head_builders import HEADS
from torch import nn

from solo_d2.testing import tiny_config

PANOPTIC = (
    *("MODEL.META_ARCHITECTURE", "PanopticSOLO", "MODEL.SEM_SEG_HEAD.NAME", "SOLOSemSegHead"),
    *("MODEL.SEM_SEG_HEAD.NUM_CLASSES", 5, "MODEL.SEM_SEG_HEAD.CONVS_DIM", 32),
)

# What is exported: overrides of `tiny_config` by name.
CASES = {
    **HEADS,
    "region_grid": ("MODEL.SOLO.ALIGN", "region_grid"),
    "deform": ("MODEL.SOLO.DEFORM", "all"),
    "fast_nms": ("MODEL.SOLO.NMS_TYPE", "fast"),
    "soft": SOFT,
    "panoptic": PANOPTIC,
}

TEMPERATURE = ("MODEL.SOLO.SCORE_TEMPERATURE", 2.0)
PATHS = (
    *("MODEL.BACKBONE.NAME", "build_deform_resnet_fpn_backbone"),
    *("MODEL.FPN.PATH_AGGREGATION", True),
)
# Of what is exported by itself, some together.
COMBINED = {
    "paths": PATHS,
    "temperature": TEMPERATURE,
    "vanilla_temperature": (*HEADS["vanilla"], *TEMPERATURE),
    "soft_temperature_paths": (*SOFT, *TEMPERATURE, *PATHS),
    "panoptic_temperature_paths": (*PANOPTIC, *TEMPERATURE, *PATHS),
    "panoptic_decoupled": (*PANOPTIC, *HEADS["decoupled"]),
    "panoptic_separate": (*PANOPTIC, *HEADS["dynamic_separate"]),
}


class Pools(nn.Module):
    """A backbone of one convolution and poolings."""

    size_divisibility = 32

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 32, 4, stride=4)

    def forward(self, x):
        maps = {"p2": self.conv(x)}
        for level in (3, 4, 5):
            maps[f"p{level}"] = F.avg_pool2d(maps[f"p{level - 1}"], 2)
        return {**maps, "p6": F.max_pool2d(maps["p5"], 1, 2)}


def export_case(*overrides):
    """A config, and its model: some hundred candidates, masks with a shape, and class names."""
    cfg = tiny_config("INPUT.MIN_SIZE_TEST", 96, "INPUT.MAX_SIZE_TEST", 160, *overrides)
    torch.manual_seed(0)
    model = build_model(cfg).eval()
    if not cfg.MODEL.FPN.PATH_AGGREGATION:
        model.backbone = Pools()
    model.class_names, model.category_ids = ("cup", "fork", "spoon"), (3, 5, 9)
    generator = torch.Generator().manual_seed(1)
    head = model.head
    with torch.no_grad():
        head.category_predictor.weight.normal_(std=0.1, generator=generator)
        head.category_predictor.bias.fill_(-3.0)
        if hasattr(head, "kernel_predictor"):
            head.kernel_predictor.weight.normal_(std=0.05, generator=generator)
        for name in ("mask_predictors", "x_predictors", "y_predictors"):
            for layer in getattr(head, name, ()):
                layer.weight.normal_(std=0.1, generator=generator)
                layer.bias.fill_(0.3)
    return cfg, model


def photo(height=90, width=130, seed=0):
    """Random pixels (H, W, 3), uint8, in blocks, so that they are not all alike."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(1, 3, 5, 7, generator=generator) * 255
    return (
        F.interpolate(coarse, (height, width), mode="bilinear")[0].permute(1, 2, 0).byte().numpy()
    )


def one_input(size=(90, 130), **more):
    """One input of a model."""
    image = torch.from_numpy(photo(*size)).permute(2, 0, 1).contiguous()
    return {"image": image, **more}
