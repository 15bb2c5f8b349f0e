"""Killed saves, full disks and several processes; see `scenarios`."""

from __future__ import annotations

import os
import signal

import pytest
import scenarios as saving
import torch
from fresh_process import FreshProcess
from torch import nn

from solo_d2.checkpoint import SOLOCheckpointer, load_checkpoint, load_state_dict

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="processes and limits of POSIX")


@pytest.fixture(scope="module")
def scenarios(tmp_path_factory):
    """Folder of the scenarios, and how their processes ended."""
    root = tmp_path_factory.mktemp("scenarios")
    with FreshProcess(300) as process:
        kind, endings = process(saving.main, root)
    assert kind == "value", endings
    return root, endings


@pytest.mark.parametrize("where", ["writing", "renaming", "tagging"])
def test_killed_in_a_save_it_resumes_from_the_save_before(scenarios, caplog, where):
    root, endings = scenarios
    folder = root / where
    assert os.WTERMSIG(endings[where]) == signal.SIGKILL
    left = [path for path in folder.iterdir() if path.name.startswith(".")]
    # Between writing and tagging both files are whole, and the tag names the old one.
    assert len(left) == (where != "tagging")
    if where == "writing":
        assert left[0].stat().st_size > 0
    for path in folder.glob("*.pth"):
        load_checkpoint(path)
    assert (folder / "last_checkpoint").read_text() == "model_0.pth"

    checkpointer = SOLOCheckpointer(nn.Linear(300, 200), str(folder))
    assert checkpointer.resume_or_load("")["iteration"] == 0
    assert not [path for path in folder.iterdir() if path.name.startswith(".")]
    assert ("left by a save that was interrupted" in caplog.text) is bool(left)


@pytest.mark.parametrize("name", ["a.pth", "a.safetensors"])
def test_full_disk_leaves_the_old_file_and_no_other(scenarios, name):
    folder = scenarios[0] / name
    assert "File too large" in (folder / "said").read_text()
    assert str(folder / name) in (folder / "said").read_text()
    assert torch.equal(load_state_dict(folder / name)["a"], torch.ones(3))
    assert {path.name for path in folder.iterdir()} == {name, "said"}


def test_two_processes_resume_from_the_same_file_and_one_saves(scenarios):
    folder = scenarios[0] / "fits"
    weight = load_state_dict(folder / "out" / "model_0.pth")["weight"]
    for rank in (0, 1):
        assert (folder / f"said_{rank}").read_text() == f"0 {weight.sum().item():.6f}"
    assert (folder / "out" / "rank_0.pth").is_file()
    assert not (folder / "out" / "rank_1.pth").exists()


def test_two_processes_fail_together(scenarios):
    folder = scenarios[0] / "differs"
    said = {(folder / f"said_{rank}").read_text() for rank in (0, 1)}
    assert len(said) == 1
    assert "cannot resume" in said.pop()
