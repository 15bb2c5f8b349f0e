"""AdelaiDet's SOLOv2 out of a checkout, without its compiled operators, which SOLOv2 needs not.

Its licence allows no copy, so that no test of ours runs it: `make_reference` does, once.
"""

from __future__ import annotations

import importlib
import sys
import types
from pathlib import Path
from typing import Any

import torch
from detectron2.modeling import build_model
from detectron2.structures import BitMasks, Instances
from torch import Tensor, nn


def build(checkout: Path, config: str) -> nn.Module:
    """The model of a config in ``configs/SOLOv2``, such as "R50_3x", in eval mode."""
    for name in ("adet", "adet.modeling"):
        # The packages' own __init__ would import every model, and the compiled operators.
        package = types.ModuleType(name)
        package.__path__ = [str(checkout / name.replace(".", "/"))]
        sys.modules[name] = package
    importlib.import_module("adet.modeling.solov2.solov2")
    cfg = importlib.import_module("adet.config").get_cfg()
    cfg.merge_from_file(str(checkout / "configs" / "SOLOv2" / f"{config}.yaml"))
    cfg.MODEL.DEVICE, cfg.MODEL.WEIGHTS = "cpu", ""
    return build_model(cfg).eval()


def _inputs(image: Tensor, size: tuple[int, int]) -> dict[str, Any]:
    return {"image": image.flip(0), "height": size[0], "width": size[1]}  # BGR


@torch.no_grad()
def detect(
    model: nn.Module, images: list[Tensor], sizes: list[tuple[int, int]]
) -> list[dict[str, Tensor]]:
    """Like `mmdet_models.detect`."""
    results = model([_inputs(*pair) for pair in zip(images, sizes, strict=True)])
    return [
        {"scores": x.scores, "labels": x.pred_classes, "masks": x.pred_masks}
        for x in (result["instances"] for result in results)
    ]


@torch.no_grad()
def raw_outputs(model: nn.Module, image: Tensor) -> dict[str, Tensor]:
    """Like `mmdet_models.raw_outputs` of SOLOv2."""
    canvas = model.preprocess_image([_inputs(image, (1, 1))]).tensor
    features = model.backbone(canvas)
    levels = model.split_feats([features[name] for name in model.instance_in_features])
    categories, kernels = model.ins_head(levels)
    merged = model.mask_head([features[name] for name in model.mask_in_features])
    return {
        "categories": torch.cat([x[0].flatten(1).T for x in categories]),
        "kernels": torch.cat([x[0].flatten(1).T for x in kernels]),
        "features": merged[0],
    }


def losses(
    model: nn.Module, images: list[Tensor], objects: list[tuple[Tensor, Tensor]]
) -> dict[str, Tensor]:
    """Like `mmdet_models.losses`, by the same names."""
    batch = [_inputs(image, (1, 1)) for image in images]
    for inputs, (masks, classes) in zip(batch, objects, strict=True):
        bitmaps = BitMasks(masks)
        inputs["instances"] = Instances(
            tuple(masks.shape[1:]),
            gt_masks=bitmaps,
            gt_boxes=bitmaps.get_bounding_boxes(),
            gt_classes=classes,
        )
    found = model.train()(batch)
    return {"loss_mask": found["loss_ins"], "loss_cls": found["loss_cate"]}
