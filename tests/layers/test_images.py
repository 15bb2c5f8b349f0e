"""Filters of resizing, by values that can be worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from solo_d2.layers.images import RESIZE_FILTERS, resize_image


@pytest.mark.parametrize("resize_filter", RESIZE_FILTERS)
def test_enlarging_interpolates_between_the_middles_of_pixels(resize_filter):
    row = np.array([[0, 100]], dtype=np.uint8)
    assert resize_image(row, (1, 4), resize_filter).tolist() == [[0, 25, 75, 100]]


@pytest.mark.parametrize(
    ("resize_filter", "expected"),
    [
        # A pixel of the result has its middle between pixels 4k + 1 and 4k + 2.
        ("opencv", [[0, 100]]),
        # Weights 1, 3, 5, 7, 7, 5, 3, 1 around it; two lie outside, and the rest sums to 28.
        ("pillow", [[round(100 * 1 / 28), round(100 * (7 + 7) / 28)]]),
    ],
)
def test_shrinking_averages_with_pillow_alone(resize_filter, expected):
    row = np.array([[0, 0, 0, 0, 0, 100, 100, 0]], dtype=np.uint8)
    assert resize_image(row, (1, 2), resize_filter).tolist() == expected


@pytest.mark.parametrize("resize_filter", RESIZE_FILTERS)
def test_channels_do_not_mix_and_keep_their_axis(resize_filter):
    image = np.zeros((3, 5, 3), dtype=np.uint8)
    image[..., 1] = 200
    resized = resize_image(image[:, :, ::-1], (2, 7), resize_filter)
    assert resized.shape == (2, 7, 3) and resized.dtype == np.uint8
    assert (resized == [0, 200, 0]).all()


def test_an_image_of_the_size_is_left_alone_and_other_filters_are_refused():
    image = np.zeros((3, 5, 3), dtype=np.uint8)
    assert resize_image(image, (3, 5), "opencv") is image
    with pytest.raises(ValueError, match=r"RESIZE_FILTER must be one of pillow, opencv, got 'cv2'"):
        resize_image(image, (3, 5), "cv2")
