"""Facts about drawn instances: which pixels change, and to what."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from detectron2.structures import Instances

from solo_d2.inference.colors import instance_colors
from solo_d2.inference.drawing import _labels, draw_instances


def instances_of(masks, classes=None):
    masks = torch.as_tensor(np.array(masks), dtype=torch.bool)
    count = len(masks)
    return Instances(
        tuple(masks.shape[1:]),
        pred_masks=masks,
        pred_classes=torch.tensor([0] * count if classes is None else classes, dtype=torch.long),
        scores=torch.full((count,), 0.5),
    )


def rectangle(top, left, bottom, right, size=(200, 300)):
    mask = np.zeros(size, dtype=bool)
    mask[top:bottom, left:right] = True
    return mask


@pytest.fixture
def gray():
    return np.full((200, 300, 3), 100, dtype=np.uint8)


def test_masks_are_blended_and_all_else_stays(gray):
    mask = rectangle(20, 30, 180, 270)
    color = np.array([[200, 0, 50]], dtype=np.uint8)
    before = gray.copy()
    drawn = draw_instances(gray, instances_of([mask]), ["cat"], color, alpha=0.5)
    # Halfway between 100 and the colour, away from outline and label.
    assert drawn[40, 60].tolist() == [150, 50, 75]
    outside = ~rectangle(17, 27, 183, 273)
    assert (drawn[outside] == 100).all()
    assert (gray == before).all()


def test_only_the_mask_in_its_box_is_blended(gray):
    mask = rectangle(20, 30, 180, 270)
    mask[20:90, 30:140] = False  # an L: its box's corner is background
    drawn = draw_instances(gray, instances_of([mask]))
    assert (drawn[22:80, 32:130] == 100).all()
    assert (drawn[150, 60] != 100).any()


def test_a_small_instance_shows_on_a_large_one_whatever_their_order(gray):
    large, small = rectangle(0, 0, 200, 300), rectangle(120, 200, 190, 290)
    colors = instance_colors([0, 1])
    drawn = draw_instances(gray, instances_of([small, large]), None, colors, alpha=1.0)
    assert drawn[185, 285].tolist() == colors[0].tolist()
    assert drawn[10, 10].tolist() == colors[1].tolist()


def test_the_label_lies_in_the_middle_of_its_mask(gray):
    drawn = draw_instances(gray, instances_of([rectangle(20, 30, 180, 270)]), ["cat"], alpha=0.0)
    changed = (drawn != 100).any(axis=2) & rectangle(25, 35, 175, 265)
    rows, columns = np.nonzero(changed)
    assert abs(rows.mean() - 100) < 10
    assert abs(columns.mean() - 150) < 10


def test_the_label_does_not_cover_a_small_instance(gray):
    mask = rectangle(100, 150, 110, 160)
    color = np.array([[0, 0, 255]], dtype=np.uint8)
    drawn = draw_instances(gray, instances_of([mask]), ["teddy bear"], color, alpha=0.5)
    # (100 + 0) / 2 and (100 + 255) / 2, the latter to either side
    assert np.abs(drawn[103:107, 153:157] - np.array([50, 50, 177.5])).max() <= 0.5


@pytest.mark.parametrize("place", [(0, 0, 4, 4), (196, 296, 200, 300), (0, 296, 4, 300)])
def test_labels_at_the_border_lie_inside(gray, place):
    # All of the tag is drawn: as many pixels as for the same instance in the middle.
    def tag_pixels(mask):
        drawn = draw_instances(gray, instances_of([mask]), ["cat"], alpha=0.0)
        return int((drawn != 100).any(axis=2).sum())

    middle = tag_pixels(rectangle(100, 150, 104, 154))
    assert tag_pixels(rectangle(*place)) > 0.75 * middle


def test_an_unnamed_class_is_drawn_like_a_named_one(gray):
    found = instances_of([rectangle(20, 30, 180, 270)], [7])
    numbered = draw_instances(gray, found, ["only one name"])
    assert (numbered == draw_instances(gray, found, ["x"] * 7 + ["class 7"])).all()


def test_nothing_to_draw_leaves_the_picture(gray):
    nothing = instances_of(np.zeros((0, 200, 300), dtype=bool))
    assert (draw_instances(gray, nothing) == gray).all()
    empty_mask = instances_of([np.zeros((200, 300), dtype=bool)])
    assert (draw_instances(gray, empty_mask) == gray).all()


@pytest.mark.parametrize("size", [(1, 300), (300, 1), (1, 1)])
def test_one_pixel_sides_can_be_drawn_on(size):
    image = np.full((*size, 3), 100, dtype=np.uint8)
    assert draw_instances(image, instances_of([np.ones(size)])).shape == image.shape


def test_ground_truth_without_scores_is_labelled_by_class_alone():
    instances = instances_of([rectangle(20, 30, 180, 270)], [1])
    assert _labels(instances, ["cat", "dog"]) == ["dog 50%"]
    instances.remove("scores")
    assert _labels(instances, ["cat", "dog"]) == ["dog"]


def test_lines_and_labels_are_in_proportion_to_small_objects_of_large_images():
    image = np.zeros((3000, 3000, 3), np.uint8)
    masks = torch.zeros((2, 3000, 3000), dtype=torch.bool)
    masks[0, 1000:1030, 1000:1030] = True  # a thousandth of the image
    masks[1, 2000:2900, 2000:2900] = True
    drawn = [
        draw_instances(image, Instances((3000, 3000), pred_masks=x, pred_classes=torch.zeros(1)))
        for x in masks.split(1)
    ]
    areas = [int((x.max(2) > 0).sum()) for x in drawn]
    assert 30**2 < areas[0] < 10 * 30**2  # its label has letters of ten pixels
    assert areas[1] > 900**2 + 4 * 900  # an outline of eight pixels, half of it outside
