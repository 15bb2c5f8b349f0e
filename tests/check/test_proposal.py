"""What is proposed, counted again over all objects."""

from __future__ import annotations

import pytest
from check_builders import ONE_LEVEL, network, objects_of

from solo_d2.check.claims import claim, network_frames, network_of
from solo_d2.check.proposal import propose, with_settings
from solo_d2.check.search import opened_ranges

GRID = [(x, y, x + 6, y + 6) for y in range(0, 64, 8) for x in range(0, 64, 8)]
"""64 objects, one in every cell of 8 x 8: four for each cell of 4 x 4."""

PAIR = [(8, 8, 40, 40), (30, 30, 42, 42)]


def shares_with(cfg, settings, objects):
    """Percents of the objects that own a cell, and are large enough, with other settings."""
    changed = with_settings(cfg, settings)
    net = network_of(changed)
    size = changed.INPUT.MIN_SIZE_TEST, changed.INPUT.MAX_SIZE_TEST
    frames = network_frames(objects.sizes, *size, net.size_divisibility)
    found = claim(objects, frames, net.assigner)
    return 100 * (1 - found.lost.mean()), 100 * (1 - found.dropped.mean())


def test_a_grid_that_is_too_coarse_gets_a_cell_for_each_object():
    cfg, net = network(*ONE_LEVEL, "INPUT.MIN_SIZE_TEST", 128)
    objects = objects_of(GRID)
    advice = propose(cfg, net, objects)
    assert (advice.now.with_cell, advice.now.findable) == (25, 100)
    assert advice.change.settings == {"MODEL.SOLO.NUM_GRIDS": [8]}
    assert (advice.change.with_cell, advice.change.findable) == (100, 100)
    assert shares_with(cfg, advice.change.settings, objects) == (100, 100)
    assert advice.change.cost > 1 and advice.cheaper is None


def test_ranges_are_opened_for_objects_outside_of_them():
    cfg, net = network(*ONE_LEVEL)
    objects = objects_of([(0, 0, 60, 60)])
    advice = propose(cfg, net, objects)
    assert advice.change.settings["MODEL.SOLO.SCALE_RANGES"] == [[4, 64]]
    assert shares_with(cfg, advice.change.settings, objects) == (100, 100)


def test_an_object_with_too_few_mask_pixels_gets_a_larger_input():
    cfg, net = network("INPUT.MIN_SIZE_TEST", 64)
    objects = objects_of([(0, 0, 11, 11), *PAIR])  # 121 of the 128 pixels of eight mask pixels
    advice = propose(cfg, net, objects)
    settings = advice.change.settings
    assert settings["INPUT.MIN_SIZE_TEST"] == 80 and advice.change.findable == 100
    larger = tuple(round(1.25 * x) for x in cfg.INPUT.MIN_SIZE_TRAIN)
    assert settings["INPUT.MIN_SIZE_TRAIN"] == larger
    assert shares_with(cfg, settings, objects) == (100, 100)


def test_a_config_that_suffices_is_kept_and_a_cheaper_one_named():
    cfg, net = network()
    objects = objects_of(PAIR)
    advice = propose(cfg, net, objects)
    assert advice.now.with_cell == 100 and advice.change is None
    assert advice.cheaper.cost < 0.95
    assert shares_with(cfg, advice.cheaper.settings, objects) == (100, 100)


def test_equal_masks_are_out_of_reach_and_not_paid_for():
    cfg, net = network()
    advice = propose(cfg, net, objects_of([PAIR[0], PAIR[0]]))
    assert advice.now.with_cell == 50 == advice.change.with_cell
    assert "MODEL.SOLO.NUM_GRIDS" not in advice.change.settings


@pytest.mark.parametrize(("limit", "proposed"), [(3, None), (2, 100)])
def test_the_limit_of_instances_has_room_for_the_objects(limit, proposed):
    cfg, net = network("TEST.DETECTIONS_PER_IMAGE", limit)
    advice = propose(cfg, net, objects_of([*PAIR, (2, 40, 20, 60)]))
    settings = advice.change.settings if advice.change else {}
    assert settings.get("TEST.DETECTIONS_PER_IMAGE") == proposed


@pytest.mark.parametrize(
    ("shift", "ends", "expected"),
    [
        (1.0, (4, 90), ((4, 96), (48, 192))),
        (1.0, (2, 90), ((1, 96), (48, 192))),
        (0.5, (2, 90), ((2, 48), (24, 96))),
        (0.5, (2, 97), ((2, 48), (24, 192))),
        (1.0, (0.9, 90), ((0, 96), (48, 192))),
    ],
)
def test_moved_ranges_hold_all_sizes(shift, ends, expected):
    assert opened_ranges(((4, 96), (48, 192)), shift, *ends) == expected


def test_deformable_convolutions_count_as_plain_ones():
    cfg, net = network("MODEL.RESNETS.DEFORM_ON_PER_STAGE", [False, True, True, True])
    advice = propose(cfg, net, objects_of([(0, 0, 3, 3)], size=(32, 32)))
    assert advice.now.findable == 0  # and the costs of what would help are known
    plain = propose(*network(), objects_of(PAIR)).cheaper
    deformed = propose(cfg, net, objects_of(PAIR)).cheaper
    assert plain.cost < deformed.cost < 1  # of more work in the backbone the grids are less
