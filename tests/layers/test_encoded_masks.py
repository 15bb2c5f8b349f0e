"""Facts about encoded masks: they are the masks of a tensor, and Matrix NMS is that of tensors."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from detectron2.structures import Instances
from hypothesis import given
from hypothesis import strategies as st

from solo_d2.layers import (
    EncodedMasks,
    dense_masks,
    encode_masks,
    encoded_matrix_nms,
    mask_crops,
    matrix_nms,
    sparse_nms,
)


def encoded(masks):
    return EncodedMasks.from_crops(list(mask_crops(masks)), tuple(masks.shape[1:]))


def noise(count, size=(40, 50), seed=0):
    """Masks of noise in random boxes."""
    random = torch.Generator().manual_seed(seed)
    masks = torch.zeros((count, *size), dtype=torch.bool)
    for mask in masks:
        y, x = (int(torch.randint(side - 12, (1,), generator=random)) for side in size)
        mask[y : y + 12, x : x + 12] = torch.rand((12, 12), generator=random) < 0.8
    return masks


def test_they_are_the_masks_that_were_encoded():
    masks = noise(5)
    masks[3] = False
    found = encoded(masks)
    assert found.rles() == encode_masks(masks)
    assert torch.equal(found.tensor(), masks)
    for (x, y, crop), (u, v, own) in zip(found.crops(), mask_crops(masks), strict=True):
        assert (x, y) == (u, v)
        assert np.array_equal(crop, own)


def test_a_crop_larger_than_its_mask_is_the_same_mask():
    masks = noise(1)
    whole = EncodedMasks.from_crops([(0, 0, masks[0].numpy())], (40, 50))
    assert whole.counts == encoded(masks).counts


def test_masks_of_an_image_that_no_tensor_holds():
    size = (60_000, 60_000)
    crop = np.ones((3, 5), bool)
    masks = EncodedMasks.from_crops([(59_990, 59_990, crop)] * 200, size)
    (_, _, found), *_ = masks.crops()
    assert np.array_equal(found, crop)
    assert masks.rles()[0]["size"] == [*size]
    with pytest.raises(MemoryError, match=r"200 masks of 60000x60000 .* by score, or .* crops"):
        masks.tensor()


@pytest.mark.parametrize(
    "item",
    [
        slice(1, 3),
        [2, 0],
        torch.tensor([2, 0]),
        torch.tensor([True, False, False, True]),
        np.array([False, True, True, False]),
        torch.zeros(0, dtype=torch.int64),
    ],
)
def test_they_are_indexed_as_a_tensor(item):
    masks = noise(4)
    assert torch.equal(encoded(masks)[item].tensor(), masks[item])


def test_a_field_of_instances():
    masks = noise(3)
    found = Instances((40, 50), pred_masks=encoded(masks), scores=torch.tensor([0.9, 0.5, 0.7]))
    best = found[found.scores > 0.6].to("cpu")
    assert torch.equal(best.pred_masks.tensor(), masks[[0, 2]])
    assert torch.equal(found[1].pred_masks.tensor(), masks[1:2])
    joined = Instances.cat([best, found[:1]])
    assert torch.equal(joined.pred_masks.tensor(), masks[[0, 2, 0]])
    assert joined.pred_masks.shape == (3, 40, 50)
    with pytest.raises(ValueError, match=r"masks of one size, got \[\(4, 5\), \(40, 50\)\]"):
        EncodedMasks.cat([joined.pred_masks, EncodedMasks((4, 5), [], np.zeros((0, 4)))])


def test_tensors_stay_what_they_are():
    masks = noise(2)
    assert dense_masks(masks) is masks
    assert torch.equal(dense_masks(encoded(masks)), masks)
    (x, y, crop), *_ = mask_crops(torch.zeros((1, 4, 5), dtype=torch.bool))
    assert (x, y, crop.size) == (0, 0, 0)


# Matrix NMS


@given(st.integers(0, 40), st.integers(1, 3), st.integers(0, 99), st.sampled_from([1, 7, 256]))
@pytest.mark.parametrize("kernel", ["gaussian", "linear"])
def test_nms_of_encoded_masks_is_that_of_tensors(kernel, count, classes, seed, rows):
    masks, random = noise(count, seed=seed), torch.Generator().manual_seed(seed)
    labels = torch.randint(classes, (count,), generator=random)
    scores = torch.randint(5, (count,), generator=random) / 4  # with equal ones
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sparse_nms, "_ROWS", rows)
        found = encoded_matrix_nms(encoded(masks), labels, scores, kernel=kernel, sigma=0.3)
    expected = matrix_nms(masks, labels, scores, kernel=kernel, sigma=0.3)
    torch.testing.assert_close(found, expected)


def test_masks_of_one_group_do_not_decay_each_other():
    square = np.ones((4, 4), bool)
    masks = EncodedMasks.from_crops([(0, 0, square)] * 3, (9, 9))
    scores, labels = torch.tensor([0.9, 0.8, 0.7]), torch.zeros(3, dtype=torch.int64)
    found = encoded_matrix_nms(masks, labels, scores, torch.tensor([4, 4, 5]))
    # The third is decayed by both, of which nothing decays the first: 0.7 · exp(-1 / 0.5).
    torch.testing.assert_close(found, torch.tensor([0.9, 0.8, 0.7 * float(np.exp(-2))]))


def test_bad_input_is_told_in_a_line():
    masks, two = encoded(noise(3)), torch.zeros(2)
    with pytest.raises(ValueError, match="encoded_matrix_nms expects sizes that fit each other"):
        encoded_matrix_nms(masks, two.long(), two)
    with pytest.raises(ValueError, match=r"encoded_matrix_nms expects a kernel of .*'cubic'"):
        encoded_matrix_nms(masks, two.long(), two, kernel="cubic")
    with pytest.raises(ValueError, match="encoded_matrix_nms expects sigma > 0, got 0"):
        encoded_matrix_nms(masks, two.long(), two, sigma=0)


@pytest.mark.parametrize("groups", [torch.tensor([0]), torch.tensor([0, 1, 1]), torch.ones(2)])
def test_groups_that_do_not_fit_are_refused(groups):
    square = np.ones((4, 4), bool)
    masks = EncodedMasks.from_crops([(2, 2, square), (2, 2, square)], (90, 90))
    labels, scores = torch.tensor([0, 0]), torch.tensor([0.9, 0.8])
    with pytest.raises(ValueError, match="encoded_matrix_nms expects"):
        encoded_matrix_nms(masks, labels, scores, groups)
