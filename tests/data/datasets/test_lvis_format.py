"""Facts about the LVIS format: from COCO and back, v0.5's and v1's ways of naming images."""

from __future__ import annotations

import json

import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data.samplers import RepeatFactorTrainingSampler
from PIL import Image

from solo_d2.data.datasets.coco_json import load_coco_json, register_coco_json
from solo_d2.data.datasets.lvis import (
    frequency_of,
    load_lvis_json,
    main,
    register_lvis_json,
    write_lvis,
)

SQUARE = [[2, 2, 8, 2, 8, 8, 2, 8]]


def entry(number, image, category, **more):
    return {
        "id": number,
        "image_id": image,
        "category_id": category,
        "segmentation": SQUARE,
        "area": 36,
        "bbox": [2, 2, 6, 6],
        "iscrowd": 0,
        **more,
    }


@pytest.fixture
def coco(tmp_path):
    """Two images, three classes: a crowd of class 5 and an annotation without area."""
    (tmp_path / "train2017").mkdir()
    images = []
    for number in (1, 2):
        Image.new("RGB", (20, 10)).save(tmp_path / "train2017" / f"{number}.png")
        images.append({"id": number, "file_name": f"{number}.png", "height": 10, "width": 20})
    bare = entry(3, 2, 5)
    del bare["area"], bare["bbox"]
    content = {
        "images": images,
        "annotations": [entry(1, 1, 1), entry(2, 1, 5, iscrowd=1), bare, entry(4, 2, 5)],
        "categories": [{"id": i, "name": f"c{i}"} for i in (1, 5, 9)],
    }
    (tmp_path / "coco.json").write_text(json.dumps(content))
    return tmp_path


@pytest.fixture
def names():
    yield ("of_lvis",)
    if "of_lvis" in DatasetCatalog.list():
        DatasetCatalog.remove("of_lvis")
        MetadataCatalog.pop("of_lvis")


def test_a_written_file_in_every_detail(coco):
    assert main([str(coco / "coco.json"), str(coco / "lvis.json")]) == 0
    written = json.loads((coco / "lvis.json").read_text())
    first, second = written["images"]
    assert first["neg_category_ids"] == [9]
    assert first["not_exhaustive_category_ids"] == [5]  # a crowd: there are more
    assert second["neg_category_ids"] == [1, 9]
    assert second["not_exhaustive_category_ids"] == []
    assert [x["id"] for x in written["annotations"]] == [1, 3, 4]
    # The mask's own, as pycocotools measures it.
    assert [x["area"] for x in written["annotations"]] == [36, 36.0, 36]
    assert written["annotations"][1]["bbox"] == [2, 2, 6, 6]
    assert not any("iscrowd" in x for x in written["annotations"])
    assert [(x["image_count"], x["frequency"]) for x in written["categories"]] == [
        (1, "r"),
        (2, "r"),
        (0, "r"),
    ]


def test_records_are_those_of_the_coco_file_but_for_crowds(coco):
    write_lvis(coco / "coco.json", coco / "lvis.json")
    ours = load_lvis_json(coco / "lvis.json", coco / "train2017")
    theirs = load_coco_json(coco / "coco.json", coco / "train2017")
    assert ours.classes == theirs.classes == ["c1", "c5", "c9"]
    assert ours.category_ids == [1, 5, 9]
    for mine, other in zip(ours.records, theirs.records, strict=True):
        # An area that the COCO file lacks is in the file of LVIS.
        wanted = [{"area": 36.0, **x} for x in other["annotations"] if not x["iscrowd"]]
        assert mine["annotations"] == wanted
        assert mine["file_name"] == other["file_name"]
    assert ours.records[1]["neg_category_ids"] == [1, 9]
    assert ours.records[0]["not_exhaustive_category_ids"] == [5]


@pytest.mark.parametrize("root", [".", "train2017"])
def test_pictures_are_found_by_their_url_in_both_folders(coco, root):
    write_lvis(coco / "coco.json", coco / "lvis.json")
    content = json.loads((coco / "lvis.json").read_text())
    for image in content["images"]:
        name = image.pop("file_name")
        image["coco_url"] = f"http://images.cocodataset.org/train2017/{name}"
    content["images"][0]["file_name"] = "COCO_val2014_old_name.png"  # v0.5
    (coco / "lvis.json").write_text(json.dumps(content))
    records = load_lvis_json(coco / "lvis.json", coco / root).records
    assert [x["file_name"] for x in records] == [
        str(coco / "train2017" / f"{i}.png") for i in (1, 2)
    ]


@pytest.mark.parametrize(
    ("images", "group"), [(1, "r"), (10, "r"), (11, "c"), (100, "c"), (101, "f")]
)
def test_borders_of_the_frequency_groups(images, group):
    assert frequency_of(images) == group


def test_frequency_can_come_from_another_file(coco):
    content = json.loads((coco / "coco.json").read_text())
    content["annotations"] = [entry(i + 1, i, 9) for i in range(11)]
    (coco / "train.json").write_text(json.dumps(content))
    write_lvis(coco / "coco.json", coco / "lvis.json", counts_from=coco / "train.json")
    categories = json.loads((coco / "lvis.json").read_text())["categories"]
    assert [x["frequency"] for x in categories] == ["r", "r", "c"]


def test_classes_are_counted_by_name_where_their_ids_differ(coco):
    content = json.loads((coco / "coco.json").read_text())
    content["annotations"] = [entry(i + 1, i, 9) for i in range(11)]
    for category, name in zip(content["categories"], ("c9", "c5", "c1"), strict=True):
        category["name"] = name
    (coco / "train.json").write_text(json.dumps(content))
    write_lvis(coco / "coco.json", coco / "lvis.json", counts_from=coco / "train.json")
    categories = json.loads((coco / "lvis.json").read_text())["categories"]
    assert {x["name"]: (x["image_count"], x["frequency"]) for x in categories} == {
        "c1": (11, "c"),
        "c5": (0, "r"),
        "c9": (0, "r"),
    }


def test_classes_that_the_counted_file_lacks_are_named(coco, capsys):
    content = json.loads((coco / "coco.json").read_text())
    content["categories"][2]["name"] = "c10"  # of the same id
    (coco / "train.json").write_text(json.dumps(content))
    words = [str(coco / x) for x in ("coco.json", "lvis.json")]
    assert main([*words, "--counts-from", str(coco / "train.json")]) == 2
    error = capsys.readouterr().err
    assert "train.json: expected all categories of " in error and "it lacks 'c9':" in error
    assert error.count("\n") == 1 and not (coco / "lvis.json").exists()


def test_registered_sets_train_with_repeated_rare_classes(coco, names):
    write_lvis(coco / "coco.json", coco / "lvis.json")
    (name,) = names
    assert register_lvis_json(name, coco / "lvis.json", coco / "train2017") == ["c1", "c5", "c9"]
    metadata = MetadataCatalog.get(name)
    assert metadata.evaluator_type == "lvis"
    records = DatasetCatalog.get(name)
    assert len(records) == 2
    factors = RepeatFactorTrainingSampler.repeat_factors_from_category_frequency(records, 1.0)
    # Each class is in half of the images: sqrt(1 / 0.5).
    assert factors.tolist() == pytest.approx([2**0.5] * 2)


def test_the_other_format_is_refused_with_the_remedy(coco, names, capsys):
    with pytest.raises(ValueError, match=r"coco\.json is not in LVIS format.*datasets\.lvis"):
        load_lvis_json(coco / "coco.json", coco)
    write_lvis(coco / "coco.json", coco / "lvis.json")
    with pytest.raises(ValueError, match=r"lvis\.json is in LVIS format.*--data-format lvis"):
        register_coco_json(names[0], coco / "lvis.json", coco)
    assert main([str(coco / "lvis.json"), str(coco / "again.json")]) == 2
    assert "is in LVIS format already" in capsys.readouterr().err


def test_an_annotation_without_an_area_is_read_and_counted(coco, caplog):
    write_lvis(coco / "coco.json", coco / "lvis.json")
    content = json.loads((coco / "lvis.json").read_text())
    del content["annotations"][1]["area"]
    (coco / "lvis.json").write_text(json.dumps(content))
    data = load_lvis_json(coco / "lvis.json", coco / "train2017")
    assert [x.get("area") for x in data.records[1]["annotations"]] == [None, 36]
    assert "1 annotation lacked a box, an area or another key" in caplog.text
    assert caplog.text.count("lvis.json") == 1


def test_an_unwritable_file_is_named(coco):
    with pytest.raises(ValueError, match=r"no/such/x\.json: cannot be written"):
        write_lvis(coco / "coco.json", "no/such/x.json")
