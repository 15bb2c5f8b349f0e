"""How processes start: arguments that cannot work are refused before anything starts."""

from __future__ import annotations

import os

import pytest
import torch
from detectron2.utils import comm

from solo_d2.engine import launch


@pytest.fixture(autouse=True)
def no_torchrun(monkeypatch):
    for key in ("LOCAL_RANK", "WORLD_SIZE", "RANK", "LOCAL_WORLD_SIZE"):
        monkeypatch.delenv(key, raising=False)


def must_not_run(*args):
    raise AssertionError("main was called")


@pytest.mark.parametrize("num_gpus", [0, 1])
def test_one_process_runs_here(num_gpus):
    seen = []
    launch(lambda *args: seen.append((os.getpid(), args)), num_gpus, args=(1, "a"))
    assert seen == [(os.getpid(), (1, "a"))]
    assert comm.get_world_size() == 1


def test_errors_of_main_come_through():
    def fail():
        raise ValueError("bad key")

    with pytest.raises(ValueError, match="bad key"):
        launch(fail, 0)


def test_more_gpus_than_there_are_point_to_torchrun():
    count = torch.cuda.device_count() + 2
    with pytest.raises(ValueError, match=rf"--num-gpus is {count}.*torchrun --nproc_per_node"):
        launch(must_not_run, count)


@pytest.mark.parametrize(("machines", "rank"), [(1, 1), (2, 2), (2, -1)])
def test_machine_rank_must_exist(machines, rank):
    with pytest.raises(ValueError, match=rf"\[0, {machines}\).*got {rank}"):
        launch(must_not_run, 1, num_machines=machines, machine_rank=rank, dist_url="tcp://a:1")


def test_several_machines_need_an_address():
    with pytest.raises(ValueError, match="--dist-url"):
        launch(must_not_run, 1, num_machines=2)


@pytest.mark.parametrize("arguments", [{"num_gpus": 2}, {"num_gpus": 0, "num_machines": 2}])
def test_torchrun_and_own_counts_exclude_each_other(monkeypatch, arguments):
    monkeypatch.setenv("LOCAL_RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ValueError, match="leave --num-gpus and --num-machines out"):
        launch(must_not_run, arguments.pop("num_gpus"), **arguments)
