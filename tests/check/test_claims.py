"""Who owns a cell: as the assigner decides in training."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from builders import rectangles
from check_builders import ONE_LEVEL, network, objects_of, records_of

from solo_d2.check.claims import claim, network_frames, network_of
from solo_d2.check.training import learnable
from solo_d2.testing import tiny_config


def claims_of(objects, net, short=0):
    frames = network_frames(objects.sizes, short, 1000, net.size_divisibility)
    return claim(objects, frames, net.assigner)


def test_cells_are_counted_as_training_assigns_them():
    _, net = network()
    boxes = [(2, 2, 40, 50), (3, 3, 9, 9), (3, 4, 9, 9), (20, 20, 60, 60), (0, 0, 64, 64)]
    found = claims_of(objects_of([], boxes, boxes[:2]), net)
    expected = []
    for group in (boxes, boxes[:2]):
        truth = rectangles((64, 64), group, [0] * len(group))
        targets = net.assigner([truth], (64, 64), torch.device("cpu"))
        expected += torch.bincount(targets.instances, minlength=len(group)).tolist()
    assert found.cells.tolist() == expected


@pytest.mark.parametrize(
    ("boxes", "outside", "beaten"),
    [
        ([(0, 0, 4, 4)], [False], [False]),  # the ends of the range 4 to 32 belong to it
        ([(0, 0, 32, 32)], [False], [False]),
        ([(0, 0, 4, 3)], [True], [False]),
        ([(0, 0, 33, 32)], [True], [False]),
        ([(0, 0, 12, 12), (1, 1, 11, 11)], [False, False], [True, False]),  # the smaller one wins
        ([(0, 0, 12, 12), (33, 33, 40, 40)], [False, False], [False, False]),
    ],
)
def test_objects_are_lost_outside_of_the_ranges_or_to_smaller_ones(boxes, outside, beaten):
    _, net = network(*ONE_LEVEL)
    found = claims_of(objects_of(boxes), net)
    assert found.outside.tolist() == outside and found.beaten.tolist() == beaten
    assert found.lost.tolist() == [a or b for a, b in zip(outside, beaten, strict=True)]


def test_an_object_under_one_mask_pixel_has_less_than_sixteen_input_pixels():
    _, net = network(*ONE_LEVEL)
    objects = objects_of([(0, 0, 4, 4), (8, 8, 13, 11)])
    assert claims_of(objects, net).tiny.tolist() == [False, True]
    twice = claims_of(objects, net, short=128)
    assert twice.tiny.tolist() == [False, False] and twice.scales[0] == 8


def test_frames_are_those_of_resizing_and_padding():
    frames = network_frames(np.array([[480, 640], [100, 300], [480, 640]]), 200, 400, 32)
    assert frames.canvases.tolist() == [[288, 224], [416, 160], [288, 224]]  # of 200x267, 133x400
    assert frames.scales[0].tolist() == [267 / 640, 200 / 480]
    native = network_frames(np.array([[64, 65]]), 0, 400, 32)
    assert native.canvases.tolist() == [[96, 64]] and native.scales.tolist() == [[1, 1]]


def test_only_models_with_a_grid_are_checked():
    cfg = tiny_config()
    cfg.MODEL.META_ARCHITECTURE = "SemanticSegmentor"
    cfg.MODEL.SEM_SEG_HEAD.NAME = "SemSegFPNHead"
    with pytest.raises(ValueError, match=r"SOLO family.*SemanticSegmentor"):
        network_of(cfg)


def test_the_line_of_a_training_has_the_shares():
    cfg, net = network(*ONE_LEVEL)
    boxes = [(0, 0, 12, 12), (1, 1, 11, 11), (40, 40, 45, 43), (0, 20, 60, 62)]
    records = records_of(boxes)
    assert learnable(cfg, net, records) == (
        "4 objects in 1 images: 75.0 % own no cell, 25.0 % are smaller than a pixel of their mask "
        "(solo-d2 check)"
    )
    assert learnable(cfg, net, [{"file_name": "composed", "annotations": []}]) == ""
