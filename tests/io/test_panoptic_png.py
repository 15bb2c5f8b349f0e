"""The colours of segment ids, the labels made of them, and files that are something else."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from solo_d2.io.panoptic_png import (
    MAX_ID,
    ids_to_rgb,
    read_panoptic_png,
    rgb_to_ids,
    semantic_labels,
    write_panoptic_png,
)


def test_the_colour_is_the_id_in_base_256():
    rgb = np.array([[[1, 0, 0], [0, 1, 0], [0, 0, 1], [3, 2, 1]]], np.uint8)
    assert rgb_to_ids(rgb).tolist() == [[1, 256, 65536, 3 + 512 + 65536]]


@given(st.lists(st.integers(0, MAX_ID), min_size=1, max_size=8))
def test_ids_survive_their_colours(numbers):
    ids = np.array([numbers])
    assert ids_to_rgb(ids).dtype == np.uint8
    assert np.array_equal(rgb_to_ids(ids_to_rgb(ids)), ids)


@pytest.mark.parametrize("number", [-1, MAX_ID + 1])
def test_ids_without_a_colour_are_refused(number):
    with pytest.raises(ValueError, match=str(number)):
        ids_to_rgb(np.array([[0, number]]))


def test_files_are_read_as_they_were_written(tmp_path):
    ids = np.array([[0, 1, MAX_ID], [256, 65536, 7]])
    write_panoptic_png(tmp_path / "a.png", ids)
    assert np.array_equal(read_panoptic_png(tmp_path / "a.png"), ids)
    with Image.open(tmp_path / "a.png") as picture:
        picture.convert("RGBA").save(tmp_path / "b.png")
    assert np.array_equal(read_panoptic_png(tmp_path / "b.png"), ids)


def test_files_that_are_no_panoptic_png_are_named(tmp_path):
    Image.new("L", (4, 4)).save(tmp_path / "grey.png")
    (tmp_path / "text.png").write_text("no picture")
    write_panoptic_png(
        tmp_path / "cut.png", np.random.default_rng(0).integers(MAX_ID, size=(64, 64))
    )
    (tmp_path / "cut.png").write_bytes((tmp_path / "cut.png").read_bytes()[:300])
    for name, message in (
        ("grey.png", "expected a panoptic PNG.*mode L"),
        ("text.png", "not an image in a known format"),
        ("cut.png", "damaged or truncated"),
        ("missing.png", "no such file"),
    ):
        with pytest.raises(ValueError, match=rf"{name}.*{message}"):
            read_panoptic_png(tmp_path / name)


def test_labels_merge_things_and_ignore_what_is_no_segment():
    ids = np.array([[0, 5, 70000], [9, 5, 70000]])
    segments = [
        {"id": 5, "isthing": True, "category_id": 7},
        {"id": 9, "isthing": True, "category_id": 2},
        {"id": 70000, "isthing": False, "category_id": 3},
    ]
    assert semantic_labels(ids, segments, "a.png").tolist() == [[255, 0, 3], [0, 0, 3]]
    assert semantic_labels(ids, segments, "a.png", 99)[0, 0] == 99


def test_an_id_without_a_segment_is_named():
    with pytest.raises(ValueError, match=r"a.png shows the segment id 8 \(and 1 more\)"):
        semantic_labels(np.array([[8, 9]]), [], "a.png")


def test_an_id_of_two_segments_is_named():
    segments = [{"id": 8, "isthing": False, "category_id": label} for label in (1, 2)]
    with pytest.raises(ValueError, match=r"a.png: two segments have the id 8,"):
        semantic_labels(np.array([[8, 9]]), segments, "a.png")
