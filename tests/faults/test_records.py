"""Records of users' functions and sets to train on: read as meant, or one line with the image."""

from __future__ import annotations

import json
import math
import sys

import numpy as np
import pytest
import torch
from builders import tiny_config
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data import transforms as T
from detectron2.structures import BoxMode
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from pycocotools import mask as mask_util

from solo_d2.data.dataset_mapper import SOLODatasetMapper
from solo_d2.data.datasets.coco_json import register_coco_json
from solo_d2.data.matting_mapper import MattingDatasetMapper
from solo_d2.data.records import count_training_images, training_records

H, W = 50, 70
MASK = np.zeros((H, W), np.uint8, order="F")
MASK[12:30, 35:53] = 1
FLAT = [35, 12, 53, 12, 53, 30, 35, 30]
RLE = mask_util.encode(MASK)
NAME = "faulty_records"


@pytest.fixture(scope="module")
def image(tmp_path_factory):
    path = tmp_path_factory.mktemp("records") / "p1.png"
    Image.new("RGB", (W, H)).save(path)
    return str(path)


@pytest.fixture
def register():
    """Register records, or a file, for the time of a test."""

    def add(records, names=("cup", "fork")):
        DatasetCatalog.register(NAME, lambda: records)
        MetadataCatalog.get(NAME).set(thing_classes=list(names))

    yield add
    for catalog in (DatasetCatalog, MetadataCatalog):
        if NAME in catalog.list():
            catalog.remove(NAME)


def record(image, *annotations, **more):
    return {
        "file_name": image,
        "image_id": 1,
        "height": H,
        "width": W,
        "annotations": [
            {"category_id": 1, "segmentation": [FLAT], "iscrowd": 0, **x} for x in annotations
        ],
        **more,
    }


def mapper(kind=SOLODatasetMapper, mask_format="bitmask", augmentations=()):
    return kind(
        is_train=True, augmentations=list(augmentations), image_format="BGR",
        use_instance_mask=True, instance_mask_format=mask_format,
    )  # fmt: skip


def cut(rle):
    return {"size": [H, W], "counts": rle["counts"][: len(rle["counts"]) // 2]}


BY_FUNCTION = [  # keys of the one annotation; whether it is an object, or what is said
    ("no box", {}, True),
    ("a box without a mode", {"bbox": [1, 2, 3, 4]}, True),
    ("a box of texts", {"bbox": ["1", "2", "3", "4"], "bbox_mode": BoxMode.XYWH_ABS}, True),
    ("an empty box", {"bbox": [], "bbox_mode": BoxMode.XYWH_ABS}, True),
    ("a box with another mode", {"bbox": [0, 0, 1, 1], "bbox_mode": BoxMode.XYXY_REL}, True),
    ("flat polygon", {"segmentation": FLAT}, True),
    ("polygon of arrays", {"segmentation": [np.array(FLAT, np.float32)]}, True),
    ("points as an array", {"segmentation": np.array(FLAT).reshape(-1, 2)}, True),
    ("polygons of points as arrays", {"segmentation": [np.array(FLAT).reshape(-1, 2)]}, True),
    ("polygon as tuples", {"segmentation": (tuple(FLAT),)}, True),
    ("RLE", {"segmentation": RLE}, True),
    ("RLE as text", {"segmentation": {**RLE, "counts": RLE["counts"].decode()}}, True),
    ("RLE with a tuple as size", {"segmentation": {**RLE, "size": (H, W)}}, True),
    ("an array of pixels", {"segmentation": MASK}, True),
    ("an array of booleans", {"segmentation": MASK.astype(bool)}, True),
    ("no iscrowd", {"iscrowd": None}, True),
    ("iscrowd '0'", {"iscrowd": "0"}, True),
    ("iscrowd true", {"iscrowd": True}, False),
    ("a class of numpy", {"category_id": np.int64(1)}, True),
    ("keypoints", {"keypoints": [1, 2, 2]}, True),
    ("a line", {"segmentation": [[1, 1, 5, 5, 9, 9]]}, False),
    ("NaN", {"segmentation": [[1, 1, 5, math.nan, 9, 1]]}, False),
    ("an empty list", {"segmentation": []}, False),
    ("an empty array", {"segmentation": MASK * 0}, False),
    ("outside of the image", {"segmentation": [[v + 80 for v in FLAT]]}, False),
    ("no mask", {"segmentation": None}, "1 of 1 annotations of .*p1.png have no segmentation"),
    ("coordinates as texts", {"segmentation": [[str(v) for v in FLAT]]}, "p1.png .* has '35'"),
    ("a text", {"segmentation": "35,12,53"}, "annotation 0 of .*p1.png .* is a str"),
    ("odd count", {"segmentation": [[*FLAT, 3]]}, "p1.png .* odd number"),
    ("shares of the size", {"segmentation": [[v / 100 for v in FLAT]]}, "p1.png .* shares of"),
    ("one coordinate 5e7", {"segmentation": [[30, 10, 5e7, 12, 40, 30]]}, "p1.png .* far outside"),
    ("all coordinates 4e9", {"segmentation": [[0, 5, 4e9, 5, 4e9, 4e9]]}, "p1.png .* far outside"),
    ("a cut RLE", {"segmentation": cut(RLE)}, "p1.png .* RLE"),
    ("an RLE of another size", {"segmentation": {**RLE, "size": [W, W]}}, "p1.png .* size"),
    ("an array of another size", {"segmentation": MASK.T}, "p1.png has 50x70 pixels.* 70x50"),
    ("class a text", {"category_id": "cup"}, "p1.png has the class 'cup'"),
    ("class null", {"category_id": None}, "p1.png has the class None"),
    ("class 1.5", {"category_id": 1.5}, "p1.png has the class 1.5"),
]


@pytest.mark.parametrize("mask_format", ["bitmask", "polygon"])
@pytest.mark.parametrize(
    ("keys", "expected"), [x[1:] for x in BY_FUNCTION], ids=[x[0] for x in BY_FUNCTION]
)
def test_an_annotation_of_a_users_function(image, mask_format, keys, expected):
    made = mapper(mask_format=mask_format)
    if isinstance(expected, str):
        with pytest.raises(ValueError, match=expected) as error:
            made(record(image, keys))
        assert "\n" not in str(error.value)
        return
    objects = made(record(image, keys))["instances"]
    assert len(objects) == int(expected)
    if expected:
        assert objects.gt_classes.tolist() == [1]
        assert objects.gt_boxes.tensor.tolist() == [[35, 12, 53, 30]]


@pytest.mark.parametrize(
    ("keys", "expected"), [x[1:] for x in BY_FUNCTION], ids=[x[0] for x in BY_FUNCTION]
)
def test_the_same_annotation_as_a_matte(image, keys, expected):
    made = mapper(MattingDatasetMapper)
    if isinstance(expected, str):
        with pytest.raises(ValueError, match=r"p1\.png"):
            made(record(image, keys))
        return
    objects = made(record(image, keys))["instances"]
    assert len(objects) == int(expected)
    if expected:
        np.testing.assert_array_equal(objects.gt_mattes[0], MASK * 255)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"height": W, "width": H}, r"p1\.png has 70x50 pixels, .* 50x70; width and height are ex"),
        ({"height": H - 1}, r"p1\.png has 70x50 pixels, its annotations say 70x49"),
        ({"height": "50"}, r"p1\.png has 70x50 pixels"),
        ({"width": None}, r"p1\.png has 70x50 pixels"),
    ],
)
def test_a_size_that_is_not_the_images(image, change, message):
    with pytest.raises(ValueError, match=message):
        mapper()(record(image, {}, **change))


def test_what_a_record_lacks_comes_from_the_image(image):
    sample = record(image, {})
    del sample["height"], sample["width"]
    output = mapper()(sample)
    assert (output["height"], output["width"]) == (H, W)
    assert len(output["instances"]) == 1
    assert len(mapper()({**sample, "annotations": None})["instances"]) == 0


# Crops


@pytest.fixture
def no_shapely(monkeypatch):
    for name in [x for x in sys.modules if x.split(".")[0] == "shapely"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "shapely", None)


class CropAt(T.Augmentation):
    """The same crop every time."""

    def __init__(self, x, y, width, height):
        super().__init__()
        self.window = (x, y, width, height)

    def get_transform(self, image):
        return T.CropTransform(*self.window)


@pytest.mark.parametrize("mask_format", ["bitmask", "polygon"])
@given(st.integers(0, W - 2), st.integers(0, H - 2), st.integers(1, W), st.integers(1, H),
       st.integers(0, 10**6))  # fmt: skip
@settings(max_examples=40, deadline=None)
def test_a_crop_of_polygons_is_the_crop_of_their_pixels(image, mask_format, x, y, w, h, seed):
    """Without shapely, and of polygons that cross themselves, which shapely would change."""
    w, h = min(w, W - x), min(h, H - y)
    # In eighths, which no shift rounds.
    points = np.random.default_rng(seed).integers(0, (8 * W, 8 * H), (5, 2)) / 8
    polygon = points.ravel().tolist()
    pixels = mask_util.decode(mask_util.frPyObjects([polygon], H, W))[..., 0]
    cropped = pixels[y : y + h, x : x + w] != 0
    sys.modules["shapely"] = None
    try:
        made = mapper(mask_format=mask_format, augmentations=[CropAt(x, y, w, h)])
        objects = made(record(image, {"segmentation": [polygon]}))["instances"]
    finally:
        del sys.modules["shapely"]
    assert len(objects) == int(cropped.any())
    if len(objects):
        np.testing.assert_array_equal(objects.gt_masks.tensor[0], cropped)
        rows, columns = np.nonzero(cropped)
        box = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
        assert objects.gt_boxes.tensor[0].tolist() == box


@pytest.mark.parametrize("mask_format", ["bitmask", "polygon"])
@pytest.mark.parametrize("kind", ["relative", "absolute", "relative_range", "absolute_range"])
def test_every_kind_of_crop_maps_polygons_without_shapely(image, no_shapely, mask_format, kind):
    size = [0.7, 0.7] if kind.startswith("relative") else [30, 40]
    cfg = tiny_config("INPUT.CROP.ENABLED", True, "INPUT.CROP.TYPE", kind, "INPUT.CROP.SIZE", size,
                      "INPUT.MASK_FORMAT", mask_format, "INPUT.MIN_SIZE_TRAIN", (40,))  # fmt: skip
    made = SOLODatasetMapper(cfg, is_train=True)
    for _ in range(10):
        output = made(record(image, {}, {"segmentation": RLE}))
        for mask in output["instances"].gt_masks.tensor:
            assert mask.shape == output["image"].shape[1:]
            assert mask.any()


def test_polygons_and_rle_in_one_image_become_bitmaps(image):
    objects = mapper(mask_format="polygon")(record(image, {}, {"segmentation": RLE}))["instances"]
    assert torch.equal(objects.gt_masks.tensor[0], objects.gt_masks.tensor[1])


# Sets to train on


@pytest.mark.parametrize(
    ("records", "message"),
    [
        ([], "has no image with objects: it has no images"),
        ([{}], "none of its 1 images has an annotation"),
        ([{}, {"annotations": None}], "none of its 2 images has an annotation"),
        ([{"annotations": [{"iscrowd": 1}, {"iscrowd": "1"}]}], "2 of 2 annotations are crowds"),
        ([{"annotations": [{"category_id": 2}]}], "class 2 in .*p1.png; the model has .* 0 to 1"),
        ([{"annotations": [{"category_id": -1}]}], "class -1 in .*p1.png"),
        ([{"annotations": [{"category_id": None}]}], "class None in .*p1.png"),
        ([{"annotations": [{"category_id": "1"}]}], "class '1' in .*p1.png"),
        ([{"annotations": [{"category_id": True}]}], "class True in .*p1.png"),
        ([{"annotations": [7]}], "class None in .*p1.png"),
        ([{"annotations": [{}], "file_name": None}], "has the record .*'file_name'"),
        ([7], "has the record 7; expected a dict"),
    ],
)
@pytest.mark.parametrize("filter_empty", [True, False])
def test_a_registered_set_with_nothing_to_learn(image, register, records, message, filter_empty):
    def whole(x):
        if not isinstance(x, dict):
            return x
        known = [{"category_id": 0, **a} if isinstance(a, dict) else a
                 for a in x.get("annotations") or ()]  # fmt: skip
        return {"file_name": image, **x, **({"annotations": known} if known else {})}

    register([whole(x) for x in records])
    with pytest.raises(ValueError, match=message) as error:
        training_records(NAME, 2, filter_empty=filter_empty)
    assert NAME in str(error.value)


def test_images_without_objects_are_left_out_where_that_is_asked(image, register):
    register([record(image), record(image, {}), record(image, {"iscrowd": 1})])
    assert len(training_records(NAME, 2, filter_empty=True)) == 1
    assert len(training_records(NAME, 2, filter_empty=False)) == 3


def test_a_file_with_nothing_to_learn_is_named(tmp_path, image):
    content = {
        "images": [{"id": 1, "file_name": image, "height": H, "width": W}],
        "annotations": [
            {"id": k, "image_id": 1, "category_id": 1, "segmentation": [FLAT], "iscrowd": 1}
            for k in (1, 2)
        ],
        "categories": [{"id": 1, "name": "cup"}],
    }
    (tmp_path / "crowds.json").write_text(json.dumps(content))
    try:
        register_coco_json(NAME, tmp_path / "crowds.json", image.rpartition("/")[0])
        with pytest.raises(ValueError, match=r"crowds\.json .*2 of 2 annotations are crowds"):
            training_records(NAME, 1, filter_empty=True)
    finally:
        DatasetCatalog.remove(NAME)
        MetadataCatalog.remove(NAME)


@pytest.mark.parametrize("filter_empty", [True, False])
def test_epochs_count_the_images_that_are_trained_on(image, register, filter_empty):
    crowd = {"iscrowd": 1}
    records = [record(image, *x) for x in ([{}], [], [crowd], [crowd, {}])]
    register([*records, {"file_name": image}])
    kept = len(training_records(NAME, 2, filter_empty=filter_empty))
    assert (
        count_training_images(NAME, filter_empty=filter_empty) == kept == (2 if filter_empty else 5)
    )


def test_epochs_of_a_set_with_nothing_to_learn_say_so(image, register):
    register([record(image, {"iscrowd": 1})])
    with pytest.raises(ValueError, match="1 of 1 annotations are crowds"):
        count_training_images(NAME, filter_empty=True)
