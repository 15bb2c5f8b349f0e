"""Facts about identities: what moves, hides, crosses, leaves and is seen twice."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from detectron2.structures import Boxes, Instances

from solo_d2.layers import EncodedMasks, masks_to_boxes, pairwise_mask_iou
from solo_d2.tracking import Tracker
from solo_d2.tracking.masks import PointMasks

SIZE = (60, 120)


def frame(*boxes, scores=None, labels=None, kernels=None, size=SIZE):
    """Instances that are boxes (top, left, bottom, right)."""
    masks = torch.zeros(len(boxes), *size, dtype=torch.bool)
    for mask, (top, left, bottom, right) in zip(masks, boxes, strict=True):
        mask[max(top, 0) : bottom, max(left, 0) : right] = True
    found = Instances(size, pred_masks=masks, pred_boxes=Boxes(masks_to_boxes(masks)))
    found.scores = torch.tensor(scores or [0.9] * len(boxes))
    found.pred_classes = torch.tensor(labels or [0] * len(boxes))
    if kernels is not None:
        found.pred_kernels = torch.tensor(kernels, dtype=torch.float32).view(len(boxes), 2)
    return found


def ids(tracker, *boxes, **more):
    return tracker(frame(*boxes, **more)).track_ids.tolist()


# ------------------------------------------------------------------ masks as points


def some_masks(seed=0, size=(40, 50), count=6):
    """Boolean noise in random boxes; the last one is empty."""
    random = np.random.default_rng(seed)
    masks = torch.zeros(count, *size, dtype=torch.bool)
    for mask in masks[:-1]:
        top, left = random.integers(0, 20, 2)
        mask[top : top + 15, left : left + 25] = torch.from_numpy(random.random((15, 25)) < 0.6)
    return masks


@pytest.mark.parametrize("size", [(40, 50), (100, 330), (900, 700)])
def test_points_are_the_pixels_in_the_middle_of_the_cells(size):
    masks = some_masks(size=size)
    points = PointMasks.sample(masks, masks_to_boxes(masks).numpy())
    step = max(1, round(max(size) / 160))
    grid = masks[:, step // 2 :: step, step // 2 :: step].numpy()
    assert points.size == grid.shape[1:]
    assert points.areas.tolist() == grid.sum((1, 2)).tolist()
    assert (points.points == np.argwhere(grid)[:, 1:]).all()


def test_overlaps_are_those_of_the_masks():
    masks, others = some_masks(0), some_masks(1)
    a, b = (PointMasks.sample(x, masks_to_boxes(x).numpy()) for x in (masks, others))
    expected = pairwise_mask_iou(torch.cat([masks, others]))[:6, 6:].numpy()
    assert a.iou(b) == pytest.approx(expected)
    assert a.take(np.array([4, 1])).iou(b) == pytest.approx(expected[[4, 1]])
    assert a.join(b).iou(b)[:6] == pytest.approx(expected)
    common = (masks.flatten(1).float() @ others.flatten(1).float().T).numpy()
    smaller = np.minimum.outer(masks.sum((1, 2)).numpy(), others.sum((1, 2)).numpy())
    assert a.shared(b) == pytest.approx(common / np.maximum(smaller, 1))


def test_moved_masks_are_cut_off_at_the_border():
    masks = some_masks()
    points = PointMasks.sample(masks, masks_to_boxes(masks).numpy())
    moved = points.move(np.tile([-5, 30], (6, 1)))
    expected = torch.zeros_like(masks)
    expected[:, :-5, 30:] = masks[:, 5:, :-30]
    again = PointMasks.sample(expected, masks_to_boxes(expected).numpy())
    assert (moved.points == again.points).all()
    assert (moved.starts == again.starts).all()


# ------------------------------------------------------------------ identities


def test_objects_keep_their_numbers_whatever_their_order():
    tracker = Tracker()
    assert ids(tracker, (0, 0, 20, 20), (30, 0, 50, 20)) == [1, 2]
    assert ids(tracker, (30, 4, 50, 24), (0, 4, 20, 24)) == [2, 1]


def test_a_fast_object_is_where_its_velocity_brings_it():
    tracker = Tracker()
    for left in (0, 8, 18, 29):  # the velocity is learned: 0, 4, 7, 9
        assert ids(tracker, (0, left, 20, left + 20)) == [1]
    # 17 further: an IoU of 3 / 37 with where it was, and of 12 / 28 with where it should be.
    assert ids(tracker, (0, 46, 20, 66)) == [1]
    assert ids(tracker, (0, 80, 20, 100)) == [2]


@pytest.mark.parametrize(("gap", "same"), [(3, True), (4, False)])
def test_a_gap_is_bridged_up_to_the_memory(gap, same):
    tracker = Tracker(memory=3)
    assert ids(tracker, (0, 0, 20, 20)) == [1]
    for _ in range(gap):
        assert ids(tracker) == []
    assert (ids(tracker, (0, 0, 20, 20)) == [1]) is same


@pytest.mark.parametrize(("score", "born"), [(0.59, []), (0.61, [1])])
def test_a_track_begins_with_the_birth_score(score, born):
    assert ids(Tracker(0.6), (0, 0, 20, 20), scores=[score]) == born


def test_a_low_score_goes_on_with_a_track():
    tracker = Tracker(0.6)
    ids(tracker, (0, 0, 20, 20))
    assert ids(tracker, (0, 0, 20, 20), (30, 0, 50, 20), scores=[0.2, 0.2]) == [1]


@pytest.mark.parametrize(("width", "expected"), [(9, [1, 2]), (11, [1])])
def test_no_track_begins_with_what_others_have_more_than_half_of(width, expected):
    # Of 20 columns `width` belong to the first object already.
    boxes = (0, 0, 40, 40), (10, 40 - width, 30, 60 - width)
    assert ids(Tracker(), *boxes, scores=[0.9, 0.8]) == expected


def test_kernels_tell_crossing_objects_apart_where_masks_do_not():
    left, right = [1.0, 0.0], [0.0, 1.0]
    with_kernels, without = Tracker(), Tracker()
    start, crossed = ((0, 40, 20, 60), (0, 60, 20, 80)), ((0, 52, 20, 72), (0, 48, 20, 68))
    assert ids(with_kernels, *start, kernels=[left, right]) == [1, 2]
    assert ids(without, *start) == [1, 2]
    assert ids(with_kernels, *crossed, kernels=[left, right]) == [1, 2]
    assert ids(without, *crossed) == [2, 1]


@pytest.mark.parametrize("empty", [1, 3])
def test_frames_without_instances_may_lack_kernels(empty):
    """Before the first object, between two sights of it, and when it is forgotten."""
    tracker, kernel = Tracker(memory=2), [[0.6, 0.8]]
    assert ids(tracker) == []
    assert ids(tracker, (0, 0, 20, 20), kernels=kernel) == [1]
    for _ in range(empty):
        assert ids(tracker) == []
    # Too far away for its mask: the kernel finds it again.
    moved = ids(tracker, (30, 60, 50, 80), kernels=kernel)
    assert moved == ([1] if empty == 1 else [2])
    assert ids(tracker) == []


@pytest.mark.parametrize(
    ("first", "second", "said"), [([[1, 0]], None, "got 0 after 2"), (None, [[1, 0]], "2 after 0")]
)
def test_kernels_of_some_frames_only_are_refused(first, second, said):
    tracker = Tracker()
    ids(tracker, (0, 0, 20, 20), kernels=first)
    with pytest.raises(ValueError, match=f"of one length in all frames.*{said}.*reset"):
        ids(tracker, (0, 0, 20, 20), kernels=second)


def test_kernels_bridge_a_gap_after_which_masks_do_not_meet():
    tracker, kernel, other = Tracker(), [0.6, 0.8], [0.8, -0.6]
    ids(tracker, (0, 0, 20, 20), kernels=[kernel])
    ids(tracker, kernels=[])
    boxes = (30, 60, 50, 80), (30, 90, 50, 110)
    assert ids(tracker, *boxes, kernels=[other, kernel]) == [2, 1]


def test_the_class_is_that_of_most_scores():
    tracker = Tracker()
    seen = [
        tracker(frame((0, 0, 20, 20), labels=[label], scores=[score])).pred_classes.tolist()[0]
        for label, score in ((3, 0.9), (5, 0.7), (3, 0.6), (5, 0.9), (5, 0.9), (3, 0.1))
    ]
    # Votes for 3: 0.9, 0.2, 0.8, -0.1 (now for 5 with 0.1), 1.0, 0.9.
    assert seen == [3, 3, 3, 5, 5, 5]


def test_fields_and_order_of_the_instances_stay():
    found = frame((0, 0, 20, 20), (30, 0, 50, 20), (0, 60, 20, 80), scores=[0.9, 0.3, 0.8])
    kept = Tracker()(found)
    assert kept.scores.tolist() == pytest.approx([0.9, 0.8])
    assert (kept.pred_masks == found.pred_masks[[0, 2]]).all()
    assert not found.has("track_ids")


def test_encoded_masks_are_taken_as_they_are():
    found, tracker = frame((0, 0, 20, 20), (30, 0, 50, 20)), Tracker()
    found.pred_masks = EncodedMasks.from_crops(
        [(0, 0, np.ones((20, 20), bool)), (0, 30, np.ones((20, 20), bool))], SIZE
    )
    assert tracker(found).track_ids.tolist() == [1, 2]
    assert ids(tracker, (30, 0, 50, 20), (0, 0, 20, 20)) == [2, 1]


def test_another_frame_size_and_a_reset_begin_anew():
    tracker = Tracker()
    assert ids(tracker, (0, 0, 20, 20)) == [1]
    assert ids(tracker, (0, 0, 20, 20), size=(80, 80)) == [2]
    tracker.reset()
    assert ids(tracker, (0, 0, 20, 20), size=(80, 80)) == [1]


def test_thousands_of_frames_leave_no_more_than_the_memory():
    tracker = Tracker(memory=5)
    for number in range(60):  # a new object in every frame
        top = 20 * (number % 2)
        ids(tracker, (top, 6 * (number % 17), top + 5, 6 * (number % 17) + 5))
    assert len(tracker._tracks) <= 6


@pytest.mark.parametrize(
    "options", [{"birth_score": 1.1}, {"min_fit": 0.0}, {"min_fit": 1.1}, {"memory": -1}]
)
def test_numbers_out_of_range_are_refused(options):
    with pytest.raises(ValueError, match="a tracker expects birth_score in"):
        Tracker(**options)
