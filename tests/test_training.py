"""A short training on procedural shapes learns to segment shapes that it has not seen."""

from __future__ import annotations

import pytest
import torch

from solo_d2 import model_zoo
from solo_d2.data.scenes.build import build
from solo_d2.data.scenes.register import register_built
from solo_d2.data.scenes.shapes import ShapesSource
from solo_d2.engine import SOLOTrainer, use_data


@pytest.mark.slow
def test_sixty_iterations_from_shipped_weights_reach_ap_10(tmp_path):
    """Of other classes: the class predictor starts anew, backbone and pyramid stay."""
    build(ShapesSource((128, 160)), tmp_path / "shapes", train=200, val=24, progress=False)
    cfg = model_zoo.get_config("Shapes/solov2_lite0.yaml")
    cfg.MODEL.DEVICE = "cpu"
    cfg.OUTPUT_DIR = str(tmp_path)
    cfg.INPUT.MIN_SIZE_TRAIN, cfg.INPUT.MIN_SIZE_TEST = (128,), 128
    cfg.MODEL.WEIGHTS = "solo://solo_d2/stamps_lite0"
    cfg.MODEL.TIMM.FREEZE_AT = 5
    cfg.SOLVER.MAX_ITER = cfg.TEST.EVAL_PERIOD = 60
    cfg.SOLVER.WARMUP_ITERS = 10
    cfg.SOLVER.IMS_PER_BATCH = 4  # AP 13.3 and 13.0 with the seeds 0 and 1
    cfg.DATALOADER.NUM_WORKERS = 0
    cfg.SEED = 0
    train, val = register_built(str(tmp_path / "shapes"), "training_test", kind="shapes")
    use_data(cfg, {"TRAIN": train, "TEST": val})
    torch.manual_seed(0)
    trainer = SOLOTrainer(cfg)
    trainer.resume_or_load(resume=False)
    trainer.train()
    results = trainer._last_eval_results
    assert results["segm"]["AP"] >= 10
    assert results["bbox"]["AP"] >= 8
