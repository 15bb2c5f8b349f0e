"""Facts about COCO evaluation: the fast way gives pycocotools' numbers, in one process or two."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch
import torch.distributed as dist
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.evaluation import COCOEvaluator
from evaluation_builders import feed, random_scene, write_scenes

from solo_d2.data.datasets.coco_json import register_coco_json
from solo_d2.evaluation import COCOInstanceEvaluator, build_evaluator, coco

METRICS = {"AP", "AP50", "AP75", "APs", "APm", "APl"}
needs_hotcoco = pytest.mark.skipif(coco.hotcoco is None, reason="needs hotcoco")


@pytest.fixture
def register(tmp_path):
    """Writes scenes and registers them; returns the name of the dataset."""

    def make(scenes, **options):
        register_coco_json("scenes", write_scenes(tmp_path, scenes, **options), tmp_path)
        return "scenes"

    yield make
    if "scenes" in DatasetCatalog.list():
        DatasetCatalog.remove("scenes")
        MetadataCatalog.pop("scenes")


def scenes_of(seed, count=30, **options):
    rng = np.random.default_rng(seed)
    return [random_scene(rng, **options) for _ in range(count)]


def equal(left, right):
    """Equal to the last bit, NaN being equal to itself."""
    return left.keys() == right.keys() and all(
        left[task].keys() == right[task].keys()
        and all(np.array_equal(left[task][k], right[task][k], equal_nan=True) for k in left[task])
        for task in left
    )


@needs_hotcoco
@pytest.mark.parametrize(
    ("seed", "options"),
    [
        (0, {}),
        (1, {}),
        (2, {"count": 2, "detections": 1000}),  # more than 100 of a class
        (3, {"count": 1}),
    ],
)
def test_both_ways_and_detectron2_give_the_same_numbers(seed, options, register):
    scenes = scenes_of(seed, **options)
    name = register(scenes, crowds=0.2)
    fast = feed(COCOInstanceEvaluator(name, fast=True), scenes)
    assert set(fast) == {"segm", "bbox"}
    assert METRICS | {"AP-class 11"} <= set(fast["segm"])
    assert equal(fast, feed(COCOInstanceEvaluator(name, fast=False), scenes))
    theirs = feed(COCOEvaluator(name, use_fast_impl=False), scenes)
    assert equal(fast, theirs)


@needs_hotcoco
@pytest.mark.parametrize("limit", [3, 40])
def test_another_limit_of_detections(limit, register):
    scenes = scenes_of(4, count=3, detections=320)
    name = register(scenes)
    ours, slow = (
        feed(COCOInstanceEvaluator(name, fast=fast, max_dets_per_image=limit), scenes)
        for fast in (True, False)
    )
    assert equal(ours, slow)
    assert ours["segm"]["AP"] != feed(COCOInstanceEvaluator(name), scenes)["segm"]["AP"]


@pytest.mark.parametrize("fast", [pytest.param(True, marks=needs_hotcoco), False])
def test_a_perfect_predictor_has_an_ap_of_100(fast, register):
    scenes = scenes_of(5)
    result = feed(COCOInstanceEvaluator(register(scenes), fast=fast), scenes, perfect=True)
    values = [*result["segm"].values(), *result["bbox"].values()]
    assert values == pytest.approx([100] * len(values))


@pytest.mark.parametrize("fast", [pytest.param(True, marks=needs_hotcoco), False])
def test_without_any_detection_ap_is_unknown(fast, register):
    scenes = [(truth, []) for truth, _ in scenes_of(6, count=3)]
    result = feed(COCOInstanceEvaluator(register(scenes), fast=fast), scenes)
    assert set(result) == {"segm", "bbox"}
    assert all(math.isnan(x) for x in result["segm"].values())


def test_results_are_written_with_the_files_category_ids(register, tmp_path):
    scenes = scenes_of(7, count=5)
    feed(COCOInstanceEvaluator(register(scenes), str(tmp_path / "out")), scenes)
    results = json.loads((tmp_path / "out" / "coco_instances_results.json").read_text())
    assert len(results) == sum(len(found) for _, found in scenes)
    assert {x["category_id"] for x in results} <= {2, 3, 7, 11}
    assert {"segmentation", "bbox", "score"} <= set(results[0])


def test_a_class_that_the_data_set_lacks_is_named(register):
    scenes = scenes_of(8, count=2)
    mask = np.ones((100, 140), dtype=bool)
    wrong = [(scenes[0][0], [(mask, 4, 0.5)])]
    name = register(scenes)
    with pytest.raises(ValueError, match=r"class 4, the dataset has 4 classes.*NUM_CLASSES 4"):
        feed(COCOInstanceEvaluator(name), wrong)


def test_the_fast_way_without_hotcoco_is_refused_and_the_default_is_slow(register, monkeypatch):
    monkeypatch.setattr(coco, "hotcoco", None)
    scenes = scenes_of(9, count=3)
    name = register(scenes)
    with pytest.raises(ValueError, match="pip install hotcoco"):
        COCOInstanceEvaluator(name, fast=True)
    assert METRICS <= set(feed(COCOInstanceEvaluator(name), scenes)["segm"])


def evaluate_a_part(rank, folder):
    """Score nine or three of twelve images in a process of its own; the first writes results."""
    meeting = (folder / "meeting").as_uri()
    dist.init_process_group("gloo", init_method=meeting, rank=rank, world_size=2)
    register_coco_json("scenes_of_two", str(folder / "truth.json"), str(folder))
    chosen = slice(0, 9) if rank == 0 else slice(9, 12)
    result = feed(build_evaluator("scenes_of_two"), scenes_of(10, count=12), chosen=chosen)
    if rank == 0:
        (folder / "result.json").write_text(json.dumps(result))
    dist.destroy_process_group()


def test_two_processes_give_the_result_of_one(tmp_path, register):
    scenes = scenes_of(10, count=12)
    name = register(scenes)
    torch.multiprocessing.start_processes(
        evaluate_a_part, args=(tmp_path,), nprocs=2, start_method="forkserver"
    )
    result = json.loads((tmp_path / "result.json").read_text())
    assert equal(result, feed(COCOInstanceEvaluator(name), scenes))
