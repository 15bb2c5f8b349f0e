"""`SOLVER.CHECKPOINTS_TO_KEEP`: which checkpoints of a training stay."""

from __future__ import annotations

import pytest
import training_runs as runs

from solo_d2.engine.schedule import plan_schedule


@pytest.fixture(autouse=True)
def data(tmp_path_factory):
    runs.register(tmp_path_factory.mktemp("data"))
    yield
    runs.forget(runs.NAME)


def saved(folder):
    return sorted(file.name for file in folder.glob("*.pth"))


def iterations(*numbers):
    return [f"model_{number:07d}.pth" for number in numbers]


def config(folder, keep, period=2):
    keys = ("SOLVER.CHECKPOINT_PERIOD", period, "SOLVER.CHECKPOINTS_TO_KEEP", keep)
    return runs.config(folder, *keys)


@pytest.mark.parametrize(("keep", "kept"), [(0, [1, 3, 5, 7, 9]), (1, [9]), (2, [7, 9])])
def test_the_newest_stay_and_the_final_one_besides(tmp_path, keep, kept):
    runs.train(config(tmp_path, keep))
    assert saved(tmp_path) == [*iterations(*kept), "model_final.pth"]
    assert (tmp_path / "last_checkpoint").read_text() == "model_final.pth"


def test_a_resumed_training_goes_on_counting(tmp_path):
    """Also with the one that a signal left, from which it goes on."""
    _, _, code = runs.train(config(tmp_path, 2), stop=5)
    assert code and saved(tmp_path) == iterations(3, 4)
    assert (tmp_path / "last_checkpoint").read_text() == "model_0000004.pth"
    runs.train(config(tmp_path, 2), resume=True, stop=7)
    assert saved(tmp_path) == iterations(5, 6)
    runs.train(config(tmp_path, 2), resume=True)
    assert saved(tmp_path) == [*iterations(7, 9), "model_final.pth"]


def test_files_of_another_training_are_left_alone(tmp_path):
    others = ["model_0000001_old.pth", "model_0000002.pth", "model_best.pth", "mine.pth"]
    for name in others:
        (tmp_path / name).write_bytes(b"")
    runs.train(config(tmp_path, 1))
    assert saved(tmp_path) == sorted([*others, *iterations(9), "model_final.pth"])


def test_a_checkpoint_that_cannot_be_written_removes_none(tmp_path, monkeypatch):
    def full(*_):
        raise OSError("no space left")

    def stop():
        monkeypatch.setattr("solo_d2.checkpoint.checkpointer.save_checkpoint", full)

    with pytest.raises(OSError, match="no space left"):
        runs.train(config(tmp_path, 1), extra=[runs.At(4, stop)])
    assert saved(tmp_path) == iterations(3)
    assert (tmp_path / "last_checkpoint").read_text() == "model_0000003.pth"


def test_one_that_cannot_be_removed_is_told_and_the_training_goes_on(tmp_path, caplog):
    def block():
        (tmp_path / "model_0000001.pth").unlink()
        (tmp_path / "model_0000001.pth").mkdir()

    runs.train(config(tmp_path, 1), extra=[runs.At(2, block)])
    assert "model_0000001.pth is not needed and cannot be removed" in caplog.text
    assert iterations(9)[0] in saved(tmp_path)


@pytest.mark.parametrize(("given", "planned"), [(0, 2), (5, 5)])
def test_trainings_in_epochs_keep_two_unless_told_otherwise(tmp_path, given, planned):
    cfg = config(tmp_path, given)
    plan_schedule(cfg, 7, 10).apply(cfg)
    assert cfg.SOLVER.CHECKPOINTS_TO_KEEP == planned
