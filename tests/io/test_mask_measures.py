"""Measures of masks by their runs, against the pixels themselves."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from pycocotools import mask as mask_util

from solo_d2.io.segmentation import encode_mask, measure_masks

MASKS = st.lists(
    st.tuples(st.integers(1, 9), st.integers(1, 9)).flatmap(lambda size: arrays(bool, size)),
    max_size=4,
)


@given(MASKS)
def test_measures_are_those_of_the_pixels(masks):
    measures = measure_masks([encode_mask(mask) for mask in masks])
    assert measures.areas.tolist() == [int(mask.sum()) for mask in masks]
    for mask, box, center in zip(masks, measures.boxes, measures.centers, strict=True):
        y, x = np.nonzero(mask)
        if len(x):
            assert box.tolist() == [x.min(), y.min(), x.max() + 1, y.max() + 1]
            assert np.allclose(center, [x.mean(), y.mean()], rtol=0, atol=1e-12)
        else:
            assert box.tolist() == [0] * 4 and np.isnan(center).all()


def test_a_run_around_a_corner_reaches_the_first_and_the_last_row():
    mask = np.zeros((4, 5), bool)
    mask[3, 1] = mask[0, 2] = True  # one run of two pixels
    measures = measure_masks([encode_mask(mask)])
    assert measures.boxes.tolist() == [[1, 0, 3, 4]]
    assert measures.centers.tolist() == [[1.5, 1.5]]


def test_masks_of_a_large_image_are_exact():
    size = (9000, 9000)
    rle = mask_util.frPyObjects({"size": list(size), "counts": [0, size[0] * size[1]]}, *size)
    measures = measure_masks([rle])
    assert measures.areas.tolist() == [81_000_000]
    assert measures.centers.tolist() == [[4499.5, 4499.5]]
    assert measures.boxes.tolist() == [[0, 0, 9000, 9000]]
