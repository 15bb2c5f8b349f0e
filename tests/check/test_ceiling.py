"""The best AP that perfect predictions reach."""

from __future__ import annotations

import pytest
from builders import SOFT
from check_builders import ONE_LEVEL, network, records_of, rectangle

from solo_d2.check.ceiling import best_possible_ap
from solo_d2.check.measure import measure_objects
from solo_d2.check.proposal import propose

CLASSES = ["cup", "fork", "spoon"]


def best(*images, overrides=()):
    cfg, net = network(*overrides)
    return best_possible_ap(cfg, net, records_of(*images), CLASSES)


@pytest.mark.parametrize("head", ["DynamicSOLOHead", "VanillaSOLOHead"])
def test_masks_that_the_targets_hold_exactly_are_found_exactly(head):
    # Rectangles whose corners lie where the enlarged target cuts at one half.
    boxes = [rectangle((8, 8, 40, 40)), rectangle((44, 16, 60, 56), 2)]
    found = best(boxes, overrides=("MODEL.SOLO.HEAD", head))
    assert found["AP50"] == pytest.approx(100) and found["AP-cup"] > 80 and found["AP-spoon"] > 80


def test_models_of_mattes_are_checked_too():
    cfg, net = network(*SOFT)
    records = records_of([(8, 8, 40, 40)])
    assert best_possible_ap(cfg, net, records, CLASSES)["AP50"] == pytest.approx(100)
    assert propose(cfg, net, measure_objects(records)).now.with_cell == 100


def test_an_object_without_a_cell_is_missed():
    inner, outer = (9, 9, 23, 23), (8, 8, 24, 24)
    assert best([inner], [outer], overrides=ONE_LEVEL)["AP50"] == pytest.approx(100)
    lost = best([inner, outer], overrides=ONE_LEVEL)["AP50"]
    assert 50 <= lost < 52  # of recalls from 0 to 1 in steps of 0.01, those to one half


def test_smaller_masks_have_a_lower_bound():
    small, large = [(9, 9, 23, 23)], [(9, 9, 55, 55)]
    assert 0 < best(small)["AP"] < best(large)["AP"]


@pytest.mark.parametrize(("side", "found"), [(8, False), (12, True)])
def test_a_mask_needs_more_pixels_than_the_finest_stride(side, found):
    # Four and nine pixels at stride 4; the stride of the level is 8.
    ap = best([(8, 8, 8 + side, 8 + side)], overrides=ONE_LEVEL)["AP50"]
    assert ap == (pytest.approx(100) if found else 0)


def test_the_limit_of_instances_counts():
    boxes = [(0, 0, 16, 16), (20, 0, 36, 16), (40, 0, 56, 16), (0, 30, 16, 46)]
    assert best(boxes)["AP50"] == pytest.approx(100)
    assert best(boxes, overrides=("TEST.DETECTIONS_PER_IMAGE", 2))["AP50"] < 52
