"""Trackers get what TensorBoard gets, with stand-ins for their packages."""

from __future__ import annotations

import sys
from types import ModuleType

import numpy as np
import pytest
from builders import tiny_config
from detectron2.utils.events import EventStorage
from training_runs import config, forget, register

from solo_d2.engine import SOLOTrainer
from solo_d2.engine.trackers import build_trackers

SAID: list[tuple] = []


def stand_in(name, monkeypatch, broken=()):
    """A module that notes what it is told."""
    module = ModuleType(name)

    def function(key):
        def note(*arguments, **keywords):
            if key in broken:
                raise ConnectionError("no\nnetwork")
            SAID.append((key, arguments, keywords))

        return note

    for key in ("init", "log", "finish", "set_experiment", "start_run", "log_params"):
        setattr(module, key, function(key))
    for key in ("log_metrics", "log_image", "end_run"):
        setattr(module, key, function(key))
    module.Image = lambda pixels: ("image", pixels.shape, pixels.dtype)
    monkeypatch.setitem(sys.modules, name, module)
    SAID.clear()


def run(tracker):
    """Two writes of a training's storage."""
    with EventStorage(4) as storage:
        storage.put_scalar("loss", 2.0)
        storage.put_image("test/a | b", np.zeros((3, 5, 7), np.uint8))
        tracker.write()
        tracker.write()  # nothing new
        storage.clear_images()
        storage.step()
        storage.put_scalar("loss", 1.0)
        tracker.write()
    tracker.close()


@pytest.mark.parametrize("name", ["wandb", "trackio"])
def test_runs_get_values_and_images_once(name, monkeypatch, tmp_path):
    stand_in(name, monkeypatch)
    cfg = tiny_config("OUTPUT_DIR", str(tmp_path / "first"), "SEED", 5)
    (tracker,) = build_trackers([f"{name}:cups"], cfg)
    run(tracker)
    begin, first, second, end = SAID
    assert (begin[0], begin[2]["project"], begin[2]["name"]) == ("init", "cups", "first")
    assert begin[2]["config"]["SEED"] == 5
    image = ("image", (5, 7, 3), np.uint8)
    assert first == ("log", ({"loss": 2.0, "test/a | b": image},), {"step": 4})
    assert second == ("log", ({"loss": 1.0},), {"step": 5})
    assert end[0] == "finish"


def test_mlflow_gets_values_and_images_once(monkeypatch):
    stand_in("mlflow", monkeypatch)
    run(build_trackers(["mlflow"], tiny_config())[0])
    assert [x[0] for x in SAID] == [
        *("set_experiment", "start_run", "log_params", "log_metrics", "log_image"),
        *("log_metrics", "end_run"),
    ]
    assert SAID[0][1] == ("solo_d2",)
    assert SAID[3][1:] == (({"loss": 2.0},), {"step": 4})
    assert SAID[4][2] == {"key": "test/a - b", "step": 4}


def test_a_package_that_is_missing_is_told_before_the_training(monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(ValueError, match="names wandb, which is not installed here: pip install"):
        build_trackers(["wandb"], tiny_config())


@pytest.mark.parametrize("broken", ["init", "log", "finish"])
def test_a_tracker_that_fails_is_left_alone(broken, monkeypatch, caplog):
    stand_in("wandb", monkeypatch, {broken})
    run(build_trackers(["wandb"], tiny_config())[0])
    (line,) = [x.getMessage() for x in caplog.records if "wandb" in x.getMessage()]
    assert line == "wandb gets nothing more of this training (no network)"


def test_a_training_draws_its_evaluations_and_tells_its_trackers(monkeypatch, tmp_path):
    stand_in("wandb", monkeypatch)
    name = register(tmp_path, count=3)
    try:
        given = ("DATASETS.TEST", (name,), "TEST.EVAL_PERIOD", 1, "TEST.DRAWN_IMAGES", 2)
        cfg = config(
            tmp_path / "out", *given, "SOLVER.MAX_ITER", 1, "SOLVER.TRACKERS", ["wandb:cups"]
        )
        monkeypatch.setattr(SOLOTrainer, "test", classmethod(lambda *_: {"segm": {"AP": 3.0}}))
        SOLOTrainer(cfg).train()
    finally:
        forget(name)
    trained, evaluated = [x[1][0] for x in SAID if x[0] == "log"]
    assert "total_loss" in trained and "segm/AP" not in trained
    assert set(evaluated) == {"test/0", "test/1", "segm/AP"} and evaluated["segm/AP"] == 3.0
    assert (evaluated["test/0"][1], evaluated["test/1"][1]) == ((96, 64, 3), (64, 96, 3))
    assert SAID[-1][0] == "finish"
