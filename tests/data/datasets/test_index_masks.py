"""Masks whose pixel values number objects: VOC's folders, and images beside masks."""

from __future__ import annotations

import re

import numpy as np
import pytest
from PIL import Image

from solo_d2.data.datasets import masks, voc
from solo_d2.data.sources import recognise
from solo_d2.io.index_png import colormap, read_index_png, write_index_png
from solo_d2.io.segmentation import decode_mask

SIZE = (20, 30)


def numbers(*objects):
    """An array of SIZE with rectangles (value, x0, y0, x1, y1), later ones in front."""
    values = np.zeros(SIZE, np.int32)
    for value, x0, y0, x1, y1 in objects:
        values[y0:y1, x0:x1] = value
    return values


def found(data):
    return [
        [
            (data.classes[x["category_id"]], decode_mask(x["segmentation"], SIZE))
            for x in record["annotations"]
        ]
        for record in data.records
    ]


def assert_objects(objects, expected):
    """Whether classes and masks are these, in any order."""
    key = [(name, mask.tolist()) for name, mask in objects]
    assert sorted(key) == sorted((name, mask.tolist()) for name, mask in expected)


# ------------------------------------------------------------------ files


def test_colours_are_those_of_voc():
    colours = colormap().tolist()
    assert colours[:4] == [[0, 0, 0], [128, 0, 0], [0, 128, 0], [128, 128, 0]]
    assert colours[15] == [192, 128, 128] and colours[255] == [224, 224, 192]


@pytest.mark.parametrize(("largest", "mode", "bits"), [(255, "P", 8), (256, "I;16", 16)])
def test_written_numbers_are_read_again(tmp_path, largest, mode, bits):
    values = numbers((3, 0, 0, 5, 5), (largest, 10, 10, 20, 15))
    write_index_png(tmp_path / "deep" / "a.png", values)
    with Image.open(tmp_path / "deep" / "a.png") as image:
        assert image.mode == mode
    again = read_index_png(tmp_path / "deep" / "a.png")
    np.testing.assert_array_equal(again.values, values)
    assert again.bits == bits


@pytest.mark.parametrize("values", [np.full(SIZE, 65536), np.full(SIZE, -1)])
def test_numbers_that_no_mask_holds_are_refused(tmp_path, values):
    with pytest.raises(ValueError, match="numbers of a mask must be 0 to 65535"):
        write_index_png(tmp_path / "a.png", values)


# ------------------------------------------------------------------ VOC

OBJECTS = numbers((255, 1, 1, 12, 12), (1, 2, 2, 10, 10), (2, 15, 5, 20, 15), (3, 22, 5, 28, 15))
CLASSES = numbers((255, 1, 1, 12, 12), (15, 2, 2, 10, 10), (12, 15, 5, 20, 15), (15, 22, 5, 28, 15))


def write_voc(root, splits=(), coloured=False, objects=OBJECTS, classes=CLASSES, name="a"):
    """One image with a person, a dog and a person, with VOC's outlines of 255."""
    (root / "JPEGImages").mkdir(parents=True, exist_ok=True)
    Image.new("RGB", SIZE[::-1]).save(root / "JPEGImages" / f"{name}.jpg")
    for folder, values in (("SegmentationObject", objects), ("SegmentationClass", classes)):
        (root / folder).mkdir(exist_ok=True)
        if coloured:
            Image.fromarray(colormap()[values]).save(root / folder / f"{name}.png")
        else:
            write_index_png(root / folder / f"{name}.png", values)
    for split in splits:
        folder = root / "ImageSets" / "Segmentation"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{split}.txt").write_text(f"{name}\n")


@pytest.mark.parametrize("coloured", [False, True], ids=["palette", "colours"])
def test_outlines_are_no_objects_and_classes_are_those_of_voc(tmp_path, coloured):
    write_voc(tmp_path, coloured=coloured)
    assert recognise(tmp_path) == "voc"
    data = voc.find(tmp_path)["train"]()
    people = ("person", OBJECTS == 1), ("person", OBJECTS == 3)
    assert_objects(found(data)[0], [*people, ("dog", OBJECTS == 2)])
    assert data.category_ids == list(range(1, 21))


LABELMAP = """# label:color_rgb:parts:actions
background:0,0,0::
cup:10,20,30::
spoon:0,128,0::
"""


def test_a_labelmap_of_cvat_gives_names_and_colours(tmp_path):
    write_voc(tmp_path, coloured=True)
    colours = np.array([[0, 0, 0], [10, 20, 30], [0, 128, 0]], np.uint8)
    classes = numbers((1, 2, 2, 10, 10), (2, 15, 5, 20, 15), (2, 22, 5, 28, 15))
    Image.fromarray(colours[classes]).save(tmp_path / "SegmentationClass" / "a.png")
    (tmp_path / "labelmap.txt").write_text(LABELMAP)
    data = voc.find(tmp_path)["train"]()
    assert data.classes == ["cup", "spoon"] and data.category_ids == [1, 2]
    spoons = ("spoon", OBJECTS == 2), ("spoon", OBJECTS == 3)
    assert_objects(found(data)[0], [("cup", OBJECTS == 1), *spoons])
    (tmp_path / "labelmap.txt").write_text("cup:red::\n")
    with pytest.raises(ValueError, match=r"labelmap\.txt: expected NAME:R,G,B:PARTS:ACTIONS"):
        voc.find(tmp_path)


@pytest.mark.parametrize("first", ["_background_\n", "__ignore__\n_background_\n", ""])
def test_names_of_labelme_count_from_the_background(tmp_path, first):
    write_voc(tmp_path, classes=np.where(CLASSES == 15, 1, np.where(CLASSES == 12, 2, CLASSES)))
    (tmp_path / "class_names.txt").write_text(f"{first}cup\nspoon\n")
    data = voc.find(tmp_path)["train"]()
    cups = ("cup", OBJECTS == 1), ("cup", OBJECTS == 3)
    assert_objects(found(data)[0], [*cups, ("spoon", OBJECTS == 2)])


def test_names_of_labelme_are_whole_lines(tmp_path):
    """Neither comments nor colours, and only the first one is the background."""
    write_voc(tmp_path, classes=np.where(CLASSES == 15, 1, np.where(CLASSES == 12, 3, CLASSES)))
    names = ["#1", "animal:cat", "background", "__ignore__"]
    (tmp_path / "class_names.txt").write_text("\n".join(["_background_", *names]))
    data = voc.find(tmp_path)["train"]()
    assert data.classes == names and data.category_ids == [1, 2, 3, 4]
    first = ("#1", OBJECTS == 1), ("#1", OBJECTS == 3)
    assert_objects(found(data)[0], [*first, ("background", OBJECTS == 2)])


@pytest.mark.parametrize("line", ["my photo 0", '"my photo 0"', "my  1", "my"])
def test_a_line_of_a_list_is_an_id_or_begins_with_one(tmp_path, line):
    for name in ("my photo 0", "my"):
        write_voc(tmp_path, ["train"], name=name)
    (tmp_path / "ImageSets" / "Segmentation" / "train.txt").write_text(f"{line}\n")
    (record,) = voc.find(tmp_path)["train"]().records
    expected = "my photo 0" if "photo" in line else "my"
    assert record["image_id"] == f"JPEGImages/{expected}.jpg"


def test_an_object_has_the_class_of_most_of_its_pixels(tmp_path):
    classes = CLASSES.copy()
    classes[2:5, 2:10] = 12  # 24 of 64 pixels of the first person
    write_voc(tmp_path, classes=classes)
    (objects,) = found(voc.find(tmp_path)["train"]())
    assert sorted(name for name, _ in objects) == ["dog", "person", "person"]


@pytest.mark.parametrize(
    ("files", "splits"),
    [
        ({"train": "a", "val": "b", "trainval": "c"}, {"train": "a", "val": "b"}),
        ({"trainval": "a"}, {"train": "a"}),
        ({"default": "b"}, {"train": "b"}),
        ({"Train": "a", "Test": "c"}, {"train": "a", "val": "c"}),
        ({"mine": "c"}, {"train": "c"}),
        ({"val": "a"}, {"val": "a"}),
        ({"val": "a", "test": "b"}, {"val": "a"}),
    ],
)
def test_lists_of_ids_are_splits(tmp_path, files, splits):
    for name in "abc":
        write_voc(tmp_path, [key for key, value in files.items() if value == name], name=name)
    ids = {
        split: [x["image_id"] for x in read().records] for split, read in voc.find(tmp_path).items()
    }
    assert ids == {split: [f"JPEGImages/{name}.jpg"] for split, name in splits.items()}


def test_boxes_of_voc_are_refused_with_the_reason(tmp_path):
    (tmp_path / "Annotations").mkdir()
    (tmp_path / "JPEGImages").mkdir()
    (tmp_path / "Annotations/a.xml").write_text("<annotation></annotation>")
    with pytest.raises(ValueError, match="looks like voc data, but its xml files hold boxes, and"):
        recognise(tmp_path)
    with pytest.raises(ValueError, match="add SegmentationObject and SegmentationClass, or poly"):
        voc.find(tmp_path)


def test_what_is_missing_of_voc_is_named(tmp_path):
    write_voc(tmp_path, ["train"])
    (tmp_path / "ImageSets" / "Segmentation" / "train.txt").write_text("a\nb\n")
    note = "1 image without a mask (a PNG of its name) left out"
    assert note in voc.find(tmp_path)["train"]().notes
    (tmp_path / "ImageSets" / "Segmentation" / "train.txt").write_text("b\n")
    with pytest.raises(ValueError, match=rf"no images with annotations \({re.escape(note)}\)"):
        voc.find(tmp_path)["train"]()
    (tmp_path / "ImageSets" / "Segmentation" / "train.txt").write_text("../JPEGImages/a\n")
    with pytest.raises(ValueError, match="leads out of"):
        voc.find(tmp_path)["train"]()
    (tmp_path / "ImageSets" / "Segmentation" / "train.txt").write_text("a\n")
    (tmp_path / "JPEGImages" / "a.jpg").unlink()
    with pytest.raises(ValueError, match="no image 'a', though there is a mask of that name"):
        voc.find(tmp_path)["train"]()


@pytest.mark.parametrize("folder", ["JPEGImages", "SegmentationObject", "SegmentationClass"])
def test_half_of_voc_is_named(tmp_path, folder):
    write_voc(tmp_path)
    (tmp_path / folder).rename(tmp_path / "elsewhere")
    with pytest.raises(ValueError, match=f"looks like voc data, but has no folder {folder}"):
        recognise(tmp_path)
    with pytest.raises(ValueError, match=f"has no folder {folder}"):
        voc.find(tmp_path)


# ------------------------------------------------------------------ images and masks


def write_masks(root, values, name="a"):
    for folder in ("images", "masks"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    Image.new("RGB", SIZE[::-1]).save(root / "images" / f"{name}.jpg")
    write_index_png(root / "masks" / f"{name}.png", values)


def test_values_are_numbers_of_objects(tmp_path):
    write_masks(tmp_path, OBJECTS)
    assert recognise(tmp_path) == "masks"
    data = masks.find(tmp_path)["train"]()
    assert_objects(found(data)[0], [("object", OBJECTS == k) for k in (1, 2, 3)])


def test_values_with_classes_are_1000_times_the_class_and_a_number(tmp_path):
    values = numbers((1001, 0, 0, 5, 5), (2001, 6, 0, 9, 5), (2255, 10, 0, 15, 5))
    values += numbers((2, 0, 10, 5, 15), (2, 20, 10, 25, 15))
    write_masks(tmp_path, values)
    (tmp_path / "classes.txt").write_text("cup\n\nspoon\n")
    parts = [numbers((2, x, 10, x + 5, 15)) == 2 for x in (0, 20)]
    expected = [("cup", values == 1001)]
    expected += [("spoon", mask) for mask in (values == 2001, values == 2255, *parts)]
    assert_objects(found(masks.find(tmp_path)["train"]())[0], expected)


def test_a_mask_of_black_and_white_has_an_object_in_every_part(tmp_path):
    values = numbers((255, 0, 0, 5, 5), (255, 5, 5, 8, 8), (255, 20, 0, 25, 5))
    write_masks(tmp_path, values)
    touching = numbers((1, 0, 0, 5, 5), (1, 5, 5, 8, 8)) == 1
    expected = [("object", touching), ("object", numbers((1, 20, 0, 25, 5)) == 1)]
    assert_objects(found(masks.find(tmp_path)["train"]())[0], expected)


def test_masks_in_colour_have_an_object_of_each_colour_and_no_class(tmp_path):
    write_masks(tmp_path, OBJECTS)
    Image.fromarray(colormap()[numbers((9, 0, 0, 5, 5), (7, 6, 0, 9, 5))]).save(
        tmp_path / "masks" / "a.png"
    )
    expected = [numbers((1, 0, 0, 5, 5)) == 1, numbers((1, 6, 0, 9, 5)) == 1]
    data = masks.find(tmp_path)["train"]()
    assert_objects(found(data)[0], [("object", mask) for mask in expected])
    (tmp_path / "classes.txt").write_text("cup")
    with pytest.raises(ValueError, match=r"a\.png is in colour, which says no class"):
        masks.find(tmp_path)["train"]()


def test_masks_and_images_belong_together_by_name(tmp_path):
    for split in ("train", "val"):
        write_masks(tmp_path / split, OBJECTS, split)
    Image.new("RGB", (5, 5)).save(tmp_path / "train" / "images" / "bare.png")
    readers = masks.find(tmp_path)
    assert [x["image_id"] for x in readers["val"]().records] == ["val/images/val.jpg"]
    note = "1 image without a mask (a PNG of its name) left out"
    assert readers["train"]().notes.endswith(note)
    (tmp_path / "train" / "masks" / "train.png").rename(tmp_path / "train" / "masks" / "train.bmp")
    with pytest.raises(ValueError, match=r"no images with annotations \(2 images without a mask"):
        readers["train"]()
    (tmp_path / "val" / "images" / "val.jpg").unlink()
    with pytest.raises(ValueError, match=r"val\.png: no image of this name in"):
        readers["val"]()
    Image.new("RGB", (9, 9)).save(tmp_path / "val" / "images" / "val.jpg")
    with pytest.raises(ValueError, match="cannot be used: its RLE"):
        readers["val"]()


def test_a_folder_that_fits_two_formats_or_half_of_one_is_told(tmp_path):
    write_masks(tmp_path, OBJECTS)
    write_voc(tmp_path)
    with pytest.raises(ValueError, match=r"can be read as voc and as masks; say which: --data voc"):
        recognise(tmp_path)
    (tmp_path / "half" / "masks").mkdir(parents=True)
    with pytest.raises(ValueError, match="looks like masks data, but has no folder images"):
        recognise(tmp_path / "half")
    (tmp_path / "none").mkdir()
    with pytest.raises(ValueError, match=r"none: a dataset of no format .*here are: nothing"):
        recognise(tmp_path / "none")
    (tmp_path / "city" / "gtFine").mkdir(parents=True)
    with pytest.raises(ValueError, match="looks like cityscapes data, but has no folder leftImg8"):
        recognise(tmp_path / "city")
    Image.new("RGBA", (5, 5)).save(tmp_path / "none" / "cup.png")
    with pytest.raises(ValueError, match="looks like matting data, but holds cut-outs alone"):
        recognise(tmp_path / "none")
