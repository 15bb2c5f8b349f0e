"""Facts about colours that follow the objects of a video."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from detectron2.structures import Instances

from solo_d2.inference.colors import InstanceColors, instance_colors


def frame(*objects, size=(40, 60)):
    """Instances of objects given as (class, top, left, bottom, right)."""
    masks = torch.zeros(len(objects), *size, dtype=torch.bool)
    for mask, (_, top, left, bottom, right) in zip(masks, objects, strict=True):
        mask[top:bottom, left:right] = True
    classes = torch.tensor([entry[0] for entry in objects], dtype=torch.long)
    return Instances(size, pred_masks=masks, pred_classes=classes)


def test_neighbouring_numbers_have_distant_colors():
    colors = instance_colors(range(12)).astype(int)
    distance = np.abs(colors[:, None] - colors[None]).sum(-1)
    assert (distance[~np.eye(12, dtype=bool)] > 50).all()
    assert instance_colors([3, 3, 1]).tolist() == colors[[3, 3, 1]].tolist()
    assert instance_colors([]).shape == (0, 3)


def test_an_object_keeps_its_color_while_it_moves_whatever_its_place_in_the_list():
    colors = InstanceColors()
    left, right = colors(frame((0, 0, 0, 20, 20), (0, 0, 40, 20, 60)))
    assert left.tolist() != right.tolist()
    for shift in (2, 4, 6):
        swapped = colors(frame((0, 0, 40, 20, 60), (0, shift, shift, 20 + shift, 20 + shift)))
        assert swapped.tolist() == [right.tolist(), left.tolist()]


def test_a_new_object_gets_a_new_color():
    colors = InstanceColors()
    (first,) = colors(frame((0, 0, 0, 20, 20)))
    same, new = colors(frame((0, 0, 0, 20, 20), (0, 20, 40, 40, 60)))
    assert same.tolist() == first.tolist()
    assert new.tolist() != first.tolist()


def test_another_class_is_another_object():
    colors = InstanceColors()
    (first,) = colors(frame((0, 0, 0, 20, 20)))
    (other,) = colors(frame((1, 0, 0, 20, 20)))
    assert other.tolist() != first.tolist()


@pytest.mark.parametrize(("min_iou", "same"), [(0.32, True), (0.34, False)])
def test_min_iou_holds_on_both_sides(min_iou, same):
    # Two 10 x 20 rectangles that share half: IoU = 1/2 / (3/2) = 1/3.
    colors = InstanceColors(min_iou=min_iou)
    (first,) = colors(frame((0, 0, 0, 10, 20)))
    (second,) = colors(frame((0, 0, 10, 10, 30)))
    assert (first.tolist() == second.tolist()) is same


def test_of_two_heirs_only_the_better_one_takes_the_color():
    colors = InstanceColors()
    (first,) = colors(frame((0, 0, 0, 20, 20)))
    worse, better = colors(frame((0, 0, 0, 12, 20), (0, 0, 0, 18, 20)))
    assert better.tolist() == first.tolist()
    assert worse.tolist() != first.tolist()


@pytest.mark.parametrize(("gap", "same"), [(0, True), (2, True), (3, False)])
def test_a_hidden_object_is_remembered_for_some_frames(gap, same):
    colors = InstanceColors(memory=2)
    (first,) = colors(frame((0, 0, 0, 20, 20)))
    for _ in range(gap):
        assert colors(frame()).shape == (0, 3)
    (again,) = colors(frame((0, 0, 0, 20, 20)))
    assert (again.tolist() == first.tolist()) is same


def test_another_frame_size_starts_anew():
    colors = InstanceColors()
    (first,) = colors(frame((0, 0, 0, 20, 20)))
    (second,) = colors(frame((0, 0, 0, 20, 20), size=(80, 60)))
    assert first.tolist() != second.tolist()


def test_empty_masks_match_nothing():
    colors = InstanceColors()
    first = colors(frame((0, 5, 5, 5, 5)))
    second = colors(frame((0, 5, 5, 5, 5)))
    assert first.tolist() != second.tolist()


def test_large_frames_are_compared_coarsely_and_thin_objects_survive_it():
    colors = InstanceColors()
    size = (1080, 1920)
    (first,) = colors(frame((0, 7, 100, 8, 1900), size=size))  # one pixel high
    (second,) = colors(frame((0, 7, 110, 8, 1910), size=size))
    assert first.tolist() == second.tolist()
