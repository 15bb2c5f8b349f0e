"""Datasets against the config, before a training starts."""

from __future__ import annotations

import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog

from solo_d2.data.checks import check_classes, thing_classes


@pytest.fixture
def register():
    """Register datasets for the time of a test."""
    names = []

    def add(name, classes, load=list):
        DatasetCatalog.register(name, load)
        names.append(name)
        if classes is not None:
            MetadataCatalog.get(name).set(thing_classes=classes)

    yield add
    for name in names:
        DatasetCatalog.remove(name)
        MetadataCatalog.remove(name)


def test_agreeing_sets_pass(register):
    register("checks_a", ["cat", "dog"])
    register("checks_b", ["cat", "dog"])
    check_classes(["checks_a", "checks_b"], 2)
    check_classes([], 2)


@pytest.mark.parametrize("count", [1, 3])
def test_class_count_says_what_to_set(register, count):
    register("checks_a", ["cat", "dog"])
    message = f"checks_a has 2 classes, the model has {count}; set MODEL.SOLO.NUM_CLASSES 2"
    with pytest.raises(ValueError, match=message):
        check_classes(["checks_a"], count)


def test_sets_with_other_classes_are_both_named(register):
    register("checks_a", ["cat", "dog"])
    register("checks_b", ["dog", "cat"])  # another order is another meaning
    with pytest.raises(ValueError, match="checks_a and checks_b have different classes"):
        check_classes(["checks_a", "checks_b"], 2)


def test_unregistered_set_lists_the_known_ones_and_the_way_out(register):
    register("checks_a", ["cat"])
    with pytest.raises(ValueError, match=r"'checks_x'.*not registered.*checks_a.*--train-json"):
        check_classes(["checks_x"], 1)


def test_missing_files_are_named_with_the_variable():
    name = "coco_2017_val"  # Detectron2 registers it; its files are not here
    if MetadataCatalog.get(name).get("thing_classes") is None:
        with pytest.raises(ValueError, match="does not exist; DETECTRON2_DATASETS"):
            thing_classes(name)
    else:
        assert len(thing_classes(name)) == 80


def test_missing_file_of_ones_own_set_is_named(register):
    def load():
        raise FileNotFoundError(2, "No such file", "annotations/own.json")

    register("checks_own", None, load)
    with pytest.raises(ValueError, match=r"'checks_own'.*annotations/own\.json does not exist"):
        check_classes(["checks_own"], 1)


def test_classes_that_are_filled_in_by_reading_are_seen(register):
    def load():
        MetadataCatalog.get("checks_lazy").set(thing_classes=["cat"])
        return []

    register("checks_lazy", None, load)
    assert thing_classes("checks_lazy") == ["cat"]


def test_set_without_declared_classes_is_left_alone(register):
    register("checks_free", None)
    assert thing_classes("checks_free") is None
    check_classes(["checks_free"], 7)
