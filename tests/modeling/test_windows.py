"""Facts about windows over an image: they cover it, and each object belongs to some of them."""

from __future__ import annotations

import itertools

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from solo_d2.modeling.windows import Window, plan_levels


def test_windows_of_an_image_by_hand():
    levels = list(plan_levels((100, 250), 100, 0.2))
    # 250 - 100 pixels in steps of 80 at most are two steps; at level 1 (200 pixels) 50 are one.
    assert [(level.rows, level.columns) for level in levels] == [
        ((0,), (0, 75, 150)),
        ((0,), (0, 50)),
        ((0,), (0,)),
    ]
    assert [level.size for level in levels] == [(100, 100), (100, 200), (100, 250)]
    assert [(level.scale, level.overlap, level.smallest) for level in levels] == [
        (1, 20, 0),
        (2, 40, 15),
        (4, 80, 30),
    ]
    assert levels[1].windows == [Window(0, 0, 200, 100), Window(50, 0, 250, 100)]


@pytest.mark.parametrize("image", [(100, 100), (3, 100), (1, 1)])
def test_an_image_that_fits_a_window_is_one(image):
    (level,) = plan_levels(image, 100, 0.5)
    assert level.windows == [Window(0, 0, image[1], image[0])]


@given(
    st.integers(1, 3000), st.integers(1, 3000), st.integers(32, 900), st.sampled_from([0, 0.3, 0.9])
)
def test_windows_share_the_overlap_and_end_at_the_borders(height, width, side, overlap):
    levels = list(plan_levels((height, width), side, overlap))
    assert len(levels[-1].windows) == 1
    for level in levels:
        for starts, extent, length in zip(
            (level.rows, level.columns), (height, width), level.size, strict=True
        ):
            assert (starts[0], starts[-1] + length) == (0, extent)
            steps = [b - a for a, b in itertools.pairwise(starts)]
            assert all(0 < step <= length - level.overlap for step in steps)


@given(
    *(st.integers(1, 700), st.integers(1, 700), st.integers(0, 1300), st.integers(0, 1000)),
    st.floats(-5, 5),
)
def test_every_object_belongs_to_a_window_that_sees_all_of_it(width, height, x, y, error):
    """Also where every window sees it moved by some pixels, to the left or to the right."""
    image = (1100, 1400)
    whole = (x, y, min(x + width, image[1]), min(y + height, image[0]))
    found = []
    for level in plan_levels(image, 256, 0.25):
        for index, window in enumerate(level.windows):
            low, high = (window.x0, window.y0), (window.x1, window.y1)
            seen = [max(a, b) for a, b in zip(whole, low * 2, strict=True)]
            seen = [min(a, b) for a, b in zip(seen, high * 2, strict=True)]
            if seen[0] >= seen[2] or seen[1] >= seen[3]:
                continue
            box = torch.tensor([seen]) - torch.tensor([[*low, *low]])
            moved = box + torch.tensor([[1, 0, 1, 0]]) * (error if index % 2 else -error)
            if level.owned(box.float(), window, (2.0, 2.0)):
                assert tuple(seen) == whole  # nothing is cut off
            if tuple(seen) == whole and level.owned(moved, window, (2.0, 2.0)):
                found.append(level.scale)
    assert found
    assert max(map(found.count, found)) <= 4  # where four windows meet


def test_what_belongs_to_a_window_by_hand():
    level, larger, _ = plan_levels((100, 250), 100, 0.2)
    window = level.windows[1]  # 75 to 175, between two others
    boxes = torch.tensor(
        [
            [40.0, 0, 60, 100],  # at the image's borders, not at those within it
            [1, 40, 30, 60],  # at the left border
            [2, 40, 30, 60],  # a margin away from it
            # Windows that begin 75 pixels apart share 25. Their middle is 12.5 pixels away from
            # the border, and what is an eighth of 20 nearer belongs to this window, too.
            [3, 40, 16.9, 60],
            [3, 40, 17, 60],
        ]
    )
    assert level.owned(boxes, window, (2.0, 0.0)).tolist() == [True, False, True, False, True]
    # Objects of less than 3/4 of 20 pixels belong to the smaller windows.
    sizes = torch.tensor([[50.0, 40, 64, 54], [50, 40, 65, 41]])
    assert larger.owned(sizes, larger.windows[0], (2.0, 2.0)).tolist() == [False, True]
