import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from pycocotools import mask as mask_util
from scipy import ndimage

from solo_d2.io.polygons import join_polygons, mask_to_polygons


def rasterise(polygons, size):
    if not polygons:
        return np.zeros(size, bool)
    rles = mask_util.frPyObjects([polygon.ravel().tolist() for polygon in polygons], *size)
    return mask_util.decode(mask_util.merge(rles)).astype(bool)


@given(hnp.arrays(bool, st.tuples(st.integers(1, 12), st.integers(1, 12))))
@settings(max_examples=150, deadline=None)
def test_rasterised_polygons_are_the_mask_without_its_holes(mask):
    polygons = mask_to_polygons(mask)
    filled = ndimage.binary_fill_holes(mask)
    np.testing.assert_array_equal(rasterise(polygons, mask.shape), filled)
    _, parts = ndimage.label(filled, np.ones((3, 3)))
    assert len(polygons) == parts


@given(hnp.arrays(bool, st.tuples(st.integers(1, 12), st.integers(1, 12))))
@settings(max_examples=150, deadline=None)
def test_polygons_along_bridges_are_the_mask_with_its_holes(mask):
    polygons = mask_to_polygons(mask, holes=True)
    np.testing.assert_array_equal(rasterise(polygons, mask.shape), mask)
    assert len(polygons) == ndimage.label(mask, np.ones((3, 3)))[1]
    if polygons:
        np.testing.assert_array_equal(rasterise([join_polygons(polygons)], mask.shape), mask)


def test_a_hole_that_is_simplified_away_is_filled():
    mask = np.ones((9, 9), bool)
    mask[4, 4] = False
    (exact,), (simple,) = (mask_to_polygons(mask, x, holes=True) for x in (0, 2))
    assert (len(exact), len(simple)) == (10, 4)


@pytest.mark.parametrize(
    ("mask", "expected"),
    [
        ([[1]], [[0, 0], [0, 1], [1, 1], [1, 0]]),
        ([[0, 1, 1]], [[1, 0], [1, 1], [3, 1], [3, 0]]),
        ([[1, 0], [1, 1]], [[0, 0], [0, 2], [2, 2], [2, 1], [1, 1], [1, 0]]),
    ],
)
def test_corners_lie_on_the_edges_of_pixels(mask, expected):
    (polygon,) = mask_to_polygons(np.array(mask, bool))
    assert polygon.tolist() == expected


def test_an_empty_mask_has_no_polygon():
    assert mask_to_polygons(np.zeros((3, 4), bool)) == []
    assert mask_to_polygons(np.zeros((0, 4), bool)) == []


def test_a_simplified_outline_stays_within_the_tolerance():
    rows, columns = np.mgrid[:60, :60]
    disc = (rows - 30) ** 2 + (columns - 30) ** 2 < 25**2
    (exact,), (simple,) = mask_to_polygons(disc), mask_to_polygons(disc, tolerance=2)
    assert len(simple) < len(exact) / 3
    difference = rasterise([simple], disc.shape) ^ disc
    near_the_edge = ndimage.binary_dilation(disc, iterations=3) & ~ndimage.binary_erosion(
        disc, iterations=3
    )
    assert difference.any() and not (difference & ~near_the_edge).any()


@pytest.mark.parametrize("mask", [np.ones((2, 2)), np.ones((1, 2, 2), bool)])
def test_what_is_no_mask_is_refused(mask):
    with pytest.raises(ValueError, match="expected a boolean mask"):
        mask_to_polygons(mask)
    with pytest.raises(ValueError, match="tolerance must be 0 or more"):
        mask_to_polygons(np.ones((2, 2), bool), tolerance=-1)
