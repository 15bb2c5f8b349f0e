"""The test path against references that do everything at once (paper §3.3.3, design §6)."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from solo_d2.layers import budgets
from solo_d2.modeling import GridSpec, postprocessing
from solo_d2.modeling.output import make_instances, resize_masks
from solo_d2.modeling.postprocessing import (
    InferenceSettings,
    binarize,
    build_nms,
    category_scores,
    select_candidates,
    suppress,
)

GRID = GridSpec.build([4, 3, 2], [[1, 9], [4, 16], [9, 99]], [4, 16, 32])  # strides 8, 16, 32
SIZE = (12, 16)


def nms(name="matrix"):
    return build_nms(name, kernel="gaussian", sigma=0.5, threshold=0.5)


def make_settings(**changes):
    values = {
        "score_thresh": 0.1,
        "mask_thresh": 0.5,
        "pre_nms_topk": 500,
        "nms": nms(),
        "final_score_thresh": 0.05,
        "max_instances": 100,
    }
    return InferenceSettings(**{**values, **changes})


def random_cells(seed, num_classes=3, density=0.5):
    """Category scores (T, C), all distinct, and soft masks (T, *SIZE) of every cell."""
    rng = np.random.default_rng(seed)
    count = GRID.num_cells * num_classes
    scores = (rng.permutation(count) + 1.0) / (count + 1)
    masks = rng.random((GRID.num_cells, *SIZE)) ** (2 * rng.random((GRID.num_cells, 1, 1)))
    masks *= rng.random((GRID.num_cells, 1, 1)) < density + 0.3
    shape = (GRID.num_cells, num_classes)
    return torch.from_numpy(scores).float().view(shape), torch.from_numpy(masks).float()


def slow_candidates(scores, soft, thresh, mask_thresh, topk):
    """(score, cell, class) of the candidates, best first, all masks at once."""
    strides = [8] * 16 + [16] * 9 + [32] * 4
    found = []
    for cell, mask in enumerate(soft.double()):
        foreground = mask[mask > mask_thresh]
        if len(foreground) <= strides[cell]:
            continue
        for label, score in enumerate(scores[cell].tolist()):
            if score > thresh:
                found.append((score * foreground.mean().item(), cell, label))
    return sorted(found, reverse=True)[:topk]


def compare(scores, soft, config):
    visited = []

    def cell_masks(cells):
        visited.extend(cells.tolist())
        return soft[cells].clone()

    got = select_candidates(scores, cell_masks, SIZE, GRID, config)
    expected = slow_candidates(
        scores, soft, config.score_thresh, config.mask_thresh, config.pre_nms_topk
    )
    cells = got.cells[got.rows]
    assert got.scores.tolist() == pytest.approx([score for score, _, _ in expected], abs=1e-6)
    assert cells.tolist() == [cell for _, cell, _ in expected]
    assert got.labels.tolist() == [label for _, _, label in expected]
    assert torch.equal(got.masks[got.rows], soft[cells] > config.mask_thresh)
    assert len(got.cells.unique()) == len(got.cells) == len(got.masks)
    assert len(visited) == len(set(visited))  # no mask is made twice
    return visited


@given(
    seed=st.integers(0, 10**6),
    topk=st.sampled_from([1, 7, 500]),
    thresh=st.sampled_from([0.0, 0.1, 0.6]),
    chunk=st.sampled_from([1, 3 * 12 * 16, 2**22]),
)
@settings(max_examples=60, deadline=None)
def test_candidates_are_those_of_all_at_once(seed, topk, thresh, chunk):
    scores, soft = random_cells(seed)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(budgets.MASK_PIXELS, "cpu", chunk)
        compare(scores, soft, make_settings(pre_nms_topk=topk, score_thresh=thresh))


def test_the_visit_stops_early_and_nothing_is_lost(monkeypatch):
    monkeypatch.setitem(budgets.MASK_PIXELS, "cpu", 1)
    scores, _ = random_cells(0, num_classes=1)
    visited = compare(
        scores, torch.ones(GRID.num_cells, *SIZE), make_settings(pre_nms_topk=5, score_thresh=0.0)
    )
    # Maskness 1: the five best category scores are final.
    assert visited == scores[:, 0].argsort(descending=True)[:5].tolist()


def test_a_worse_category_score_with_a_surer_mask_is_still_found(monkeypatch):
    monkeypatch.setitem(budgets.MASK_PIXELS, "cpu", 1)
    scores = torch.zeros(GRID.num_cells, 1)
    scores[:3, 0] = torch.tensor([0.9, 0.8, 0.7])
    soft = torch.ones(GRID.num_cells, *SIZE)
    soft[0] *= 0.6  # 0.54
    soft[1] *= 0.7  # 0.56
    got = select_candidates(scores, lambda c: soft[c], SIZE, GRID, make_settings(pre_nms_topk=1))
    assert got.cells.tolist() == [2]  # 0.7


@pytest.mark.parametrize(("pixels", "kept"), [(8, 0), (9, 1)])
def test_a_mask_needs_more_pixels_than_its_stride(pixels, kept):
    soft = torch.zeros(GRID.num_cells, *SIZE)
    soft[0].view(-1)[:pixels] = 0.8
    scores = torch.zeros(GRID.num_cells, 2)
    scores[0, 1] = 0.5
    got = select_candidates(scores, lambda c: soft[c], SIZE, GRID, make_settings())
    assert len(got.scores) == kept
    if kept:
        assert got.scores.tolist() == pytest.approx([0.4])  # score x maskness
        assert got.labels.tolist() == [1]


@pytest.mark.parametrize(("score", "kept"), [(0.25, 0), (0.2500001, 1)])
def test_a_score_must_exceed_the_threshold(score, kept):
    scores = torch.zeros(GRID.num_cells, 1)
    scores[3] = score
    everything = torch.ones(GRID.num_cells, *SIZE)
    config = make_settings(score_thresh=0.25)
    got = select_candidates(scores, lambda c: everything[c], SIZE, GRID, config)
    assert len(got.scores) == kept


def test_no_candidate_gives_empty_tensors_all_the_way():
    def no_masks(cells):
        assert len(cells) == 0
        return torch.zeros(0, *SIZE)

    got = select_candidates(torch.zeros(GRID.num_cells, 2), no_masks, SIZE, GRID, make_settings())
    scores, labels, cells = suppress(got, make_settings())
    assert scores.shape == labels.shape == cells.shape == (0,)
    assert labels.dtype == cells.dtype == torch.int64
    masks, boxes = resize_masks(torch.zeros(0, *SIZE), (48, 64), (40, 50), (80, 100), 0.5)
    instances = make_instances(scores, labels, masks, boxes)
    assert len(instances) == 0
    assert instances.pred_masks.shape == (0, 80, 100)
    assert instances.pred_masks.dtype == torch.bool
    assert instances.pred_boxes.tensor.shape == (0, 4)


@pytest.mark.parametrize("threshold", [0.3, 0.5])
def test_maskness_is_the_mean_probability_of_the_foreground(threshold):
    soft = torch.tensor([[[0.9, 0.5, 0.4], [0.7, 0.1, 0.3]], [[0.0, 0.1, 0.2], [0.0, 0.0, 0.0]]])
    expected = soft > threshold
    masks, areas, maskness = binarize(soft.clone(), threshold)
    assert torch.equal(masks, expected)
    assert areas.tolist() == [int(expected[0].sum()), 0]
    torch.testing.assert_close(maskness, torch.tensor([soft[0][expected[0]].mean().item(), 0.0]))


def test_category_scores_run_over_levels_row_by_row():
    logits = [torch.randn(2, 3, size, size) for size in GRID.num_grids]
    scores = category_scores(logits)
    assert scores.shape == (2, GRID.num_cells, 3)
    for level, size in enumerate(GRID.num_grids):
        for row in range(size):
            for column in range(size):
                own = logits[level][:, :, row, column]
                corner = logits[level][
                    :, :, max(row - 1, 0) : row + 1, max(column - 1, 0) : column + 1
                ]
                expected = torch.where(own >= corner.amax((2, 3)), own.sigmoid(), 0.0)
                got = scores[:, GRID.flatten(level, row, column)]
                torch.testing.assert_close(got, expected)


def test_category_scores_are_float32_whatever_the_logits():
    assert category_scores([torch.zeros(1, 1, 2, 2, dtype=torch.bfloat16)]).dtype == torch.float32


def candidates_of(masks, labels, scores):
    count = torch.arange(len(masks))
    return postprocessing.Candidates(scores, labels, count, count + 5, masks)


def test_final_threshold_is_inclusive_and_the_limit_keeps_the_best():
    masks = torch.eye(4, dtype=torch.bool)[:, None]  # disjoint: nothing is suppressed
    scores = torch.tensor([0.9, 0.5, 0.25, 0.125])
    candidates = candidates_of(masks, torch.zeros(4, dtype=torch.int64), scores)
    kept, _, cells = suppress(candidates, make_settings(final_score_thresh=0.25))
    assert kept.tolist() == scores[:3].tolist()
    assert cells.tolist() == [5, 6, 7]
    kept, _, _ = suppress(candidates, make_settings(max_instances=2))
    assert kept.tolist() == scores[:2].tolist()


def test_instances_come_by_the_score_after_suppression():
    masks = torch.zeros(3, 1, 4, dtype=torch.bool)
    masks[:2, 0, :2] = True
    masks[2, 0, 2:] = True
    labels = torch.tensor([1, 1, 0])
    candidates = candidates_of(masks, labels, torch.tensor([0.9, 0.8, 0.3]))
    scores, labels, cells = suppress(candidates, make_settings())
    assert scores.tolist() == pytest.approx([0.9, 0.3, 0.8 * math.exp(-2)])
    assert labels.tolist() == [1, 0, 1]
    assert cells.tolist() == [5, 7, 6]


@pytest.mark.parametrize("name", ["hard", "fast"])
def test_removed_masks_do_not_come_back_with_a_final_threshold_of_zero(name):
    masks = torch.ones(2, 2, 2, dtype=torch.bool)
    candidates = candidates_of(masks, torch.zeros(2, dtype=torch.int64), torch.tensor([0.9, 0.8]))
    scores, _, _ = suppress(candidates, make_settings(nms=nms(name), final_score_thresh=0.0))
    assert scores.tolist() == pytest.approx([0.9])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": "matrixx"}, "NMS_TYPE must be one of.*'matrixx'"),
        ({"kernel": "gauss"}, "kernel of.*'gauss'"),
        ({"sigma": 0.0}, "sigma > 0"),
        ({"name": "soft", "sigma": -1.0}, "sigma > 0"),
        ({"name": "hard", "threshold": 1.5}, "NMS_THRESH_TEST must lie in"),
    ],
)
def test_bad_nms_is_refused_before_the_first_image(arguments, message):
    values = {"name": "matrix", "kernel": "gaussian", "sigma": 0.5, "threshold": 0.5, **arguments}
    with pytest.raises(ValueError, match=message):
        build_nms(values.pop("name"), **values)


@pytest.mark.parametrize(
    ("change", "key"),
    [
        ({"score_thresh": 1.0}, "SCORE_THRESH_TEST"),
        ({"score_thresh": -0.1}, "SCORE_THRESH_TEST"),
        ({"mask_thresh": 1.0}, "MASK_THRESH_TEST"),
        ({"final_score_thresh": 2.0}, "FINAL_SCORE_THRESH_TEST"),
        ({"pre_nms_topk": 0}, "PRE_NMS_TOPK_TEST"),
        ({"max_instances": 0}, "DETECTIONS_PER_IMAGE"),
    ],
)
def test_settings_out_of_range_name_their_key(change, key):
    with pytest.raises(ValueError, match=key):
        make_settings(**change)
