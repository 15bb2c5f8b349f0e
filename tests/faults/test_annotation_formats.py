"""Faults of LVIS and panoptic files and of Cityscapes' folders, and what whole files have wrong.

The reader of COCO files has a table of its own; that the others share its checks is shown here.
"""

from __future__ import annotations

import json
import logging
import math

import numpy as np
import pytest
from cityscapes_folder import write_folder
from detectron2.data import DatasetCatalog, MetadataCatalog
from panoptic_scenes import write_scenes
from PIL import Image
from pycocotools import mask as mask_util

from solo_d2.data.datasets.cityscapes import load_cityscapes
from solo_d2.data.datasets.coco_json import load_coco_json, register_coco_json
from solo_d2.data.datasets.lvis import load_lvis_json, main
from solo_d2.data.datasets.panoptic import load_coco_panoptic

H, W, SIDE = 50, 70, 18
NAME = "faulty_format"


def square(x, y, side=SIDE):
    return [x, y, x + side, y, x + side, y + side, x, y + side]


def content(images=10, **more):
    """One square in every image; with `more` keys of every image."""
    return {
        "images": [
            {"id": k, "file_name": f"p{k}.png", "height": H, "width": W, **more}
            for k in range(1, images + 1)
        ],
        "annotations": [
            {
                **{"id": k, "image_id": k, "category_id": 1, "segmentation": [square(20, 12)]},
                **{"bbox": [20, 12, SIDE, SIDE], "area": 324.0, "iscrowd": 0},
            }
            for k in range(1, images + 1)
        ],
        "categories": [{"id": 1, "name": "cup"}, {"id": 2, "name": "fork"}],
    }


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("formats")
    for k in range(1, 41):
        Image.new("RGB", (W, H)).save(path / f"p{k}.png")
    return path


def write(folder, made):
    (folder / "set.json").write_text(json.dumps(made))
    return folder / "set.json"


def refused(read, *messages):
    with pytest.raises(ValueError) as error:
        read()
    line = str(error.value)
    assert "\n" not in line
    for message in messages:
        assert message in line


# What is left of a file


def spoil(indices, **values):
    def change(made):
        for k in indices:
            made["annotations"][k].update(values)

    return change


LINE, BAD_RLE = [[1, 1, 5, 5, 9, 9]], {"size": [H, W], "counts": "52203"}
SHARES = [  # of 20 annotations: what is spoiled, and how many are left; or None: refused
    ("one broken RLE", spoil([3], segmentation=BAD_RLE), 19),
    ("a tenth of broken RLE", spoil([3, 4], segmentation=BAD_RLE), 18),
    ("more than a tenth", spoil([3, 4, 5], segmentation=BAD_RLE), None),
    ("one unknown category", spoil([3], category_id=7), 19),
    ("one unknown image", spoil([3], image_id=77), 19),
    ("one with the wrong iscrowd", spoil([3], iscrowd="maybe"), 19),
    ("one without a mask", spoil([3], segmentation=None), 19),
    ("half without a mask", spoil(range(10), segmentation=None), 10),
    ("most without a mask", spoil(range(11), segmentation=None), None),
    ("most cover nothing", spoil(range(18), segmentation=LINE), 2),
    ("almost all cover nothing", spoil(range(19), segmentation=LINE), None),
    ("all cover nothing", spoil(range(20), segmentation=LINE), None),
    ("almost all, for two reasons", lambda c: [spoil(range(10), segmentation=None)(c),
                                               spoil(range(10, 19), segmentation=LINE)(c)], None),
]  # fmt: skip


@pytest.mark.parametrize(("change", "left"), [x[1:] for x in SHARES], ids=[x[0] for x in SHARES])
def test_a_few_annotations_are_left_out_and_counted(folder, caplog, change, left):
    made = content(20)
    change(made)
    path = write(folder, made)
    if left is None:
        refused(lambda: load_coco_json(path, folder), "set.json: annotation ", "of 20 in all")
        return
    data = load_coco_json(path, folder)
    assert sum(len(record["annotations"]) for record in data.records) == left
    (line,) = [x.getMessage() for x in caplog.records]
    assert f"dropped, {left} of 20 are left" in line
    assert "set.json" in line


def test_reasons_are_counted_with_their_first_ids(folder, caplog):
    made = content(40)
    spoil(range(1, 8), segmentation=LINE)(made)
    spoil([20], segmentation=BAD_RLE)(made)
    spoil([30], bbox=None)(made)
    load_coco_json(write(folder, made), folder)
    (line,) = [x.getMessage() for x in caplog.records]
    assert "7 annotations cover nothing (2, 3, 4, 5, 6 and 2 more)" in line
    assert "1 annotation has an RLE that is no mask of their image (21)" in line
    assert "1 annotation lacked a box" in line
    assert "(31)" in line
    assert "classes without objects: 'fork'" in line


def test_what_was_found_is_said_once_whatever_is_read_again(folder, caplog):
    made = content()
    spoil([3], segmentation=LINE)(made)
    try:
        register_coco_json(NAME, write(folder, made), folder)
        for _ in range(3):
            DatasetCatalog.get(NAME)
        assert len([x for x in caplog.records if "set.json" in x.getMessage()]) == 1
    finally:
        DatasetCatalog.remove(NAME)
        MetadataCatalog.remove(NAME)


def test_nothing_is_said_about_a_faultless_file(folder, caplog):
    made = content()
    made["annotations"][3]["category_id"] = 2
    load_coco_json(write(folder, made), folder)
    assert not caplog.records


# Boxes


def corners(x):
    return [x["bbox"][0], x["bbox"][1], x["bbox"][0] + SIDE, x["bbox"][1] + SIDE]


@pytest.mark.parametrize("form", ["polygon", "rle"])
@pytest.mark.parametrize(
    ("spoiled", "box", "corrected", "said"),
    [
        (10, corners, True, "10 of 10 boxes are x, y, x, y where COCO has x, y, width, height"),
        (10, lambda x: [0, 0, 3, 3], True, "10 of 10 boxes do not fit"),
        (6, corners, True, "6 of 10 boxes are x, y, x, y"),
        (5, corners, False, ""),  # half: nobody knows which are wrong
        (10, lambda x: [19, 11.5, 20, 19], False, ""),  # rounded another way
    ],
)
def test_boxes_that_are_no_boxes_of_the_masks(folder, caplog, form, spoiled, box, corrected, said):
    made = content()
    if form == "rle":
        mask = np.zeros((H, W), np.uint8, order="F")
        mask[12:30, 20:38] = 1
        counts = mask_util.encode(mask)["counts"].decode()
        spoil(range(10), segmentation={"size": [H, W], "counts": counts})(made)
    for x in made["annotations"][:spoiled]:
        x["bbox"] = box(x)
    records = load_coco_json(write(folder, made), folder).records
    boxes = [x["bbox"] for record in records for x in record["annotations"]]
    expected = (
        [[20, 12, SIDE, SIDE]] * 10 if corrected else [x["bbox"] for x in made["annotations"]]
    )
    assert boxes == expected
    assert said in caplog.text
    assert ("boxes" in caplog.text) == bool(said)


# Objects and images


def test_a_polygon_that_cancels_itself_is_kept_if_it_covers_pixels(folder):
    made = content()
    spoil([3], segmentation=[[10, 10, 30, 30, 30, 10, 10, 30]])(made)  # an hourglass
    data = load_coco_json(write(folder, made), folder)
    assert len(data.records[3]["annotations"]) == 1


def test_objects_that_reach_out_of_the_image_are_counted(folder, caplog):
    made = content()
    spoil([3], segmentation=[square(60, 12, 30)], bbox=[60, 12, 30, 30])(made)
    spoil([4], segmentation=[square(53, 12)], bbox=[53, 12, 18, 18])(made)  # by one pixel
    data = load_coco_json(write(folder, made), folder)
    assert [len(x["annotations"]) for x in data.records] == [1] * 10
    assert "1 annotation reaches far out of the image" in caplog.text
    assert "(4)" in caplog.text


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: [x.update(height=W, width=H) for x in c["images"]], "10 of 10 images"),
        (lambda c: c["images"][7].update(height=W, width=H), "the image 8: "),
        (lambda c: c["images"][7].update(height=H - 1), "70x50 pixels, its annotations say 70x49"),
        (lambda c: (c["images"][7].update(height=W, width=H),
                    c["annotations"][7].update(segmentation=[square(51, 30)])), "exchanged"),
        (lambda c: (c["images"][7].update(height=W, width=H), c["annotations"][7].update(
            segmentation={"size": [H, W], "counts": [H * W]})), "exchanged"),
    ],
)  # fmt: skip
def test_sizes_are_compared_with_the_images(folder, change, message):
    made = content()
    change(made)
    refused(lambda: load_coco_json(write(folder, made), folder), "set.json", message)


def test_sizes_are_those_of_the_turned_image(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (H, W)).save(tmp_path / "p1.jpg", exif=exif)  # upright W wide and H high
    made = content(1)
    made["images"][0]["file_name"] = "p1.jpg"
    assert len(load_coco_json(write(tmp_path, made), tmp_path).records) == 1
    del made["images"][0]["height"], made["images"][0]["width"]
    (record,) = load_coco_json(write(tmp_path, made), tmp_path).records
    assert (record["height"], record["width"]) == (H, W)
    made["images"][0].update(height=W, width=H)
    refused(lambda: load_coco_json(write(tmp_path, made), tmp_path), "EXIF")


@pytest.mark.parametrize("count", [1, 3])
def test_missing_images_are_counted(folder, count):
    made = content()
    for image in made["images"][:count]:
        image["file_name"] = f"none{image['id']}.png"
    wanted = "none1.png, named in " if count == 1 else "3 of 10 images are missing"
    refused(lambda: load_coco_json(write(folder, made), folder), "does not exist", wanted)


def test_absolute_names_inside_of_the_folder_are_read(folder):
    made = content(1)
    made["images"][0]["file_name"] = str(folder / "p1.png")
    (record,) = load_coco_json(write(folder, made), folder).records
    assert record["file_name"] == str(folder / "p1.png")


def test_a_file_without_annotations_can_be_predicted(folder, caplog):
    made = content()
    for missing in ([], None, "absent"):
        made["annotations"] = missing
        if missing == "absent":
            del made["annotations"]
        data = load_coco_json(write(folder, made), folder)
        assert [len(x["annotations"]) for x in data.records] == [0] * 10
        assert not data.annotated
    assert not caplog.records


# Categories


def test_categories_of_one_name_are_told_apart_by_their_ids(folder, caplog):
    made = content()
    made["categories"] += [{"id": 5, "name": "cup"}]
    data = load_coco_json(write(folder, made), folder)
    assert data.classes == ["cup (id 1)", "fork", "cup (id 5)"]
    assert "categories share the names 'cup'" in caplog.text
    assert "classes without objects: 'fork', 'cup (id 5)'" in caplog.text


@pytest.mark.parametrize("count", [0, 1, 9])
def test_classes_without_objects_are_listed(folder, caplog, count):
    made = content()
    made["categories"] = [{"id": 1, "name": "cup"}]
    made["categories"] += [{"id": 10 + k, "name": f"_{k}_"} for k in range(count)]
    load_coco_json(write(folder, made), folder)
    assert ("classes without objects: '_0_'" in caplog.text) == (count > 0)
    assert ("and 4 more" in caplog.text) == (count == 9)


# Metadata


@pytest.mark.parametrize(
    ("change", "standard"),
    [
        (lambda c: None, True),
        (spoil([3], area=None), False),
        (spoil([3], image_id="4"), False),
        (spoil([3], segmentation=square(20, 12)), False),
        (lambda c: c["images"][0].pop("height"), False),
        (lambda c: c["categories"].append({"id": 3, "name": "cup"}), False),
    ],
)
def test_other_programs_get_only_files_that_they_read_alike(folder, change, standard):
    made = content()
    change(made)
    try:
        register_coco_json(NAME, write(folder, made), folder)
        assert (MetadataCatalog.get(NAME).get("json_file") is not None) == standard
    finally:
        DatasetCatalog.remove(NAME)
        MetadataCatalog.remove(NAME)


# LVIS


def lvis(**more):
    made = content(3, neg_category_ids=[2], not_exhaustive_category_ids=[], **more)
    for k, category in enumerate(made["categories"]):
        category.update(frequency="rc"[k], image_count=k)
    for annotation in made["annotations"]:
        del annotation["iscrowd"]
    return made


def first_image(**values):
    return lambda c: c["images"][0].update(values)


LVIS = [
    ("faultless", lambda c: None, None),
    ("flat polygon", spoil([1], segmentation=square(20, 12)), None),
    ("text ids", spoil([1], image_id="2"), None),
    ("no area and no box", spoil([1], area=None, bbox=None), None),
    ("neg_category_ids of texts", first_image(neg_category_ids=["2"]), None),
    ("image_count alone", lambda c: c["categories"][0].pop("frequency"), None),
    ("image_count a float", lambda c: c["categories"][0].update(frequency=None, image_count=3.0),
     None),
    ("no annotations", lambda c: c.pop("annotations"), None),
    ("a test set", lambda c: (c.pop("annotations"), [x.pop("neg_category_ids")
                                                     for x in c["images"]]), None),
    ("cut RLE", spoil([1], segmentation=BAD_RLE), "annotation 2 cannot be used: its RLE"),
    ("coordinate 4e9", spoil([1], segmentation=[[0, 5, 4e9, 5, 4e9, 4e9]]), "far outside"),
    ("an annotation a number", lambda c: c["annotations"].append(7), "an entry of 'annotations'"),
    ("an image a text", lambda c: c["images"].append("x"), "an entry of 'images'"),
    ("neg_category_ids null", first_image(neg_category_ids=None), "None as 'neg_category_ids'"),
    ("neg_category_ids unknown", first_image(neg_category_ids=[9]), "[9] as 'neg_category_ids'"),
    ("neg_category_ids of lists", first_image(neg_category_ids=[[2]]), "[[2]] as 'neg_cat"),
    ("coco_url above the folder", first_image(coco_url="http://x/../p1.png/.."), "leads out of"),
    ("coco_url a number", first_image(coco_url=5, file_name=None), "has the file name None"),
    ("no name", lambda c: [c["images"][0].pop(k) for k in ("file_name",)], "the file name None"),
    ("frequency unknown", lambda c: c["categories"][0].update(frequency="x", image_count="y"),
     "the category 1 has neither 'frequency'"),
]  # fmt: skip


@pytest.mark.parametrize(("change", "message"), [x[1:] for x in LVIS], ids=[x[0] for x in LVIS])
def test_an_lvis_file(folder, change, message):
    made = lvis()
    change(made)
    if message is None:
        data = load_lvis_json(write(folder, made), folder)
        assert len(data.records) == 3
        assert data.records[0]["neg_category_ids"] in ([2], [])
        assert data.frequencies == ("r", "c")
    else:
        refused(lambda: load_lvis_json(write(folder, made), folder), "set.json", message)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (spoil([1], segmentation=BAD_RLE, area=None), "annotation 2 cannot be used: its RLE"),
        (spoil([1], segmentation=None), "annotation 2 cannot be used: it has no 'segmentation'"),
        (spoil([1], image_id=[2]), "annotation 2 refers to the image [2]"),
        (spoil([1], category_id=9), "annotation 2 refers to the image 2 and the category 9"),
        (lambda c: c["images"][1].pop("height"), "the image 2 has no height and width"),
        (lambda c: c["images"][1].update(width="70"), "the width '70'"),
        (lambda c: c["annotations"].append({"id": 11}), "an entry of 'annotations' lacks"),
        (lambda c: c["categories"].append({"id": 11}), "an entry of 'categories' lacks ['name']"),
    ],
)
def test_a_coco_file_that_cannot_become_an_lvis_file(folder, capsys, change, message):
    made = content(3)
    for annotation in made["annotations"]:
        del annotation["bbox"]
    change(made)
    assert main([str(write(folder, made)), str(folder / "lvis.json")]) == 2
    line = capsys.readouterr().err
    assert message in line
    assert line.count("\n") == 1


# Panoptic


def panoptic(index=0, segment=0, **values):
    return lambda c: c["annotations"][index]["segments_info"][segment].update(values)


PANOPTIC = [
    ("faultless", lambda c: None, None),
    ("text ids", lambda c: c["annotations"][0].update(image_id="1"), None),
    ("category as a text", panoptic(category_id="7"), None),
    ("segment id as a float", panoptic(id=300.0), None),
    ("iscrowd null", panoptic(iscrowd=None), None),
    ("no sizes", lambda c: [(x.pop("height"), x.pop("width")) for x in c["images"]], None),
    ("isthing true and false", lambda c: [x.update(isthing=bool(x["isthing"]))
                                          for x in c["categories"]], None),
    ("segment id 0", panoptic(id=0), "a segment has the id 0; expected 1 to 16777215"),
    ("segment id too large", panoptic(id=2**24), "a segment has the id 16777216"),
    ("segment id a text", panoptic(id="x"), "a segment has the id 'x'"),
    ("category a list", panoptic(category_id=[7]), "the segment 300 has the category id [7]"),
    ("iscrowd a list", panoptic(iscrowd=[]), "has [] as 'iscrowd'"),
    ("a segment a number", lambda c: c["annotations"][0].update(segments_info=[5]),
     "a segment is 5"),
    ("segments an object", lambda c: c["annotations"][0].update(segments_info={"a": 1}),
     "'segments_info' is {'a': 1}"),
    ("an annotation a text", lambda c: c["annotations"].append("x"), "an annotation needs"),
    ("image_id a list", lambda c: c["annotations"][0].update(image_id=[1]), "not listed"),
    ("two annotations of an image", lambda c: c["annotations"].append(c["annotations"][0]),
     "has two annotations"),
    ("PNG name null", lambda c: c["annotations"][0].update(file_name=None), "the file name None"),
    ("PNG above the folder", lambda c: c["annotations"][0].update(file_name="../../x.png"),
     "leads out of the folder"),
    ("PNG absolute", lambda c: c["annotations"][0].update(file_name="/etc/hostname"),
     "leads out of the folder"),
    ("image above the folder", lambda c: c["images"][0].update(file_name="../../x.png"),
     "leads out of the folder"),
    ("isthing a text", lambda c: c["categories"][0].update(isthing="yes"), "'yes' as 'isthing'"),
    ("category a number", lambda c: c["categories"].append(7), "a category needs"),
    ("category twice", lambda c: c["categories"].append(c["categories"][0]), "comes twice"),
    ("height a text", lambda c: c["images"][0].update(height="64"), "the height '64'"),
    ("width and height exchanged", lambda c: c["images"][0].update(height=96, width=64),
     "exchanged"),
    ("image twice", lambda c: c["images"].append(c["images"][0]), "comes twice in 'images'"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("change", "message"), [x[1:] for x in PANOPTIC], ids=[x[0] for x in PANOPTIC]
)
def test_a_panoptic_file(tmp_path, change, message):
    files = write_scenes(tmp_path)
    expected = load_coco_panoptic(*files).records
    made = json.loads(files[0].read_text())
    change(made)
    files[0].write_text(json.dumps(made))
    if message is None:
        assert load_coco_panoptic(*files).records == expected
    else:
        refused(lambda: load_coco_panoptic(*files), "panoptic.json", message)


def test_a_panoptic_png_of_another_size_is_named(tmp_path):
    files = write_scenes(tmp_path)
    Image.open(files[1] / "1.png").crop((0, 0, 90, 64)).save(files[1] / "1.png")
    refused(lambda: load_coco_panoptic(*files), "1.png is 64 x 90, its image")


# Cityscapes


@pytest.mark.parametrize(
    ("pixels", "message"),
    [
        (np.full((64, 96), -1, np.int32), "which are no instance ids"),
        (np.full((64, 96), 2**30, np.int32), "which are no instance ids"),
        (np.full((64, 90), 7, np.uint8), "is an image of shape (64, 90)"),
        (np.full((64, 96, 3), 7, np.uint8), "is an image of shape (64, 96, 3)"),
    ],
)
def test_instance_ids_that_are_none(tmp_path, pixels, message):
    write_folder(tmp_path)
    file = next((tmp_path / "gtFine" / "val").rglob("*instanceIds.png"))
    Image.fromarray(pixels).save(file, format="TIFF")  # by content, whatever it is called
    refused(lambda: load_cityscapes(tmp_path, "val"), str(file), message)


def test_logging_is_that_of_the_package(folder, caplog):
    """So that it reaches log.txt, whatever the root logger does."""
    made = content()
    spoil([3], area=math.nan)(made)
    with caplog.at_level(logging.WARNING):
        load_coco_json(write(folder, made), folder)
    assert {x.name.split(".")[0] for x in caplog.records} == {"solo_d2"}
