"""What looks wrong among labels, the paper's pairs, and images of both splits."""

from __future__ import annotations

import math

import pytest
from check_builders import objects_of, rectangle

from solo_d2.check.suspects import close_pairs, find_suspects, shared_files


def suspects_of(*images):
    return {k: v.tolist() for k, v in find_suspects(objects_of(*images)).items()}


def test_the_second_of_two_equal_masks_of_an_image_is_suspicious():
    box = (4, 4, 20, 20)
    found = suspects_of([box, (4, 4, 20, 21), box], [box])
    assert found["identical"] == [False, False, True, False]


@pytest.mark.parametrize(
    ("box", "sliver"),
    [((0, 0, 10, 1), True), ((0, 0, 9, 1), False), ((0, 0, 10, 2), False), ((3, 0, 4, 60), True)],
)
def test_slivers_are_thinner_than_two_pixels_and_ten_long(box, sliver):
    assert suspects_of([box])["sliver"] == [sliver]


@pytest.mark.parametrize(
    ("stated", "wrong"),
    [
        ([10, 10, 20, 20], False),
        ([14, 10, 16, 20], False),  # 4 pixels beyond on the left, as allowed: 2 and a tenth of 20
        ([15, 10, 15, 20], True),
        ([10, 10, 20, 15], True),
        ([0, 0, 60, 60], False),  # a box may be larger
        (None, False),
    ],
)
def test_masks_that_reach_out_of_their_box_are_suspicious(stated, wrong):
    annotation = rectangle((10, 10, 30, 30), bbox=stated)
    assert suspects_of([annotation])["outside"] == [wrong]


def test_a_mask_without_a_pixel_is_suspicious():
    thin = rectangle((0, 0, 1, 1), segmentation=[[3, 3, 3.1, 3, 3.1, 3.1]])
    found = suspects_of([thin, (0, 0, 9, 9)])
    assert found["empty"] == [True, False] and not any(found["identical"])


def test_pairs_are_counted_as_the_paper_does():
    boxes = [(0, 0, 8, 8), (30, 0, 38, 8), (31, 0, 43, 12), (0, 40, 8, 48)]
    # Distances: 30, 33.1, 40, 3.6, 50, 47.6. Of the two close pairs one differs in size by 1.5,
    # which is not more, the other by nothing.
    found = close_pairs(objects_of(boxes, [], boxes[:1]))
    assert found["pairs"] == 6
    assert math.isclose(found["far"], 100 * 4 / 6) and found["differ"] == 0
    assert close_pairs(objects_of([(0, 0, 8, 8), (0, 0, 13, 12)]))["differ"] == 100
    assert math.isnan(close_pairs(objects_of(boxes[:1]))["far"])


def test_equal_files_of_two_splits_are_found(tmp_path):
    contents = {"a": b"one", "b": b"two", "c": b"longer", "d": b"one", "e": b"six", "f": b"longer!"}
    paths = {name: tmp_path / name for name in contents}
    for name, content in contents.items():
        paths[name].write_bytes(content)
    train, val = ([str(paths[x]) for x in names] for names in ("abc", "def"))
    read = []
    found = shared_files([[*train, "missing.png"], val], lambda: read.append(1))
    assert found == [(train[0], val[0])]
    assert len(read) == 4  # of sizes that both splits have: a, b, d, e
