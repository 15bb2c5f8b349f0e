"""Datasets by folder and by file: tables of kinds, what is found, what is set aside."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog
from PIL import Image

from solo_d2.data import DATA_SOURCES, DataSource
from solo_d2.data.arguments import register_named_data
from solo_d2.data.conversion import convert_dataset
from solo_d2.data.datasets.coco_folder import find_coco
from solo_d2.data.datasets.coco_json import load_coco_json, register_coco_json
from solo_d2.data.datasets.lvis import write_lvis
from solo_d2.data.holdout import hold_out
from solo_d2.data.sources import recognise, register_folder
from solo_d2.engine import argument_parser


@pytest.fixture(autouse=True)
def _clean():
    before = set(DatasetCatalog.list())
    yield
    for name in set(DatasetCatalog.list()) - before:
        DatasetCatalog.remove(name)
        MetadataCatalog.remove(name)


def write_coco(file, images, count=4):
    """A file of `count` images with one square each, and the images in a folder."""
    images.mkdir(parents=True, exist_ok=True)
    file.parent.mkdir(parents=True, exist_ok=True)
    names = [f"{images.name}_{k}.png" for k in range(count)]
    for name in names:
        Image.new("RGB", (30, 20)).save(images / name)
    square = [2, 2, 12, 2, 12, 12, 2, 12]
    content = {
        "images": [
            {"id": k, "file_name": name, "height": 20, "width": 30}
            for k, name in enumerate(names, start=1)
        ],
        "annotations": [
            {"id": k, "image_id": k, "category_id": 7, "segmentation": [square], "iscrowd": 0}
            | {"bbox": [2, 2, 10, 10], "area": 100}
            for k in range(1, count + 1)
        ],
        "categories": [{"id": 7, "name": "cup"}],
    }
    file.write_text(json.dumps(content))


LAYOUTS = {
    "COCO": {
        "train": ("annotations/instances_train2017.json", "train2017"),
        "val": ("annotations/instances_val2017.json", "val2017"),
    },
    "simple": {
        "train": ("annotations/train.json", "train"),
        "val": ("annotations/val.json", "val"),
    },
    "one folder of images": {
        "train": ("annotations/train.json", "images"),
        "val": ("annotations/val.json", "images"),
    },
    "Roboflow": {
        "train": ("train/_annotations.coco.json", "train"),
        "val": ("valid/_annotations.coco.json", "valid"),
    },
    "beside": {"train": ("train.json", "."), "val": ("val.json", ".")},
    "no validation": {"train": ("labels.json", "images")},
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_usual_layouts_are_found(tmp_path, layout):
    for file, images in LAYOUTS[layout].values():
        write_coco(tmp_path / file, tmp_path / images)
    expected = {
        split: (tmp_path / file, tmp_path / images)
        for split, (file, images) in LAYOUTS[layout].items()
    }
    assert find_coco(tmp_path) == expected


def test_a_file_alone_is_found_with_its_images(tmp_path):
    write_coco(tmp_path / "cups.json", tmp_path / "images")
    found = find_coco(tmp_path / "cups.json")
    assert found == {"train": (tmp_path / "cups.json", tmp_path / "images")}


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ([], "json files here: none. Name them with --train-json"),
        (["a.json", "b.json"], "json files here: a.json, b.json"),
        (
            ["train.json", "annotations/train.json"],
            "train.json or annotations/train.json. Name one",
        ),
    ],
)
def test_what_could_be_meant_in_several_ways_is_named(tmp_path, files, message):
    for file in files:
        write_coco(tmp_path / file, tmp_path / "images")
    with pytest.raises(ValueError, match=message.replace("?", r"\?")):
        find_coco(tmp_path)


def test_missing_images_and_folders_are_named(tmp_path):
    write_coco(tmp_path / "train.json", tmp_path / "images")
    for file in (tmp_path / "images").iterdir():
        file.unlink()
    with pytest.raises(
        ValueError, match=r"images_0\.png, images_1\.png, \.\.\.\) are not beside it"
    ):
        find_coco(tmp_path)
    with pytest.raises(ValueError, match="no such file or folder; name a COCO json"):
        find_coco(tmp_path / "none")


def write_masks(folder, count):
    """Images with one square each, and PNGs that number it."""
    for part in ("images", "masks"):
        (folder / part).mkdir(parents=True)
    values = np.zeros((20, 30), np.uint8)
    values[2:12, 2:12] = 1
    for k in range(count):
        Image.new("RGB", (30, 20)).save(folder / "images" / f"{k}.png")
        Image.fromarray(values).save(folder / "masks" / f"{k}.png")


def arguments(*words):
    return argument_parser().parse_args(list(map(str, words)))


def test_without_a_validation_set_a_tenth_is_set_aside(tmp_path):
    write_coco(tmp_path / "train.json", tmp_path / "images", count=20)
    names = register_named_data(arguments("--data", tmp_path), panoptic=False)
    assert names == {"TRAIN": "own_train_rest", "TEST": "own_train_held_out"}
    parts = [
        {record["file_name"] for record in DatasetCatalog.get(name)} for name in names.values()
    ]
    assert [len(part) for part in parts] == [18, 2]
    assert not parts[0] & parts[1]
    metadata = MetadataCatalog.get("own_train_held_out")
    assert metadata.thing_classes == ["cup"] and metadata.evaluator_type == "coco"


def test_a_dataset_of_any_format_is_found_and_a_tenth_is_set_aside(tmp_path):
    (tmp_path / "images").mkdir()
    (tmp_path / "labels").mkdir()
    for k in range(3):
        Image.new("RGB", (30, 20)).save(tmp_path / "images" / f"{k}.png")
        (tmp_path / "labels" / f"{k}.txt").write_text("0 0.1 0.1 0.5 0.1 0.5 0.5")
    (tmp_path / "data.yaml").write_text("names: [cup]\ntrain: images")
    for place in (tmp_path, tmp_path / "data.yaml", f"yolo:{tmp_path}"):
        names = register_named_data(arguments("--data", place), panoptic=False)
        assert [len(DatasetCatalog.get(names[key])) for key in ("TRAIN", "TEST")] == [2, 1]
        assert MetadataCatalog.get(names["TEST"]).thing_classes == ["cup"]
    names = register_named_data(arguments("--data", tmp_path, "--eval-only"), panoptic=False)
    assert len(DatasetCatalog.get(names["TEST"])) == 1 and "TRAIN" not in names


ONLY_VALIDATION = {
    "COCO": ("annotations/instances_val2017.json", "val2017"),
    "simple": ("val.json", "images"),
    "Roboflow": ("valid/_annotations.coco.json", "valid"),
    "YOLO": None,
    "VOC": None,
    "LVIS": None,
}


def write_only_validation(root, layout):
    """A dataset of 20 images in a validation set and of nothing else; returns its location."""
    file, images = ONLY_VALIDATION[layout] or ("val.json", "val")
    write_coco(root / file, root / images, count=20)
    if layout == "LVIS":
        write_lvis(root / file, root / "lvis_v1_val.json")
        for image in (root / images).iterdir():
            image.rename(root / image.name)
        return f"lvis:{root}"
    if ONLY_VALIDATION[layout] is not None:
        return root
    (root / "train").mkdir()
    (root / "train" / "of_train.png").write_bytes((root / "val" / "val_0.png").read_bytes())
    square = [2, 2, 12, 2, 12, 12, 2, 12]
    content = json.loads((root / file).read_text())
    image = {"id": 1, "file_name": "of_train.png", "height": 20, "width": 30}
    annotation = {"id": 1, "image_id": 1, "category_id": 7, "segmentation": [square]}
    content |= {"images": [image], "annotations": [annotation]}
    (root / "train.json").write_text(json.dumps(content))
    out = root.with_name("converted")
    convert_dataset(str(root), out, layout.lower())
    if layout == "YOLO":
        lines = [x for x in (out / "data.yaml").read_text().splitlines() if "train" not in x]
        (out / "data.yaml").write_text("\n".join(lines))
    else:
        (out / "ImageSets/Segmentation/train.txt").unlink()
    return out


@pytest.mark.parametrize("layout", ONLY_VALIDATION)
def test_a_validation_set_alone_is_evaluated_whole_and_divided_for_training(tmp_path, layout):
    place = write_only_validation(tmp_path / "data", layout)
    names = register_named_data(arguments("--data", place, "--eval-only"), panoptic=False)
    assert list(names) == ["TEST"] and len(DatasetCatalog.get(names["TEST"])) == 20
    names = register_named_data(arguments("--data", place), panoptic=False)
    train, test = (
        {record["file_name"] for record in DatasetCatalog.get(names[key])}
        for key in ("TRAIN", "TEST")
    )
    assert (len(train), len(test)) == (18, 2) and not train & test


def test_a_validation_set_alone_stays_one_in_another_format(tmp_path):
    place = write_only_validation(tmp_path / "data", "COCO")
    said = convert_dataset(str(place), tmp_path / "out", "yolo")
    assert said.endswith("out: val 20 images, 20 objects")
    assert "train" not in (tmp_path / "out" / "data.yaml").read_text()
    assert list(find_coco(place)) == ["val"]


def test_evaluation_needs_no_images_of_the_training_set(tmp_path):
    for part in ("train", "val"):
        write_coco(tmp_path / f"annotations/instances_{part}2017.json", tmp_path / f"{part}2017")
    shutil.rmtree(tmp_path / "train2017")
    shutil.copy(
        tmp_path / "annotations/instances_val2017.json",
        tmp_path / "annotations/captions_val2017.json",
    )
    names = register_named_data(arguments("--data", tmp_path, "--eval-only"), panoptic=False)
    assert len(DatasetCatalog.get(names["TEST"])) == 4
    with pytest.raises(ValueError, match=r"train2017_1\.png, \.\.\.\) are not beside it"):
        register_named_data(arguments("--data", tmp_path), panoptic=False)
    (tmp_path / "annotations/instances_train2017.json").unlink()
    with pytest.raises(ValueError, match=r"files here: annotations/captions_val2017\.json, "):
        register_named_data(arguments("--data", tmp_path), panoptic=False)


def test_the_same_images_are_set_aside_when_the_dataset_grows(tmp_path):
    write_coco(tmp_path / "a.json", tmp_path / "images", count=20)
    write_coco(tmp_path / "b.json", tmp_path / "images", count=21)
    held_out = []
    for name, file in (("small", "a.json"), ("large", "b.json")):
        from solo_d2.data.sources import JSON_FORMATS

        JSON_FORMATS["coco"](name, str(tmp_path / file), str(tmp_path / "images"))
        held_out.append({x["file_name"] for x in DatasetCatalog.get(hold_out(name)[1])})
    assert len(held_out[0] & held_out[1]) >= 1
    assert len(held_out[0]) == len(held_out[1]) == 2


def test_one_image_cannot_be_divided(tmp_path):
    write_coco(tmp_path / "train.json", tmp_path / "images", count=1)
    said = "train.json: 1 image with objects is not enough to train and to evaluate; --no-hold-out"
    with pytest.raises(ValueError, match=said):
        register_named_data(arguments("--data", tmp_path), panoptic=False)
    names = register_named_data(arguments("--data", tmp_path, "--no-hold-out"), panoptic=False)
    assert names == {"TRAIN": "own_train"}


@pytest.mark.parametrize("kind", ["coco", "masks"])
def test_evaluation_takes_the_images_that_the_training_has_set_aside(tmp_path, kind, caplog):
    caplog.set_level("INFO")
    data = tmp_path / "data"
    if kind == "coco":
        write_coco(data / "train.json", data / "images", count=30)
    else:
        write_masks(data, count=30)
    options = ([], ["--eval-only"], ["--eval-only", "--no-hold-out"])
    trained, evaluated, whole = (
        register_named_data(arguments("--data", data, *more), panoptic=False) for more in options
    )
    assert evaluated == {"TEST": trained["TEST"]} and whole == {
        "TEST": trained["TRAIN"].removesuffix("_rest")
    }
    files = [
        {record["file_name"] for record in DatasetCatalog.get(name)}
        for name in (trained["TRAIN"], trained["TEST"], whole["TEST"])
    ]
    assert list(map(len, files)) == [27, 3, 30] and files[0] | files[1] == files[2]
    said = [x.getMessage() for x in caplog.records if "aside" in x.message]
    assert said[0] == said[1] and len(said) == 2
    assert said[0].startswith("3 of 30 images of ")
    assert said[0].endswith(" are set aside for validation (--no-hold-out: none)")


def test_evaluation_on_a_validation_set_reads_no_training_set(tmp_path):
    for split in ("train", "val"):
        write_coco(tmp_path / "coco.json", tmp_path)
        write_lvis(tmp_path / "coco.json", tmp_path / f"lvis_{split}.json")
    (tmp_path / "lvis_train.json").write_text("{")
    words = ("--data", f"lvis:{tmp_path}", "--eval-only")
    assert register_named_data(arguments(*words), panoptic=False) == {"TEST": "own_val"}


def test_holding_nothing_out_is_refused_where_nothing_would_be(tmp_path):
    for split in ("train", "val"):
        write_coco(tmp_path / f"{split}.json", tmp_path / "images", count=3)
    for more in ([], ["--eval-only"]):
        with pytest.raises(ValueError, match="has a validation set; leave --no-hold-out out"):
            register_named_data(
                arguments("--data", tmp_path, "--no-hold-out", *more), panoptic=False
            )
    with pytest.raises(ValueError, match="--no-hold-out is about the images of --data"):
        register_named_data(arguments("--no-hold-out", "--shapes", tmp_path), panoptic=False)


def test_a_tenth_is_set_aside_of_the_images_with_objects_and_of_the_others(tmp_path):
    """However few have objects; a crowd is none."""
    file = tmp_path / "train.json"
    for objects, others, expected in ((2, 18, (1, 2)), (20, 1, (2, 0)), (10, 40, (1, 4))):
        write_coco(file, tmp_path / "images", count=objects + others)
        content = json.loads(file.read_text())
        crowds = content["annotations"][objects + others // 2 :]
        content["annotations"] = content["annotations"][:objects] + [
            {**x, "iscrowd": 1} for x in crowds
        ]
        file.write_text(json.dumps(content))
        name = f"objects_{objects}_{others}"
        register_coco_json(name, str(file), str(tmp_path / "images"))
        held_out = DatasetCatalog.get(hold_out(name)[1])
        has = [any(not y["iscrowd"] for y in x["annotations"]) for x in held_out]
        assert (sum(has), len(has) - sum(has)) == expected


def fake(folder, splits):
    return {split: f"fake_{split}" for split in splits}


def test_a_new_kind_is_one_entry(monkeypatch):
    monkeypatch.setitem(DATA_SOURCES, "fake", DataSource("nothing", fake, flag=True))
    for words in (["--data", "fake:some/where"], ["--fake", "some/where"]):
        names = register_named_data(arguments(*words), panoptic=False)
        assert names == {"TRAIN": "fake_train", "TEST": "fake_val"}
    assert "--fake DIR" in argument_parser().format_help()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--data", "stmaps:x"], "unknown kind of data 'stmaps'.*did you mean stamps"),
        (["--data", "x", "--stamps", "y"], "name one dataset, not --stamps and --data"),
        (["--data-format", "lvis"], "--data-format lvis is that of --train-json"),
        (["--train-json", "a.json"], "--train-json and --train-images go together"),
    ],
)
def test_bad_command_lines_are_one_line(words, message):
    with pytest.raises(ValueError, match=message):
        register_named_data(arguments(*words), panoptic=False)


def test_a_kind_without_stuff_is_refused_for_panoptic_models():
    with pytest.raises(ValueError, match="shapes data have no panoptic annotations here"):
        register_folder("shapes", "x", ("train",), panoptic=True)


def test_the_example_of_a_format_reads_its_instances(tmp_path):
    from test_examples import load

    module = load("instance_png")
    labels = np.zeros((20, 30), np.uint16)
    labels[2:8, 3:9] = 1001
    labels[10:15, 10:20] = 2001
    for split in ("train", "val"):
        for folder in ("images", "instances"):
            (tmp_path / split / folder).mkdir(parents=True)
        Image.new("RGB", (30, 20)).save(tmp_path / split / "images" / "a.jpg")
        Image.fromarray(labels).save(tmp_path / split / "instances" / "a.png")
    (tmp_path / "classes.txt").write_text("cup\nfork\n")
    names = register_named_data(arguments("--data", f"instance_png:{tmp_path}"), panoptic=False)
    (record,) = DatasetCatalog.get(names["TEST"])
    found = [(x["category_id"], x["bbox"]) for x in record["annotations"]]
    assert found == [(0, [3, 2, 6, 6]), (1, [10, 10, 10, 5])]
    labels[0, 0] = 5001
    with pytest.raises(ValueError, match="has the class 5, expected 1 to 2"):
        module.annotation(labels == 5001, 4, 2, "a.jpg")


# ------------------------------------------------------------------ what tools export

# The layouts that the pages of these tools describe: files, and what image entries say.
EXPORTS = {
    "CVAT": {
        "annotations/instances_default.json": ("images", "{}"),
    },
    "CVAT with subsets": {
        "annotations/instances_Train.json": ("images/Train", "{}"),
        "annotations/instances_Validation.json": ("images/Validation", "{}"),
    },
    "Roboflow": {
        "train/_annotations.coco.json": ("train", "{}"),
        "valid/_annotations.coco.json": ("valid", "{}"),
        "test/_annotations.coco.json": ("test", "{}"),
    },
    "Label Studio": {"result.json": ("images", "images/{}")},
    "Label Studio on Windows": {"result.json": ("images", "images\\{}")},
}


@pytest.mark.parametrize("tool", EXPORTS)
def test_exports_of_tools_in_coco_format_are_recognised_and_read(tmp_path, tool):
    for file, (folder, name) in EXPORTS[tool].items():
        write_coco(tmp_path / file, tmp_path / folder)
        content = json.loads((tmp_path / file).read_text())
        for image in content["images"]:
            image["file_name"] = name.format(image["file_name"])
        (tmp_path / file).write_text(json.dumps({"info": {"description": tool}, **content}))
    assert recognise(tmp_path) == "coco"
    names = register_folder("coco", tmp_path, ("train", "val"))
    folders = {
        split: [x["file_name"].replace("\\", "/").rpartition("/")[0] for x in DatasetCatalog.get(n)]
        for split, n in names.items()
    }
    places = [str(tmp_path / folder) for folder, _ in EXPORTS[tool].values()]
    assert folders == {
        split: [place] * 4 for split, place in zip(("train", "val"), places, strict=False)
    }


def test_the_project_that_roboflow_lists_as_a_category_is_no_class(tmp_path):
    write_coco(tmp_path / "train.json", tmp_path / "images")
    content = json.loads((tmp_path / "train.json").read_text())
    project = {"id": 0, "name": "dishes", "supercategory": "none"}
    cases = [
        ([project, {"id": 7, "name": "cup", "supercategory": "dishes"}], ["cup"]),
        ([project, {"id": 7, "name": "cup", "supercategory": "none"}], ["dishes", "cup"]),
        ([project, {"id": 7, "name": "cup"}], ["dishes", "cup"]),
        ([{"id": 7, "name": "cup", "supercategory": "none"}], ["cup"]),
        (
            [{**project, "id": 7}, {"id": 8, "name": "a", "supercategory": "dishes"}],
            ["dishes", "a"],
        ),
    ]
    for categories, classes in cases:
        (tmp_path / "train.json").write_text(json.dumps({**content, "categories": categories}))
        data = load_coco_json(tmp_path / "train.json", tmp_path / "images")
        assert data.classes == classes
        told = "is Roboflow's name of the project" in data.notes
        assert told == (len(classes) < len(categories))


def test_a_file_whose_categories_come_first_and_are_long_is_found(tmp_path):
    write_coco(tmp_path / "labels.json", tmp_path / "images")
    content = json.loads((tmp_path / "labels.json").read_text())
    more = [{"id": k, "name": f"class {k}"} for k in range(8, 4000)]
    categories = {"categories": [*content.pop("categories"), *more]}
    (tmp_path / "labels.json").write_text(json.dumps(categories))
    assert recognise(tmp_path) == "coco"
    (tmp_path / "labels.json").write_text(json.dumps({"categories": more[:5]}))
    with pytest.raises(ValueError, match="a dataset of no format that is known"):
        recognise(tmp_path)
