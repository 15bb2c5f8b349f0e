"""Boundary AP: boundaries by their definition, and figures that another package gives."""

from __future__ import annotations

import copy
import math

import numpy as np
import pytest
from builders import tiny_config
from evaluation_builders import feed, random_scene, write_scenes
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools import mask as mask_util

from solo_d2.data.datasets.coco_json import register_coco_json
from solo_d2.engine import SOLOTrainer
from solo_d2.evaluation import COCOInstanceEvaluator, LVISInstanceEvaluator
from solo_d2.evaluation.boundary import boundary_of, boundary_width
from solo_d2.evaluation.coco import entries_of
from solo_d2.io.segmentation import encode_mask


def slow_boundary(mask, reach):
    """Pixels of a mask with a neighbour outside of it, straight from the definition."""
    padded = np.pad(mask, reach)
    result = np.zeros_like(mask)
    for y, x in zip(*mask.nonzero(), strict=True):
        result[y, x] = not padded[y : y + 2 * reach + 1, x : x + 2 * reach + 1].all()
    return result


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 150), st.integers(1, 150), st.integers(0, 10**6))
def test_boundaries_are_those_of_the_definition(height, width, seed):
    rng = np.random.default_rng(seed)
    mask = np.zeros((height, width), bool)
    y, x = rng.integers(height), rng.integers(width)
    mask[y : y + rng.integers(1, 60), x : x + rng.integers(1, 60)] = True
    mask &= rng.random(mask.shape) < 0.999
    found = mask_util.decode(boundary_of(encode_mask(mask))).astype(bool)
    np.testing.assert_array_equal(found, slow_boundary(mask, boundary_width(mask.shape)))


@pytest.mark.parametrize(
    ("size", "width"), [((1, 1), 1), ((52, 52), 1), ((54, 54), 2), ((480, 640), 16)]
)
def test_a_boundary_is_two_percent_of_the_diagonal(size, width):
    assert boundary_width(size) == width


@pytest.fixture
def scenes(tmp_path):
    rng = np.random.default_rng(0)
    made = [random_scene(rng) for _ in range(30)]
    register_coco_json("scenes", write_scenes(tmp_path, made, crowds=0.2), tmp_path)
    return made


def test_figures_are_those_of_faster_coco_eval(scenes):
    package = pytest.importorskip("faster_coco_eval")
    evaluator = COCOInstanceEvaluator("scenes", boundary=True)
    result = feed(evaluator, scenes)["boundary"]
    found = {
        evaluator._truth.numbers[image_id]: x
        for image_id, x in evaluator._found.gather(distributed=False, missing="").items()
        if len(x)
    }
    truth = package.COCO(copy.deepcopy(evaluator._truth.content))
    scorer = package.COCOeval_faster(
        truth, truth.loadRes(entries_of(found, "boundary")), "boundary", print_function=lambda _: 0
    )
    scorer.params.maxDets = [1, 10, 100]
    scorer.run()
    wanted = [100 * x for x in scorer.stats[:6]]
    got = [result[key] for key in ("AP", "AP50", "AP75", "APs", "APm", "APl")]
    assert got == pytest.approx(wanted, abs=1e-9)


@pytest.mark.parametrize("fast", [False, True])
def test_the_other_figures_do_not_change_and_a_crowd_counts_by_its_mask(scenes, fast):
    if fast:
        pytest.importorskip("hotcoco")
    plain = feed(COCOInstanceEvaluator("scenes", fast=fast), scenes)
    result = feed(COCOInstanceEvaluator("scenes", fast=fast, boundary=True), scenes)
    assert list(result) == ["segm", "bbox", "boundary"]
    for task in plain:
        np.testing.assert_equal(result[task], plain[task])
    assert result["boundary"]["AP"] <= result["segm"]["AP"]
    perfect = feed(COCOInstanceEvaluator("scenes", fast=fast, boundary=True), scenes, perfect=True)
    assert perfect["boundary"]["AP"] == pytest.approx(100)


def test_a_shifted_outline_costs_boundary_ap_alone(tmp_path):
    """A square of 60 pixels, shifted by 3: IoU 57 / 63; of the outlines of width 3, below 1/2."""
    mask = np.zeros((100, 140), bool)
    mask[20:80, 40:100] = True
    made = [([(mask, 0)], [(np.roll(mask, 3, axis=1), 0, 0.9)])]
    register_coco_json("shifted", write_scenes(tmp_path, made), tmp_path)
    result = feed(COCOInstanceEvaluator("shifted", boundary=True), made)
    assert result["segm"]["AP50"] == pytest.approx(100)
    outline = 60 * 60 - 54 * 54
    common = 2 * 3 * 57  # in the upper and the lower side; the others lie beside each other
    assert common / (2 * outline - common) < 0.5
    assert result["boundary"]["AP50"] == 0


def test_an_empty_mask_has_an_empty_boundary():
    empty = encode_mask(np.zeros((5, 7), bool))
    assert mask_util.area(boundary_of(empty)) == 0


@pytest.mark.parametrize("wanted", [False, True])
def test_the_key_asks_for_it(scenes, wanted):
    evaluator = SOLOTrainer.build_evaluator(tiny_config("TEST.BOUNDARY_AP", wanted), "scenes")
    assert ("boundary" in evaluator._tasks) is wanted


def test_lvis_has_none(scenes):
    with pytest.raises(ValueError, match=r"TEST.BOUNDARY_AP follows COCO's rules"):
        LVISInstanceEvaluator("scenes", boundary=True)


def test_without_a_detection_it_is_unknown(scenes):
    nothing = [(truth, []) for truth, _ in scenes]
    result = feed(COCOInstanceEvaluator("scenes", boundary=True), nothing)
    assert math.isnan(result["boundary"]["AP"])
