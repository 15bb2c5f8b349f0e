"""Annotation files as tools write them and as accidents leave them: read as meant, or named.

One line of the tables is one fault. "read" means that the file gives the same objects as a
faultless one; a number is what is left of the annotations; a text is in the one line that
refuses the file, which always begins with its name.
"""

from __future__ import annotations

import json
import math
import os

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as mask_util

from solo_d2.data.datasets.coco_json import load_coco_json

H, W, SIDE = 50, 70, 18
MASK = np.zeros((H, W), np.uint8, order="F")
MASK[12:30, 35:53] = 1
RLE = mask_util.encode(MASK)["counts"].decode()


def square(x, y, side=SIDE):
    return [x, y, x + side, y, x + side, y + side, x, y + side]


def content(images=2):
    """Two squares of two classes in every image; annotation 2, 4, ... is `MASK`."""
    annotations = [
        {
            **{"id": 2 * k + j + 1, "image_id": k + 1, "category_id": j + 1, "iscrowd": 0},
            **{"segmentation": [square(5 + 30 * j, 12)], "bbox": [5 + 30 * j, 12, SIDE, SIDE]},
            "area": float(SIDE**2),
        }
        for k in range(images)
        for j in range(2)
    ]
    return {
        "images": [
            {"id": k + 1, "file_name": f"p{k + 1}.png", "height": H, "width": W}
            for k in range(images)
        ],
        "annotations": annotations,
        "categories": [{"id": 1, "name": "cup"}, {"id": 2, "name": "fork"}],
    }


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("set")
    for k in range(1, 41):
        Image.new("RGB", (W, H)).save(path / f"p{k}.png")
    (path / "deep").mkdir()
    Image.new("RGB", (W, H)).save(path / "deep" / "p1.png")
    return path


def write(folder, made, encoding="utf-8"):
    path = folder / "set.json"
    text = made if isinstance(made, str) else json.dumps(made)
    path.write_bytes(text.encode(encoding))
    return path


def decode(segmentation):
    if isinstance(segmentation, list):
        segmentation = mask_util.merge(mask_util.frPyObjects(segmentation, H, W))
    return mask_util.decode(segmentation)


def check(folder, made, expected, encoding="utf-8"):
    """Read a file: the faultless objects, so many of them, or a refusal with this text."""
    path = write(folder, made, encoding)
    if isinstance(expected, str) and expected != "read":
        with pytest.raises(ValueError) as error:
            load_coco_json(path, folder)
        line = str(error.value)
        assert expected in line
        assert line.startswith(str(path)) or f"named in {path}" in line
        assert "\n" not in line
        assert len(line) < 1000
        return
    data = load_coco_json(path, folder)
    found = [x for record in data.records for x in record["annotations"]]
    if expected != "read":
        assert len(found) == expected
        return
    assert data.classes == ["cup", "fork"]
    assert len(found) == 2 * len(data.records)
    for k, annotation in enumerate(found):
        mask = MASK if k % 2 else np.roll(MASK, -30, 1)
        np.testing.assert_array_equal(decode(annotation["segmentation"]), mask)
        assert annotation["bbox"] == [5 + 30 * (k % 2), 12, SIDE, SIDE]
        assert annotation["category_id"] == k % 2
        assert annotation["iscrowd"] == 0


PAIRS = [[35, 12], [53, 12], [53, 30], [35, 30]]
FLAT = square(35, 12)
RUNS = [35 * H + 12, *([SIDE, H - SIDE] * (SIDE - 1)), SIDE]
RUNS.append(H * W - sum(RUNS))
TOP, BOTTOM = MASK.copy(order="F"), MASK.copy(order="F")
TOP[20:], BOTTOM[:20] = 0, 0


def rle(counts, size=(H, W)):
    return {"size": list(size), "counts": counts}


def text_of(mask):
    return mask_util.encode(np.asfortranarray(mask))["counts"].decode()


FORMS = [  # of annotation 2 of two
    ("polygon", [FLAT], "read"),
    ("flat list", FLAT, "read"),
    ("pairs", PAIRS, "read"),
    ("nested pairs", [PAIRS], "read"),
    ("two nested polygons of pairs", [PAIRS[:3], [PAIRS[0], PAIRS[2], PAIRS[3]]], "read"),
    ("one level too many", [[FLAT]], "read"),
    ("two levels too many", [[[PAIRS]]], "read"),
    ("points as objects", [{"x": x, "y": y} for x, y in PAIRS], "read"),
    ("polygons of points as objects", [[{"x": x, "y": y} for x, y in PAIRS]], "read"),
    ("whole numbers as floats", [[float(v) for v in FLAT]], "read"),
    ("closed polygon", [[*FLAT, *FLAT[:2]]], "read"),
    ("a part of two points beside the polygon", [FLAT, [0, 0, 9, 9]], "read"),
    ("an empty part beside the polygon", [FLAT, []], "read"),
    ("a line beside the polygon", [FLAT, [0, 0, 5, 5, 9, 9]], "read"),
    ("a part outside of the image", [FLAT, square(200, 5)], "read"),
    ("a part with NaN beside the polygon", [FLAT, [1, 1, math.nan, 5, 9, 9]], "read"),
    ("RLE", rle(RLE), "read"),
    ("RLE in a list", [rle(RLE)], "read"),
    ("RLE in parts", [rle(text_of(TOP)), rle(text_of(BOTTOM))], "read"),
    ("RLE as runs", rle(RUNS), "read"),
    ("RLE as runs in a list", [rle(RUNS)], "read"),
    ("RLE with floats as runs", rle([float(v) for v in RUNS]), "read"),
    ("RLE with floats as size", rle(RLE, (50.0, 70.0)), "read"),
    ("RLE with more keys", {**rle(RLE), "order": "F"}, "read"),
    ("RLE with empty runs", rle([RUNS[0], 0, 0, *RUNS[1:4], 0, 0, *RUNS[4:]]), "read"),
    ("five levels too many", [[[[[[PAIRS]]]]]], "annotation 2 cannot be used"),
    ("odd count", [[*FLAT, 3]], "annotation 2 cannot be used: its polygon has 9 coordinates"),
    ("one of two parts odd", [FLAT, [*FLAT, 3]], "9 coordinates, an odd number"),
    ("coordinates as texts", [[str(v) for v in FLAT]], "has '35' where a polygon is expected"),
    ("coordinates as one text", "35,12,53,12,53,30", "is a str: '35,12,53,12,53,30'"),
    ("true as a coordinate", [[True, *FLAT[1:]]], "annotation 2"),
    ("null as a coordinate", [[None, *FLAT[1:]]], "annotation 2"),
    ("a null among the polygons", [FLAT, None], "annotation 2"),
    ("points in space", [[[x, y, 0] for x, y in PAIRS]], "points of three numbers"),
    ("a number", 17, "is a int: 17"),
    ("true", True, "is a bool: True"),
    ("an object", {"points": FLAT}, "'points'"),
    ("polygons and RLE", [FLAT, rle(RLE)], "mixes polygons and RLE"),
    ("a file name", {"file_name": "mask.png"}, "'file_name'"),
    ("shares of the size", [[v / (W, H)[k % 2] for k, v in enumerate(FLAT)]], "are shares of"),
    ("outside of the image", [square(90, 12)], "lie outside of its image of 70x50"),
    ("left of the image", [square(-30, 12)], "lie outside of its image of 70x50"),
    ("x and y exchanged", [[12, 51, 30, 51, 30, 69, 12, 69]], "exchanged?"),
    ("one coordinate 5e7", [[30, 10, 5e7, 12, 40, 30]], "far outside of its image"),
    ("one coordinate -5e7", [[30, 10, -5e7, 12, 40, 30]], "far outside of its image"),
    ("all coordinates 4e9", [[0, 5, 4e9, 5, 4e9, 4e9]], "far outside of its image"),
    ("coordinates 1e308", [[0, 5, 1e308, 5, 1e308, 1e308]], "far outside of its image"),
    ("a whole number of 400 digits", [[0, 5, 10**400, 5, 40, 30]], "far outside of its image"),
    ("an outline of 3e6 pixels", [[0, 0, 70, 50, 0, 50] * 20000], "an outline of"),
    ("RLE cut off", rle(RLE[: len(RLE) // 2]), "annotation 2 cannot be used: its RLE"),
    ("RLE cut within a run", rle(RLE[:-1]), "annotation 2 cannot be used: its RLE"),
    ("RLE twice", rle(RLE * 2), "its RLE"),
    ("RLE with one character more", rle(RLE + "1"), "its RLE"),
    ("RLE of 30 rows", rle(text_of(MASK[:30])), "its RLE counts 2100 pixels, its image has 3500"),
    ("RLE in hexadecimal", rle(RLE.encode().hex()), "its RLE"),
    ("RLE as Python wrote bytes", rle(f"b'{RLE}'"), "characters that no RLE has"),
    ("RLE in base64", rle("eJwLycxNLVGFAA9bAys="), "its RLE"),
    ("RLE with accents", rle("é" * 20), "characters that no RLE has"),
    ("RLE with a NUL", rle("1\0002"), "characters that no RLE has"),
    ("RLE of huge runs", rle("o" * 30 + "0"), "its RLE has runs that no mask has"),
    ("RLE that is empty", rle(""), "its RLE is empty"),
    ("RLE counts a number", rle(17), "has the counts 17"),
    ("RLE counts null", rle(None), "has the counts None"),
    ("RLE counts an object", rle({"a": 1}), "has the counts {'a': 1}"),
    ("RLE with a negative run", rle([900, -40, H * W - 860]), "a run of -40 pixels"),
    ("RLE with half a run", rle([900.5, 40, H * W - 940.5]), "a run of 900.5 pixels"),
    ("RLE with NaN as run", rle([math.nan, 40]), "a run of nan pixels"),
    ("RLE with 2**70 as run", rle([2**70, 40]), "its RLE has a run of"),
    ("RLE with text as runs", rle(["900", str(H * W - 900)]), "has '900' among the runs"),
    ("RLE with lists as runs", rle([[900], [H * W - 900]]), "has [900] among the runs"),
    ("RLE with few runs", rle([900, 40]), "its RLE counts 940 pixels, its image has 3500"),
    ("RLE of another size", rle(RLE, (W, W)), "its RLE has the size [70, 70]"),
    ("RLE with a size of texts", rle(RLE, (str(H), str(W))), "the size ['50', '70']"),
    ("RLE with a size of three", rle(RLE, (H, W, 1)), "the size [50, 70, 1]"),
    ("RLE without a size", {"counts": RLE}, "'size' and 'counts'"),
    ("RLE with height and width exchanged", rle(RLE, (W, H)), "exchanged"),
    ("empty list", [], 1),
    ("list of an empty list", [[]], 1),
    ("two points", [[1, 1, 5, 5]], 1),
    ("a box", [35, 12, 18, 18], 1),
    ("a line", [[1, 1, 5, 5, 9, 9]], 1),
    ("a point", [[1.5, 1.5] * 4], 1),
    ("NaN", [[1, 1, 5, math.nan, 9, 1]], 1),
    ("Infinity", [[1, 1, 5, math.inf, 9, 1]], 1),
    ("RLE without a pixel", rle([H * W]), 1),
    ("null", None, 1),
]


@pytest.mark.parametrize(("form", "expected"), [x[1:] for x in FORMS], ids=[x[0] for x in FORMS])
def test_a_segmentation_of_this_form(folder, form, expected):
    made = content(1)
    made["annotations"][1]["segmentation"] = form
    check(folder, made, expected)


def first_image(**values):
    return lambda c: c["images"][0].update(values)


def fourth(**values):
    return lambda c: c["annotations"][3].update(values)


def every(kind, **values):
    return lambda c: [x.update(values) for x in c[kind]]


def without(kind, *keys):
    return lambda c: [x.pop(key) for x in c[kind] for key in keys]


def rename(kind, key, function):
    return lambda c: [x.update({key: function(x[key])}) for x in c[kind]]


def an_image_for_every_annotation(made):
    images = {image["id"]: image for image in made["images"]}
    made["images"] = [
        {**images[x["image_id"]], "id": x["id"], "file_name": f"p{x['image_id']}.png"}
        for x in made["annotations"]
    ]
    for annotation in made["annotations"]:
        annotation["image_id"] = annotation["id"]


def both(*changes):
    return lambda c: [change(c) for change in changes]


def text_ids(c):
    for kind, keys in (("images", ["id"]), ("categories", ["id"]),
                       ("annotations", ["id", "image_id", "category_id"])):  # fmt: skip
        for entry in c[kind]:
            entry.update({key: str(entry[key]) for key in keys})


def exchanged_names(c):
    c["images"][0]["file_name"] = c["images"][1]["file_name"] = "p1.png"


TYPES = [  # of a file of two images and four annotations
    ("text ids everywhere", text_ids, "read"),
    ("texts refer to numbers", rename("annotations", "image_id", str), "read"),
    ("texts refer to category numbers", rename("annotations", "category_id", str), "read"),
    ("floats refer to numbers", rename("annotations", "image_id", float), "read"),
    ("numbers refer to texts", both(text_ids, rename("annotations", "image_id", int)), "read"),
    ("float ids", rename("images", "id", float), "read"),
    ("negative image ids", both(rename("images", "id", lambda i: -i),
                                rename("annotations", "image_id", lambda i: -i)), "read"),
    ("image id 0", both(rename("images", "id", lambda i: i - 1),
                        rename("annotations", "image_id", lambda i: i - 1)), "read"),
    ("no boxes", without("annotations", "bbox"), "read"),
    ("boxes null", every("annotations", bbox=None), "read"),
    ("boxes empty", every("annotations", bbox=[]), "read"),
    ("boxes of texts", every("annotations", bbox=["5", "12", "18", "18"]), "read"),
    ("boxes of three numbers", every("annotations", bbox=[5, 12, 18]), "read"),
    ("boxes of lists", every("annotations", bbox=[[5], [12], [18], [18]]), "read"),
    ("boxes an object", every("annotations", bbox={"x": 5}), "read"),
    ("boxes NaN", every("annotations", bbox=[math.nan] * 4), "read"),
    ("boxes of no width", every("annotations", bbox=[5, 12, 0, 18]), "read"),
    ("boxes of 400 digits", every("annotations", bbox=[10**400, 12, 18, 18]), "read"),
    ("no areas", without("annotations", "area"), "read"),
    ("area a text", fourth(area="324.0"), "read"),
    ("area a list", fourth(area=[324]), "read"),
    ("area null", fourth(area=None), "read"),
    ("area -1", fourth(area=-1), "read"),
    ("area NaN", fourth(area=math.nan), "read"),
    ("area of 400 digits", fourth(area=10**400), "read"),
    ("no iscrowd", without("annotations", "iscrowd"), "read"),
    ("iscrowd null", fourth(iscrowd=None), "read"),
    ("iscrowd false", fourth(iscrowd=False), "read"),
    ("iscrowd '0'", fourth(iscrowd="0"), "read"),
    ("iscrowd 0.0", fourth(iscrowd=0.0), "read"),
    ("no sizes", without("images", "height", "width"), "read"),
    ("no height", without("images", "height"), "read"),
    ("one size null", first_image(height=None), "read"),
    ("sizes as floats", every("images", height=50.0, width=70.0), "read"),
    ("backslashes", first_image(file_name="deep\\p1.png"), "read"),
    ("dots that stay inside", first_image(file_name="deep/../p1.png"), "read"),
    ("numbers as class names", lambda c: None, "read"),
    ("two images of one file", exchanged_names, "read"),
    ("an image for every annotation", an_image_for_every_annotation,
     "2 of 2 files are named by several images, such as p1.png by those with the ids 1, 2; what"),
    ("other keys", both(every("annotations", score="a", keypoints="none"),
                        lambda c: c.update(info="x", licenses={"a": 1}, type=None)), "read"),
    ("one crowd", fourth(iscrowd=1), 4),
    ("iscrowd true", fourth(iscrowd=True), 4),
    ("iscrowd '1'", fourth(iscrowd="1"), 4),
    ("iscrowd 2", fourth(iscrowd=2), "annotation 4 cannot be used: its 'iscrowd' is 2"),
    ("iscrowd a list", fourth(iscrowd=[]), "its 'iscrowd' is []"),
    ("iscrowd 'yes'", fourth(iscrowd="yes"), "its 'iscrowd' is 'yes'"),
    ("height 0", first_image(height=0), "the image 1 has the height 0"),
    ("width -70", first_image(width=-70), "the width -70"),
    ("height 1e999", first_image(height=math.inf), "the height inf"),
    ("height NaN", first_image(height=math.nan), "the height nan"),
    ("height half a pixel", first_image(height=50.5), "the height 50.5"),
    ("height a text", first_image(height="50"), "the height '50'"),
    ("height true", first_image(height=True), "the height True"),
    ("height a list", first_image(height=[50]), "the height [50]"),
    ("height 1e15", first_image(height=10**15), "of at most"),
    ("width and height exchanged", every("images", height=W, width=H), "are exchanged"),
    ("sizes of a smaller copy", every("images", height=H // 2, width=W // 2), "70x50 pixels"),
    ("file_name null", first_image(file_name=None), "the image 1 has the file name None"),
    ("file_name a number", first_image(file_name=5), "has the file name 5"),
    ("file_name empty", first_image(file_name=""), "has the file name ''"),
    ("file_name with NUL", first_image(file_name="p\0.png"), "has the file name 'p"),
    ("file_name of 3000 letters", first_image(file_name="x" * 3000), "does not exist"),
    ("file_name of a folder", first_image(file_name="deep"), "does not exist"),
    ("file_name half a character", first_image(file_name="\ud800.png"), "does not exist"),
    ("file_name above the folder", first_image(file_name="../x.png"), "leads out of the folder"),
    ("file_name hidden above", first_image(file_name="deep/../../x.png"), "leads out of"),
    ("file_name with backslashes above", first_image(file_name="..\\x.png"), "leads out of"),
    ("file_name absolute", first_image(file_name="/etc/hostname"), "leads out of the folder"),
    ("no file_name", without("images", "file_name"), "an entry of 'images' lacks ['file_name']"),
    ("image ids of two types", lambda c: c["images"][0].update(id="front"), "of two types"),
    ("category ids of two types", lambda c: c["categories"][0].update(id="cup"), "of two types"),
    ("annotation ids of two types", fourth(id="x"), "of two types"),
    ("annotation id a list", fourth(id=[4]), "the id [4]"),
    ("annotation id an object", fourth(id={"a": 4}), "the id {'a': 4}"),
    ("annotation id null", fourth(id=None), "the id None"),
    ("annotation id 4.5", fourth(id=4.5), "the id 4.5"),
    ("annotation id true", fourth(id=True), "the id True"),
    ("annotation id NaN", fourth(id=math.nan), "the id nan"),
    ("annotation id 2**70", fourth(id=2**70), "too large"),
    ("annotation id twice", fourth(id=3), "the id 3 comes twice in 'annotations'"),
    ("annotation id twice, once as a float", fourth(id=3.0), "the id 3 comes twice"),
    ("image id an empty text", first_image(id=""), "the id ''"),
    ("image id twice", first_image(id=2), "the id 2 comes twice in 'images'"),
    ("image_id an object", fourth(image_id={"id": 2}), "belongs to the image {'id': 2}"),
    ("image_id null", fourth(image_id=None), "belongs to the image None"),
    ("image_id unknown", fourth(image_id=9), "belongs to the image 9, not listed"),
    ("image_id unknown text", fourth(image_id="9"), "belongs to the image '9', not listed"),
    ("image_id true", fourth(image_id=True), "belongs to the image True, not listed"),
    ("category_id a list", fourth(category_id=[2, 1]), "the category id [2, 1]"),
    ("category_id unknown", fourth(category_id=0), "the category id 0, which is not among"),
    ("category_id 1.5", fourth(category_id=1.5), "the category id 1.5"),
    ("an annotation a list", lambda c: c["annotations"].append([1]), "an entry of 'annotations'"),
    ("an annotation null", lambda c: c["annotations"].append(None), "an entry of 'annotations'"),
    ("a category a text", lambda c: c["categories"].append("x"), "an entry of 'categories'"),
    ("category name null", lambda c: c["categories"][0].update(name=None), "has the name None"),
    ("category name empty", lambda c: c["categories"][0].update(name=" "), "has the name ' '"),
    ("category name a list", lambda c: c["categories"][0].update(name=["cup"]), "the name ['cup']"),
    ("category name half a character", lambda c: c["categories"][0].update(name="a\ud800"),
     "has the name 'a\\ud800'"),
    ("categories an object", lambda c: c.update(categories={"1": "cup"}), "not in COCO format"),
    ("annotations an object", lambda c: c.update(annotations={"1": {}}), "not in COCO format"),
    ("images null", lambda c: c.update(images=None), "not in COCO format"),
    ("stuff_categories of numbers", lambda c: c.update(stuff_categories=[1]), "stuff_categories"),
    ("stuff_categories a text", lambda c: c.update(stuff_categories="sky"), "stuff_categories"),
    ("no masks at all", without("annotations", "segmentation"), "SOLO learns from masks"),
    ("every mask empty", every("annotations", segmentation=[]), "covers nothing"),
    ("every mask null", every("annotations", segmentation=None), "4 annotations have no"),
]  # fmt: skip


@pytest.mark.parametrize(("change", "expected"), [x[1:] for x in TYPES], ids=[x[0] for x in TYPES])
def test_a_value_of_this_type(folder, change, expected):
    made = content()
    change(made)
    check(folder, made, expected)


GOOD = json.dumps(content())
FILES = [
    ("byte order mark", GOOD, "utf-8-sig", "read"),
    ("UTF-16", GOOD, "utf-16", "read"),
    ("UTF-16 without a mark", GOOD, "utf-16-le", "read"),
    ("UTF-32", GOOD, "utf-32", "read"),
    ("the same key and value twice", GOOD.replace('{"id": 1,', '{"id": 1, "id": 1,'), "utf-8",
     "read"),
    ("one key with two values", GOOD.replace('{"id": 1,', '{"id": 7, "id": 1,'), "utf-8",
     "the key 'id' stands twice in one object, with the values 7 and 1"),
    ("two lists of annotations", GOOD[:-1] + ', "annotations": []}', "utf-8",
     "the key 'annotations' stands twice"),
    ("Latin-1", GOOD.replace("cup", "Löffel"), "latin-1", "set.json"),
    ("empty", "", "utf-8", "is not valid json"),
    ("cut off", GOOD[:-30], "utf-8", "is it cut off?"),
    ("a list", "[]", "utf-8", "got a json list"),
    ("a text", '"annotations"', "utf-8", "got a json str"),
    ("nested 200 000 deep", "[" * 200_000, "utf-8", "nested too deeply"),
    ("nested 200 000 deep in a value", GOOD[:-1] + ', "x": ' + "[" * 200_000 + "]" * 200_000 + "}",
     "utf-8", "nested too deeply"),
    ("a number of 10 000 digits", GOOD.replace('"id": 1,', '"id": 1' + "0" * 10_000 + ",", 1),
     "utf-8", "set.json"),
    ("a results file", '[{"image_id": 1}]', "utf-8", "got a json list"),
    ("one more brace", GOOD + "}", "utf-8", "is not valid json"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("text", "encoding", "expected"), [x[1:] for x in FILES], ids=[x[0] for x in FILES]
)
def test_a_file_of_this_kind(folder, text, encoding, expected):
    check(folder, text, expected, encoding)


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (lambda path: None, "no such file"),
        (os.mkfifo, "is a named pipe"),
        (os.mkdir, "is a folder"),
        (lambda path: os.symlink(path, path), "leads nowhere or to itself"),
    ],
)
def test_what_is_no_file_is_not_waited_for(folder, tmp_path, make, expected):
    path = tmp_path / "set.json"
    make(path)
    with pytest.raises(ValueError, match=expected):
        load_coco_json(path, folder)
