"""Shards on a real, local Ray of two workers, some of which are killed."""

from __future__ import annotations

import functools
import json
import os
import signal
import sys
from collections import Counter
from pathlib import Path

import cv2
import numpy as np
import pytest
import stub_predictor
from stub_predictor import StubPredictor, picture

from solo_d2.inference.ray_driver import RayPool, run_shards
from solo_d2.inference.shard_worker import ShardWorker
from solo_d2.inference.shards import ShardFolder, plan_shards

ray = pytest.importorskip("ray")


@pytest.fixture(scope="module")
def local_ray():
    """Two processors, and what the tests are made of; workers cannot import tests."""
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="error")
    modules = [sys.modules[__name__], stub_predictor]
    for module in modules:
        ray.cloudpickle.register_pickle_by_value(module)
    yield
    for module in modules:
        ray.cloudpickle.unregister_pickle_by_value(module)
    ray.shutdown()


class Deadly(StubPredictor):
    """Kills its process at some images, at each once."""

    def __init__(self, marks, numbers):
        super().__init__(1)
        self.marks, self.numbers = Path(marks), numbers

    def __call__(self, image):
        if isinstance(image, list):
            return [self(x) for x in image]
        number = int(image[0, 0] @ [1, 256, 0])
        mark = self.marks / str(number)
        if number in self.numbers and not mark.exists():
            mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return super().__call__(image)


def make(predictor, folder):
    return ShardWorker(predictor, folder, batch_size=2)


def refuse():
    raise ValueError("no such weights")


def write(folder, count):
    """Images of which each knows its number."""
    folder.mkdir()
    for k in range(count):
        image = np.full((40, 50, 3), (k % 256, k // 256, 0), np.uint8)
        cv2.imwrite(str(folder / f"{k:04d}.png"), image)


@pytest.mark.slow
def test_every_image_exactly_once_though_workers_are_killed(local_ray, tmp_path):
    count, marks = 2000, tmp_path / "marks"
    marks.mkdir()
    write(tmp_path / "in", count)
    picture(tmp_path / "in" / "bad.png").write_bytes(b"")
    shards, _ = plan_shards([str(tmp_path / "in")], 100)
    folder = ShardFolder(tmp_path / "out", "coco")
    folder.open(shards, {})
    pool = RayPool(functools.partial(make, Deadly(marks, {155, 1502}), folder), 2)
    results = list(run_shards(shards, pool))
    pool.close()
    assert sorted(shard.number for shard, _ in results) == list(range(21))
    assert [x for _, x in results if isinstance(x, str)] == []
    assert sorted(x.name for x in marks.iterdir()) == ["1502", "155"]
    totals = folder.finish()
    files = (tmp_path / "out/results").iterdir()
    seen = Counter(x["image_id"] for file in files for x in json.loads(file.read_text()))
    assert seen == Counter(range(1, count + 1))
    assert (totals.images, [x.image_id for x in totals.bad]) == (count, [count + 1])


@pytest.mark.slow
def test_workers_that_cannot_be_made_end_the_run_at_once(local_ray, tmp_path):
    write(tmp_path / "in", 2)
    shards, _ = plan_shards([str(tmp_path / "in")], 1)
    pool = RayPool(refuse, 1)
    try:
        with pytest.raises(ValueError, match=r"^a worker cannot start: .*no such weights$"):
            list(run_shards(shards, pool))
    finally:
        pool.close()


@pytest.mark.slow
def test_more_workers_than_processors_are_refused(local_ray):
    with pytest.raises(ValueError, match="--ray 3 needs 3 CPUs, the cluster has 2"):
        RayPool(refuse, 3)
