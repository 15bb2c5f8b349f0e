"""Configs of mmdetection's trainings against its own, number by number."""

from __future__ import annotations

import mmdet_models
import pytest
import torch
from detectron2.modeling import build_model

from solo_d2 import model_zoo

pytestmark = pytest.mark.skipif(
    not mmdet_models.installed(), reason='needs mmdetection: pip install "solo_d2[mmdet]"'
)

EPOCH = 7330  # iterations of 16 of the 117 266 images with objects
RECIPES = {
    "solo_R_50_FPN_1x": "solo/solo_r50_fpn_1x_coco",
    "solo_R_50_FPN_3x": "solo/solo_r50_fpn_3x_coco",
    "decoupled_solo_R_50_FPN_1x": "solo/decoupled-solo_r50_fpn_1x_coco",
    "decoupled_solo_R_50_FPN_3x": "solo/decoupled-solo_r50_fpn_3x_coco",
    "solov2_R_50_FPN_1x": "solov2/solov2_r50_fpn_1x_coco",
    "solov2_R_50_FPN_3x": "solov2/solov2_r50_fpn_ms-3x_coco",
}


@pytest.mark.parametrize("name", RECIPES)
def test_the_solver_is_mmdetections(name):
    theirs = mmdet_models.read_config(RECIPES[name])
    cfg = model_zoo.get_config(f"Recipes/mmdet_{name}.yaml")
    solver, optimizer = cfg.SOLVER, theirs.optim_wrapper.optimizer
    assert (solver.BASE_LR, solver.MOMENTUM) == (optimizer.lr, optimizer.momentum)
    assert solver.WEIGHT_DECAY == solver.WEIGHT_DECAY_NORM == optimizer.weight_decay
    assert solver.IMS_PER_BATCH == theirs.auto_scale_lr.base_batch_size
    warmup, drops = theirs.param_scheduler
    assert (solver.WARMUP_FACTOR, solver.WARMUP_ITERS) == (warmup.start_factor, warmup.end)
    assert list(solver.STEPS) == [EPOCH * epoch for epoch in drops.milestones]
    assert solver.MAX_ITER == EPOCH * theirs.train_cfg.max_epochs
    clip = solver.CLIP_GRADIENTS
    found = (clip.CLIP_VALUE, clip.NORM_TYPE) if clip.ENABLED else None
    given = theirs.optim_wrapper.get("clip_grad")
    assert found == (given and (given.max_norm, given.norm_type))
    assert not clip.ENABLED or clip.CLIP_TYPE == "full_model"
    (resize,) = [x for x in theirs.train_dataloader.dataset.pipeline if "Resize" in x.type]
    scales = resize.scales if "scales" in resize else [resize.scale]
    assert sorted(cfg.INPUT.MIN_SIZE_TRAIN) == sorted(min(scale) for scale in scales)
    assert {cfg.INPUT.MAX_SIZE_TRAIN} == {max(scale) for scale in scales}
    assert cfg.INPUT.RESIZE_FILTER == "opencv"


def test_what_is_trained_is_what_mmdetection_trains():
    theirs = mmdet_models.build(mmdet_models.read_config(RECIPES["solov2_R_50_FPN_1x"]))
    cfg = model_zoo.get_config("Recipes/mmdet_solov2_R_50_FPN_1x.yaml")
    cfg.MODEL.DEVICE = "meta"
    with torch.device("meta"):
        ours = build_model(cfg)
    counts = [
        sorted(p.numel() for p in model.parameters() if p.requires_grad)
        for model in (ours, theirs.train())
    ]
    assert counts[0] == counts[1]
