"""What counts as the same result: instances by label and IoU, and pixels that are no coins."""

from __future__ import annotations

import numpy as np
import pytest

from solo_d2.export.parity import TOLERANCES, compare, compare_raw

STRICT = TOLERANCES["f32"]


def outputs(scores, labels, masks):
    return {
        "scores": np.array([scores], np.float32),
        "labels": np.array([labels], np.int64),
        "masks": np.array([masks], np.float32),
    }


def mask(*rows, height=10, width=10, value=0.9):
    made = np.full((height, width), 0.1)
    made[list(rows)] = value
    return made


WANT = outputs([0.9, 0.5, 0.0], [1, 2, 0], [mask(0, 1, 2), mask(5, 6), mask(9)])


def check(got, want=WANT, tolerance=STRICT, final_thresh=0.05):
    return compare(
        want, got, size=(40, 40), mask_thresh=0.5, final_thresh=final_thresh, tolerance=tolerance
    )


def test_equal_outputs_have_no_difference():
    found = check(WANT)
    assert (found.instances, found.matched, found.extra) == (2, 2, 0)
    assert (found.score, found.mask, found.flips, found.clear_flips) == (0, 0, 0, 0)
    assert found.problem(STRICT) is None


def test_the_order_of_instances_does_not_matter():
    swapped = outputs([0.5, 0.9, 0.0], [2, 1, 0], [mask(5, 6), mask(0, 1, 2), mask()])
    assert check(swapped).problem(STRICT) is None


def test_an_empty_slot_is_no_instance():
    assert check(outputs([0.9, 0.5], [1, 2], [mask(0, 1, 2), mask(5, 6)])).matched == 2


@pytest.mark.parametrize(
    "got",
    [
        outputs([0.9, 0.5], [1, 1], [mask(0, 1, 2), mask(5, 6)]),  # another label
        outputs([0.9, 0.5], [1, 2], [mask(0, 1, 2), mask(5)]),  # another mask
        outputs([0.9, 0.0], [1, 2], [mask(0, 1, 2), mask(5, 6)]),  # one less
        outputs([0.9, 0.5, 0.3], [1, 2, 0], [mask(0, 1, 2), mask(5, 6), mask(8)]),  # one more
    ],
)
def test_an_instance_that_has_no_partner_is_a_problem(got):
    assert "instances are found" in check(got).problem(STRICT)


def test_an_instance_at_the_final_threshold_may_be_missing():
    masks = [mask(0, 1, 2), mask(5, 6), mask()]
    want = outputs([0.9, 0.0505, 0.0], [1, 2, 0], masks)
    got = outputs([0.9, 0.0, 0.0], [1, 2, 0], masks)
    assert check(got, want).problem(STRICT) is None
    assert check(got, want, final_thresh=0.01).problem(STRICT) is not None


def test_the_instance_in_the_last_slot_may_be_another_one_of_its_score():
    want = outputs([0.9, 0.5], [1, 2], [mask(0, 1, 2), mask(5, 6)])
    other = outputs([0.9, 0.5004], [1, 0], [mask(0, 1, 2), mask(8, 9)])
    better = outputs([0.9, 0.51], [1, 0], [mask(0, 1, 2), mask(8, 9)])
    assert check(other, want).problem(STRICT) is None
    assert check(better, want).problem(STRICT) is not None


@pytest.mark.parametrize(("difference", "fine"), [(0.0009, True), (0.0011, False)])
def test_scores_may_differ_by_the_tolerance(difference, fine):
    got = outputs([0.9 - difference, 0.5], [1, 2], [mask(0, 1, 2), mask(5, 6)])
    assert (check(got).problem(STRICT) is None) is fine


def test_a_pixel_may_change_sides_only_near_the_threshold():
    near, far = mask(0, 1, 2), mask(0, 1, 2)
    near[2, 0], far[2, 0] = 0.5001, 0.9
    want = outputs([0.9], [1], [near])
    flipped = near.copy()
    flipped[2, 0] = 0.4999
    found = check(outputs([0.9], [1], [flipped]), want)
    assert found.flips == pytest.approx(1 / 100)
    assert found.clear_flips == 0 and found.problem(STRICT) is None
    far[2, 0] = 0.4
    assert check(outputs([0.9], [1], [far]), want, TOLERANCES["bf16"]).clear_flips == 0
    assert "masks differ" in check(outputs([0.9], [1], [far]), want).problem(STRICT)


@pytest.mark.parametrize(("difference", "fine"), [(0.13, True), (0.14, False)])
def test_a_pixel_that_changes_sides_moves_the_score_of_its_instance(difference, fine):
    near = mask(0, 1, 2)  # 30 pixels, of which one moves: 4 / 30 = 0.133
    near[2, 0] = 0.5001
    flipped = near.copy()
    flipped[2, 0] = 0.4999
    found = check(outputs([0.7 - difference], [1], [flipped]), outputs([0.7], [1], [near]))
    assert found.moved == pytest.approx(1 / 30)
    assert (found.problem(STRICT) is None) is fine


def raw(scores, kernels=(1.0, -4.0)):
    return {"category_scores": np.array(scores), "mask_input_0": np.array(kernels)}


@pytest.mark.parametrize(
    ("scores", "kernels", "said"),
    [
        ([0.5, 0.2, 0.0], (1.0, -4.0), None),
        ([0.5009, 0.2, 0.0], (1.003, -4.0), None),
        ([0.5011, 0.2, 0.0], (1.0, -4.0), "scores differ by 1.1e-03"),
        ([0.5, 0.2, 0.0], (1.005, -4.0), "tensors that masks are made of differ by 1.2e-03"),
        ([0.5, 0.0, 0.0], (1.0, -4.0), "3.3e-01 of the scores are kept by one alone"),
        ([0.5, 0.2, float("nan")], (float("nan"), 0.0), "made of differ by nan"),
    ],
)
def test_raw_outputs_are_compared_tensor_by_tensor(scores, kernels, said):
    found = compare_raw(raw([0.5, 0.2, 0.0]), raw(scores, kernels), (40, 40))
    problem = found.problem(STRICT)
    assert problem is None if said is None else said in problem


def test_masks_shared_by_two_instances_are_matched_by_score():
    want = outputs([0.9, 0.5], [1, 1], [mask(0, 1), mask(0, 1)])
    assert check(outputs([0.5, 0.9], [1, 1], [mask(0, 1), mask(0, 1)]), want).score == 0


def test_no_instances_are_equal_to_no_instances():
    nothing = outputs([0.0], [0], [mask()])
    assert check(nothing, nothing).problem(STRICT) is None
    assert check(nothing).problem(STRICT) is not None
    assert check(WANT, nothing).problem(STRICT) is not None
