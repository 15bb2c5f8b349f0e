"""Classes of datasets are matched by name: a file that lists some of them, or in another order."""

from __future__ import annotations

import pytest
import torch
from builders import tiny_config
from detectron2.data import DatasetCatalog, MetadataCatalog

from solo_d2.checkpoint import CheckpointInfo
from solo_d2.checkpoint.info import INFO_KEY, MSRA
from solo_d2.data.classes import align_classes
from solo_d2.engine import use_data
from solo_d2.engine.classes import align_datasets

NAMES = ("classes_a", "classes_b")


@pytest.fixture
def register():
    """Register two images with one object of every label, under the ids 10, 20, ..."""

    def add(name, classes, labels=None, **metadata):
        labels = range(len(classes)) if labels is None else labels
        records = [
            {"file_name": "a.png", "annotations": [{"category_id": k} for k in labels]},
            {"file_name": "b.png"},
        ]
        ids = {10 * (k + 1): k for k in range(len(classes))}
        DatasetCatalog.register(name, lambda: records)
        MetadataCatalog.get(name).set(
            thing_classes=list(classes), thing_dataset_id_to_contiguous_id=ids, **metadata
        )

    yield add
    for name in NAMES:
        for catalog in (DatasetCatalog, MetadataCatalog):
            if name in catalog.list():
                catalog.remove(name)


def labels_of(name):
    return [x["category_id"] for r in DatasetCatalog.get(name) for x in r.get("annotations", ())]


@pytest.mark.parametrize(
    ("own", "classes", "labels", "ids"),
    [
        (["cup", "fork"], ["cup", "fork"], [0, 1], {10: 0, 20: 1}),
        (["fork", "cup"], ["cup", "fork"], [1, 0], {20: 0, 10: 1}),
        (["cup", "spoon"], ["cup", "fork", "spoon"], [0, 2], {10: 0, 21: 1, 20: 2}),
        (["spoon"], ["cup", "fork", "spoon"], [2], {11: 0, 12: 1, 10: 2}),
    ],
)
def test_labels_are_the_models(register, own, classes, labels, ids):
    register("classes_a", own)
    for _ in range(2):  # the second time nothing happens
        align_classes("classes_a", classes)
        assert labels_of("classes_a") == labels
        assert labels_of("classes_a") == labels  # the records that were registered are as before
        metadata = MetadataCatalog.get("classes_a")
        assert metadata.thing_classes == classes
        assert metadata.thing_dataset_id_to_contiguous_id == ids


def test_text_ids_get_a_text(register):
    register("classes_a", ["cup"])
    metadata = MetadataCatalog.get("classes_a").as_dict()
    MetadataCatalog.remove("classes_a")
    metadata["thing_dataset_id_to_contiguous_id"] = {"c1": 0}
    MetadataCatalog.get("classes_a").set(**{k: v for k, v in metadata.items() if k != "name"})
    align_classes("classes_a", ["cup", "fork"])
    ids = MetadataCatalog.get("classes_a").thing_dataset_id_to_contiguous_id
    assert ids == {"c1": 0, "fork (not listed)": 1}


def test_groups_of_frequency_go_with_their_classes(register):
    register("classes_a", ["spoon", "cup"], class_frequencies=["r", "c"])
    align_classes("classes_a", ["cup", "fork", "spoon"])
    assert MetadataCatalog.get("classes_a").class_frequencies == ["c", "f", "r"]


@pytest.mark.parametrize(
    ("own", "classes", "message"),
    [
        (["cup", "bus"], ["cup", "fork"], "it has 'bus', and lacks 'fork'"),
        (["cup", "fork", "bus"], ["cup", "fork"], "it has 'bus'"),
        (["cup", "cup"], ["cup", "fork"], "matched by name, since it has 'cup', 'cup'"),
    ],
)
def test_what_cannot_be_matched_is_named(register, own, classes, message):
    register("classes_a", own)
    with pytest.raises(ValueError, match=message):
        align_classes("classes_a", classes)
    assert MetadataCatalog.get("classes_a").thing_classes == own


def test_a_class_without_objects_may_be_unknown(register):
    """As the name of the project, which labelling services list as a class."""
    register("classes_a", ["my-project", "fork", "cup"], labels=[1, 2])
    align_classes("classes_a", ["cup", "fork"])
    assert labels_of("classes_a") == [1, 0]
    assert MetadataCatalog.get("classes_a").thing_dataset_id_to_contiguous_id == {30: 0, 20: 1}


def test_sets_without_classes_and_panoptic_ones_are_left_alone(register):
    register("classes_a", ["cup", "fork"], stuff_dataset_id_to_contiguous_id={0: 0, 7: 1})
    align_classes("classes_a", ["fork", "cup"])
    assert labels_of("classes_a") == [0, 1]
    DatasetCatalog.register("classes_b", list)
    align_classes("classes_b", ["fork", "cup"])


def test_all_sets_of_a_config_follow_the_first(register):
    register("classes_a", ["cup", "fork", "spoon"])
    register("classes_b", ["spoon", "cup"])
    align_datasets(tiny_config("DATASETS.TRAIN", NAMES[:1], "DATASETS.TEST", NAMES[1:]))
    assert labels_of("classes_b") == [2, 0]


def test_a_validation_set_that_lists_less_does_not_change_the_model(register):
    register("classes_a", ["cup", "fork", "spoon"])
    register("classes_b", ["spoon", "cup"])
    cfg = tiny_config()
    use_data(cfg, {"TRAIN": "classes_a", "TEST": "classes_b"})
    assert cfg.MODEL.SOLO.NUM_CLASSES == 3
    assert labels_of("classes_b") == [2, 0]


@pytest.mark.parametrize(
    ("own", "labels", "count"),
    [
        (["spoon", "cup"], [2, 0], 3),  # the weights know one class more
        (["spoon", "fork", "cup"], [0, 1, 2], 3),  # the same: the weights are moved, not the set
        (["spoon", "bus"], [0, 1], 2),  # another: refused when the weights are loaded
    ],
)
def test_an_evaluation_has_the_classes_of_the_weights(register, tmp_path, own, labels, count):
    info = CheckpointInfo("solo_d2", "x", "x", MSRA, class_names=("cup", "fork", "spoon"))
    checkpoint = {"model": {"weight": torch.zeros(1)}, INFO_KEY: info.to_dict()}
    torch.save(checkpoint, tmp_path / "model.pth")
    register("classes_b", own)
    cfg = tiny_config("MODEL.WEIGHTS", str(tmp_path / "model.pth"))
    use_data(cfg, {"TEST": "classes_b"})
    assert labels_of("classes_b") == labels
    assert cfg.MODEL.SOLO.NUM_CLASSES == count


@pytest.mark.parametrize("label", [2, -1, None, "1", [1], 0.5])
def test_what_is_no_label_does_not_become_one(register, label):
    register("classes_a", ["fork", "cup"], labels=[0, label])
    align_classes("classes_a", ["cup", "spoon", "fork"])
    assert labels_of("classes_a") == [2, -1]
