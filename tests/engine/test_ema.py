"""The moving average of the weights: what it is, and where it is used."""

from __future__ import annotations

import logging

import pytest
import torch
import training_runs as runs
from builders import tiny_model
from torch import nn
from training_runs import config, train

from solo_d2.checkpoint import SOLOCheckpointer, load_checkpoint, load_weights
from solo_d2.checkpoint.files import EMA_KEY, save_checkpoint
from solo_d2.cli.train import main
from solo_d2.engine import SOLOTrainer
from solo_d2.engine.ema import WeightAverage, decay_at

EMA = ("SOLVER.EMA.ENABLED", True, "SOLVER.EMA.DECAY", 0.5)


@pytest.fixture(autouse=True)
def data_set(tmp_path):
    runs.register(tmp_path / "images")
    yield
    runs.forget(runs.NAME)


def test_the_average_by_hand():
    """From 1 towards 3: 1 + 2 * 0.9; then to 5, of which 1 - 2/11 counts; later DECAY holds."""
    model = nn.Linear(1, 1, bias=False)
    model.register_buffer("seen", torch.tensor(0))
    frozen = nn.Parameter(torch.tensor(7.0), requires_grad=False)
    model.register_parameter("frozen", frozen)
    average = WeightAverage(model, 0.9)
    expected = value = 1.0
    model.weight.data.fill_(value)
    average.start()
    for iteration, value in enumerate((3.0, 5.0)):
        model.weight.data.fill_(value)
        average.update(iteration)
        kept = (1 + iteration) / (10 + iteration)
        expected = kept * expected + (1 - kept) * value
    frozen.data.fill_(8)
    model.seen.fill_(2)
    state = average.state_dict()
    assert state["weight"].item() == pytest.approx(expected)
    assert (state["frozen"].item(), state["seen"].item()) == (8, 2)
    assert (decay_at(79, 0.9), decay_at(81, 0.9)) == (80 / 89, 0.9)


def test_a_model_has_the_average_for_a_block_and_shared_parameters_too():
    model = nn.Sequential(nn.Linear(1, 1, bias=False))
    model.append(model[0])
    average = WeightAverage(model, 0.5)
    model[0].weight.data.fill_(1.0)
    average.start()
    model[0].weight.data.fill_(2.0)
    with pytest.raises(KeyError), average.applied():
        assert model[1].weight.item() == 1
        raise KeyError
    assert model[0].weight.item() == 2
    assert [x.item() for x in average.state_dict().values()] == [1, 1]


def test_a_resumed_average_is_the_one_that_was_not_stopped(tmp_path):
    short = (*EMA, "SOLVER.MAX_ITER", 4, "SOLVER.STEPS", ())
    train(config(tmp_path / "whole", *short))
    train(config(tmp_path / "halves", *short), stop=2)
    train(config(tmp_path / "halves", *short), resume=True)
    whole, halves = (load_checkpoint(tmp_path / x / "model_final.pth") for x in ("whole", "halves"))
    for key in ("model", EMA_KEY):
        assert all(torch.equal(whole[key][name], x) for name, x in halves[key].items())
    different = [n for n, x in whole[EMA_KEY].items() if not torch.equal(x, whole["model"][n])]
    assert "head.kernel_predictor.weight" in different


def test_the_average_is_evaluated_and_predicts(tmp_path, monkeypatch, caplog):
    evaluated = {}

    def keep(_, cfg, model):
        evaluated.update({k: v.clone() for k, v in model.state_dict().items()})
        return {"segm": {"AP": 1.0}}

    monkeypatch.setattr(SOLOTrainer, "test", keep)
    more = ("DATASETS.TEST", (runs.NAME,), "TEST.EVAL_PERIOD", 2, "SOLVER.MAX_ITER", 2)
    trainer, _, _ = train(config(tmp_path / "out", *EMA, *more, "SOLVER.STEPS", ()))
    model = trainer.checkpointer.model
    for name in ("model_final", "model_best"):
        found = load_checkpoint(tmp_path / "out" / f"{name}.pth")
        assert all(torch.equal(found[EMA_KEY][key], x) for key, x in evaluated.items())
        assert all(torch.equal(found["model"][key], x) for key, x in model.state_dict().items())
        with caplog.at_level(logging.INFO, "solo_d2"):
            assert load_weights(model, str(tmp_path / "out" / f"{name}.pth"))
        assert "Using its EMA weights" in caplog.text
        assert all(torch.equal(found[EMA_KEY][key], x) for key, x in model.state_dict().items())
        load = SOLOCheckpointer(model, **{EMA_KEY: trainer.average}).load
        load(str(tmp_path / "out" / f"{name}.pth"))  # a training goes on with the plain ones
        assert all(torch.equal(found["model"][key], x) for key, x in model.state_dict().items())


def test_checkpoints_without_an_average_say_so(tmp_path, caplog):
    train(config(tmp_path / "out"), stop=3)
    trainer, steps, _ = train(config(tmp_path / "out", *EMA), resume=True, stop=5)
    assert [x[0] for x in steps] == [3, 4]
    assert "no EMA weights (SOLVER.EMA): their average starts anew" in caplog.text
    assert trainer.average.started


def test_an_evaluation_says_which_weights(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(SOLOTrainer, "test", lambda *_: {})
    cfg = config(tmp_path / "out", *EMA)
    (tmp_path / "config.yaml").write_text(cfg.dump())
    torch.manual_seed(0)
    state = SOLOTrainer.build_model(cfg).state_dict()
    save_checkpoint({"model": state}, tmp_path / "plain.pth")
    own = f"{tmp_path}/images"
    arguments = ["--config-file", f"{tmp_path}/config.yaml", "--weights", f"{tmp_path}/plain.pth"]
    data = ["--val-json", f"{own}/train.json", "--val-images", own]
    try:
        assert main([*arguments, *data], evaluate=True) == 0
    finally:
        runs.forget("own_val")
    said = capsys.readouterr()
    assert "plain.pth has one set of weights, and no EMA weights" in said.out + said.err


def test_an_average_of_another_model_is_refused():
    average = WeightAverage(tiny_model(), 0.5)
    with pytest.raises(ValueError, match=r"no average of .* with the shape"):
        average.load_state_dict({})
