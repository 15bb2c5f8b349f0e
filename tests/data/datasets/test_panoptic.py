"""Datasets in COCO's panoptic format: what is read, and what is refused."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from builders import tiny_config
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data import transforms as T
from detectron2.data.datasets.coco_panoptic import load_coco_panoptic_json
from panoptic_scenes import CATEGORIES, scenes, write_scenes
from PIL import Image
from pycocotools import mask as mask_util

from solo_d2.data.checks import check_stuff
from solo_d2.data.dataset_mapper import PanopticDatasetMapper, SOLODatasetMapper
from solo_d2.data.datasets.panoptic import load_coco_panoptic, register_coco_panoptic
from solo_d2.io.panoptic_png import write_panoptic_png

NAME = "read_panoptic"


@pytest.fixture
def registered(tmp_path):
    register_coco_panoptic(NAME, *write_scenes(tmp_path))
    yield tmp_path
    DatasetCatalog.remove(NAME)
    MetadataCatalog.remove(NAME)


def edit(path, change):
    """Change the json of a dataset."""
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def write_instances(root):
    """An instance file of the same images: a cat larger than the panoptic PNG shows it."""
    mask = np.zeros((64, 96), np.uint8)
    mask[8:48, 8:60] = 1
    rle = mask_util.encode(np.asfortranarray(mask))
    rle["counts"] = rle["counts"].decode()
    box = [8, 8, 52, 40]
    content = {
        "images": json.loads((root / "panoptic.json").read_text())["images"],
        "annotations": [
            {"id": 1, "image_id": 1, "category_id": 2, "segmentation": rle, "bbox": box,
             "area": 52 * 40, "iscrowd": 0}
        ],
        "categories": [{"id": 2, "name": "cat"}, {"id": 4, "name": "dog"}],
    }  # fmt: skip
    (root / "instances.json").write_text(json.dumps(content))
    return root / "instances.json"


def test_categories_are_numbered_by_id_things_from_0_and_stuff_from_1(tmp_path):
    data = load_coco_panoptic(*write_scenes(tmp_path))
    assert data.things == {2: "cat", 4: "dog"}
    assert data.stuff == {7: "sky", 9: "grass"}
    assert [
        (s["id"], s["isthing"], s["category_id"]) for s in data.records[0]["segments_info"]
    ] == [
        (300, False, 1),
        (70000, False, 2),
        (5, True, 0),
        (6, True, 1),
    ]


def test_instances_are_the_segments_of_things(tmp_path):
    data = load_coco_panoptic(*write_scenes(tmp_path))
    assert [len(record["annotations"]) for record in data.records] == [2, 0, 1]
    cat, dog = data.records[0]["annotations"]
    assert (cat["category_id"], cat["bbox"]) == (0, [10, 10, 40, 30])
    assert np.array_equal(mask_util.decode(dog["segmentation"]), scenes()[0][0] == 6)


def test_instances_come_from_their_own_file_where_there_is_one(tmp_path):
    files = write_scenes(tmp_path)
    data = load_coco_panoptic(*files, write_instances(tmp_path))
    assert [len(record["annotations"]) for record in data.records] == [1, 0, 0]
    assert data.records[0]["annotations"][0]["bbox"] == [8, 8, 52, 40]


@pytest.mark.parametrize("suffix", [".jpg", ".png"])
def test_pictures_may_have_any_type(tmp_path, suffix):
    data = load_coco_panoptic(*write_scenes(tmp_path, suffix=suffix))
    assert data.records[0]["file_name"].endswith(f"1{suffix}")


def test_records_are_those_of_detectron2(registered):
    """But for the number of a stuff class, which Detectron2 counts on from the things'."""
    metadata = MetadataCatalog.get(NAME)
    for image in (registered / "pictures").iterdir():
        Image.open(image).save(image.with_suffix(".jpg"))
    theirs = load_coco_panoptic_json(
        metadata.panoptic_json, metadata.image_root, metadata.panoptic_root, metadata.as_dict()
    )
    for ours, record in zip(DatasetCatalog.get(NAME), theirs, strict=True):
        assert ours["image_id"] == record["image_id"]
        assert ours["pan_seg_file_name"] == record["pan_seg_file_name"]
        for a, b in zip(ours["segments_info"], record["segments_info"], strict=True):
            assert {key: b[key] for key in a} == a


def test_metadata_is_what_detectron2_asks_for(registered):
    metadata = MetadataCatalog.get(NAME)
    assert metadata.evaluator_type == "coco_panoptic_seg"
    assert metadata.thing_classes == ["cat", "dog"]
    assert metadata.stuff_classes == ["things", "sky", "grass"]
    assert metadata.thing_dataset_id_to_contiguous_id == {2: 0, 4: 1}
    assert metadata.stuff_dataset_id_to_contiguous_id == {0: 0, 7: 1, 9: 2}
    assert metadata.ignore_label == 255


def test_registering_twice_is_once_and_other_files_are_refused(registered, tmp_path_factory):
    register_coco_panoptic(NAME, *write_scenes(registered))
    assert len(DatasetCatalog.get(NAME)) == 3
    with pytest.raises(ValueError, match=f"'{NAME}' is taken"):
        register_coco_panoptic(NAME, *write_scenes(tmp_path_factory.mktemp("other")))


def test_every_missing_file_is_named(tmp_path):
    json_file, pngs, pictures = write_scenes(tmp_path)
    with pytest.raises(ValueError, match=r"nowhere: no such folder.*panoptic PNGs"):
        load_coco_panoptic(json_file, tmp_path / "nowhere", pictures)
    with pytest.raises(ValueError, match=r"nowhere: no such folder.*images"):
        load_coco_panoptic(json_file, pngs, tmp_path / "nowhere")
    with pytest.raises(ValueError, match=r"nowhere.json: no such file"):
        load_coco_panoptic(tmp_path / "nowhere.json", pngs, pictures)
    (pngs / "2.png").unlink()
    with pytest.raises(ValueError, match=r"panoptic/2.png, named in .* does not exist"):
        load_coco_panoptic(json_file, pngs, pictures)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda x: x["annotations"][0]["segments_info"].pop(2),
         r"panoptic/1.png shows the segment id 5 .*segments_info.* does not list"),
        (lambda x: x["annotations"][0]["segments_info"][0].update(category_id=99),
         r"image 1: the segment 300 has the category id 99.*\[2, 4, 7, 9\]"),
        (lambda x: x["annotations"][0]["segments_info"][3].update(id=300),
         r"image 1: two segments have the id 300.*an id of its own"),
        (lambda x: x["annotations"][0].pop("segments_info"), "an annotation needs .*segments_info"),
        (lambda x: x["annotations"][0].update(image_id=77), "image 77.*not listed"),
        (lambda x: x["images"][0].update(height=60), "image 1: .*1.png has 96x64 .* say 96x60"),
        (lambda x: x["categories"][0].pop("isthing"), "a category needs.*'isthing'"),
        (lambda x: [c.update(isthing=1) for c in x["categories"]], "no stuff category"),
        (lambda x: [c.update(isthing=0) for c in x["categories"]], "no thing category"),
        (lambda x: x["annotations"].clear(), "lists no annotations"),
        (lambda x: x.pop("annotations"), "lists no annotations"),
        (lambda x: x.pop("images"), "not in COCO format"),
    ],
)  # fmt: skip
def test_bad_files_are_refused_with_the_reason(tmp_path, change, message):
    files = write_scenes(tmp_path)
    edit(files[0], change)
    with pytest.raises(ValueError, match=message):
        load_coco_panoptic(*files)


def test_segments_that_no_pixel_shows_are_told_and_make_no_objects(tmp_path, caplog):
    files = write_scenes(tmp_path)
    more = [{"id": number, "category_id": 2, "iscrowd": 0} for number in (8, 7)]
    edit(files[0], lambda x: x["annotations"][2]["segments_info"].extend(more))
    data = load_coco_panoptic(*files)
    assert len(data.records[2]["annotations"]) == 1
    assert "2 segments have no pixel in their PNG, such as 7 of the image 3" in caplog.text


def test_more_stuff_than_labels_is_refused(tmp_path):
    files = write_scenes(tmp_path)
    many = [{"id": 100 + k, "name": str(k), "isthing": 0} for k in range(253)]
    edit(files[0], lambda x: x["categories"].extend(many))
    with pytest.raises(ValueError, match="255 stuff categories"):
        load_coco_panoptic(*files)


def test_instances_must_be_of_the_same_categories_and_pictures(tmp_path):
    files = write_scenes(tmp_path)
    instances = write_instances(tmp_path)
    edit(instances, lambda x: x["images"].pop())
    with pytest.raises(ValueError, match=r"instances.json lacks the image 3"):
        load_coco_panoptic(*files, instances)
    edit(instances, lambda x: x["categories"].pop())
    with pytest.raises(ValueError, match=r"category ids \[2\], the things .* \[2, 4\]"):
        load_coco_panoptic(*files, instances)


def test_the_model_must_have_the_stuff_of_the_data(registered):
    check_stuff([NAME], 3)
    with pytest.raises(ValueError, match=r"2 stuff classes, the model 53.*NUM_CLASSES 3"):
        check_stuff([NAME], 54)
    with pytest.raises(ValueError, match="no_stuff is not one for panoptic"):
        check_stuff(["no_stuff"], 54)


def mapped(record, *, flip=False, mapper=PanopticDatasetMapper, train=True):
    cfg = tiny_config("INPUT.MIN_SIZE_TRAIN", (64,), "INPUT.RANDOM_FLIP", "none")
    made = mapper(cfg, is_train=train)
    if flip:
        made.augmentations = T.AugmentationList([T.RandomFlip(1.0)])
    return made(record)


def test_labels_come_from_the_panoptic_png(registered):
    first, stuff, things = [mapped(record) for record in DatasetCatalog.get(NAME)]
    ids = scenes()[0][0]
    expected = np.select([ids == 300, ids == 70000, ids == 0], [1, 2, 255], 0)
    assert first["sem_seg"].dtype == torch.int64
    assert np.array_equal(first["sem_seg"], expected)
    assert first["instances"].gt_classes.tolist() == [0, 1]
    assert stuff["sem_seg"].unique().tolist() == [2]
    assert len(stuff["instances"]) == 0
    assert things["sem_seg"].unique().tolist() == [0, 255]


def test_labels_go_the_way_of_the_picture(registered):
    record = DatasetCatalog.get(NAME)[0]
    plain, flipped = mapped(record), mapped(record, flip=True)
    assert torch.equal(flipped["sem_seg"], plain["sem_seg"].flip(-1))
    assert torch.equal(flipped["image"], plain["image"].flip(-1))


def test_prepared_labels_are_read_as_they_are(registered):
    record = DatasetCatalog.get(NAME)[0]
    labels = np.random.default_rng(0).integers(0, 3, (64, 96), dtype=np.uint8)
    Image.fromarray(labels).save(registered / "labels.png")
    made = mapped({**record, "sem_seg_file_name": str(registered / "labels.png")})
    assert np.array_equal(made["sem_seg"], labels)


def test_only_a_panoptic_mapper_in_training_reads_labels(registered):
    record = DatasetCatalog.get(NAME)[0]
    assert "sem_seg" not in mapped(record, train=False)
    assert "sem_seg" not in mapped(record, mapper=SOLODatasetMapper)


def test_bad_labels_are_named(registered):
    record = DatasetCatalog.get(NAME)[0]
    Image.new("RGB", (96, 64)).save(registered / "rgb.png")
    with pytest.raises(ValueError, match=r"rgb.png: expected 8-bit labels.*RGB"):
        mapped({**record, "sem_seg_file_name": str(registered / "rgb.png")})
    with pytest.raises(ValueError, match=r"none.png: the labels cannot be read.*prepare_panoptic"):
        mapped({**record, "sem_seg_file_name": str(registered / "none.png")})
    bare = {key: value for key, value in record.items() if not key.startswith("pan_seg")}
    with pytest.raises(ValueError, match=r"1.png has neither"):
        mapped(bare)
    write_panoptic_png(registered / "panoptic" / "1.png", np.full((64, 96), 1234))
    with pytest.raises(ValueError, match=r"1.png shows the segment id 1234"):
        mapped(record)


def test_the_categories_of_the_scenes_are_out_of_order():
    assert [entry["id"] for entry in CATEGORIES] != sorted(entry["id"] for entry in CATEGORIES)
