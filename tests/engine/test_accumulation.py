"""Batches in parts: one step of them is the step of the whole batch."""

from __future__ import annotations

import itertools
import types

import pytest
import torch
import training_runs as runs
from detectron2.engine import SimpleTrainer
from detectron2.utils.events import EventStorage
from torch import nn
from training_runs import config, train, weights

from solo_d2.config import validate_config
from solo_d2.engine import SOLOTrainer
from solo_d2.engine.accumulation import AccumulatingTrainer


class Line(nn.Module):
    """The loss of inputs x is the sum of weight * x over a number of positives, or over 1."""

    def __init__(self, counted=True):
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(5.0))
        if counted:
            self.criterion = types.SimpleNamespace(num_positives=None)

    def forward(self, batch):
        total, count = (torch.tensor([x[k] for x in batch]).sum() for k in ("value", "count"))
        if hasattr(self, "criterion"):
            self.criterion.num_positives = count
        return {"loss": self.weight * total / count.clamp(min=1)}


def one_step(batch, parts, counted=True):
    """Weight after one step with a rate of 1, and the loss that was written."""
    model = Line(counted)
    plain = SimpleTrainer(model, [batch], torch.optim.SGD([model.weight], lr=1.0))
    trainer = AccumulatingTrainer(plain, parts)
    trainer.iter = 0
    with EventStorage(0) as storage:
        trainer.run_step()
        return model.weight.item(), storage.latest()["total_loss"][0]


def inputs(*pairs):
    return [{"value": float(value), "count": float(count)} for value, count in pairs]


@pytest.mark.parametrize(
    ("pairs", "gradient"),
    [
        (((6, 3), (2, 1)), 8 / 4),  # the mean of the two parts' own would be 2, too
        (((9, 3), (1, 1)), 10 / 4),  # and here (3 + 1) / 2
        (((9, 3), (1, 0)), 10 / 3),
        (((0, 0), (8, 2)), 8 / 2),
        (((3, 0), (4, 0)), 7),  # divided by 1 at least
    ],
)
def test_the_gradient_is_that_of_the_sums(pairs, gradient):
    weight, loss = one_step(inputs(*pairs), 2)
    assert weight == pytest.approx(5 - gradient)
    assert loss == pytest.approx(5 * gradient)


def test_parts_of_other_models_have_equal_weights():
    """They say no number of positives: (9 / 3 + 1 / 1) / 2."""
    assert one_step(inputs((9, 3), (1, 1)), 2, counted=False)[0] == pytest.approx(5 - 2)


def test_a_loss_that_is_not_finite_changes_nothing():
    batch = inputs((float("nan"), 1), (1, 1))
    model = Line()
    plain = SimpleTrainer(model, [batch], torch.optim.SGD([model.weight], lr=1.0))
    trainer = AccumulatingTrainer(plain, 2)
    trainer.iter = 0
    with EventStorage(0), pytest.raises(FloatingPointError):
        trainer.run_step()
    assert model.weight.item() == 5


@pytest.fixture
def data_set(tmp_path):
    runs.register(tmp_path / "images", size=(64, 64))
    yield
    runs.forget(runs.NAME)


PLAIN = ()
MANY = (
    *("SOLVER.EMA.ENABLED", True, "SOLVER.CLIP_GRADIENTS.ENABLED", True),
    *("SOLVER.CLIP_GRADIENTS.CLIP_TYPE", "full_model", "SOLVER.CLIP_GRADIENTS.CLIP_VALUE", 0.1),
)


@pytest.mark.parametrize("overrides", [PLAIN, MANY], ids=["plain", "EMA and clipping"])
def test_four_images_at_once_are_two_and_two(data_set, tmp_path, overrides):
    """Their canvas is the same, and no statistics of a batch are learnt."""
    few = ("SOLVER.MAX_ITER", 3, "SOLVER.STEPS", (), "SOLVER.IMS_PER_BATCH", 4, *overrides)
    sizes = ("INPUT.MIN_SIZE_TRAIN", (64,))
    (whole, steps, _), (halves, others, _) = (
        train(config(tmp_path / str(k), *few, *sizes, "SOLVER.ACCUMULATE_STEPS", k)) for k in (1, 2)
    )
    assert [x[1] for x in others] == pytest.approx([x[1] for x in steps], rel=1e-4)
    expected, found = weights(whole), weights(halves)
    for key, value in expected.items():
        torch.testing.assert_close(found[key], value, rtol=1e-4, atol=1e-6)
    if whole.average is not None:
        torch.testing.assert_close(
            halves.average.state_dict(), whole.average.state_dict(), rtol=1e-4, atol=1e-6
        )


def test_every_part_has_images_of_one_shape(tmp_path):
    runs.register(tmp_path / "images")  # every third one upright
    try:
        cfg = config(tmp_path, "SOLVER.IMS_PER_BATCH", 6, "SOLVER.ACCUMULATE_STEPS", 3)
        loader = SOLOTrainer.build_train_loader(cfg)
        for batch in itertools.islice(loader, 5):
            upright = [x["height"] > x["width"] for x in batch]
            assert len(batch) == 6 and upright[::2] == upright[1::2]
    finally:
        runs.forget(runs.NAME)


@pytest.mark.parametrize(
    ("processes", "steps", "batch", "said"),
    [
        (4, 1, 18, "a multiple of the 4 processes, such as 16 or 20, got 18"),
        (2, 4, 12, r"the 2 processes times SOLVER\.ACCUMULATE_STEPS 4, such as 8 or 16, got 12"),
        (8, 1, 4, "such as 8, got 4"),
    ],
)
def test_a_batch_that_processes_and_parts_do_not_divide_is_refused(
    tmp_path, processes, steps, batch, said
):
    cfg = config(tmp_path, "SOLVER.IMS_PER_BATCH", batch, "SOLVER.ACCUMULATE_STEPS", steps)
    with pytest.raises(ValueError, match=said):
        validate_config(cfg, processes=processes)
    cfg.SOLVER.IMS_PER_BATCH = 8
    validate_config(cfg, processes=processes)
