"""Datasets in COCO format: what is accepted, what is refused, and how that is said."""

import copy
import json
import logging

import numpy as np
import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from pycocotools import mask as mask_util

from solo_d2.data.datasets.coco_json import load_coco_json, register_coco_json
from solo_d2.data.scenes.build import build
from solo_d2.data.scenes.register import register_built
from solo_d2.data.scenes.shapes import ShapesSource, make_shapes_scene
from solo_d2.io.segmentation import encode_mask

SQUARE = [1.0, 2.0, 5.0, 2.0, 5.0, 6.0, 1.0, 6.0]  # 4 x 4 pixels at (1, 2)


@pytest.fixture
def write(tmp_path):
    """Writes one image of 10 x 12 pixels and the json that `change` makes of a good one."""
    (tmp_path / "images").mkdir()
    for name in ("a.png", "b.png"):
        Image.new("RGB", (12, 10)).save(tmp_path / "images" / name)
    content = {
        "images": [
            {"id": 7, "file_name": "a.png", "height": 10, "width": 12},
            {"id": 3, "file_name": "b.png", "height": 10, "width": 12},
        ],
        "annotations": [
            {"id": 1, "image_id": 7, "category_id": 20, "segmentation": [SQUARE],
             "bbox": [1, 2, 4, 4], "area": 16, "iscrowd": 0},
        ],
        "categories": [{"id": 20, "name": "cat"}, {"id": 10, "name": "ant"}],
    }  # fmt: skip

    def make(change=None):
        changed = copy.deepcopy(content)
        if change is not None:
            change(changed)
        path = tmp_path / "set.json"
        path.write_text(json.dumps(changed))
        return path, tmp_path / "images"

    return make


@pytest.fixture
def names():
    """Fresh dataset names, removed from Detectron2's catalogs afterwards."""
    before = set(DatasetCatalog.list())
    yield
    for name in set(DatasetCatalog.list()) - before:
        DatasetCatalog.remove(name)
        MetadataCatalog.remove(name)


def the_annotation(data):
    return next(a for record in data.records for a in record["annotations"])


def mask_of(segmentation):
    rle = segmentation
    if isinstance(segmentation, list):
        rle = mask_util.merge(mask_util.frPyObjects(segmentation, 10, 12))
    return mask_util.decode(rle).astype(bool)


def expected_square():
    mask = np.zeros((10, 12), bool)
    mask[2:6, 1:5] = True
    return mask


def add_twins(content, twins, of_one=2):
    """Add images of a.png, and several of b.png with the object of the first one."""
    first = content["images"][0]
    content["images"] += [{**first, "id": 100 + k} for k in range(twins)]
    content["images"] += [{**first, "file_name": "b.png", "id": 200 + k} for k in range(of_one)]
    for k in range(of_one):
        content["annotations"].append({**content["annotations"][0], "id": 50 + k})
        content["annotations"][-1]["image_id"] = 200 + k
    content["images"] = [x for x in content["images"] if x["id"] != 3]


def test_files_of_several_images_are_told_and_refused_where_most_lack_objects(write):
    data = load_coco_json(*write(lambda content: add_twins(content, 0)))
    assert data.notes.endswith(
        "classes without objects: 'ant'; 1 of 2 files are named by several images, such as b.png "
        "by those with the ids 200, 201; "
        "what one of them lacks counts as background there: write one image for every file, with "
        "all of its objects"
    )
    assert "2 of 2 files" in load_coco_json(*write(lambda x: add_twins(x, 1))).notes
    with pytest.raises(ValueError, match=r"set\.json: 2 of 2 files are .* the ids 7, 100, 101;"):
        load_coco_json(*write(lambda content: add_twins(content, 2)))


def test_images_without_annotations_may_name_a_file_twice(write):
    def change(content):
        content["images"].append({**content["images"][0], "id": 8})
        content["annotations"] = []

    assert "1 of 2 files are named by several" in load_coco_json(*write(change)).notes


def test_good_file_is_read(write):
    data = load_coco_json(*write())
    assert data.classes == ["ant", "cat"]  # by category id
    assert data.category_ids == [10, 20]
    assert [r["image_id"] for r in data.records] == [3, 7]
    assert [len(r["annotations"]) for r in data.records] == [0, 1]  # the empty image is kept
    assert the_annotation(data)["category_id"] == 1
    assert the_annotation(data)["bbox"] == [1, 2, 4, 4]
    assert data.repaired == 0


@pytest.mark.parametrize("kind", ["polygon", "compressed", "uncompressed"])
def test_polygons_and_both_kinds_of_rle_give_the_same_mask(write, kind):
    flat = expected_square().flatten(order="F")
    edges = np.flatnonzero(np.diff(flat)) + 1
    counts = np.diff(np.concatenate([[0], edges, [flat.size]])).tolist()
    segmentation = {
        "polygon": [SQUARE],
        "compressed": encode_mask(expected_square()),
        "uncompressed": {"size": [10, 12], "counts": counts},
    }[kind]
    data = load_coco_json(*write(lambda c: c["annotations"][0].update(segmentation=segmentation)))
    np.testing.assert_array_equal(mask_of(the_annotation(data)["segmentation"]), expected_square())


def test_missing_or_empty_box_comes_from_the_mask(write):
    for change in (lambda a: a.pop("bbox"), lambda a: a.update(bbox=[1, 2, 0, 4])):
        data = load_coco_json(*write(lambda c, f=change: f(c["annotations"][0])))
        assert the_annotation(data)["bbox"] == [1, 2, 4, 4]
        assert data.repaired == 1


def test_crowd_flag_is_kept(write):
    data = load_coco_json(*write(lambda c: c["annotations"][0].update(iscrowd=1)))
    assert the_annotation(data)["iscrowd"] == 1


@pytest.mark.parametrize(
    "segmentation",
    [
        [],
        [[1, 1, 5, 5]],  # two points
        [[1, 1, 5, 5, 3]],
        [[1, 1, 5, 5, 9, 9]],  # on a line
        [[1, 1, 5, float("nan"), 9, 1]],
        {"size": [10, 12], "counts": [120]},
    ],
)
def test_annotations_that_cover_nothing_are_dropped_with_one_warning(write, segmentation, caplog):
    def add(content):
        for k in (2, 3):
            extra = dict(content["annotations"][0], id=k, segmentation=segmentation)
            content["annotations"].append(extra)

    with caplog.at_level(logging.WARNING):
        data = load_coco_json(*write(add))
    assert sum(len(r["annotations"]) for r in data.records) == 1
    assert data.repaired == 2
    assert len(caplog.records) == 1
    assert "2 annotations cover nothing" in caplog.text


def test_bad_polygon_beside_a_good_one_goes_alone(write):
    change = lambda c: c["annotations"][0].update(segmentation=[SQUARE, [0, 0, 1, 1]])  # noqa: E731
    assert the_annotation(load_coco_json(*write(change)))["segmentation"] == [SQUARE]


def first(**values):
    return lambda content: content["annotations"][0].update(values)


BAD = {
    "no categories": (lambda c: c["categories"].clear(), "no categories"),
    "no images": (lambda c: c["images"].clear(), "lists no images"),
    "no list": (lambda c: c.pop("images"), "not in COCO format"),
    "image twice": (lambda c: c["images"].append(c["images"][0]), "7 comes twice in 'images'"),
    "annotation twice": (
        lambda c: c["annotations"].append(c["annotations"][0]),
        "1 comes twice in 'annotations'",
    ),
    "image key": (lambda c: c["images"][0].pop("file_name"), "lacks \\['file_name'\\]"),
    "annotation key": (lambda c: c["annotations"][0].pop("image_id"), "lacks \\['image_id'\\]"),
    "no mask": (lambda c: c["annotations"][0].pop("segmentation"), "has no 'segmentation'"),
    "category": (first(category_id=5), "category id 5, .* \\[10, 20\\]"),
    "image": (first(image_id=99), "image 99, not listed"),
    "rle size": (first(segmentation={"size": [9, 9], "counts": [0, 81]}), "size \\[9, 9\\]"),
    "rle count": (first(segmentation={"size": [10, 12], "counts": [0, 81]}), "counts 81 pixels"),
    "rle keys": (first(segmentation={"counts": [120]}), "cannot be read"),
    "mask type": (first(segmentation="abc"), "is a str"),
    "file": (lambda c: c["images"][0].update(file_name="z.png"), "z.png, named in .* not exist"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_content_is_refused_with_file_and_reason(write, case):
    change, message = BAD[case]
    path, root = write(change)
    with pytest.raises(ValueError, match=message) as error:
        load_coco_json(path, root)
    assert str(path) in str(error.value)


def test_bad_files_are_refused(write, tmp_path):
    path, root = write()
    with pytest.raises(ValueError, match=r"none\.json: no such file"):
        load_coco_json(tmp_path / "none.json", root)
    with pytest.raises(ValueError, match="none: no such folder"):
        load_coco_json(path, tmp_path / "none")
    for text, message in (("{", "not valid json"), ("[]", "got a json list")):
        path.write_text(text)
        with pytest.raises(ValueError, match=message):
            load_coco_json(path, root)
    path.write_bytes(b"\x89PNG\xff\xfe")
    with pytest.raises(ValueError, match="not valid json"):
        load_coco_json(path, root)


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10**6))
def test_masks_come_back_from_rle(seed):
    for mask in make_shapes_scene(seed, 40, 56)[1]:
        rle = json.loads(json.dumps(encode_mask(mask)))
        np.testing.assert_array_equal(mask_util.decode(rle).astype(bool), mask)


def test_registration(write, names):
    path, root = write()
    assert register_coco_json("own_set", path, root) == ["ant", "cat"]
    assert register_coco_json("own_set", path, root) == ["ant", "cat"]
    metadata = MetadataCatalog.get("own_set")
    assert metadata.thing_dataset_id_to_contiguous_id == {10: 0, 20: 1}
    assert metadata.evaluator_type == "coco"
    assert metadata.json_file == str(path)
    for _ in range(2):  # the first use and later ones give the same
        records = DatasetCatalog.get("own_set")
        assert [r["image_id"] for r in records] == [3, 7]
        records[0].clear()
    with pytest.raises(ValueError, match="'own_set' is taken"):
        register_coco_json("own_set", path, root.parent)


def test_repaired_file_is_not_handed_to_the_evaluator(write, names):
    register_coco_json("repaired", *write(lambda c: c["annotations"][0].pop("area")))
    assert MetadataCatalog.get("repaired").get("json_file") is None


def test_import_registers_nothing():
    assert not [n for n in DatasetCatalog.list() if n.startswith(("stamps", "shapes"))]


def test_shapes_round_trip_through_files_and_registration(tmp_path, names):
    with pytest.raises(ValueError, match=r"-m solo_d2\.data\.scenes shapes --output"):
        register_built(tmp_path / "none", "tiny", kind="shapes")
    build(ShapesSource((48, 64)), tmp_path, train=3, val=1, workers=1, progress=False)
    train, _ = register_built(tmp_path, "tiny", kind="shapes")
    assert train == "tiny_train"
    for index, record in enumerate(DatasetCatalog.get(train)):
        _, masks, classes = make_shapes_scene([0, 0, index], 48, 64)
        assert [a["category_id"] for a in record["annotations"]] == classes.tolist()
        for annotation, mask in zip(record["annotations"], masks, strict=True):
            decoded = mask_util.decode(annotation["segmentation"]).astype(bool)
            np.testing.assert_array_equal(decoded, mask)
            x, y, w, h = map(int, annotation["bbox"])
            assert mask[y : y + h, x : x + w].sum() == mask.sum()
