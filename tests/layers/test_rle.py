"""Facts about run-length encoding: the text is pycocotools' own, for every mask."""

from __future__ import annotations

import numpy as np
import pycocotools.mask as mask_util
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from solo_d2.layers import encode_masks
from solo_d2.layers.rle import _number, _value, decode_crop, encode_crop


def reference(masks):
    planes = np.asfortranarray(masks.numpy().astype(np.uint8).transpose(1, 2, 0))
    return [{"size": x["size"], "counts": x["counts"].decode()} for x in mask_util.encode(planes)]


@st.composite
def windows(draw):
    """Masks of noise in a window anywhere in the image, so that borders are touched or not."""
    height, width = draw(st.integers(1, 70)), draw(st.integers(1, 90))
    masks = torch.zeros((draw(st.integers(0, 3)), height, width), dtype=torch.bool)
    noise = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    for mask in masks:
        y0, x0 = draw(st.integers(0, height - 1)), draw(st.integers(0, width - 1))
        window = mask[y0 : draw(st.integers(y0, height)), x0 : draw(st.integers(x0, width))]
        window[:] = torch.rand(window.shape, generator=noise) < draw(st.sampled_from([0.1, 0.9, 1]))
    return masks


@given(windows())
def test_text_is_that_of_pycocotools(masks):
    assert encode_masks(masks) == reference(masks)


@given(windows(), st.integers(0, 3))
def test_a_crop_is_encoded_as_its_whole_mask_and_decoded_again(masks, spare):
    _, height, width = masks.shape
    for mask, expected in zip(masks.numpy(), reference(masks), strict=True):
        rows, columns = (np.flatnonzero(mask.any(axis)) for axis in (1, 0))
        x0, y0, x1, y1 = 0, 0, 0, 0
        if len(rows):
            x0, y0 = max(columns[0] - spare, 0), max(rows[0] - spare, 0)
            x1, y1 = min(columns[-1] + 1 + spare, width), min(rows[-1] + 1 + spare, height)
        crop, size = mask[y0:y1, x0:x1], (height, width)
        assert encode_crop(crop, (x0, y0), size) == expected["counts"]
        found = decode_crop(expected["counts"], (x0, y0, x1, y1), size)
        assert np.array_equal(found, crop)


def test_empty_full_and_single_pixel_masks():
    masks = torch.zeros((7, 300, 400), dtype=torch.bool)  # more pixels than three digits hold
    masks[1] = True
    for mask, (y, x) in zip(
        masks[2:], [(0, 0), (299, 399), (0, 399), (299, 0), (150, 7)], strict=True
    ):
        mask[y, x] = True
    encoded = encode_masks(masks)
    assert encoded == reference(masks)
    decoded = mask_util.decode(encoded).transpose(2, 0, 1)
    assert np.array_equal(decoded.astype(bool), masks.numpy())


def test_a_slice_of_a_larger_tensor_and_bytes_are_read_as_they_are():
    whole = torch.rand((2, 40, 50)) < 0.5
    part = whole[:, 3:30, 7:41]
    assert encode_masks(part) == reference(part)
    assert encode_masks(part.to(torch.uint8) * 255) == reference(part)


def test_no_masks():
    assert encode_masks(torch.zeros((0, 4, 5), dtype=torch.bool)) == []


@given(st.integers(-(2**33), 2**33))
def test_numbers_come_back(value):
    assert _value(_number(value)) == value


@pytest.mark.parametrize("masks", [torch.zeros(2, 3, 4), torch.zeros((3, 4), dtype=torch.bool)])
def test_soft_masks_and_single_masks_are_refused(masks):
    with pytest.raises(ValueError, match=r"expects boolean masks \(K, H, W\)"):
        encode_masks(masks)
