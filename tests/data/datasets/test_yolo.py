"""YOLO for segmentation: shares of the image, class indices, and the ways to name images."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from solo_d2.data.datasets.yolo import find, recognise
from solo_d2.data.sources import recognise as kind_of
from solo_d2.io.segmentation import decode_mask

SIZE = (20, 40)
SQUARE = "0.25 0.1 0.5 0.1 0.5 0.5 0.25 0.5"  # x 10 to 20, y 2 to 10


def write(root, names, lines=(f"0 {SQUARE}",)):
    """Images and their labels, and what data.yaml says besides the classes cup and spoon."""
    for name in names:
        image = root / name
        image.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", SIZE[::-1]).save(image)
        if lines is not None:
            labels = root / name.replace("images", "labels").replace(".png", ".txt")
            labels.parent.mkdir(parents=True, exist_ok=True)
            labels.write_text("\n".join(lines))


def describe(root, text, names="[cup, spoon]", file="data.yaml"):
    (root / file).write_text(f"{text}\nnames: {names}\n")


def test_coordinates_are_shares_and_classes_count_from_0(tmp_path):
    write(tmp_path, ["images/train/a.png"], [f"1 {SQUARE}", "", f"0 {SQUARE} "])
    describe(tmp_path, "train: images/train", "{0: cup, 1: spoon}")
    data = find(tmp_path)["train"]()
    assert data.classes == ["cup", "spoon"] and data.category_ids == [0, 1] and not data.notes
    (record,) = data.records
    assert [x["category_id"] for x in record["annotations"]] == [1, 0]
    expected = np.zeros(SIZE, bool)
    expected[2:10, 10:20] = True
    mask = decode_mask(record["annotations"][0]["segmentation"], SIZE)
    np.testing.assert_array_equal(mask, expected)


LAYOUTS = {
    "Ultralytics": ("path: ../old/place\ntrain: images/train\nval: images/val", "images/{}/a.png"),
    "Roboflow": ("train: ../train/images\nval: ../val/images\nnc: 2", "{}/images/a.png"),
    "a list of folders": ("train: [images/train]\nval: [images/val]", "images/{}/deep/a.png"),
    "its own folder as path": ("path: data\ntrain: train\nval: val", "data/{}/a.png"),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_usual_layouts_are_read(tmp_path, layout):
    text, name = LAYOUTS[layout]
    write(tmp_path, [name.format("train"), name.format("val")])
    describe(tmp_path, text)
    ids = {split: read().records[0]["image_id"] for split, read in find(tmp_path).items()}
    assert ids == {"train": name.format("train"), "val": name.format("val")}


def test_a_description_of_classes_alone_means_all_images(tmp_path):
    write(tmp_path, ["images/a.png", "images/deep/b.png"])
    describe(tmp_path, "nc: 2")
    readers = find(tmp_path)
    assert list(readers) == ["train"] and len(readers["train"]().records) == 2


def test_label_studio_names_classes_in_a_text_file(tmp_path):
    write(tmp_path, ["images/a.png"])
    (tmp_path / "classes.txt").write_text("cup\nspoon\n")
    (tmp_path / "notes.json").write_text('{"categories": [{"id": 0, "name": "cup"}]}')
    assert kind_of(tmp_path) == "yolo"
    data = find(tmp_path)["train"]()
    assert data.classes == ["cup", "spoon"] and len(data.records) == 1


def test_images_may_be_listed_in_a_file(tmp_path):
    write(tmp_path, [f"images/{name}.png" for name in "abc"])
    (tmp_path / "train.txt").write_text("./images/a.png\nimages/c.png\n\n")
    describe(tmp_path, "train: train.txt")
    records = find(tmp_path)["train"]().records
    assert [x["image_id"] for x in records] == ["images/a.png", "images/c.png"]
    (tmp_path / "train.txt").write_text("../b.png")
    with pytest.raises(ValueError, match=r"train\.txt: '\.\./b\.png' is no file in"):
        find(tmp_path)["train"]()


def test_an_image_without_labels_has_no_object(tmp_path):
    write(tmp_path, ["images/a.png", "images/c.png"])
    write(tmp_path, ["images/b.png"], None)
    write(tmp_path, ["images/d.png"], [""])
    describe(tmp_path, "train: images")
    counts = [len(x["annotations"]) for x in find(tmp_path)["train"]().records]
    assert counts == [1, 0, 1, 0]


def test_boxes_are_left_out_and_counted(tmp_path):
    write(tmp_path, ["images/a.png"], [f"0 {SQUARE}", "1 0.5 0.5 0.2 0.2"])
    describe(tmp_path, "train: images")
    data = find(tmp_path)["train"]()
    assert len(data.records[0]["annotations"]) == 1
    assert "1 annotation has no 'segmentation' ('labels/a.txt #2'): dropped" in data.notes
    write(tmp_path, ["images/a.png"], ["1 0.5 0.5 0.2 0.2"])
    with pytest.raises(ValueError, match="SOLO learns from masks, not from boxes"):
        find(tmp_path)["train"]()


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["cup 0.1 0.1 0.2 0.2 0.3 0.1"], r"labels/a\.txt: cannot be read \(could not convert"),
        ([f"0.5 {SQUARE}"], r"labels/a\.txt: line 1 begins with 0\.5; expected a class"),
        ([f"2 {SQUARE}"], r"labels/a\.txt #1' cannot be used: it has the category id 2"),
        ([f"0 {SQUARE} 0.9"], "its polygon has 9 coordinates, an odd number"),
        (["0 10 2 20 2 20 10 10 10"], "far outside of its image"),
    ],
)
def test_lines_that_are_no_polygons_are_named(tmp_path, lines, message):
    write(tmp_path, ["images/a.png"], lines)
    describe(tmp_path, "train: images")
    with pytest.raises(ValueError, match=message):
        find(tmp_path)["train"]()


@pytest.mark.parametrize(
    ("text", "names", "message"),
    [
        ("train: nowhere", "[a]", r"'train' is 'nowhere', which is not in"),
        ("train: ../../etc", "[a]", r"'train' is '\.\./\.\./etc', which is not in"),
        ("train: [1]", "[a]", r"'train' is \[1\]; expected a folder"),
        ("train: images", "cup", r"'names' is 'cup'; expected the names of the classes"),
        ("train: images", "{a: b}", r"'names' is {'a': 'b'}; expected the names"),
        ("train: images\nnc: 3", "[a, b]", r"'nc' is 3, there are 2 'names'"),
        ("train: &a [*a]", "[a]", r"not a usable YAML file"),
    ],
)
def test_a_bad_description_is_one_line(tmp_path, text, names, message):
    write(tmp_path, ["images/a.png"])
    describe(tmp_path, text, names)
    with pytest.raises(ValueError, match=message) as caught:
        find(tmp_path)["train"]()
    assert "\n" not in str(caught.value)


def test_what_a_description_names_is_looked_for_only_where_it_is_wanted(tmp_path):
    write(tmp_path, ["images/val/a.png"])
    for text in ("val: images/val", "train: nowhere\nval: images/val"):
        describe(tmp_path, text)
        assert [x["image_id"] for x in find(tmp_path)["val"]().records] == ["images/val/a.png"]
    with pytest.raises(ValueError, match="'train' is 'nowhere'"):
        find(tmp_path)["train"]()


def test_drawings_of_a_training_are_no_images_without_objects(tmp_path):
    write(tmp_path, ["images/a.png"])
    write(tmp_path, ["images/output/drawn/a.png"], None)
    (tmp_path / "images" / "output" / "metrics.json").write_text("{}")
    describe(tmp_path, "train: images")
    assert [x["image_id"] for x in find(tmp_path)["train"]().records] == ["images/a.png"]


def test_labels_that_are_nowhere_are_told(tmp_path):
    write(tmp_path, ["images/a.png"], None)
    describe(tmp_path, "train: images")
    with pytest.raises(ValueError, match=r"no image has a file of labels; .*labels/a\.txt"):
        find(tmp_path)["train"]()


def test_datasets_are_recognised_by_the_names_of_their_classes(tmp_path):
    assert recognise(tmp_path) is None
    write(tmp_path, ["images/a.png"])
    with pytest.raises(ValueError, match=r"looks like yolo data, but has no data\.yaml"):
        kind_of(tmp_path)
    (tmp_path / "config.yaml").write_text("a: !!python/object:os.system {}")
    describe(tmp_path, "train: images", file="coco8-seg.yaml")
    assert kind_of(tmp_path) == kind_of(tmp_path / "coco8-seg.yaml") == "yolo"
    assert len(find(tmp_path)["train"]().records) == 1
    describe(tmp_path, "train: images", file="other.yaml")
    with pytest.raises(ValueError, match=r"got coco8-seg\.yaml, other\.yaml; name it"):
        find(tmp_path)
