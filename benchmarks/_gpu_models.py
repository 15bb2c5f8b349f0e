"""Models with random weights that find something, for `gpu.py`; nothing is downloaded."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from _cases import Sizes, ground_truth, make_model
from detectron2 import model_zoo as detectron2_zoo
from detectron2.modeling import build_model
from torch import nn

from solo_d2.modeling.postprocessing import category_scores
from solo_d2.testing import tiny_config

# Every head and option of a network, as overrides of `tiny_config`.
CASES: dict[str, tuple[Any, ...]] = {
    "vanilla": ("MODEL.SOLO.HEAD", "VanillaSOLOHead"),
    "decoupled": ("MODEL.SOLO.HEAD", "DecoupledSOLOHead"),
    "decoupled light": ("MODEL.SOLO.HEAD", "DecoupledLightSOLOHead"),
    "dynamic": (),
    "dynamic, 3x3": ("MODEL.SOLO.KERNEL_SIZE", 3),
    "dynamic, separate": ("MODEL.SOLO.MASK_FEATURE.TYPE", "separate"),
    "decoupled dynamic": (
        *("MODEL.SOLO.HEAD", "DecoupledDynamicSOLOHead"),
        *("MODEL.SOLO.NUM_KERNEL_GROUPS", 2, "MODEL.SOLO.KERNEL_DIM", 64),
    ),
    "deformable": ("MODEL.SOLO.DEFORM", "all"),
    "region grid": ("MODEL.SOLO.ALIGN", "region_grid"),
    "max pool": ("MODEL.SOLO.ALIGN", "adaptive_max_pool"),
    "soft": (
        *("MODEL.META_ARCHITECTURE", "SoftSOLO", "MODEL.SOLO.HEAD", "SoftDynamicSOLOHead"),
        *("MODEL.SOLO.MASK_LOSS", "matte", "MODEL.SOLO.MASK_LOSS_WEIGHT", 1.0),
    ),
    "panoptic": (
        *("MODEL.META_ARCHITECTURE", "PanopticSOLO", "MODEL.SEM_SEG_HEAD.NAME", "SOLOSemSegHead"),
        *("MODEL.SEM_SEG_HEAD.NUM_CLASSES", 4),
    ),
}


def smooth_images(count: int, size: tuple[int, int], seed: int = 0) -> list[dict[str, Any]]:
    """Draw blobs of colour: inputs of a model, uint8."""
    generator = torch.Generator().manual_seed(seed)
    image = torch.zeros((count, 3, *size))
    for step, weight in ((32, 200), (8, 55)):
        shape = count, 3, size[0] // step, size[1] // step
        blobs = torch.rand(shape, generator=generator)
        image += weight * F.interpolate(blobs, size=size, mode="bilinear")
    return [{"image": x} for x in image.to(torch.uint8)]


def tiny_case(name: str) -> nn.Module:
    """Build a tiny model whose scores and masks are all different."""
    torch.manual_seed(0)
    lively = ("MODEL.SOLO.PRIOR_PROB", 0.3, "MODEL.SOLO.MASK_THRESH_TEST", 0.4)
    model = build_model(tiny_config(*CASES[name], *lively)).eval()
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for key, parameter in model.head.named_parameters():
            if "conv_offset" not in key:
                spread = 0.1 if parameter.dim() > 1 else 0.3
                parameter += spread * torch.randn(parameter.shape, generator=generator)
    return model


@torch.no_grad()
def calibrated(config: str, sizes: Sizes, device: torch.device, candidates: int) -> nn.Module:
    """Build a model of the zoo that has about so many candidates on an image of `sizes.canvas`."""
    model = make_model(sizes, torch.device("cpu"), config).to(device)
    inputs = smooth_images(1, sizes.canvas)
    predictor = model.head.category_predictor
    logits = torch.cat([x.flatten() for x in _predict(model, inputs).category_logits])
    predictor.weight.mul_(1.5 / logits.std())
    scores = category_scores(_predict(model, inputs).category_logits).flatten()
    peak = scores.topk(candidates + 1).values[-1].logit()
    predictor.bias.sub_(peak - torch.tensor(model.settings.score_thresh).logit().to(device))
    probs = model.head.mask_probs(
        _predict(model, inputs), 0, torch.arange(0, 1000, 7, device=device), size=sizes.quarter
    )
    spread = probs.clamp(1e-6, 1 - 1e-6).logit().std()
    model.head.kernel_predictor.weight.mul_(2 / spread)
    model.head.kernel_predictor.bias.mul_(2 / spread)
    return model


def _predict(model: nn.Module, inputs: list[dict[str, Any]]) -> Any:
    images = model.preprocess_image(inputs)
    return model.predict(model.backbone(images.tensor), images)


@torch.no_grad()
def mask_rcnn(sizes: Sizes, device: torch.device) -> nn.Module:
    """Build Detectron2's Mask R-CNN R50 FPN, with scores large enough to detect something."""
    cfg = detectron2_zoo.get_config("COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_3x.yaml")
    cfg.MODEL.WEIGHTS, cfg.MODEL.DEVICE, cfg.MODEL.RESNETS.DEPTH = "", str(device), sizes.depth
    if sizes.depth < 50:
        cfg.MODEL.RESNETS.RES2_OUT_CHANNELS = 64
    torch.manual_seed(0)
    model = build_model(cfg).eval()
    inputs = smooth_images(1, sizes.canvas)
    for _ in range(16):
        if len(model(inputs)[0]["instances"]) >= 20:
            break
        model.roi_heads.box_predictor.cls_score.weight.mul_(1.7)
    return model


def training_batch(count: int, objects: int, canvas: tuple[int, int]) -> list[dict[str, Any]]:
    """Images with ground truth on the host, as a loader leaves them."""
    images = smooth_images(count, canvas)
    return [
        {**x, "instances": ground_truth(objects, canvas, seed)} for seed, x in enumerate(images, 1)
    ]


def on_device(batch: list[dict[str, Any]], device: torch.device) -> list[dict[str, Any]]:
    """Move the images of a batch, not their ground truth."""
    return [{**x, "image": x["image"].to(device)} for x in batch]
