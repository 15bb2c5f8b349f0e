"""Panoptic annotations of generated scenes."""

from __future__ import annotations

import json

import numpy as np
import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog

from solo_d2.data.scenes.compose import Layer, compose
from solo_d2.data.scenes.panoptic_writer import (
    make_segments,
    write_panoptic,
)
from solo_d2.data.scenes.register import register_built_panoptic
from solo_d2.data.scenes.writer import SceneSplit, write_split
from solo_d2.io.panoptic_png import read_panoptic_png


def make_scene(index):
    """Two squares on sky above water; the last scene has no square."""
    background = np.full((64, 96, 3), 128, np.uint8)
    labels = np.ones((64, 96), np.uint8)
    labels[32:] = 2
    square = np.ones((20, 24, 4), np.float32)
    layers = [Layer(square, 8, 20, 0), Layer(square, 20, 30, 1)]
    return compose(background, layers if index < 2 else [], stuff=labels)


@pytest.fixture
def built(tmp_path):
    for name in ("train", "val"):
        split = SceneSplit(name, 3, make_scene, ["a", "b"], ["sky", "water"])
        write_split(tmp_path, split, progress=False)
    (tmp_path / "manifest.json").write_text("{}")
    return tmp_path


def test_things_lie_above_stuff_and_the_later_above_the_earlier():
    first, second = np.zeros((2, 6), bool), np.zeros((2, 6), bool)
    first[0, :3], second[0, 2:5] = True, True
    stuff = np.array([[1, 1, 1, 1, 1, 1], [2, 2, 2, 0, 0, 2]], np.uint8)
    ids, segments = make_segments([first, second], [4, 9], stuff, first_stuff=20)
    assert ids.tolist() == [[1, 1, 2, 2, 2, 3], [4, 4, 4, 0, 0, 4]]
    assert [(s["id"], s["category_id"], s["area"]) for s in segments] == [
        (1, 4, 2), (2, 9, 3), (3, 20, 1), (4, 21, 4)
    ]  # fmt: skip
    assert segments[1]["bbox"] == [2, 0, 3, 1]


def test_a_covered_instance_is_no_segment():
    mask = np.ones((1, 3), bool)
    ids, segments = make_segments([mask, mask], [1, 2], np.zeros((1, 3), np.uint8), 3)
    assert ids.tolist() == [[2, 2, 2]]
    assert [s["id"] for s in segments] == [2]


def test_without_anything_there_are_no_segments():
    ids, segments = make_segments([], [], np.zeros((2, 2), np.uint8), 3)
    assert not ids.any()
    assert segments == []


def test_what_is_written_covers_every_picture(built):
    content = json.loads(write_panoptic(built, "train").read_text())
    kinds = [(c["id"], c["name"], c["isthing"]) for c in content["categories"]]
    assert kinds == [(1, "a", 1), (2, "b", 1), (3, "sky", 0), (4, "water", 0)]
    assert len(content["annotations"]) == 3
    for annotation in content["annotations"]:
        ids = read_panoptic_png(built / "panoptic" / "train" / annotation["file_name"])
        found = {int(i): int((ids == i).sum()) for i in np.unique(ids)}
        assert found == {s["id"]: s["area"] for s in annotation["segments_info"]}
    assert [s["category_id"] for s in content["annotations"][2]["segments_info"]] == [3, 4]


def test_registering_makes_what_is_missing_once(built):
    names = register_built_panoptic(built, "written", kind="stamps")
    try:
        assert names == ("written_train_panoptic", "written_val_panoptic")
        (record, *_) = DatasetCatalog.get(names[0])
        assert len(record["annotations"]) == 2
        assert MetadataCatalog.get(names[0]).stuff_classes == ["things", "sky", "water"]
        file = built / "annotations" / "panoptic_train.json"
        before = file.stat().st_mtime_ns
        register_built_panoptic(built, "written", kind="stamps")
        assert file.stat().st_mtime_ns == before
    finally:
        for name in names:
            DatasetCatalog.remove(name)
            MetadataCatalog.remove(name)


def test_a_set_that_was_not_built_or_has_no_stuff_is_refused(built, tmp_path_factory):
    with pytest.raises(ValueError, match=r"build it with `python -m solo_d2\.data\.scenes stamps"):
        register_built_panoptic(tmp_path_factory.mktemp("empty"), "x", kind="stamps")
    file = built / "annotations" / "train.json"
    content = json.loads(file.read_text())
    del content["stuff_categories"]
    file.write_text(json.dumps(content))
    with pytest.raises(ValueError, match=r"train.json has no 'stuff_categories'"):
        register_built_panoptic(built, "x", kind="stamps")


def test_a_missing_label_picture_is_named(built):
    (built / "stuff" / "train" / "000002.png").unlink()
    with pytest.raises(ValueError, match=r"stuff/train/000002.png: cannot be read"):
        write_panoptic(built, "train")
    assert not (built / "annotations" / "panoptic_train.json").exists()
