"""Names, ids and order of classes: damaged in a file, or other ones where weights meet data."""

from __future__ import annotations

import math

import pytest
import torch
from builders import tiny_config
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.modeling import build_model
from published_keys import SOLO, tensors
from torch import nn

from solo_d2 import SOLOPredictor
from solo_d2.checkpoint import (
    CheckpointInfo,
    Require,
    SOLOCheckpointer,
    convert_state_dict,
    load_checkpoint,
    load_weights,
    read_info,
    save_checkpoint,
)
from solo_d2.checkpoint.info import MSRA, InputConvention
from solo_d2.engine import SOLOTrainer, name_classes
from solo_d2.engine.classes import check_names

INFO = CheckpointInfo("solo_d2", "Any", "", MSRA).to_dict()


class Model(nn.Module):
    """The parts of a model that have an output for each class, with random weights."""

    def __init__(self, names=(), ids=(), stuff=(), stuff_ids=(), *, count=None):
        super().__init__()
        self.class_names, self.category_ids = tuple(names), tuple(ids)
        self.stuff_names, self.stuff_category_ids = tuple(stuff), tuple(stuff_ids)
        self.input_format = "BGR"
        self.register_buffer("pixel_mean", torch.tensor(MSRA.pixel_mean), False)
        self.register_buffer("pixel_std", torch.tensor(MSRA.pixel_std), False)
        self.head, self.aux_semantic = nn.Module(), nn.Module()
        count = len(names) if count is None else count
        self.head.category_predictor = nn.Conv2d(4, count, 3)
        self.aux_semantic.predictor = nn.Conv2d(4, count, 1)
        if stuff:
            self.sem_seg_head = nn.Module()
            self.sem_seg_head.predictor = nn.Conv2d(4, len(stuff), 1)


def saved(folder, model, **info):
    """The model's checkpoint, with other entries in its description."""
    SOLOCheckpointer(model, str(folder)).save("a")
    path = folder / "a.pth"
    if info:
        content = load_checkpoint(path)
        content["solo_d2"].update(info)
        save_checkpoint(content, path)
    return path


# Descriptions that are damaged

HUGE = "x" * 2000
DAMAGED = {
    "no description": ([], "expected values by name for a CheckpointInfo, got a list"),
    "no convention": ({"convention": None}, "for a InputConvention, got None"),
    "source of a number": ({"source": 3}, "source must be a text, got 3"),
    "endless source": ({"source": HUGE}, "source must be a text, got a long text"),
    "config of nothing": ({"config": None}, "config must be a text, got None"),
    "names as a text": ({"class_names": "ab"}, "class_names must be a list of names"),
    "names of numbers": ({"class_names": (1, 2)}, "class_names must hold names, got 1"),
    "names of nothing": ({"class_names": [None]}, "class_names must hold names, got None"),
    "names by id": ({"class_names": {1: "a"}}, "class_names must be a list of names, got a dict"),
    "endless name": ({"class_names": [HUGE]}, "class_names must hold names, got a long text"),
    "stuff as a number": ({"stuff_names": 5}, "stuff_names must be a list of names, got 5"),
    "ids of texts": ({"class_names": ["a"], "category_ids": ["1"]}, "list of whole numbers"),
    "ids of fractions": ({"class_names": ["a"], "category_ids": [1.5]}, "list of whole numbers"),
    "ids of booleans": ({"class_names": ["a"], "category_ids": [True]}, "list of whole numbers"),
    "fewer ids": ({"class_names": ["a", "b"], "category_ids": [1]}, "1 different ids for 2 names"),
    "equal ids": ({"class_names": ["a", "b"], "category_ids": [1, 1]}, "1 different ids for 2"),
    "ids without names": ({"category_ids": [1]}, "1 different ids for 0 names"),
    "stuff with fewer ids": (
        {"stuff_names": ["things", "sky"], "stuff_category_ids": [0]},
        "stuff_category_ids has 1 different ids for 2 names",
    ),
    "two means": ({"convention": {"pixel_mean": [1, 2]}}, "pixel_mean must hold three numbers"),
    "mean of texts": ({"convention": {"pixel_mean": ["1", 2, 3]}}, "pixel_mean has a value"),
    "mean of NaN": ({"convention": {"pixel_mean": [math.nan, 2, 3]}}, "pixel_mean has a value"),
    "infinite std": ({"convention": {"pixel_std": [math.inf, 2, 3]}}, "pixel_std has a value"),
    "std of zero": ({"convention": {"pixel_std": [0, 1, 1]}}, "expected values above 0"),
    "negative std": ({"convention": {"pixel_std": [1, 1, -1]}}, "expected values above 0"),
    "format of a number": ({"convention": {"pixel_format": 1}}, "pixel_format must be a text"),
    "filter of a number": ({"convention": {"resize_filter": 1}}, "resize_filter must be a text"),
    "stride of a number": ({"convention": {"stride_in_1x1": 1}}, "stride_in_1x1 is neither"),
}


@pytest.mark.parametrize("name", DAMAGED)
def test_damaged_description_is_named(tmp_path, name):
    changes, said = DAMAGED[name]
    content = changes
    if isinstance(changes, dict):
        content = {**INFO, **changes}
        if isinstance(changes.get("convention"), dict):
            content["convention"] = {**INFO["convention"], **changes["convention"]}
    path = tmp_path / "a.pth"
    save_checkpoint({"model": Model(count=2).state_dict(), "solo_d2": content}, path)
    with pytest.raises(ValueError, match=f"'solo_d2' of this checkpoint is damaged: .*{said}") as x:
        load_weights(Model(count=2), path)
    assert str(x.value).startswith(str(path)) and str(x.value).isprintable()


def test_description_of_a_later_version_is_read(tmp_path):
    later = {**INFO, "captions": {"any": [1]}}
    later["convention"] = {**INFO["convention"], "gamma": 2.2}
    assert CheckpointInfo.from_dict(later) == CheckpointInfo.from_dict(INFO)


def test_description_of_an_earlier_version_is_read(tmp_path):
    old = {k: v for k, v in INFO.items() if "ids" not in k and "names" not in k}
    old["convention"] = {k: v for k, v in INFO["convention"].items() if k != "resize_filter"}
    assert CheckpointInfo.from_dict(old) == CheckpointInfo.from_dict(INFO)
    path = saved(tmp_path, Model(["a", "b"], [3, 17]))
    content = load_checkpoint(path)
    del content["solo_d2"]["category_ids"], content["solo_d2"]["stuff_category_ids"]
    save_checkpoint(content, path)
    model = Model(count=2)
    load_weights(model, path)
    assert (model.class_names, model.category_ids) == (("a", "b"), ())


def test_description_survives_a_round_trip():
    info = CheckpointInfo(
        "solo_d2", "Any", "",
        InputConvention("RGB", (1.0, 2.0, 3.0), (4.0, 5.0, 6.0), None, "opencv"),
        ("a", "b"), ("things", "sky"), (3, 17), (0, 40),
    )  # fmt: skip
    assert CheckpointInfo.from_dict(info.to_dict()) == info


def test_description_is_read_without_the_weights(tmp_path):
    path = saved(tmp_path, Model("ab", [3, 17]))
    info = read_info(str(path))
    assert (info.class_names, info.category_ids) == (("a", "b"), (3, 17))
    torch.save(nn.Linear(1, 1).state_dict(), path)
    assert read_info(str(path)) is read_info("") is None
    save_checkpoint({"model": Model(count=1).state_dict(), "solo_d2": [1]}, path)
    with pytest.raises(ValueError, match=r"a\.pth: the entry 'solo_d2' .* is damaged"):
        read_info(str(path))


@pytest.mark.parametrize("require", Require)
@pytest.mark.parametrize(
    ("info", "said"),
    [
        (
            {"class_names": ("a",)},
            r"1 class names \(a\), and head.category_predictor has the shape",
        ),
        ({"class_names": tuple("abc")}, r"3 class names \(a, b, c\)"),
        ({"stuff_names": ("things",)}, "1 stuff names .*sem_seg_head.predictor"),
    ],
)
def test_names_are_as_many_as_the_classes(tmp_path, require, info, said):
    path = saved(tmp_path, Model("ab", (), ("things", "sky")), **info)
    checkpointer = SOLOCheckpointer(Model(stuff=("things", "sky"), count=2), require=require)
    with pytest.raises(ValueError, match=said):
        checkpointer.load(str(path), checkpointables=[])


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (["a", "a"], "Classes of one name in the file: a"),
        (["a", ""], "1 class names in the file are empty"),
        (["a", "\x1b[31m"], "1 class names in the file are empty or cannot be printed"),
        (["\ud800", "b"], "1 class names in the file are empty or cannot be printed"),
    ],
)
def test_odd_names_are_a_warning(tmp_path, caplog, names, said):
    path = saved(tmp_path, Model(names))
    model = Model(count=2)
    load_weights(model, path)
    assert said in caplog.text and model.class_names == tuple(names)


# Weights meet data


def by_name(model):
    """What predicts each class, by its name."""
    found = {}
    for k, name in enumerate(model.class_names):
        for layer in (model.head.category_predictor, model.aux_semantic.predictor):
            found.setdefault(name, []).append((layer.weight[k].detach(), layer.bias[k].item()))
    if model.stuff_names:
        layer = model.sem_seg_head.predictor
        for k, name in enumerate(model.stuff_names):
            found[f"stuff {name}"] = [(layer.weight[k].detach(), layer.bias[k].item())]
    return found


def assert_same_by_name(first, second):
    first, second = by_name(first), by_name(second)
    assert first.keys() == second.keys()
    for name, pairs in first.items():
        for (weight, bias), (other, other_bias) in zip(pairs, second[name], strict=True):
            assert torch.equal(weight, other) and bias == other_bias


@pytest.mark.parametrize("require", Require)
@pytest.mark.parametrize("names", ["abcd", "dcba", "bdac"])
def test_equal_names_are_brought_to_the_order_of_the_data(tmp_path, require, names):
    source = Model("abcd", [1, 2, 30, 4], ("things", "sky", "sea"), (0, 7, 8))
    path = saved(tmp_path, source)
    model = Model(names, stuff=("things", "sea", "sky"))
    SOLOCheckpointer(model, require=require).load(str(path), checkpointables=[])
    assert model.class_names == tuple(names)
    assert_same_by_name(source, model)
    if require is Require.EVERYTHING:
        assert model.category_ids == tuple({"a": 1, "b": 2, "c": 30, "d": 4}[x] for x in names)
        assert model.stuff_category_ids == (0, 8, 7)


def test_ids_of_the_data_stay(tmp_path):
    model = Model("ba", [5, 6])
    load_weights(model, saved(tmp_path, Model("ab", [1, 2])))
    assert model.category_ids == (5, 6)


MEETINGS = [
    # classes of the file, of the data, and what is said
    (("cup", "fork"), ("car", "bus"), r"has the classes cup, fork; expected car, bus\."),
    (("cup", "fork"), ("cup", "bus"), r"\(without bus; not expected: fork\)"),
    (("cup", "fork", "spoon"), ("cup", "spoon"), r"\(not expected: fork\)"),
    (("cup", "spoon"), ("cup", "fork", "spoon"), r"\(without fork\)"),
    (("a", "a", "b"), ("a", "b", "b"), "another order"),
    (("cup", "fork"), ("Cup", "fork"), "expected Cup, fork"),
    ([f"c{k}" for k in range(99)], [f"d{k}" for k in range(99)], r"c8, c9 and 89 more; .*d9 and"),
]


@pytest.mark.parametrize(("theirs", "own", "said"), MEETINGS)
def test_other_classes_are_refused_for_evaluation(tmp_path, theirs, own, said):
    path, model = saved(tmp_path, Model(theirs)), Model(own)
    before = {k: v.clone() for k, v in model.state_dict().items()}
    with pytest.raises(ValueError, match=said) as caught:
        load_weights(model, path)
    assert str(caught.value).isprintable() and len(str(caught.value)) < 700
    assert all(torch.equal(before[k], v) for k, v in model.state_dict().items())


@pytest.mark.parametrize("require", [Require.BACKBONE, Require.NOTHING])
def test_other_classes_are_a_warning_for_the_start_of_a_training(tmp_path, caplog, require):
    path, model = saved(tmp_path, Model(["cup", "fork"], [1, 2])), Model(["car", "bus"])
    SOLOCheckpointer(model, require=require).load(str(path), checkpointables=[])
    assert "The file has the classes cup, fork; expected car, bus" in caplog.text
    assert (model.class_names, model.category_ids) == (("car", "bus"), ())


class Counter:
    def __init__(self):
        self.value = 0

    def state_dict(self):
        return {"value": self.value}

    def load_state_dict(self, state):
        self.value = state["value"]


@pytest.mark.parametrize("names", [("fork", "cup"), ("car", "bus"), ("cup", "fork")])
def test_resuming_needs_the_same_order(tmp_path, names):
    """The optimizer's state is in the order of the file."""
    first = SOLOCheckpointer(Model(["cup", "fork"]), str(tmp_path), trainer=Counter())
    first.save("a", iteration=3)
    second = SOLOCheckpointer(Model(names), str(tmp_path), trainer=Counter())
    if names == ("cup", "fork"):
        assert second.resume_or_load("")["iteration"] == 3
        return
    with pytest.raises(ValueError, match=r"cannot resume: .*has the classes cup, fork; expected"):
        second.resume_or_load("")


def test_other_words_for_the_same_classes_are_taken_where_the_user_gives_them(tmp_path, caplog):
    source = Model(["cup", "fork"], [3, 17])
    path, model = saved(tmp_path, source), Model(["Tasse", "Gabel"])
    load_weights(model, path, rename=True)
    assert torch.equal(model.head.category_predictor.weight, source.head.category_predictor.weight)
    assert (model.class_names, model.category_ids) == (("Tasse", "Gabel"), (3, 17))
    assert "The names here are kept" in caplog.text


def test_names_of_other_projects_are_not_certain(tmp_path, caplog):
    """Who trained 80 classes of their own with AdelaiDet can evaluate them, with a warning."""
    path = saved(tmp_path, Model(["person", "bicycle"]), source="adelaidet")
    load_weights(Model(["cup", "fork"]), path)
    assert "has the classes person, bicycle; expected cup, fork" in caplog.text


def test_models_without_names_take_those_of_the_file(tmp_path):
    source = Model("ab", [3, 17], ("things", "sky"), (0, 40))
    model = Model(stuff=("x", "y"), count=2)
    model.stuff_names = ()
    load_weights(model, saved(tmp_path, source))
    assert (model.class_names, model.category_ids) == (("a", "b"), (3, 17))
    assert (model.stuff_names, model.stuff_category_ids) == (("things", "sky"), (0, 40))


# Data


@pytest.fixture
def dataset():
    """Registers datasets without images, by their metadata."""
    made = []

    def register(**metadata):
        name = f"class_names_{len(made)}"
        DatasetCatalog.register(name, list)
        MetadataCatalog.get(name).set(**metadata)
        made.append(name)
        return name

    yield register
    for name in made:
        DatasetCatalog.remove(name)
        MetadataCatalog.remove(name)


@pytest.mark.parametrize(
    ("metadata", "ids"),
    [
        ({"thing_dataset_id_to_contiguous_id": {3: 0, 17: 1}}, (3, 17)),
        ({"thing_dataset_id_to_contiguous_id": {17: 1, 3: 0}}, (3, 17)),
        ({"evaluator_type": "lvis"}, (1, 2)),
        ({}, ()),
        ({"thing_dataset_id_to_contiguous_id": {3: 0, 17: 1, 18: 1}}, ()),
        ({"thing_dataset_id_to_contiguous_id": {"three": 0, "four": 1}}, ()),
    ],
)
def test_models_get_the_classes_of_their_data(dataset, metadata, ids):
    model = Model(count=2)
    name_classes(model, dataset(thing_classes=["cup", "fork"], **metadata))
    assert (model.class_names, model.category_ids) == (("cup", "fork"), ids)


def test_models_with_a_semantic_branch_get_stuff_as_well(dataset):
    model = Model("ab", (), ("x", "y"))
    name = dataset(
        thing_classes=["a", "b"],
        thing_dataset_id_to_contiguous_id={1: 0, 2: 1},
        stuff_classes=["things", "sky"],
        stuff_dataset_id_to_contiguous_id={0: 0, 40: 1},
    )
    name_classes(model, name)
    assert (model.stuff_names, model.stuff_category_ids) == (("things", "sky"), (0, 40))


@pytest.mark.parametrize("names", [["fork", "cup"], ["car", "bus"]])
def test_test_of_the_trainer_compares_the_classes(dataset, names):
    cfg = tiny_config("DATASETS.TEST", (dataset(thing_classes=["cup", "fork"]),))
    model = Model(names)
    with pytest.raises(ValueError, match="cannot be evaluated on class_names_0: it has"):
        SOLOTrainer.test(cfg, model)
    wrapped = nn.Module()
    wrapped.module = model
    with pytest.raises(ValueError, match="name_classes before"):
        check_names(wrapped, cfg.DATASETS.TEST[0])


@pytest.mark.parametrize("model", [Model(["cup", "fork"]), Model(count=2), nn.Linear(1, 1)])
def test_models_of_the_same_or_unknown_classes_can_be_evaluated(dataset, model):
    check_names(model, dataset(thing_classes=["cup", "fork"]))
    check_names(model, dataset())


# Prediction


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    torch.manual_seed(0)
    model = build_model(tiny_config("MODEL.SOLO.NUM_CLASSES", 2))
    model.class_names, model.category_ids = ("cup", "fork"), (3, 17)
    folder = tmp_path_factory.mktemp("weights")
    SOLOCheckpointer(model, str(folder)).save("a")
    return folder / "a.pth"


@pytest.mark.parametrize(
    ("given", "names", "mapping"),
    [
        (None, ["cup", "fork"], {3: 0, 17: 1}),
        (["cup", "fork"], ["cup", "fork"], {3: 0, 17: 1}),
        (["fork", "cup"], ["fork", "cup"], {17: 0, 3: 1}),
        (["Tasse", "Gabel"], ["Tasse", "Gabel"], {3: 0, 17: 1}),
    ],
)
def test_predictor_tells_names_and_ids(weights, given, names, mapping):
    cfg = tiny_config("MODEL.SOLO.NUM_CLASSES", 2)
    predictor = SOLOPredictor(cfg, weights=weights, device="cpu", class_names=given)
    assert predictor.metadata.get("thing_classes") == names
    assert predictor.metadata.get("thing_dataset_id_to_contiguous_id") == mapping
    source = load_checkpoint(weights)["model"]["head.category_predictor.bias"]
    order = [1, 0] if names[0] == "fork" else [0, 1]
    assert torch.equal(predictor.model.head.category_predictor.bias, source[order])


# Other projects


def test_published_models_have_the_classes_of_coco():
    make, _ = SOLO["SOLOv2_LIGHT_448_R18_3x"]
    info = convert_state_dict(tensors(make())).info
    assert (len(info.class_names), info.class_names[0], info.class_names[-1]) == (
        80, "person", "toothbrush",
    )  # fmt: skip
    assert (info.category_ids[0], info.category_ids[11], info.category_ids[-1]) == (1, 13, 90)
    assert len(set(info.category_ids)) == 80


OWN_80 = [f"own {k}" for k in range(80)]


@pytest.mark.parametrize(
    ("meta", "first", "ids"),
    [
        ({"CLASSES": OWN_80}, "own 0", False),
        ({"dataset_meta": {"classes": tuple(OWN_80)}}, "own 0", False),
        ({"dataset_meta": {"CLASSES": OWN_80}}, "own 0", False),
        ({"CLASSES": OWN_80[:5]}, "person", True),
        ({"CLASSES": [1] * 80}, "person", True),
        ({"CLASSES": "x" * 80}, "person", True),
        ({"dataset_meta": None}, "person", True),
        ("text", "person", True),
    ],
)
def test_names_that_mmdetection_saves_are_taken(meta, first, ids):
    make, _ = SOLO["SOLOv2_LIGHT_448_R18_3x"]
    info = convert_state_dict({"state_dict": tensors(make()), "meta": meta}).info
    assert info.class_names[0] == first and bool(info.category_ids) is ids
