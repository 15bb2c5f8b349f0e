"""Names and shapes of the published checkpoints, made without this package.

Those of mmdetection come from its own models (a file), those of WXinlong/SOLO and AdelaiDet are
written out here: backbones by torchvision and Detectron2, heads by hand.
"""

from __future__ import annotations

import functools
import gzip
import json
from pathlib import Path

import torch
import torchvision
from detectron2 import model_zoo
from detectron2.modeling import build_backbone

GRIDS = (40, 36, 24, 16, 12)
DATA = Path(__file__).parent / "checkpoint" / "data"


@functools.cache
def mmdet_keys():
    """Config of mmdetection 3.3 -> its model's keys and shapes."""
    models = json.loads(gzip.decompress((DATA / "mmdet_keys.json.gz").read_bytes()))
    return {
        name: {key: tuple(shape) for key, shape in keys.items()} for name, keys in models.items()
    }


def tensors(shapes):
    """A state dict that takes no memory."""
    return {key: torch.empty(()).expand(shape) for key, shape in shapes.items()}


def conv(key, out, inside, side, bias=False):
    return {f"{key}.weight": (out, inside, side, side)} | ({f"{key}.bias": (out,)} if bias else {})


def layer(key, out, inside, side=3, dcn=0):
    """A ConvModule with GN; `dcn` is the version."""
    offsets = {0: 0, 1: 2 * side * side, 2: 3 * side * side}[dcn]
    found = conv(f"{key}.conv", out, inside, side)
    if dcn:
        found |= conv(f"{key}.conv.conv_offset", offsets, inside, side, bias=True)
    return found | {f"{key}.gn.weight": (out,), f"{key}.gn.bias": (out,)}


def tower(key, count, width, first, dcn=0, dcn_all=False):
    found = {}
    for i in range(count):
        last = i == count - 1
        inside = width if i else first
        found |= layer(f"{key}.{i}", width, inside, dcn=dcn if dcn_all or last else 0)
    return found


@functools.cache
def backbone(name, dcn=0):
    """ResNet and FPN of mmdet 1.x."""
    with torch.device("meta"):
        net = getattr(torchvision.models, name)()
    state = {f"backbone.{k}": tuple(v.shape) for k, v in net.state_dict().items() if k[:2] != "fc"}
    if dcn:
        convs = [k for k in state if k.endswith("conv2.weight") and "layer1" not in k]
        for key in convs:
            inside = {2: 128, 3: 256, 4: 512}[int(key.split(".layer")[1][0])]
            inside *= 4 if "next" in name else 1
            key = key.replace("weight", "conv_offset")
            state |= conv(key, {1: 18, 2: 27}[dcn], inside, 3, bias=True)
    base = 64 if name in ("resnet18", "resnet34") else 256
    for i in range(4):
        state |= conv(f"neck.lateral_convs.{i}.conv", 256, base * 2**i, 1, bias=True)
        state |= conv(f"neck.fpn_convs.{i}.conv", 256, 256, 3, bias=True)
    return state


def vanilla_head():
    head = tower("bbox_head.ins_convs", 7, 256, 258) | tower("bbox_head.cate_convs", 7, 256, 256)
    for i, size in enumerate(GRIDS):
        head |= conv(f"bbox_head.solo_ins_list.{i}", size * size, 256, 1, bias=True)
    return head | conv("bbox_head.solo_cate", 80, 256, 3, bias=True)


def decoupled_lists():
    head = conv("bbox_head.dsolo_cate", 80, 256, 3, bias=True)
    for axis in "xy":
        for i, size in enumerate(GRIDS):
            head |= conv(f"bbox_head.dsolo_ins_list_{axis}.{i}", size, 256, 3, bias=True)
    return head


def decoupled_head():
    head = decoupled_lists() | tower("bbox_head.cate_convs", 7, 256, 256)
    for axis in "xy":
        head |= tower(f"bbox_head.ins_convs_{axis}", 7, 256, 257)
    return head


def decoupled_light_head(dcn=0):
    return (
        decoupled_lists()
        | tower("bbox_head.ins_convs", 4, 256, 258, dcn)
        | tower("bbox_head.cate_convs", 4, 256, 256, dcn)
    )


def v2_head(count=4, width=512, kernel=256, dcn=0, dcn_all=False):
    head = tower("bbox_head.cate_convs", count, width, 256, dcn, dcn_all)
    head |= tower("bbox_head.kernel_convs", count, width, 258, dcn, dcn_all)
    head |= conv("bbox_head.solo_cate", 80, width, 3, bias=True)
    head |= conv("bbox_head.solo_kernel", kernel, width, 3, bias=True)
    inner = dcn if dcn_all else 0
    for level, first in enumerate(((256,), (256,), (256, 128), (258, 128, 128))):
        for j, inside in enumerate(first):
            key = f"mask_feat_head.convs_all_levels.{level}.conv{j}"
            head |= layer(key, 128, inside, dcn=inner)
    return head | layer("mask_feat_head.conv_pred.0", kernel, 128, 1, dcn=inner)


LIGHT = {"count": 2, "width": 256, "kernel": 128}
V2_DCN = {"dcn": 2, "dcn_all": True}

# Published name -> keys, the config that fits.
SOLO = {
    "SOLO_R50_1x": (lambda: backbone("resnet50") | vanilla_head(), "solo_R_50"),
    "SOLO_R50_3x": (lambda: backbone("resnet50") | vanilla_head(), "solo_R_50"),
    "SOLO_R101_3x": (lambda: backbone("resnet101") | vanilla_head(), "solo_R_101"),
    "DECOUPLED_SOLO_R50_1x": (
        lambda: backbone("resnet50") | decoupled_head(),
        "decoupled_solo_R_50",
    ),
    "DECOUPLED_SOLO_R50_3x": (
        lambda: backbone("resnet50") | decoupled_head(),
        "decoupled_solo_R_50",
    ),
    "DECOUPLED_SOLO_R101_3x": (
        lambda: backbone("resnet101") | decoupled_head(),
        "decoupled_solo_R_101",
    ),
    "SOLOv2_R50_1x": (lambda: backbone("resnet50") | v2_head(), "solov2_R_50"),
    "SOLOv2_R50_3x": (lambda: backbone("resnet50") | v2_head(), "solov2_R_50"),
    "SOLOv2_R101_3x": (lambda: backbone("resnet101") | v2_head(), "solov2_R_101"),
    "SOLOv2_R101_DCN_3x": (
        lambda: backbone("resnet101", 2) | v2_head(**V2_DCN),
        "solov2_R_101_DCN",
    ),
    "SOLOv2_X101_DCN_3x": (
        lambda: backbone("resnext101_64x4d", 2) | v2_head(**V2_DCN),
        "solov2_X_101_DCN",
    ),
    "DECOUPLED_SOLO_LIGHT_R50_3x": (
        lambda: backbone("resnet50") | decoupled_light_head(),
        "decoupled_solo_light_R_50",
    ),
    "DECOUPLED_SOLO_LIGHT_DCN_R50_3x": (
        lambda: backbone("resnet50", 1) | decoupled_light_head(1),
        "decoupled_solo_light_DCN_R_50",
    ),
    "SOLOv2_LIGHT_448_R18_3x": (
        lambda: backbone("resnet18") | v2_head(**LIGHT),
        "solov2_light_448_R_18",
    ),
    "SOLOv2_LIGHT_448_R34_3x": (
        lambda: backbone("resnet34") | v2_head(**LIGHT),
        "solov2_light_448_R_34",
    ),
    "SOLOv2_LIGHT_448_R50_3x": (
        lambda: backbone("resnet50") | v2_head(**LIGHT),
        "solov2_light_448_R_50",
    ),
    "SOLOv2_LIGHT_512_DCN_R50_3x": (
        lambda: backbone("resnet50", 1) | v2_head(3, 256, 128, dcn=1),
        "solov2_light_512_DCN_R_50",
    ),
}

# Config of mmdetection -> the config that fits. All but the DCN light one and the lsj ones have
# published weights.
MMDET = {
    "solo_r50_fpn_1x_coco": "solo_R_50",
    "solo_r50_fpn_3x_coco": "solo_R_50",
    "solo_r50_fpn_8xb8-lsj-200e_coco": "solo_R_50",
    "solo_r101_fpn_8xb8-lsj-200e_coco": "solo_R_101",
    "decoupled-solo_r50_fpn_1x_coco": "decoupled_solo_R_50",
    "decoupled-solo_r50_fpn_3x_coco": "decoupled_solo_R_50",
    "decoupled-solo-light_r50_fpn_3x_coco": "decoupled_solo_light_R_50",
    "solov2_r50_fpn_1x_coco": "solov2_R_50",
    "solov2_r50_fpn_ms-3x_coco": "solov2_R_50",
    "solov2_r101_fpn_ms-3x_coco": "solov2_R_101",
    "solov2_r101-dcn_fpn_ms-3x_coco": "solov2_R_101_DCN",
    "solov2_x101-dcn_fpn_ms-3x_coco": "solov2_X_101_DCN",
    "solov2-light_r18_fpn_ms-3x_coco": "solov2_light_448_R_18",
    "solov2-light_r34_fpn_ms-3x_coco": "solov2_light_448_R_34",
    "solov2-light_r50_fpn_ms-3x_coco": "solov2_light_448_R_50",
    "solov2-light_r50-dcn_fpn_ms-3x_coco": "solov2_light_448_DCN_R_50",
}


@functools.cache
def adelaidet(depth):
    """SOLOv2 of AdelaiDet: Detectron2's backbone, towers that count norm and ReLU too."""
    cfg = model_zoo.get_config("COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_3x.yaml")
    cfg.MODEL.RESNETS.DEPTH = depth
    with torch.device("meta"):
        net = build_backbone(cfg)
    found = {f"backbone.{key}": tuple(value.shape) for key, value in net.state_dict().items()}
    for name, first in (("cate", 256), ("kernel", 258)):
        for i in range(4):
            key = f"ins_head.{name}_tower"
            found |= conv(f"{key}.{3 * i}", 512, 512 if i else first, 3)
            found |= {f"{key}.{3 * i + 1}.{end}": (512,) for end in ("weight", "bias")}
    found |= conv("ins_head.cate_pred", 80, 512, 3, bias=True)
    found |= conv("ins_head.kernel_pred", 256, 512, 3, bias=True)
    for level, inputs in enumerate(((256,), (256,), (256, 128), (258, 128, 128))):
        for j, inside in enumerate(inputs):
            key = f"mask_head.convs_all_levels.{level}.conv{j}"
            found |= conv(f"{key}.0", 128, inside, 3)
            found |= {f"{key}.1.{end}": (128,) for end in ("weight", "bias")}
    found |= conv("mask_head.conv_pred.0", 256, 128, 1)
    return found | {f"mask_head.conv_pred.1.{end}": (256,) for end in ("weight", "bias")}


ADELAIDET = {
    "SOLOv2_R50_3x": (lambda: adelaidet(50), "solov2_R_50"),
    "SOLOv2_R101_3x": (lambda: adelaidet(101), "solov2_R_101"),
}


def published():
    """(source, name, function that makes the keys, config without "_FPN_3x.yaml")."""
    for source, table in (("solo", SOLO), ("adelaidet", ADELAIDET)):
        for name, (make, config) in table.items():
            yield source, name, make, config
    for name, config in MMDET.items():
        yield "mmdet", name, functools.partial(lambda name: dict(mmdet_keys()[name]), name), config
