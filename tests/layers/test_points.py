"""Points of soft masks: where they lie, and that a loss on all pixels is a limit of theirs."""

from __future__ import annotations

import pytest
import torch

from solo_d2.layers import sample_points

SIZE = (40, 60)


def example():
    """One object of 6 x 5 pixels; the mask is sure of itself except in one column beside it."""
    targets = torch.zeros(2, *SIZE, dtype=torch.bool)
    targets[:, 10:16, 20:25] = True
    probs = torch.where(targets, 0.99, 0.01)
    probs[:, 8:18, 25] = 0.45
    return probs, targets


def located(points):
    return points // SIZE[1], points % SIZE[1]


@pytest.mark.parametrize("count", [1, 3, 40, 1000])
def test_there_are_so_many_of_every_mask_and_all_lie_in_it(count):
    probs, targets = example()
    points = sample_points(probs, targets, count)
    assert points.shape == (2, count)
    assert points.dtype == torch.int64
    assert 0 <= points.min() <= points.max() < SIZE[0] * SIZE[1]


def test_uncertain_pixels_are_among_them_first():
    torch.manual_seed(0)
    probs, targets = example()
    chosen = sample_points(probs, targets, 400)[:, :300]
    # Of 900 random points 450 lie in the object's region of 11 x 9.5 pixels, 10 of which are
    # doubtful: hardly one is missed, and none is repeated, as no other is.
    for points in chosen:
        assert (probs[0].flatten()[points] == 0.45).sum() >= 9
        assert len(points.unique()) == 300


def test_pixels_are_repeated_where_there_are_no_more():
    torch.manual_seed(0)
    targets = torch.ones(1, 2, 3, dtype=torch.bool)
    points = sample_points(torch.full((1, 2, 3), 0.2), targets, 40)[0, :30]
    assert points.unique().tolist() == list(range(6))


def test_half_of_the_random_points_lie_around_the_object():
    torch.manual_seed(0)
    probs = torch.full((2, *SIZE), 0.5)  # nothing is more uncertain than another
    _, targets = example()
    y, x = located(sample_points(probs, targets, 16000)[:, 12000:])  # the rest
    # The box of 6 x 5 pixels and a margin of 1/4 of each side and a pixel.
    near = (y >= 7) & (y < 19) & (x >= 17) & (x < 28)
    share = near.double().mean(1)
    # One half, and of the other one the region's part of the canvas.
    expected = 0.5 + 0.5 * (12 * 11) / (40 * 60)
    torch.testing.assert_close(share, torch.full_like(share, expected), atol=0.04, rtol=0)


@pytest.mark.parametrize("box", [(0, 0, 0, 0), (0, 0, 1, 1), (59, 39, 60, 40), (0, 0, 60, 40)])
def test_objects_at_the_border_and_empty_targets_stay_inside(box):
    torch.manual_seed(0)
    x0, y0, x1, y1 = box
    targets = torch.zeros(1, *SIZE)
    targets[0, y0:y1, x0:x1] = 0.3  # of a soft target every pixel above 0 counts
    points = sample_points(torch.rand(1, *SIZE), targets, 2000)
    assert 0 <= points.min() <= points.max() < SIZE[0] * SIZE[1]
    y, x = located(points)
    y, x = y[0, 1500:], x[0, 1500:]  # the rest, of which half lie around the object
    if box[2] < 60:
        assert ((x < 2) & (y < 2)).double().mean() > 0.3
    else:
        assert x.max() == 59
        assert y.max() == 39


def test_no_masks_have_no_points():
    empty = torch.zeros(0, *SIZE)
    assert sample_points(empty, empty, 10).shape == (0, 10)


def test_points_are_drawn_with_torchs_random_numbers_and_without_a_graph():
    probs, targets = example()
    probs.requires_grad_()
    torch.manual_seed(3)
    first = sample_points(probs, targets, 50)
    torch.manual_seed(3)
    assert torch.equal(first, sample_points(probs, targets, 50))
    assert not torch.equal(first, sample_points(probs, targets, 50))
    assert not first.requires_grad
