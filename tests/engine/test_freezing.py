"""A backbone that is not trained at first; two processes: `test_trainer.py`."""

from __future__ import annotations

import itertools

import pytest
import torch
import training_runs as runs
from training_runs import At, config, train

from solo_d2.checkpoint import load_checkpoint
from solo_d2.engine import SOLOTrainer

BELOW = "backbone.bottom_up."
SHORT = ("SOLVER.MAX_ITER", 4, "SOLVER.STEPS", (), "SOLVER.FREEZE_BACKBONE_ITERS", 2)
DECAYING = ("SOLVER.OPTIMIZER", "ADAMW", "SOLVER.WEIGHT_DECAY", 0.1)


@pytest.fixture(autouse=True)
def data_set(tmp_path):
    runs.register(tmp_path / "images")
    yield
    runs.forget(runs.NAME)


@pytest.mark.parametrize("overrides", [(), DECAYING])
def test_the_backbone_moves_from_the_named_iteration_on(tmp_path, overrides):
    trainer = SOLOTrainer(config(tmp_path / "out", *SHORT, *overrides))
    model = trainer.checkpointer.model
    trained = {n: p for n, p in model.named_parameters() if p.requires_grad}
    seen = []

    def note():
        seen.append({name: p.detach().clone() for name, p in trained.items()})

    note()
    trainer.register_hooks([At(iteration, note, after=True) for iteration in range(4)])
    trainer.train()
    below = [name for name in trained if name.startswith(BELOW)]
    assert 0 < len(below) < len(trained)
    for step, (old, new) in enumerate(itertools.pairwise(seen)):
        moved = {name for name in trained if not torch.equal(old[name], new[name])}
        assert bool(moved.intersection(below)) == (step >= 2)
        assert "head.kernel_predictor.weight" in moved
    assert all(p.requires_grad for p in trained.values())


@pytest.mark.parametrize("stop", [1, 3])
def test_a_resumed_training_is_the_one_that_was_not_stopped(tmp_path, stop):
    train(config(tmp_path / "whole", *SHORT))
    train(config(tmp_path / "halves", *SHORT), stop=stop)
    train(config(tmp_path / "halves", *SHORT), resume=True)
    whole, halves = (
        load_checkpoint(tmp_path / name / "model_final.pth")["model"]
        for name in ("whole", "halves")
    )
    assert all(torch.equal(whole[name], value) for name, value in halves.items())


def test_nothing_to_freeze_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"FREEZE_BACKBONE_ITERS is 2.*FREEZE_AT"):
        SOLOTrainer(config(tmp_path / "out", *SHORT, "MODEL.TIMM.FREEZE_AT", 5))
