"""Faults of ids: results that a scorer could not match with the dataset, or would match wrong."""

from __future__ import annotations

import json
import os
import unicodedata
from types import SimpleNamespace

import pytest
from pycocotools.coco import COCO
from stub_predictor import StubPredictor, demo, film, picture

from solo_d2.inference.class_names import read_class_names
from solo_d2.inference.dataset_ids import DatasetIds
from solo_d2.inference.metadata import known_metadata, own_metadata

CATEGORIES = [{"id": 17, "name": "fork"}, {"id": 3, "name": "cup"}, {"id": 5, "name": "plate"}]


@pytest.fixture
def work(tmp_path, monkeypatch):
    for k, name in enumerate(("a/1.png", "a/2.png", "b/1.png")):
        picture(tmp_path / name, seed=k)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def coco(path, names, categories=CATEGORIES, **more):
    """Write a COCO file whose images have the ids 201, 202, ..."""
    images = [
        {"id": 201 + k, "file_name": name, "height": 50, "width": 70}
        for k, name in enumerate(names)
    ]
    content = {"images": images, "annotations": [], "categories": categories, **more}
    path.write_text(json.dumps(content))
    return path


def results(path="r.json"):
    with open(path) as file:
        return json.load(file)


def run(*line, **stub):
    return demo(StubPredictor(**stub), *line, "--no-draw", "--save-json", "r.json")


def images_of(path="r.json"):
    return {x["file_name"]: x["image_id"] for x in results(path)}


# Images by name

FOUND = {
    "names": (["1.png", "2.png"], ["a"], {"a/1.png": 201, "a/2.png": 202}),
    "names with folders": (["b/1.png", "a/1.png"], ["a/1.png"], {"a/1.png": 202}),
    "backslashes": (["b\\1.png", "a\\1.png"], ["a/1.png"], {"a/1.png": 202}),
    "the longest fit": (["1.png", "a/1.png"], ["a/1.png"], {"a/1.png": 202}),
    "leading dots": (["./a/1.png"], ["a/1.png"], {"a/1.png": 201}),
    "other folders": (["train/1.png"], ["a/1.png"], {"a/1.png": 201}),
    "one of two folders": (["b/1.png"], ["a/1.png", "b/1.png"], {"b/1.png": 201}),
}


@pytest.mark.parametrize("kind", FOUND)
def test_images_are_found_by_name(work, caplog, kind):
    names, inputs, expected = FOUND[kind]
    path = coco(work / "val.json", names)
    assert run("--input", *inputs, "--ids", path) == 0
    assert images_of() == expected
    COCO(str(path)).loadRes("r.json")
    said = "by their names alone" in caplog.text
    assert said is (kind == "other folders")


REFUSED = {
    "no image of the file": (["x.png"], ["a"], "none of the 2 images is in it, such as a/1.png"),
    "one name, two ids": (["1.png", "1.png"], ["a/1.png"], "a/1.png: has the ids 201 and 202"),
    "one id, two files": (["1.png"], ["a/1.png", "b/1.png"], "are both the image 201 of"),
    "two files, other folder": (["c/1.png"], ["a/1.png", "b/1.png"], "none of the 2 images"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_images_that_are_not_one_are_refused_before_the_model_runs(work, capsys, kind):
    names, inputs, said = REFUSED[kind]
    stub = StubPredictor()
    line = ("--input", *inputs, "--ids", coco(work / "val.json", names), "--save-json", "r.json")
    assert demo(stub, *line) == 2
    assert stub.seen == 0
    assert said in capsys.readouterr().err
    assert not (work / "r.json").exists()


def test_images_that_the_file_lacks_are_drawn_and_said_and_not_written(work, caplog):
    path = coco(work / "val.json", ["2.png"])
    line = ("--input", "a", "--output", "out", "--ids", path, "--save-json", "r.json")
    assert demo(StubPredictor(), *line) == 0
    assert images_of() == {"a/2.png": 201}
    assert sorted(os.listdir("out")) == ["1.png", "2.png"]
    assert f"1 of 2 images are not in {path}: their results are not written; first a/1.png" in (
        caplog.text
    )


def test_an_image_of_another_size_than_the_file_says_is_left_out(work, capsys):
    picture(work / "a" / "2.png", (70, 50))
    path = coco(work / "val.json", ["1.png", "2.png"])
    assert run("--input", "a", "--ids", path) == 1
    assert "a/2.png: has 50x70 pixels" in capsys.readouterr().err
    assert images_of() == {"a/1.png": 201}


def test_one_name_in_two_forms_of_unicode_is_one(work):
    name = "\u00e9t\u00e9.png"
    picture(work / "c" / unicodedata.normalize("NFD", name))
    assert run("--input", "c", "--ids", coco(work / "val.json", [name])) == 0
    assert set(images_of().values()) == {201}


@pytest.mark.parametrize("ids", [["x", "y"], [2**40, 7], ["1", "2"]], ids=str)
def test_ids_are_those_of_the_file_whatever_they_are(work, ids):
    images = [{"id": i, "file_name": f"{k}.png"} for k, i in enumerate(ids, 1)]
    path = work / "val.json"
    path.write_text(json.dumps({"images": images, "categories": CATEGORIES}))
    assert run("--input", "a", "--ids", path) == 0
    assert list(images_of().values()) == ids


def test_files_of_lvis_name_images_by_their_address(work):
    images = [{"id": 9, "coco_url": "http://images.cocodataset.org/a/1.png"}]
    path = work / "val.json"
    path.write_text(json.dumps({"images": images, "categories": CATEGORIES}))
    assert run("--input", "a/1.png", "--ids", path) == 0
    assert images_of() == {"a/1.png": 9}


# Categories by name


def test_categories_are_found_by_name(work):
    assert run("--input", "a", "--ids", coco(work / "val.json", ["1.png", "2.png"])) == 0
    assert {(x["category_name"], x["category_id"]) for x in results()} == {("cup", 3)}


def test_classes_that_the_file_lacks_get_ids_of_their_own(work, caplog):
    path = coco(work / "val.json", ["1.png", "2.png"])
    assert run("--input", "a", "--ids", path, names=["spoon", "cup"]) == 0
    assert {(x["category_name"], x["category_id"]) for x in results()} == {("spoon", 18)}
    assert "1 of 2 classes are not in" in caplog.text and "such as spoon" in caplog.text


@pytest.mark.parametrize(
    ("names", "said"),
    [(["x", "y"], "has none of the model's classes, such as x"), (None, "bring no class names")],
)
def test_classes_without_a_match_are_refused(work, capsys, names, said):
    stub = StubPredictor()
    stub.metadata = {"thing_classes": names} if names else {}
    path = coco(work / "val.json", ["1.png"])
    assert demo(stub, "--input", "a", "--ids", path, "--save-json", "r.json") == 2
    assert said in capsys.readouterr().err
    assert not (work / "r.json").exists()


def test_a_panoptic_model_gets_the_ids_of_things_and_of_stuff(work):
    categories = [
        {"id": 3, "name": "cup", "isthing": 1},
        {"id": 8, "name": "sky", "isthing": 0},
        {"id": 4, "name": "fork", "isthing": 1},
        {"id": 6, "name": "cup", "isthing": 0},
    ]
    path = coco(work / "val.json", ["1.png"], categories)

    class Panoptic(StubPredictor):
        def __call__(self, images):
            found = super().__call__(images)
            if not isinstance(images, list):
                ids, segments = found["panoptic_seg"]
                sky = {"id": 2, "isthing": False, "category_id": 1}
                found["panoptic_seg"] = (ids + 2 * (ids == 0), [*segments, sky])
            return found

    stub = Panoptic(panoptic=True)
    stub.metadata["stuff_classes"] = ["things", "sky"]
    line = ("--input", "a/1.png", "--ids", path, "--no-draw", "--save-json", "r.json")
    assert demo(stub, *line) == 0
    (image,) = results()["panoptic"]
    assert image["image_id"] == 201
    assert [(s["category_name"], s["category_id"]) for s in image["segments_info"]] == [
        ("cup", 3),
        ("sky", 8),
    ]


# Class names with ids


def test_the_ids_of_class_names_come_with_them(work):
    names = read_class_names(coco(work / "names.json", []))
    assert names.things == ("cup", "plate", "fork")
    assert names.thing_ids == (3, 5, 17)
    (work / "names.txt").write_text("\ufeffcup\r\n\r\nfork\r\n", encoding="utf-8")
    assert read_class_names(work / "names.txt").things == ("cup", "fork")
    assert read_class_names(work / "names.txt").thing_ids == ()


class Config(dict):
    __getattr__ = dict.__getitem__


def config(classes):
    solo = Config(NUM_CLASSES=classes)
    return Config(MODEL=Config(SOLO=solo), DATASETS=Config(TEST=()))


def told(model, names=None, ids=None):
    known = known_metadata(config(2), names, None, {"thing": ids, "stuff": None})
    metadata = own_metadata(model, known, named=names is not None)
    return metadata.get("thing_classes"), metadata.get("thing_dataset_id_to_contiguous_id")


OWN = SimpleNamespace(class_names=("cup", "fork"), category_ids=(3, 17))
BARE = SimpleNamespace(class_names=(), category_ids=())


@pytest.mark.parametrize(
    ("model", "names", "ids", "expected"),
    [
        (OWN, None, None, (["cup", "fork"], {3: 0, 17: 1})),
        (OWN, ["Tasse", "Gabel"], None, (["Tasse", "Gabel"], {3: 0, 17: 1})),
        (OWN, ["cup", "fork"], (1, 2), (["cup", "fork"], {1: 0, 2: 1})),
        (BARE, ["cup", "fork"], (5, 4), (["cup", "fork"], {5: 0, 4: 1})),
        (BARE, ["cup", "fork"], None, (["cup", "fork"], None)),
        (BARE, None, None, (None, None)),
    ],
)
def test_given_ids_come_before_those_of_the_weights(model, names, ids, expected):
    assert told(model, names, ids) == expected


# Files that cannot be used


BAD_FILES = {
    "missing": (None, "no such file"),
    "empty": ("", "is not valid json"),
    "a list": ("[]", "expected an object"),
    "no images": ({"categories": CATEGORIES}, "has no list of images"),
    "images of another type": ({"images": {}, "categories": CATEGORIES}, "has no list of images"),
    "no categories": ({"images": [{"id": 1, "file_name": "1.png"}]}, "has no list of categories"),
    "an id twice": (
        {"images": [{"id": 1, "file_name": "1.png"}] * 2, "categories": CATEGORIES},
        "the id 1 comes twice in 'images'",
    ),
    "an image without an id": (
        {"images": [{"file_name": "1.png"}], "categories": CATEGORIES},
        "an entry of 'images' lacks ['id']",
    ),
    "an id that is none": (
        {"images": [{"id": None, "file_name": "1.png"}], "categories": CATEGORIES},
        "has the id None",
    ),
    "a size that is none": (
        {"images": [{"id": 1, "file_name": "1.png", "height": -1, "width": 2}]}
        | {"categories": CATEGORIES},
        "has the height -1",
    ),
    "a category twice": (
        {"images": [{"id": 1, "file_name": "1.png"}], "categories": CATEGORIES * 2},
        "comes twice in 'categories'",
    ),
    "a category without a name": (
        {"images": [{"id": 1, "file_name": "1.png"}], "categories": [{"id": 1}]},
        "lacks ['name']",
    ),
    "a named pipe": (os.mkfifo, "is a named pipe"),
}


@pytest.mark.parametrize("option", ["--ids", "--image-ids"])
@pytest.mark.parametrize("kind", BAD_FILES)
def test_files_that_give_no_ids_are_one_line(work, capsys, kind, option):
    content, said = BAD_FILES[kind]
    path = work / "val.json"
    if callable(content):
        content(path)
    elif content is not None:
        path.write_text(content if isinstance(content, str) else json.dumps(content))
    assert run("--input", "a", option, path) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert str(path) in line and said in line
    assert not (work / "r.json").exists()


BAD_NAMES = {
    "empty.json": "",
    "list.json": "[]",
    "none.json": '{"categories": []}',
    "type.json": '{"categories": {"id": 1}}',
    "entry.json": '{"categories": [1]}',
    "twice.json": '{"categories": [{"id": 1, "name": "a"}, {"id": 1, "name": "b"}]}',
    "mixed.json": '{"categories": [{"id": 1, "name": "a"}, {"id": "1", "name": "b"}]}',
    "unnamed.json": '{"categories": [{"id": 1, "name": ""}]}',
    "number.json": '{"categories": [{"id": 1, "name": [1]}]}',
    "deep.json": "[" * 100000,
    "empty.txt": "",
    "blank.txt": "\n \n",
    "latin.txt": b"\xe9t\xe9",
    "binary.txt": b"\xff\xfe\x00\x01\x80",
}


@pytest.mark.parametrize("name", BAD_NAMES)
def test_files_without_class_names_are_one_line(work, name):
    content = BAD_NAMES[name]
    (work / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ValueError, match=rf"{name}: .*class names") as caught:
        read_class_names(work / name)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("kind", ["folder", "pipe", "loop"])
@pytest.mark.parametrize("extension", [".txt", ".json"])
def test_class_names_are_in_regular_files(work, kind, extension):
    path = work / f"x{extension}"
    {"folder": path.mkdir, "pipe": lambda: os.mkfifo(path), "loop": lambda: path.symlink_to(path)}[
        kind
    ]()
    with pytest.raises(ValueError, match=r"x\.\w+: no class names can be read"):
        read_class_names(path)


# Other commands


@pytest.mark.parametrize(
    "line",
    [
        ("--video-input", "in.mp4", "--ids", "val.json", "--save-json", "r.json"),
        ("--input", "a", "--ids", "val.json"),
        ("--input", "a", "--ids", "val.json", "--save-json", "val.json"),
    ],
)
def test_ids_that_would_do_nothing_or_harm_are_refused(work, line):
    film(work / "in.mp4", 3)
    path = coco(work / "val.json", ["1.png", "2.png"])
    before = path.read_bytes()
    stub = StubPredictor()
    assert demo(stub, *line) == 2
    assert stub.seen == 0
    assert path.read_bytes() == before


def test_a_large_file_is_matched_in_time_that_grows_with_it(work):
    names = [f"{k:06d}.png" for k in range(20000)]
    ids = DatasetIds(coco(work / "val.json", names))
    found = ids.images([work / "x" / name for name in names])
    assert [image.id for image in found] == list(range(201, 20201))
