"""LabelMe: what its shapes, groups, labels and paths mean to its own converters."""

from __future__ import annotations

import base64
import io
import json
import os

import numpy as np
import pytest
from PIL import Image

from solo_d2.data.datasets.labelme import find, recognise
from solo_d2.data.sources import recognise as kind_of
from solo_d2.io.segmentation import decode_mask

SIZE = (20, 30)


def write(folder, name, shapes, image="same", **more):
    """NAME.json as labelme writes it, and an image of SIZE beside it."""
    folder.mkdir(parents=True, exist_ok=True)
    if image == "same":
        image = f"{name}.png"
        Image.new("RGB", SIZE[::-1]).save(folder / image)
    content = {"version": "5.5.0", "flags": {}, "shapes": shapes, "imagePath": image}
    content |= {"imageData": None, "imageHeight": SIZE[0], "imageWidth": SIZE[1], **more}
    (folder / f"{name}.json").write_text(json.dumps(content))


def shape(label, points, kind="polygon", group=None, **more):
    return {"label": label, "points": points, "shape_type": kind, "group_id": group} | more


def box(x0, y0, x1, y1):
    return [[x0, y0], [x1, y0], [x1, y1], [x0, y1]]


def filled(*boxes):
    mask = np.zeros(SIZE, bool)
    for x0, y0, x1, y1 in boxes:
        mask[y0:y1, x0:x1] = True
    return mask


def objects(data):
    """Class and mask of every object, image by image."""
    return [
        [
            (data.classes[x["category_id"]], decode_mask(x["segmentation"], SIZE))
            for x in record["annotations"]
        ]
        for record in data.records
    ]


def only(tmp_path, *shapes):
    write(tmp_path, "a", list(shapes))
    data = find(tmp_path)["train"]()
    (found,) = objects(data)
    return data, found


def test_polygons_and_rectangles_are_objects_and_labels_are_classes(tmp_path):
    data, found = only(
        tmp_path,
        shape("spoon", box(2, 3, 10, 8)),
        shape("cup", [[20, 12], [12, 5]], "rectangle"),
    )
    assert data.classes == ["cup", "spoon"] and data.category_ids == [1, 2]
    assert [name for name, _ in found] == ["spoon", "cup"]
    np.testing.assert_array_equal(found[0][1], filled((2, 3, 10, 8)))
    np.testing.assert_array_equal(found[1][1], filled((12, 5, 20, 12)))
    assert data.notes == ""
    assert data.records[0]["image_id"] == "a.png"


def test_shapes_of_one_group_and_label_are_one_object(tmp_path):
    _, found = only(
        tmp_path,
        shape("cup", box(0, 0, 5, 5), group=1),
        shape("cup", box(10, 0, 15, 5), group=1),
        shape("spoon", box(0, 10, 5, 15), group=1),
        shape("cup", box(20, 0, 25, 5)),
        shape("cup", box(20, 10, 25, 15)),
    )
    assert [name for name, _ in found] == ["cup", "spoon", "cup", "cup"]
    np.testing.assert_array_equal(found[0][1], filled((0, 0, 5, 5), (10, 0, 15, 5)))


def mask_shape(label, mask, x, y, group=None):
    """A shape as labelme's AI tools make it: points of the first and of the last pixel."""
    file = io.BytesIO()
    Image.fromarray(mask.astype(np.uint8) * 255).save(file, "PNG")
    height, width = mask.shape
    points = [[x, y], [x + width - 1, y + height - 1]]
    text = base64.b64encode(file.getvalue()).decode()
    return shape(label, points, "mask", group, mask=text)


def test_masks_keep_their_holes_and_join_polygons_of_their_group(tmp_path):
    ring = np.ones((5, 6), bool)
    ring[2, 2:4] = False
    _, found = only(
        tmp_path,
        mask_shape("cup", ring, 4, 3),
        mask_shape("ring", ring, 4, 3, group=7),
        shape("ring", box(20, 10, 25, 15), group=7),
    )
    expected = np.zeros(SIZE, bool)
    expected[3:8, 4:10] = ring
    np.testing.assert_array_equal(found[0][1], expected)
    np.testing.assert_array_equal(found[1][1], expected | filled((20, 10, 25, 15)))


def test_a_mask_at_the_border_is_cut_off(tmp_path):
    _, found = only(tmp_path, mask_shape("cup", np.ones((5, 5), bool), 28, -2))
    np.testing.assert_array_equal(found[0][1], filled((28, 0, 30, 3)))


def test_a_circle_is_known_by_its_centre_and_a_point_on_it(tmp_path):
    _, found = only(tmp_path, shape("ball", [[15, 10], [15, 2]], "circle"))
    rows, columns = np.mgrid[: SIZE[0], : SIZE[1]] + 0.5
    distance = np.hypot(rows - 10, columns - 15)
    assert found[0][1][distance < 7].all() and not found[0][1][distance > 9].any()


def test_what_is_no_object_is_left_out_and_counted(tmp_path):
    Image.new("RGB", (5, 5)).save(tmp_path / "unlabelled.jpg")
    data, found = only(
        tmp_path,
        shape("cup", box(2, 3, 10, 8)),
        shape("_background_", box(0, 0, 30, 20)),
        shape("__ignore__", box(0, 0, 3, 3)),
        shape("cup", [[1, 1]], "point"),
        shape("cup", [[1, 1], [5, 5]], "line"),
    )
    assert [name for name, _ in found] == ["cup"] and data.classes == ["cup"]
    assert data.notes.partition(": ")[2] == (
        "2 __ignore__ or _background_ shapes left out; 2 point or line shapes left out; "
        "1 unlabelled image left out"
    )


@pytest.mark.parametrize(
    "text", ['[{"id": 1}]', '{"a": 1}\n{"a": 2}\n', "", "no json", '{"categories": []}', "\x00"]
)
def test_other_json_files_of_any_form_are_counted_and_not_read(tmp_path, text):
    (tmp_path / "results.json").write_text(text)
    data, found = only(tmp_path, shape("cup", box(2, 3, 10, 8)))
    assert len(found) == 1 and data.notes.endswith(": 1 other json file left out")
    # Beside an image of its name it is LabelMe's, and broken.
    Image.new("RGB", SIZE[::-1]).save(tmp_path / "results.JPG")
    if text != '{"categories": []}':
        with pytest.raises(ValueError, match=r"results\.json"):
            find(tmp_path)["train"]()


@pytest.mark.parametrize("mark", ["metrics.json", "last_checkpoint"])
def test_a_training_inside_of_the_folder_is_no_part_of_the_dataset(tmp_path, mark):
    data, _ = only(tmp_path, shape("cup", box(2, 3, 10, 8)))
    drawn = tmp_path / "output" / "inference" / "drawn"
    write(drawn, "b", [shape("spoon", box(2, 3, 10, 8))])
    Image.new("RGB", SIZE[::-1]).save(drawn / "c.png")
    (tmp_path / "output" / mark).write_text('{"loss": 1}\n{"loss": 2}\n')
    again = find(tmp_path)["train"]()
    assert again.classes == data.classes == ["cup"] and not again.notes
    assert [x["file_name"] for x in again.records] == [x["file_name"] for x in data.records]
    # What is named itself is read, whatever else lies there.
    assert find(drawn)["train"]().classes == ["spoon"]
    (drawn / mark).write_text("")
    assert find(drawn)["train"]().classes == ["spoon"]


def test_images_are_found_where_the_file_says_or_beside_it(tmp_path):
    shapes = [shape("cup", box(2, 3, 10, 8))]
    (tmp_path / "images").mkdir()
    for name in ("b", "d"):
        Image.new("RGB", SIZE[::-1]).save(tmp_path / "images" / f"{name}.jpg")
    write(tmp_path / "labels", "b", shapes, image="..\\images\\b.jpg")
    write(tmp_path / "images", "d", shapes, image="C:\\Users\\me\\d.jpg")
    data = find(tmp_path)["train"]()
    assert [x["image_id"] for x in data.records] == ["images/b.jpg", "images/d.jpg"]
    write(tmp_path, "e", shapes, image="gone.jpg", imageData="abcd")
    with pytest.raises(ValueError, match=r"its image 'gone\.jpg' is not in .*copy in the file"):
        find(tmp_path)["train"]()


def test_an_image_outside_of_the_folder_is_not_read(tmp_path):
    Image.new("RGB", SIZE[::-1]).save(tmp_path / "secret.png")
    write(tmp_path / "data", "a", [], image="../secret.png")
    with pytest.raises(ValueError, match=r"its image '\.\./secret\.png' is not in"):
        find(tmp_path / "data")["train"]()


def test_an_image_that_is_turned_by_its_exif_block_is_labelled_upright(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", SIZE).save(tmp_path / "a.jpg", exif=exif)  # 20 wide, 30 high as stored
    write(tmp_path, "a", [shape("cup", box(20, 3, 29, 8))], image="a.jpg")
    (record,) = find(tmp_path)["train"]().records
    assert (record["height"], record["width"]) == SIZE
    sizes = {"imageHeight": SIZE[1], "imageWidth": SIZE[0]}
    write(tmp_path, "a", [shape("cup", box(2, 3, 9, 8))], image="a.jpg", **sizes)
    with pytest.raises(ValueError, match="before its EXIF orientation turns it"):
        find(tmp_path)["train"]()


def test_subfolders_are_splits(tmp_path):
    for split in ("Train", "valid"):
        write(tmp_path / split, f"of_{split}", [shape("cup", box(2, 3, 10, 8))])
    readers = find(tmp_path)
    ids = {split: read().records[0]["image_id"] for split, read in readers.items()}
    assert ids == {"train": "Train/of_Train.png", "val": "valid/of_valid.png"}


@pytest.mark.parametrize(
    ("shapes", "message"),
    [
        ([{"points": []}], r"a\.json: the shape 1 has no label"),
        ([shape("cup", "abc")], r"the shape 1 has the points 'abc'; expected pairs"),
        ([shape("cup", [[1, 2, 3], [4, 5, 6]])], r"has the points .*; expected pairs of numbers"),
        ([shape("cup", box(0, 0, 1, 1), "cube")], r"the shape 1 is a 'cube'; known are polygon"),
        ([shape("cup", [[0, 0]], "rectangle")], r"a rectangle, has the points .*expected two"),
        ([shape("cup", box(100, 0, 200, 1))], r"annotation 'a\.json #1' cannot be used"),
        (
            [shape("cup", [[0, 0], [2, 2]], "mask", mask="AAAA")],
            r"the shape 1 has a mask that cannot be read",
        ),
        ([shape("_background_", box(0, 0, 1, 1))], r"no object in 1 images has a class"),
    ],
)
def test_what_cannot_be_read_is_named(tmp_path, shapes, message):
    write(tmp_path, "a", shapes)
    with pytest.raises(ValueError, match=message):
        find(tmp_path)["train"]()


def test_a_folder_is_recognised_by_one_of_its_files(tmp_path):
    assert recognise(tmp_path) is None
    (tmp_path / "0.json").write_text("{}")
    os.mkfifo(tmp_path / "1.json")  # opening it would wait forever
    write(tmp_path / "deep", "a", [])
    assert recognise(tmp_path) == "" and kind_of(tmp_path) == "labelme"
    write(tmp_path / "deep", "a", [shape("cup", [[k, k] for k in range(9000)])])
    assert (tmp_path / "deep" / "a.json").stat().st_size > 2**16
    assert recognise(tmp_path) == ""
