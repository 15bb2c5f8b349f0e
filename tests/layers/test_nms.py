"""Mask NMS against literal loops, written from the paper (§3.3.4) and from each method's papers."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from solo_d2.layers import fast_nms, hard_nms, matrix_nms, point_nms, soft_nms

ALL = [matrix_nms, fast_nms, hard_nms, soft_nms]


def iou(first, second):
    union = (first | second).sum()
    return float((first & second).sum() / union) if union else 0.0


def slow_matrix_nms(masks, labels, scores, kernel, sigma=0.5):
    """Equations 8 and 9 for distinct scores; a missing predecessor stands for f = 1."""

    def f(overlap):
        return 1 - overlap if kernel == "linear" else math.exp(-(overlap**2) / sigma)

    def higher(j):
        return [i for i in range(len(scores)) if scores[i] > scores[j] and labels[i] == labels[j]]

    result = []
    for j in range(len(scores)):
        decay = 1.0
        for i in higher(j):
            own = min([f(iou(masks[k], masks[i])) for k in higher(i)], default=1.0)  # Eq. 8
            if own > 0:  # the paper leaves 0 / 0 open: what is itself gone suppresses nothing
                decay = min(decay, f(iou(masks[i], masks[j])) / own)  # Eq. 9
        result.append(scores[j] * decay)
    return result


def slow_hard_nms(masks, labels, scores, threshold):
    kept = []
    for j in sorted(range(len(scores)), key=lambda j: -scores[j]):
        if all(labels[i] != labels[j] or iou(masks[i], masks[j]) <= threshold for i in kept):
            kept.append(j)
    return [scores[j] if j in kept else 0.0 for j in range(len(scores))]


def slow_fast_nms(masks, labels, scores, threshold):
    return [
        0.0
        if any(
            scores[i] > scores[j] and labels[i] == labels[j] and iou(masks[i], masks[j]) > threshold
            for i in range(len(scores))
        )
        else scores[j]
        for j in range(len(scores))
    ]


def slow_soft_nms(masks, labels, scores, sigma):
    scores = list(scores)
    left = set(range(len(scores)))
    while left:
        best = max(left, key=lambda j: scores[j])
        left.remove(best)
        for j in left:
            if labels[j] == labels[best]:
                scores[j] *= math.exp(-(iou(masks[best], masks[j]) ** 2) / sigma)
    return scores


@st.composite
def detections(draw, max_count=9):
    """Overlapping random masks with distinct scores: masks, labels, scores."""
    count = draw(st.integers(0, max_count))
    rng = np.random.default_rng(draw(st.integers(0, 10**6)))
    base = rng.random((count, 6, 7)) < 0.5
    masks = base | (rng.random((1, 6, 7)) < draw(st.sampled_from([0.0, 0.4, 0.8])))
    labels = rng.integers(0, draw(st.integers(1, 3)), count)
    scores = (rng.permutation(count) + 1) / (count + 1)
    return (
        torch.from_numpy(masks),
        torch.from_numpy(labels),
        torch.from_numpy(scores).float(),
    )


def as_lists(case):
    masks, labels, scores = case
    return masks.numpy(), labels.tolist(), scores.tolist()


@given(case=detections(), kernel=st.sampled_from(["gaussian", "linear"]))
@settings(max_examples=150, deadline=None)
def test_matrix_nms_is_equations_8_and_9(case, kernel):
    got = matrix_nms(*case, kernel=kernel)
    assert got.tolist() == pytest.approx(slow_matrix_nms(*as_lists(case), kernel), abs=2e-6)


@given(case=detections(), sigma=st.sampled_from([0.1, 0.5, 2.0]))
@settings(max_examples=30, deadline=None)
def test_matrix_nms_sigma_is_the_papers(case, sigma):
    got = matrix_nms(*case, sigma=sigma)
    expected = slow_matrix_nms(*as_lists(case), "gaussian", sigma)
    assert got.tolist() == pytest.approx(expected, abs=2e-6)


@given(case=detections(), threshold=st.sampled_from([0.0, 0.3, 0.5, 0.7, 1.0]))
@settings(max_examples=80, deadline=None)
def test_hard_and_fast_nms_are_their_loops(case, threshold):
    lists = as_lists(case)
    assert hard_nms(*case, threshold=threshold).tolist() == slow_hard_nms(*lists, threshold)
    assert fast_nms(*case, threshold=threshold).tolist() == slow_fast_nms(*lists, threshold)


@given(case=detections(), sigma=st.sampled_from([0.2, 0.5, 1.0]))
@settings(max_examples=50, deadline=None)
def test_soft_nms_is_its_loop(case, sigma):
    got = soft_nms(*case, sigma=sigma)
    assert got.tolist() == pytest.approx(slow_soft_nms(*as_lists(case), sigma), abs=2e-6)


@pytest.mark.parametrize("nms", ALL)
@given(case=detections(), seed=st.integers(0, 99))
@settings(max_examples=25, deadline=None)
def test_order_of_the_input_does_not_matter(nms, case, seed):
    masks, labels, scores = case
    order = torch.from_numpy(np.random.default_rng(seed).permutation(len(scores)))
    expected = nms(masks, labels, scores)[order]
    torch.testing.assert_close(nms(masks[order], labels[order], scores[order]), expected)


@pytest.mark.parametrize("nms", ALL)
@given(case=detections())
@settings(max_examples=25, deadline=None)
def test_classes_do_not_interact(nms, case):
    masks, labels, scores = case
    together = nms(masks, labels, scores)
    for label in labels.unique():
        own = labels == label
        torch.testing.assert_close(nms(masks[own], labels[own], scores[own]), together[own])


@pytest.mark.parametrize("nms", ALL)
@given(case=detections())
@settings(max_examples=25, deadline=None)
def test_scores_never_rise_and_the_best_of_a_class_keeps_its_own(nms, case):
    masks, labels, scores = case
    got = nms(masks, labels, scores)
    assert (got <= scores + 1e-7).all()
    assert (got >= 0).all()
    for label in labels.unique():
        best = torch.where(labels == label, scores, -1).argmax()
        assert got[best] == scores[best]


@pytest.mark.parametrize("sigma", [0.5, 2.0])
def test_duplicate_decays_by_exp_minus_one_over_sigma(sigma):
    masks = torch.ones(2, 4, 4, dtype=torch.bool)  # IoU 1
    out = matrix_nms(masks, torch.zeros(2), torch.tensor([0.9, 0.8]), sigma=sigma)
    torch.testing.assert_close(out, torch.tensor([0.9, 0.8 * math.exp(-1 / sigma)]))


def test_linear_kernel_multiplies_by_one_minus_iou():
    masks = torch.tensor([[[1, 1, 1, 1]], [[1, 0, 0, 0]]], dtype=torch.bool)  # IoU 1/4
    out = matrix_nms(masks, torch.zeros(2), torch.tensor([0.9, 0.8]), kernel="linear")
    torch.testing.assert_close(out, torch.tensor([0.9, 0.6]))


def test_a_suppressed_mask_suppresses_less():
    # A and B overlap by 1/2, B and C by 1/3, A and C not at all.
    masks = torch.tensor(
        [[[1, 1, 1, 0, 0, 0, 0]], [[0, 1, 1, 1, 0, 0, 0]], [[0, 0, 0, 1, 0, 0, 0]]],
        dtype=torch.bool,
    )
    scores = torch.tensor([0.9, 0.8, 0.7])
    a_b, b_c = 2 / 4, 1 / 3
    out = matrix_nms(masks, torch.zeros(3), scores, kernel="linear")
    # Against B alone C would lose a third; B itself is halved, so that 2/3 over 1/2 exceeds 1.
    torch.testing.assert_close(out, torch.tensor([0.9, 0.8 * (1 - a_b), 0.7]))
    assert (1 - b_c) / (1 - a_b) > 1


@pytest.mark.parametrize("kernel", ["gaussian", "linear"])
@pytest.mark.parametrize("count", [2, 3, 10])
def test_identical_masks_stay_finite_and_all_but_the_first_decay_alike(kernel, count):
    masks = torch.ones(count, 3, 3, dtype=torch.bool)
    scores = torch.linspace(0.9, 0.1, count)
    out = matrix_nms(masks, torch.zeros(count), scores, kernel=kernel)
    factor = math.exp(-2) if kernel == "gaussian" else 0.0
    expected = torch.cat([scores[:1], scores[1:] * factor])
    torch.testing.assert_close(out, expected)


@pytest.mark.parametrize("nms", ALL)
def test_equal_scores_count_in_input_order(nms):
    masks = torch.ones(3, 2, 2, dtype=torch.bool)
    out = nms(masks, torch.zeros(3), torch.full((3,), 0.5))
    assert out[0] == 0.5
    assert (out[1:] < 0.1).all()


@pytest.mark.parametrize("nms", ALL)
def test_empty_masks_stay_finite_and_are_not_suppressed(nms):
    masks = torch.zeros(3, 2, 2, dtype=torch.bool)
    scores = torch.tensor([0.3, 0.9, 0.6])
    assert torch.equal(nms(masks, torch.zeros(3), scores), scores)


@pytest.mark.parametrize("nms", ALL)
@pytest.mark.parametrize("count", [0, 1])
def test_none_or_one_mask_passes(nms, count):
    scores = torch.full((count,), 0.7)
    masks = torch.ones(count, 4, 5, dtype=torch.bool)
    out = nms(masks, torch.zeros(count, dtype=torch.int64), scores)
    assert isinstance(out, torch.Tensor)
    assert torch.equal(out, scores)


@pytest.mark.parametrize("nms", ALL)
def test_five_hundred_masks(nms):
    rng = np.random.default_rng(0)
    masks = torch.from_numpy(rng.random((500, 9, 9)) < 0.7)
    scores = torch.from_numpy(rng.permutation(500) + 1.0).float() / 501
    out = nms(masks, torch.from_numpy(rng.integers(0, 5, 500)), scores)
    assert out.shape == (500,)
    assert torch.isfinite(out).all()
    assert (out < scores).any()


def test_hard_nms_forgives_what_a_removed_mask_overlaps_and_fast_nms_does_not():
    # IoU(A, B) = IoU(B, C) = 3/5, IoU(A, C) = 2/6: greedy NMS removes B only, Fast NMS B and C.
    line = torch.zeros(3, 1, 6, dtype=torch.bool)
    line[0, 0, 0:4] = line[1, 0, 1:5] = line[2, 0, 2:6] = True
    scores = torch.tensor([0.9, 0.8, 0.7])
    labels = torch.zeros(3)
    assert hard_nms(line, labels, scores).tolist() == pytest.approx([0.9, 0, 0.7])
    assert fast_nms(line, labels, scores).tolist() == pytest.approx([0.9, 0, 0])


@pytest.mark.parametrize("nms", [hard_nms, fast_nms])
@pytest.mark.parametrize(("threshold", "kept"), [(0.25, True), (0.24, False)])
def test_threshold_is_the_largest_iou_that_stays(nms, threshold, kept):
    masks = torch.tensor([[[1, 1, 1, 1]], [[1, 0, 0, 0]]], dtype=torch.bool)  # IoU exactly 1/4
    out = nms(masks, torch.zeros(2), torch.tensor([0.9, 0.8]), threshold=threshold)
    assert (out[1] > 0).item() is kept


def test_unknown_kernel_is_named_with_the_known_ones():
    with pytest.raises(ValueError, match=r"gaussian.*linear.*'gauss'"):
        matrix_nms(torch.zeros(0, 1, 1, dtype=torch.bool), *[torch.zeros(0)] * 2, kernel="gauss")


@pytest.mark.parametrize("nms", [matrix_nms, soft_nms])
@pytest.mark.parametrize("sigma", [0.0, -1.0])
def test_sigma_must_be_positive(nms, sigma):
    with pytest.raises(ValueError, match="sigma > 0"):
        nms(torch.zeros(0, 1, 1, dtype=torch.bool), *[torch.zeros(0)] * 2, sigma=sigma)


@pytest.mark.parametrize("nms", ALL)
def test_counts_that_differ_are_refused(nms):
    with pytest.raises(ValueError, match=r"sizes that fit .*scores \(K\); got .*\(3,\)"):
        nms(torch.zeros(2, 1, 1, dtype=torch.bool), torch.zeros(2), torch.zeros(3))


def test_point_nms_compares_with_left_upper_and_upper_left_only():
    scores = torch.tensor([[0.1, 0.5, 0.4], [0.6, 0.2, 0.3], [0.1, 0.7, 0.8]])
    expected = torch.tensor(
        [
            [0.1, 0.5, 0.0],  # the first has no neighbour to beat, 0.4 loses to the left 0.5
            [0.6, 0.0, 0.0],  # 0.3 loses to the upper left 0.5
            [0.0, 0.7, 0.8],  # 0.1 loses to 0.6; 0.7 wins though 0.8 stands right of it
        ]
    )
    assert torch.equal(point_nms(scores[None, None])[0, 0], expected)


def test_point_nms_keeps_equal_neighbours_and_separates_classes():
    scores = torch.rand(2, 3, 5, 5)
    assert torch.equal(point_nms(torch.full((1, 1, 3, 3), 0.5)), torch.full((1, 1, 3, 3), 0.5))
    alone = torch.stack([point_nms(scores[:, c : c + 1])[:, 0] for c in range(3)], dim=1)
    assert torch.equal(point_nms(scores), alone)
