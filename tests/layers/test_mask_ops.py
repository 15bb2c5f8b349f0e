"""Mask geometry against NumPy, one mask and one pixel at a time."""

from __future__ import annotations

from unittest import mock

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import example, given, settings
from hypothesis import strategies as st

from solo_d2.layers import (
    binarize,
    downsample_masks,
    mask_areas,
    mask_coverage,
    mask_occupancy,
    mask_ops,
    mask_profiles,
    masks_to_boxes,
    pairwise_intersection,
    pairwise_mask_iou,
    products,
    profiles_to_boxes,
    profiles_to_centroids,
)

# Around the limits of the implementation: 8 pixels a word, 255 words a byte lane.
SHAPES = [
    (0, 5, 7),
    (1, 1, 1),
    (3, 7, 8),
    (2, 9, 15),
    (2, 255, 3),
    (2, 256, 9),
    (1, 600, 16),
    (1, 3, 2040),
    (1, 2, 2041),
    (2, 4, 4100),
    (3, 0, 4),
    (3, 4, 0),
]


def random_masks(shape, seed=0, density=0.5):
    return torch.from_numpy(np.random.default_rng(seed).random(shape) < density)


def naive_box(mask):
    rows, columns = np.nonzero(mask.numpy())
    if len(rows) == 0:
        return [0, 0, 0, 0]
    return [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]


def naive_iou(first, second):
    union = int((first | second).sum())
    return int((first & second).sum()) / union if union else 0.0


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("density", [0.0, 0.01, 0.5, 1.0])
def test_profiles_and_areas_count_pixels(shape, density):
    masks = random_masks(shape, density=density)
    rows, columns = mask_profiles(masks)
    expected = masks.numpy().astype(np.int64)
    np.testing.assert_array_equal(rows.numpy(), expected.sum(2))
    np.testing.assert_array_equal(columns.numpy(), expected.sum(1))
    np.testing.assert_array_equal(mask_areas(masks).numpy(), expected.sum((1, 2)))
    occupied_rows, occupied_columns = mask_occupancy(masks)
    np.testing.assert_array_equal(occupied_rows.numpy(), expected.any(2))
    np.testing.assert_array_equal(occupied_columns.numpy(), expected.any(1))


@given(
    shape=st.tuples(st.integers(0, 4), st.integers(1, 20), st.integers(1, 20)),
    density=st.sampled_from([0.0, 0.02, 0.3, 1.0]),
    seed=st.integers(0, 99),
)
# One pixel: the inner size at which torch's integer product has returned uninitialised memory.
@example(shape=(4, 1, 1), density=0.0, seed=0)
@example(shape=(4, 1, 1), density=0.3, seed=1)
@example(shape=(1, 1, 1), density=1.0, seed=0)
@example(shape=(4, 1, 3), density=0.3, seed=0)
@settings(max_examples=60, deadline=None)
def test_boxes_areas_centroids_and_ious_are_those_of_numpy(shape, density, seed):
    masks = random_masks(shape, seed, density)
    expected = [naive_box(mask) for mask in masks]
    assert masks_to_boxes(masks).tolist() == expected
    profiles = mask_profiles(masks)
    assert profiles_to_boxes(*profiles).tolist() == expected
    for mask, center in zip(masks.numpy(), profiles_to_centroids(*profiles).tolist(), strict=True):
        rows, columns = np.nonzero(mask)
        if len(rows):
            assert center == pytest.approx([columns.mean(), rows.mean()], abs=1e-12)
        else:
            assert np.isnan(center).all()
    ious = pairwise_mask_iou(masks)
    assert ious.shape == (len(masks), len(masks))
    for i, first in enumerate(masks):
        for j, second in enumerate(masks):
            assert ious[i, j].item() == pytest.approx(naive_iou(first, second), abs=1e-6)


@given(
    count=st.integers(0, 8),
    num_labels=st.integers(1, 4),
    density=st.sampled_from([0.0, 0.05, 0.6]),
    seed=st.integers(0, 99),
    block=st.sampled_from([1, 3, 128]),
)
@settings(max_examples=60, deadline=None)
def test_labels_leave_the_overlaps_inside_a_class_and_no_others(
    count, num_labels, density, seed, block
):
    masks = random_masks((count, 7, 9), seed, density)
    labels = torch.from_numpy(np.random.default_rng(seed).integers(0, num_labels, count))
    same = (labels[:, None] == labels[None, :]).float()
    torch.testing.assert_close(pairwise_mask_iou(masks, labels), pairwise_mask_iou(masks) * same)
    expected = pairwise_intersection(masks) * same
    # More masks than a block holds are compared class by class.
    with (
        mock.patch.object(mask_ops, "BLOCK_ROWS", block),
        mock.patch.object(products, "BLOCK_ROWS", block),
    ):
        assert torch.equal(pairwise_intersection(masks, labels), expected)


@pytest.mark.parametrize("count", [127, 128, 129, 300])
def test_intersections_of_many_masks_are_exact(count):
    masks = random_masks((count, 9, 11), count)
    flat = masks.flatten(1).double()
    assert torch.equal(pairwise_intersection(masks).double(), flat @ flat.T)


def test_box_has_exclusive_right_and_bottom_edges():
    masks = torch.zeros(1, 8, 8, dtype=torch.bool)
    masks[0, 2:5, 1:7] = True
    assert masks_to_boxes(masks).tolist() == [[1, 2, 7, 5]]


def test_views_count_as_their_copies_do():
    # A contiguous view may start in the middle of a 64-bit word.
    masks = random_masks((3, 12, 24))
    for view in (masks[1:, :, 3:], masks[:1, :1, 5:13], masks.transpose(1, 2), masks[::2]):
        copy = view.clone(memory_format=torch.contiguous_format)
        assert torch.equal(mask_areas(view), mask_areas(copy))
        assert torch.equal(masks_to_boxes(view), masks_to_boxes(copy))
        assert torch.equal(pairwise_intersection(view), pairwise_intersection(copy))
    assert torch.equal(downsample_masks(masks[1:], 4), downsample_masks(masks[1:].clone(), 4))


def test_expanded_mask_has_full_overlap():
    mask = random_masks((1, 6, 8)).expand(3, 6, 8)
    assert torch.equal(pairwise_mask_iou(mask), torch.ones(3, 3))


@pytest.mark.parametrize("stride", [2, 4, 8, 16])
@pytest.mark.parametrize("density", [0.1, 0.5, 0.9])
def test_downsampling_is_bilinear_interpolation_with_inclusive_half(stride, density):
    masks = random_masks((5, 48, 80), stride, density)
    size = (48 // stride, 80 // stride)
    soft = F.interpolate(masks[None].float(), size=size, mode="bilinear", align_corners=False)
    assert torch.equal(downsample_masks(masks, stride), soft[0] >= 0.5)


def test_two_of_the_four_inner_pixels_make_a_pixel():
    masks = torch.zeros(3, 4, 4, dtype=torch.bool)
    masks[0, 1, 1] = True  # one of four: below one half
    masks[1, 1, 1:3] = True  # two of four: exactly one half
    masks[2] = True
    masks[2, 1:3, 1:3] = False  # only outer pixels: the sample never sees them
    assert downsample_masks(masks, 4).flatten().tolist() == [False, True, False]


@pytest.mark.parametrize("stride", [2, 3, 4, 8, 16])
@pytest.mark.parametrize("density", [0.1, 0.5, 1.0])
def test_coverage_is_the_share_of_foreground_in_every_block(stride, density):
    masks = random_masks((5, 48, 96), stride, density)
    expected = masks.double().view(5, 48 // stride, stride, 96 // stride, stride).mean((2, 4))
    torch.testing.assert_close(mask_coverage(masks, stride), expected.float(), rtol=1e-6, atol=0)
    # A view that is not contiguous.
    assert torch.equal(mask_coverage(masks.mT, stride), mask_coverage(masks, stride).mT)


def test_coverage_of_a_high_block_does_not_overflow():
    masks = torch.ones(1, 256, 255, dtype=torch.bool)
    assert mask_coverage(masks[:, :255], 255).tolist() == [[[1.0]]]
    with pytest.raises(ValueError, match="from 2 to 255"):
        mask_coverage(torch.ones(1, 256, 256, dtype=torch.bool), 256)


@pytest.mark.parametrize("function", [downsample_masks, mask_coverage])
def test_downsampling_no_masks_gives_none(function):
    masks = torch.zeros(0, 8, 12, dtype=torch.bool)
    assert function(masks, 4).shape == (0, 2, 3)


@pytest.mark.parametrize(("size", "stride"), [((8, 10), 4), ((10, 8), 4), ((9, 9), 2), ((8, 8), 0)])
@pytest.mark.parametrize("function", [downsample_masks, mask_coverage])
def test_sizes_that_the_stride_does_not_divide_are_refused(function, size, stride):
    with pytest.raises(ValueError, match="pad the masks first"):
        function(torch.zeros(1, *size, dtype=torch.bool), stride)


def test_masks_are_reduced_by_even_strides_to_binary_ones():
    with pytest.raises(ValueError, match="an even stride"):
        downsample_masks(torch.zeros(1, 9, 9, dtype=torch.bool), 3)


@pytest.mark.parametrize("masks", [torch.zeros(1, 2, 2), torch.zeros(2, 2, dtype=torch.bool)])
@pytest.mark.parametrize(
    "function",
    [mask_profiles, masks_to_boxes, pairwise_intersection, lambda m: downsample_masks(m, 2)],
)
def test_soft_or_flat_masks_are_refused(function, masks):
    with pytest.raises(ValueError, match=r"boolean masks \(K, H, W\), got"):
        function(masks)


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16])
def test_maskness_of_large_masks_in_half_precision_is_a_mean(kind):
    probs = torch.full((1, 400, 400), 0.75, dtype=kind)
    masks, areas, maskness = binarize(probs, 0.5)
    assert masks.all() and areas.tolist() == [160000] and maskness.tolist() == [0.75]
