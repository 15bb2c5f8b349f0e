"""Faults of evaluation: old labels, unscorable annotations, strange predictions, lost results."""

from __future__ import annotations

import copy
import json
import logging
import math
import os
import subprocess
import sys
from pathlib import Path

import cityscapes_folder
import numpy as np
import pytest
import torch
from builders import tiny_config, tiny_model
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data.datasets import register_coco_instances
from detectron2.engine import defaults
from detectron2.structures import Boxes, BoxMode, Instances
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from pycocotools import mask as mask_util
from pycocotools.coco import COCO

from solo_d2.checkpoint.files import save_checkpoint
from solo_d2.data.datasets.cityscapes import register_cityscapes
from solo_d2.data.datasets.coco_json import register_coco_json
from solo_d2.data.datasets.lvis import register_lvis_json, write_lvis
from solo_d2.data.datasets.panoptic import register_coco_panoptic
from solo_d2.evaluation import (
    CityscapesInstanceEvaluator,
    COCOInstanceEvaluator,
    LVISInstanceEvaluator,
    MattingEvaluator,
    PanopticEvaluator,
    SemanticEvaluator,
    SOFIEvaluator,
    build_evaluator,
    coco,
)
from solo_d2.evaluation.panoptic_truth import own_names
from solo_d2.io import json_file
from solo_d2.io.atomic import AtomicFile, atomic_write, host_name, remove_leftovers
from solo_d2.io.json_file import JsonListWriter, save_json
from solo_d2.io.panoptic_png import read_panoptic_png, write_panoptic_png
from solo_d2.layers import masks_to_boxes

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
import train_net

NAME = "faulty"
H, W = 50, 70
SQUARE = 18
WAYS = [True, False] if coco.hotcoco is not None else [False]


@pytest.fixture(autouse=True)
def _forget():
    yield
    for catalog in (DatasetCatalog, MetadataCatalog):
        if NAME in catalog.list():
            catalog.remove(NAME)


def forget():
    for catalog in (DatasetCatalog, MetadataCatalog):
        if NAME in catalog.list():
            catalog.remove(NAME)


def square(x, y, side=SQUARE):
    return [[x, y, x + side, y, x + side, y + side, x, y + side]]


def content(images=2, ids=(3, 17)):
    """A COCO file: two squares of two classes in every image."""
    annotations = [
        {
            **{"id": 2 * k + j + 1, "image_id": k + 1, "category_id": ids[j], "iscrowd": 0},
            **{"segmentation": square(5 + 30 * j, 12), "bbox": [5 + 30 * j, 12, SQUARE, SQUARE]},
            "area": float(SQUARE**2),
        }
        for k in range(images)
        for j in range(2)
    ]
    return {
        "info": {},
        "licenses": [],
        "images": [
            {"id": k + 1, "file_name": f"p{k + 1}.png", "height": H, "width": W}
            for k in range(images)
        ],
        "annotations": annotations,
        "categories": [{"id": ids[0], "name": "cup"}, {"id": ids[1], "name": "fork"}],
    }


def write(folder, content, name="truth.json"):
    for image in content["images"]:
        file = folder / image["file_name"]
        if not file.is_file():
            Image.new("RGB", (W, H)).save(file)
    (folder / name).write_text(json.dumps(content))
    return folder / name


def decode(segmentation, size=(H, W)):
    if isinstance(segmentation, np.ndarray):
        return segmentation.astype(bool)
    if isinstance(segmentation, list):
        segmentation = mask_util.merge(mask_util.frPyObjects(segmentation, *size))
    return mask_util.decode(segmentation).astype(bool)


def found(masks, labels, scores=None, boxes=None):
    masks = torch.as_tensor(np.array(masks, bool)).reshape(-1, H, W)
    scores = [0.99 - 0.001 * k for k in range(len(labels))] if scores is None else scores
    return Instances(
        (H, W),
        pred_masks=masks,
        pred_boxes=Boxes(masks_to_boxes(masks) if boxes is None else boxes),
        pred_classes=torch.tensor(labels, dtype=torch.int64),
        scores=torch.tensor(scores, dtype=torch.float32),
    )


def perfect(record):
    """What a model gives that finds exactly the record's objects."""
    annotations = record["annotations"]
    masks = [decode(x["segmentation"]) for x in annotations]
    return {"instances": found(masks, [x["category_id"] for x in annotations])}


def feed(evaluator, answer=perfect):
    evaluator.reset()
    for record in DatasetCatalog.get(NAME):
        image = {key: record[key] for key in ("image_id", "file_name")}
        evaluator.process([image], [answer(record)])
    return evaluator.evaluate()


# What a reader takes can be scored, with one result by both ways.


def each(key, value):
    def change(content):
        for entry in content["annotations"]:
            entry[key] = value(entry) if callable(value) else value

    return change


def renumber(image=lambda i: i, annotation=lambda i: i):
    def change(content):
        for entry in content["images"]:
            entry["id"] = image(entry["id"])
        for entry in content["annotations"]:
            entry["image_id"], entry["id"] = image(entry["image_id"]), annotation(entry["id"])

    return change


def with_key(key, value):
    return lambda content: content.update({key: value})


SCORABLE = {
    "nothing unusual": lambda content: None,
    "area as text": each("area", "324.0"),
    "area null": each("area", None),
    "area -1": each("area", -1.0),
    "area 0": each("area", 0),
    "area missing": lambda content: [x.pop("area") for x in content["annotations"]],
    "area a list": each("area", [324]),
    "area NaN": each("area", float("nan")),
    "area infinite": each("area", float("inf")),
    "area true": each("area", True),
    "box missing": lambda content: [x.pop("bbox") for x in content["annotations"]],
    "box null": each("bbox", None),
    "box of three numbers": each("bbox", [5, 12, 18]),
    "box with NaN": each("bbox", [5, 12, float("nan"), 18]),
    "box with a negative side": each("bbox", [5, 12, -18, 18]),
    "iscrowd missing": lambda content: [x.pop("iscrowd") for x in content["annotations"]],
    "iscrowd false": each("iscrowd", False),
    "annotation ids as text": renumber(annotation="ann-{:04d}".format),
    "annotation ids from 0": renumber(annotation=lambda i: i - 1),
    "negative annotation ids": renumber(annotation=lambda i: -i),
    "large annotation ids": renumber(annotation=lambda i: 2**62 + i),
    "image ids from 0": renumber(image=lambda i: i - 1),
    "negative image ids": renumber(image=lambda i: i - 9),
    "large image ids": renumber(image=lambda i: 2**62 + i),
    "image ids as text": renumber(image="img/{}".format),
    "info as text": with_key("info", "exported on Monday"),
    "info null": with_key("info", None),
    "info a list": with_key("info", [1]),
    "licenses an object": with_key("licenses", {"name": "none"}),
    "licenses null": with_key("licenses", None),
    "categories with more keys": lambda content: [
        x.update(supercategory=None, color=[1, 2]) for x in content["categories"]
    ],
    "images with more keys": lambda content: [
        x.update(license="x", coco_url=None, date_captured=3) for x in content["images"]
    ],
    "an image without objects": lambda content: content["images"].append(
        {"id": 90, "file_name": "p90.png", "height": H, "width": W}
    ),
}


@pytest.mark.parametrize("fast", WAYS, ids=lambda fast: "hotcoco" if fast else "pycocotools")
@pytest.mark.parametrize("fault", SCORABLE)
def test_what_was_read_can_be_scored(tmp_path, fault, fast):
    changed = content()
    SCORABLE[fault](changed)
    register_coco_json(NAME, write(tmp_path, changed), tmp_path)
    results = feed(COCOInstanceEvaluator(NAME, str(tmp_path / "out"), fast=fast))
    values = {**results["segm"], **results["bbox"]}
    assert {k for k, v in values.items() if math.isnan(v)} == {"APm", "APl"}  # all are small
    assert [v for v in values.values() if not math.isnan(v)] == pytest.approx([100] * 6)


@pytest.mark.parametrize("fault", ["image ids as text", "negative image ids", "large image ids"])
def test_results_have_the_ids_of_the_dataset(tmp_path, fault):
    changed = content()
    SCORABLE[fault](changed)
    register_coco_json(NAME, write(tmp_path, changed), tmp_path)
    feed(COCOInstanceEvaluator(NAME, str(tmp_path / "out")))
    results = json.loads((tmp_path / "out" / "coco_instances_results.json").read_text())
    assert [x["image_id"] for x in results[::2]] == [x["id"] for x in changed["images"]]
    assert [x["category_id"] for x in results] == [3, 17, 3, 17]
    if fault != "image ids as text":
        found = COCO(str(tmp_path / "truth.json")).loadRes(results)
        assert len(found.anns) == 4


BROKEN_VALUES = st.one_of(
    st.none(), st.text(max_size=3), st.floats(), st.integers(-3, 400), st.lists(st.integers())
)


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    st.lists(
        st.tuples(
            st.integers(0, 3),
            st.sampled_from(["area", "bbox", "license", "score", "ignore"]),
            BROKEN_VALUES,
        ),
        max_size=5,
    ),
    st.integers(-5, 5),
    st.integers(0, 3),
)
def test_any_values_beside_the_mask_give_one_ap_by_both_ways(tmp_path, edits, shift, drop):
    changed = content()
    for index, key, value in edits:
        changed["annotations"][index][key] = value
    renumber(image=lambda i: i + shift, annotation=lambda i: i + shift)(changed)
    forget()
    register_coco_json(NAME, write(tmp_path, changed), tmp_path)

    def answer(record):
        whole = perfect(record)["instances"]
        return {"instances": whole[drop:] if drop < 3 else whole}

    fast, slow = (feed(COCOInstanceEvaluator(NAME, fast=way), answer) for way in (WAYS[0], False))
    assert repr(fast) == repr(slow)
    assert drop < 3 or fast["segm"]["AP"] == pytest.approx(100)


# Datasets that others registered.


def functions_records(**changes):
    mask = np.zeros((H, W), np.uint8)
    mask[12:30, 5:23] = 1
    annotation = {
        **{"bbox": [5, 12, 23, 30], "bbox_mode": BoxMode.XYXY_ABS, "category_id": 1},
        "segmentation": mask_util.encode(np.asfortranarray(mask)),
    }
    annotation.update(changes)
    annotation = {key: value for key, value in annotation.items() if value is not ...}
    record = {"file_name": "a.png", "image_id": 5, "height": H, "width": W}
    return [{**record, "annotations": [annotation]}]


def register_function(records):
    DatasetCatalog.register(NAME, lambda: copy.deepcopy(records))
    MetadataCatalog.get(NAME).set(thing_classes=["cup", "fork"], evaluator_type="coco")


MASK = np.asfortranarray(np.pad(np.ones((18, 18), np.uint8), ((12, 20), (5, 47))))
RUNS = [5 * H + 12, *[18, H - 18] * 17, 18, 20 + 47 * H]  # down the columns, background first


@pytest.mark.parametrize("fast", WAYS, ids=lambda fast: "hotcoco" if fast else "pycocotools")
@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({}, id="RLE with bytes"),
        pytest.param({"segmentation": {"size": (H, W), "counts": RUNS}}, id="runs"),
        pytest.param({"segmentation": MASK}, id="array"),
        pytest.param({"segmentation": [np.array(square(5, 12)[0])]}, id="polygon as array"),
        pytest.param({"segmentation": [tuple(square(5, 12)[0])]}, id="polygon as tuple"),
        pytest.param({"bbox": ..., "bbox_mode": ...}, id="no box"),
        pytest.param({"bbox": np.array([5.0, 12, 23, 30])}, id="box as array"),
        pytest.param({"category_id": np.int64(1)}, id="class of NumPy"),
        pytest.param({"area": np.float32(324)}, id="area of NumPy"),
        pytest.param({"iscrowd": None}, id="iscrowd None"),
    ],
)
def test_registered_by_a_function(changes, fast):
    register_function(functions_records(**changes))
    answer = {"instances": found([MASK], [1])}
    results = feed(COCOInstanceEvaluator(NAME, fast=fast), lambda record: answer)
    assert results["segm"]["AP"] == pytest.approx(100)
    assert results["bbox"]["AP"] == pytest.approx(100)


FAR = [[5, 12, 5e7, 12, 5e7, 30]]


def rle(counts):
    return {"size": [H, W], "counts": counts}


def first(**changes):
    return lambda records: records[0]["annotations"][0].update(changes)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        pytest.param(lambda r: r[0].pop("image_id"), "lacks 'image_id'", id="no image id"),
        pytest.param(lambda r: r.append(r[0]), "two images with the id 5", id="id twice"),
        pytest.param(lambda r: r[0].pop("height"), "'height' and 'width'", id="no size"),
        pytest.param(
            lambda r: r[0]["annotations"][0].update(category_id=2),
            "class 2, .* 2 classes",
            id="class",
        ),
        pytest.param(
            lambda r: r[0]["annotations"][0].update(category_id="cup"),
            "no class",
            id="class as text",
        ),
        pytest.param(
            lambda r: r[0]["annotations"][0].update(category_id=-1), "no class", id="class -1"
        ),
        pytest.param(lambda r: r[0].update(height=60), "its RLE has the size", id="other size"),
        pytest.param(first(segmentation=FAR), "far outside of its image", id="far polygon"),
        pytest.param(first(segmentation=[["a"] * 6]), "'a' where a polygon", id="text polygon"),
        pytest.param(first(segmentation=[[math.nan] * 6]), "covers nothing", id="NaN polygon"),
        pytest.param(first(segmentation=rle("zz")), "its RLE", id="damaged RLE"),
        pytest.param(first(segmentation=None), "no 'segmentation'", id="no mask"),
    ],
)
def test_what_cannot_be_scored_is_named_before_the_first_image(change, message):
    records = functions_records()
    change(records)
    register_function(records)
    with pytest.raises(ValueError, match=f"dataset {NAME}.*{message}") as error:
        COCOInstanceEvaluator(NAME)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("value", [None, FAR, [["a"] * 6], {"size": [H, W], "counts": "zz"}])
def test_what_has_no_mask_is_left_out_and_counted(value, caplog):
    records = functions_records()
    records[0]["annotations"].append({**records[0]["annotations"][0], "segmentation": value})
    register_function(records)
    answer = {"instances": found([MASK], [1])}
    results = feed(COCOInstanceEvaluator(NAME), lambda record: answer)
    assert results["segm"]["AP"] == pytest.approx(100)
    assert "1 of 2 annotations are not scored; the first, image 5: " in caplog.text


@pytest.mark.parametrize("value", [[[1, 1, 9, 9, 5, 5]], [[80, 12, 90, 12, 90, 30]]])
def test_an_object_without_a_pixel_is_missed_as_in_cocos_code(value):
    """Its class has one object that can be found and one that cannot."""
    records = functions_records()
    records[0]["annotations"].append({**records[0]["annotations"][0], "segmentation": value})
    register_function(records)
    answer = {"instances": found([MASK], [1])}
    ours = feed(COCOInstanceEvaluator(NAME), lambda record: answer)["segm"]["AP"]
    assert ours == pytest.approx(100 * 51 / 101)


@pytest.mark.parametrize("fault", ["nothing unusual", "area null", "box missing", "info as text"])
def test_a_file_that_detectron2_registered(tmp_path, fault):
    changed = content()
    SCORABLE[fault](changed)
    if fault == "box missing":  # Detectron2's reader wants one
        changed = content()
    register_coco_instances(NAME, {}, str(write(tmp_path, changed)), str(tmp_path))
    results = feed(COCOInstanceEvaluator(NAME))
    assert results["segm"]["AP"] == results["bbox"]["AP"] == pytest.approx(100)


def test_a_federated_set_without_frequencies_is_told_what_to_set():
    register_function(functions_records())
    with pytest.raises(ValueError, match="set class_frequencies in the metadata"):
        LVISInstanceEvaluator(NAME)
    MetadataCatalog.get(NAME).class_frequencies = ["r", "f"]
    answer = {"instances": found([MASK], [1])}
    results = feed(LVISInstanceEvaluator(NAME), lambda record: answer)
    assert results["segm"]["APf"] == pytest.approx(100)
    assert math.isnan(results["segm"]["APr"])


# Never against older labels.


def ours(folder, content):
    register_coco_json(NAME, write(folder, content), folder)


def ours_repaired(folder, content):
    del content["annotations"][0]["bbox"]
    ours(folder, content)


def ours_matting(folder, content):
    register_coco_json(NAME, write(folder, content), folder, matting=True)


def detectron2s(folder, content):
    register_coco_instances(NAME, {}, str(write(folder, content)), str(folder))


def by_function(folder, content):
    from detectron2.data.datasets import load_coco_json

    file = write(folder, content)
    DatasetCatalog.register(NAME, lambda: load_coco_json(str(file), str(folder), NAME))
    MetadataCatalog.get(NAME).set(evaluator_type="coco")


def lvis(folder, content):
    write_lvis(write(folder, content), folder / "lvis.json")
    register_lvis_json(NAME, folder / "lvis.json", folder)


def moved(content):
    for entry in content["annotations"]:
        x, y, *_ = entry["segmentation"][0]
        entry["segmentation"], entry["bbox"] = square(x, y - 12), [x, y - 12, SQUARE, SQUARE]


def image_added(content):
    content["images"].append({**content["images"][0], "id": 40, "file_name": "p40.png"})
    content["annotations"].append({**content["annotations"][0], "id": 70, "image_id": 40})


def image_removed(content):
    del content["images"][0]
    content["annotations"] = [x for x in content["annotations"] if x["image_id"] != 1]


def classes_swapped(content):
    for entry in content["annotations"]:
        entry["category_id"] = 20 - entry["category_id"]


@pytest.mark.parametrize("change", [moved, image_added, image_removed, classes_swapped])
@pytest.mark.parametrize(
    "register", [ours, ours_repaired, ours_matting, detectron2s, by_function, lvis]
)
def test_labels_that_changed_are_scored_as_they_are(tmp_path, register, change):
    """In one folder for results, as in a training; perfect answers always get 100."""
    changed = content()
    for _ in range(2):
        forget()
        register(tmp_path, copy.deepcopy(changed))
        DatasetCatalog.get(NAME)
        results = feed(build_evaluator(NAME, str(tmp_path / "out")))
        assert results["segm"]["AP"] == pytest.approx(100)
        change(changed)


def test_a_copy_that_detectron2s_evaluator_left_is_not_read(tmp_path):
    register_function(functions_records())
    stale = tmp_path / f"{NAME}_coco_format.json"
    stale.write_text(json.dumps(content()))
    MetadataCatalog.get(NAME).json_file = str(stale)
    answer = {"instances": found([MASK], [1])}
    results = feed(COCOInstanceEvaluator(NAME, str(tmp_path)), lambda record: answer)
    assert results["segm"]["AP"] == pytest.approx(100)


def test_no_file_is_made_of_the_ground_truth(tmp_path):
    ours_repaired(tmp_path, content())
    feed(COCOInstanceEvaluator(NAME, str(tmp_path / "out")))
    assert [file.name for file in (tmp_path / "out").iterdir()] == ["coco_instances_results.json"]


# The limit of detections.


def crowded(count):
    """`count` objects of 2 x 2 pixels of one class."""
    changed = content(images=1)
    corners = [(2 * (k % 34), 2 * (k // 34)) for k in range(count)]
    changed["annotations"] = [
        {
            **{"id": k + 1, "image_id": 1, "category_id": 3, "iscrowd": 0, "area": 4},
            **{"segmentation": square(*corner, 2), "bbox": [*corner, 2, 2]},
        }
        for k, corner in enumerate(corners)
    ]
    return changed


@pytest.mark.parametrize("fast", WAYS, ids=lambda fast: "hotcoco" if fast else "pycocotools")
@pytest.mark.parametrize(
    ("objects", "limit", "expected"),
    [
        (100, None, 100),
        (101, None, 99.0099),  # recalls 0, 0.01 ... 0.99 of 101, as 100/101 are found
        (300, None, 33.6634),  # recalls 0, 0.01 ... 0.33 of 101
        (300, 300, 100),
        (300, 150, 50.495),  # 51 of 101
    ],
)
def test_so_many_perfect_objects_score(tmp_path, objects, limit, expected, fast, caplog):
    ours(tmp_path, crowded(objects))
    evaluator = COCOInstanceEvaluator(NAME, max_dets_per_image=limit, fast=fast)
    assert feed(evaluator)["segm"]["AP"] == pytest.approx(expected, abs=1e-3)
    said = f"more than {limit or 100} instances of one class" in caplog.text
    assert said == (objects > (limit or 100))


@pytest.mark.parametrize(
    ("kind", "asked", "limit"),
    [
        (ours, None, 100),
        (ours, 50, 100),
        (ours, 100, 100),
        (ours, 300, 300),
        (lvis, 100, 300),
        (lvis, 300, 300),
        (lvis, 500, 500),
    ],
)
def test_the_limit_of_the_config_reaches_the_scorer(tmp_path, kind, asked, limit):
    kind(tmp_path, content())
    assert build_evaluator(NAME, max_dets_per_image=asked)._limit == limit


def test_the_trainer_hands_on_the_limit(tmp_path, tiny_cfg):
    from solo_d2.engine import SOLOTrainer

    ours(tmp_path, content())
    tiny_cfg.OUTPUT_DIR, tiny_cfg.TEST.DETECTIONS_PER_IMAGE = str(tmp_path / "out"), 250
    assert SOLOTrainer.build_evaluator(tiny_cfg, NAME)._limit == 250


def test_more_detections_than_candidates_are_refused():
    keys = ("MODEL.SOLO.PRE_NMS_TOPK_TEST", 60, "TEST.DETECTIONS_PER_IMAGE")
    with pytest.raises(ValueError, match=r"PER_IMAGE 61 .*PRE_NMS_TOPK_TEST to at least 61"):
        tiny_model(*keys, 61)
    tiny_model(*keys, 60)


def test_candidates_that_are_cut_are_said_once(caplog, monkeypatch):
    from builders import noise_input
    from detectron2.utils import logger as detectron2_logger

    monkeypatch.setattr(detectron2_logger, "_LOG_COUNTER", type(detectron2_logger._LOG_COUNTER)())
    keys = ("MODEL.SOLO.PRIOR_PROB", 0.5, "MODEL.SOLO.MASK_THRESH_TEST", 0.4)
    keys += ("TEST.DETECTIONS_PER_IMAGE", 4, "MODEL.SOLO.PRE_NMS_TOPK_TEST")
    caplog.set_level(logging.INFO)
    with torch.no_grad():
        tiny_model(*keys, 5000).eval()([noise_input((64, 96))])
        assert "candidates" not in caplog.text
        for _ in range(2):
            tiny_model(*keys, 4).eval()([noise_input((64, 96))])
    assert caplog.text.count("more than 4 candidates; PRE_NMS_TOPK_TEST") == 1


# Without annotations.


@pytest.mark.parametrize(
    ("kind", "annotations"), [(ours, []), (lvis, []), (detectron2s, []), (detectron2s, None)]
)
def test_without_annotations_results_are_written_and_there_are_no_metrics(
    tmp_path, kind, annotations, caplog
):
    changed = {**content(), "annotations": annotations}
    if annotations is None:
        del changed["annotations"]
    kind(tmp_path, changed)
    caplog.set_level(logging.INFO)
    answer = {"instances": found([MASK], [1])}
    results = feed(build_evaluator(NAME, str(tmp_path / "out")), lambda record: answer)
    assert results == {}
    (file,) = (tmp_path / "out").glob("*_instances_results.json")
    entries = json.loads(file.read_text())
    assert [(x["image_id"], x["category_id"]) for x in entries] == [(1, 17), (2, 17)]
    assert f"has no annotations: results for the evaluation server are in {file}" in caplog.text


# Strange predictions.


def evaluate_with(tmp_path, answer, **options):
    ours(tmp_path, content())
    return feed(COCOInstanceEvaluator(NAME, str(tmp_path / "out"), **options), answer)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("where", ["score", "box"])
def test_instances_that_are_not_finite_are_left_out_and_counted(tmp_path, where, value, caplog):
    def answer(record):
        instances = perfect(record)["instances"]
        more = Instances.cat([instances, instances[:1]])
        if where == "score":
            more.scores[-1] = value
        else:
            more.pred_boxes.tensor[-1, 2] = value
        return {"instances": more}

    assert evaluate_with(tmp_path, answer)["segm"]["AP"] == pytest.approx(100)
    said = "2 instances with NaN or infinite values were left out, the first in image 1"
    assert caplog.text.count(said) == 1
    text = (tmp_path / "out" / "coco_instances_results.json").read_text()
    assert len(json.loads(text)) == 4
    assert "NaN" not in text


def other_size(record):
    return {"instances": Instances((4, 5), pred_masks=torch.ones((1, 4, 5), dtype=torch.bool))}


def other_masks(record):
    instances = perfect(record)["instances"]
    instances.pred_masks = instances.pred_masks[:, :-1]
    return {"instances": instances}


def boxes_alone(record):
    instances = perfect(record)["instances"]
    instances.remove("pred_masks")
    return {"instances": instances}


def labelled(label):
    return lambda record: {"instances": found([MASK], [label])}


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        pytest.param(
            other_size, r"p1.png: predictions of \(4, 5\), expected \(50, 70\)", id="size"
        ),
        pytest.param(other_masks, r"p1.png: predictions of \(49, 70\)", id="masks"),
        pytest.param(labelled(2), "class 2, the dataset has 2 classes.*NUM_CLASSES 2", id="class"),
        pytest.param(boxes_alone, "p1.png: .* have no pred_masks, only", id="boxes alone"),
        pytest.param(labelled(-1), "class -1, the dataset has 2 classes", id="negative class"),
    ],
)
def test_predictions_that_do_not_fit_are_named_at_the_first_image(tmp_path, answer, message):
    ours(tmp_path, content())
    evaluator = COCOInstanceEvaluator(NAME)
    (record, *_) = DatasetCatalog.get(NAME)
    with pytest.raises(ValueError, match=message):
        evaluator.process([record], [answer(record)])


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(lambda record: {"instances": Instances((H, W))}, id="no fields"),
        pytest.param(lambda record: {"instances": found([], [])}, id="no instance"),
    ],
)
def test_an_image_without_instances_is_one_in_which_nothing_was_found(tmp_path, answer):
    def last_alone(record):
        return answer(record) if record["image_id"] == 1 else perfect(record)

    assert evaluate_with(tmp_path, last_alone)["segm"]["AP"] == pytest.approx(100 * 51 / 101)


def test_instances_without_boxes_get_those_of_their_masks(tmp_path):
    def answer(record):
        instances = perfect(record)["instances"]
        instances.remove("pred_boxes")
        return {"instances": instances}

    assert evaluate_with(tmp_path, answer)["bbox"]["AP"] == pytest.approx(100)


def test_an_image_that_the_dataset_has_not_is_named(tmp_path):
    ours(tmp_path, content())
    (record, *_) = DatasetCatalog.get(NAME)
    with pytest.raises(ValueError, match=f"dataset {NAME} has no image with the id 99"):
        COCOInstanceEvaluator(NAME).process([{**record, "image_id": 99}], [perfect(record)])


def test_an_image_that_comes_twice_counts_once(tmp_path, caplog):
    ours(tmp_path, content())
    evaluator = COCOInstanceEvaluator(NAME, str(tmp_path / "out"))
    records = DatasetCatalog.get(NAME)
    for record in [*records, records[0]]:
        evaluator.process([record], [perfect(record)])
    assert evaluator.evaluate()["segm"]["AP"] == pytest.approx(100)
    assert "1 images came again and count once" in caplog.text
    assert len(json.loads((tmp_path / "out" / "coco_instances_results.json").read_text())) == 4


def test_images_that_two_processes_share_count_once(tmp_path, monkeypatch, caplog):
    from detectron2.utils import comm

    ours(tmp_path, content(images=3))
    records = DatasetCatalog.get(NAME)
    halves = [COCOInstanceEvaluator(NAME), COCOInstanceEvaluator(NAME)]
    for half, part in zip(halves, (records[:2], [records[2], records[0]]), strict=True):
        for record in part:
            half.process([record], [perfect(record)])
    parts = []
    monkeypatch.setattr(comm, "gather", lambda data, dst=0: parts.append(data) or parts)
    halves[1].evaluate()
    caplog.clear()
    assert halves[0].evaluate()["segm"]["AP"] == pytest.approx(100)
    assert "1 images came again and count once" in caplog.text


def test_images_that_were_not_processed_are_counted_as_missed(tmp_path, caplog):
    ours(tmp_path, content())
    evaluator = COCOInstanceEvaluator(NAME)
    (record, *_) = DatasetCatalog.get(NAME)
    evaluator.process([record], [perfect(record)])
    assert evaluator.evaluate()["segm"]["AP"] == pytest.approx(100 * 51 / 101)
    assert "1 of 2 images were not processed; their objects count as missed" in caplog.text
    assert evaluator.evaluate(img_ids=[1])["segm"]["AP"] == pytest.approx(100)


def test_no_processed_image_gives_no_metrics(tmp_path):
    ours(tmp_path, content())
    evaluator = COCOInstanceEvaluator(NAME)
    evaluator.process([{"image_id": 1}], [{"sem_seg": None}])  # a model without instances
    assert evaluator.evaluate() == {}


def test_classes_of_one_name_have_a_line_each(tmp_path):
    changed = content()
    changed["categories"][1]["name"] = "cup"
    ours(tmp_path, changed)
    results = feed(COCOInstanceEvaluator(NAME))["segm"]
    assert {"AP-cup (id 3)", "AP-cup (id 17)"} <= set(results)


# Results on the disk.


@pytest.mark.parametrize("kind", [ours, lvis])
def test_a_folder_that_cannot_be_written_is_known_before_the_first_image(tmp_path, kind):
    kind(tmp_path, content())
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match=r"file/out.*cannot be written .*OUTPUT_DIR"):
        build_evaluator(NAME, str(tmp_path / "file" / "out"))


def test_results_never_replace_the_annotations(tmp_path):
    file = write(tmp_path, content(), "coco_instances_results.json")
    register_coco_json(NAME, file, tmp_path)
    with pytest.raises(ValueError, match="has the annotations of the dataset"):
        COCOInstanceEvaluator(NAME, str(tmp_path))


def test_older_results_stay_until_the_new_ones_are_whole(tmp_path, monkeypatch, caplog):
    caplog.set_level(logging.INFO)
    ours(tmp_path, content())
    evaluator = COCOInstanceEvaluator(NAME, str(tmp_path / "out"))
    feed(evaluator)
    caplog.clear()
    file = tmp_path / "out" / "coco_instances_results.json"
    before = file.read_text()

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(json_file.AtomicFile, "commit", full)
    with pytest.raises(ValueError, match=r"results\.json: cannot be written.*No space"):
        evaluator.evaluate()
    assert file.read_text() == before
    assert "Evaluation results for bbox" in caplog.text  # metrics are not lost


def test_the_evaluator_of_lvis_has_the_rules_of_lvis(tmp_path):
    lvis(tmp_path, content())
    assert type(build_evaluator(NAME)) is LVISInstanceEvaluator


# Mattes.


def register_mattes(objects, classes):
    """Images with masks of (class, x) each; the dataset has as many classes as named."""
    records = []
    for number, scene in enumerate(objects, 1):
        annotations = [
            {"category_id": label, "segmentation": square(x, 12), "iscrowd": 0}
            for label, x in scene
        ]
        record = {"file_name": f"p{number}.png", "image_id": number, "height": H, "width": W}
        records.append({**record, "annotations": annotations})
    DatasetCatalog.register(NAME, lambda: copy.deepcopy(records))
    MetadataCatalog.get(NAME).set(thing_classes=[f"class {k}" for k in range(classes)])
    return records


def squares(scene):
    """A model's squares of (class, x)."""
    masks = [decode(square(x, 12)) for _, x in scene]
    return {"instances": found(masks, [label for label, _ in scene], [0.9] * len(scene))}


def sofi(objects, answers, classes):
    register_mattes(objects, classes)
    evaluator = SOFIEvaluator(NAME)
    for number, answer in enumerate(answers, 1):
        evaluator.process([{"image_id": number}], [squares(answer)])
    return evaluator.evaluate()["sofi"]


MISS = SQUARE**2 / 1000  # a square against nothing, in thousands


@pytest.mark.parametrize("classes", [4, 80])
@pytest.mark.parametrize(
    ("objects", "answers", "expected"),
    [
        pytest.param([[(0, 5)]], [[(0, 5)]], 0, id="perfect"),
        pytest.param([[(0, 5)]], [[]], MISS, id="missed"),
        pytest.param([[(0, 5)]], [[(0, 30)]], 4 * MISS, id="beside: both sides have both squares"),
        pytest.param([[(0, 5)]], [[(0, 14)]], 2 * MISS, id="half beside"),
        pytest.param([[(0, 5)]], [[(3, 5)]], 2 * MISS, id="other class: a miss, a false alarm"),
        pytest.param([[(0, 5)]], [[(0, 5), (3, 30)]], MISS, id="a false alarm of no class of it"),
        pytest.param([[(0, 5), (1, 30)]], [[(0, 5)]], MISS / 2, id="one of two classes missed"),
        pytest.param([[(0, 5)], []], [[(0, 5)], [(0, 5)]], MISS / 2, id="empty image, one found"),
        pytest.param([[(0, 5)], []], [[], []], MISS / 2, id="empty image, none found"),
        pytest.param([[(0, 5)], [(1, 5)]], [[], []], MISS / 2, id="classes in other images"),
        pytest.param([[(0, 5)]] * 4, [[]] * 4, MISS, id="four images"),
    ],
)
def test_sofi_by_hand_with_any_vocabulary(objects, answers, expected, classes):
    result = sofi(objects, answers, classes)
    assert result["SOFI_SAD"] == pytest.approx(expected)
    # Of masks, the squared error is the absolute one.
    assert result["SOFI_MSE"] == pytest.approx(1e6 * expected / (H * W))
    assert result["SOFI_classes"] == len({label for scene in objects for label, _ in scene})


def test_sofi_says_what_it_divides_by(caplog):
    caplog.set_level(logging.INFO)
    sofi([[(0, 5), (2, 30)]], [[(3, 5)]], 80)
    assert "mean over 2 of 80 classes, those of the ground truth (class 0, class 2)" in caplog.text
    assert "1 images; 1 false alarms of other classes" in caplog.text


MATTING = [SOFIEvaluator, MattingEvaluator]


@pytest.mark.parametrize("make", MATTING)
def test_mattes_of_an_image_that_comes_twice_count_once(make, caplog):
    register_mattes([[(0, 5)], [(0, 5)]], 1)
    evaluator = make(NAME)
    for number, answer in ((1, []), (2, [(0, 5)]), (2, [(0, 5)])):
        evaluator.process([{"image_id": number}], [squares(answer)])
    result = evaluator.evaluate()[evaluator.name]
    key = "SOFI_SAD" if make is SOFIEvaluator else "SAD"
    assert result[key] == pytest.approx(MISS / 2)
    assert "1 images came again and count once" in caplog.text


@pytest.mark.parametrize("make", MATTING)
@pytest.mark.parametrize(
    ("given", "output", "message"),
    [
        pytest.param({"image_id": 9}, squares([]), "no image with the id 9", id="image"),
        pytest.param({"image_id": 1}, squares([(1, 5)]), "has 1 classes", id="class"),
        pytest.param({"image_id": 1}, other_size({}), r"predictions of \(4, 5\)", id="size"),
    ],
)
def test_mattes_that_do_not_fit_are_named(make, given, output, message):
    register_mattes([[(0, 5)]], 1)
    with pytest.raises(ValueError, match=message):
        make(NAME).process([given], [output])


@pytest.mark.parametrize("make", MATTING)
@pytest.mark.parametrize("where", ["scores", "pred_mattes"])
def test_mattes_that_are_not_finite_are_left_out(make, where, caplog):
    register_mattes([[(0, 5)]], 1)
    output = squares([(0, 5), (0, 30)])
    output["instances"].pred_mattes = output["instances"].pred_masks.float()
    output["instances"].get(where)[1] = math.nan
    evaluator = make(NAME)
    evaluator.process([{"image_id": 1}], [output])
    result = evaluator.evaluate()[evaluator.name]
    assert {v for k, v in result.items() if k != "SOFI_classes"} == {0.0}
    assert "1 instances with NaN or infinite values were left out" in caplog.text


@pytest.mark.parametrize("make", MATTING)
def test_a_dataset_without_mattes_has_no_errors(make, caplog):
    register_mattes([[]], 1)
    caplog.set_level(logging.INFO)
    evaluator = make(NAME)
    evaluator.process([{"image_id": 1}], [squares([(0, 5)])])
    assert evaluator.evaluate() == {}
    assert f"{NAME} has no annotations, and no {evaluator.name} errors" in caplog.text


@pytest.mark.parametrize("make", MATTING)
def test_two_images_of_one_id_are_refused_by_every_evaluator(make):
    records = register_mattes([[(0, 5)]], 1)
    records.append(records[0])
    DatasetCatalog.remove(NAME)
    DatasetCatalog.register(NAME, lambda: records)
    with pytest.raises(ValueError, match="two images with the id 1"):
        make(NAME)


# Cityscapes.


@pytest.fixture
def cityscapes(tmp_path):
    """Records of a small validation set."""
    pytest.importorskip("cityscapesscripts.evaluation.evalInstanceLevelSemanticLabeling")
    cityscapes_folder.write_folder(tmp_path)
    register_cityscapes(tmp_path, ("val",))
    yield DatasetCatalog.get("cityscapes_val")
    DatasetCatalog.remove("cityscapes_val")
    MetadataCatalog.pop("cityscapes_val")


def perfect_street(record):
    annotations = [x for x in record["annotations"] if not x["iscrowd"]]
    size = (record["height"], record["width"])
    masks = np.array([decode(x["segmentation"], size) for x in annotations], bool)
    return Instances(
        size,
        pred_masks=torch.from_numpy(masks.reshape(-1, *size)),
        pred_classes=torch.tensor([x["category_id"] for x in annotations]).long(),
        scores=torch.ones(len(annotations)),
    )


def test_images_and_numbers_that_count_once_or_not_in_cityscapes(cityscapes, caplog):
    evaluator = CityscapesInstanceEvaluator("cityscapes_val")
    evaluator.reset()
    for record in [*cityscapes, cityscapes[0]]:
        found = perfect_street(record)
        wrong = Instances.cat([found, found[:1]]) if len(found) else found
        wrong.scores[len(found) :] = math.nan
        evaluator.process([record], [{"instances": wrong}])
    assert evaluator.evaluate()["segm"]["AP"] == pytest.approx(100)
    assert "1 images came again and count once" in caplog.text
    assert "instances with NaN or infinite values were left out" in caplog.text


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda record, found: found.pred_classes.fill_(8), "class 8, the dataset has 8 classes"),
        (lambda record, found: record.update(height=3), r"predictions of .*, expected \(3, "),
        (
            lambda record, found: record.update(file_name="x/a_1_2_leftImg8bit.png"),
            "no image with the id 'a_1_2'",
        ),
    ],
)
def test_what_does_not_fit_into_cityscapes_is_named(cityscapes, change, message):
    record = next(record for record in cityscapes if record["annotations"])
    found = perfect_street(record)
    change(record, found)
    evaluator = CityscapesInstanceEvaluator("cityscapes_val")
    evaluator.reset()
    with pytest.raises(ValueError, match=message):
        evaluator.process([record], [{"instances": found}])


# Panoptic predictions stay in their own folder.


def panoptic_scene(folder, names):
    """Images with one stuff and one thing, whose PNGs are called as the json says."""
    ids = np.full((H, W), 20, np.int32)
    ids[12:30, 35:53] = 7
    (folder / "pictures").mkdir(parents=True)
    segments = [{"id": 20, "category_id": 2, "iscrowd": 0}, {"id": 7, "category_id": 1}]
    images, annotations = [], []
    for number, name in enumerate(names, 1):
        file = folder / "truth" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        write_panoptic_png(folder / "ids.png", ids)
        (folder / "ids.png").rename(file)
        Image.new("RGB", (W, H)).save(folder / "pictures" / f"{number}.png")
        image = {"id": number, "file_name": f"{number}.png", "height": H, "width": W}
        images.append(image)
        segments = [{**x, "area": 1, "bbox": [0, 0, 1, 1]} for x in segments]
        annotations.append({"image_id": number, "file_name": name, "segments_info": segments})
    categories = [{"id": 1, "name": "cup", "isthing": 1}, {"id": 2, "name": "wood", "isthing": 0}]
    everything = {"images": images, "annotations": annotations, "categories": categories}
    (folder / "panoptic.json").write_text(json.dumps(everything))
    register_coco_panoptic(NAME, folder / "panoptic.json", folder / "truth", folder / "pictures")
    return ids


def panoptic_output(ids, label=0):
    described = [
        {"id": 20, "category_id": 1, "isthing": False},
        {"id": 7, "category_id": label, "isthing": True},
    ]
    return {"panoptic_seg": (torch.from_numpy(np.roll(ids, 9, 1)), described)}


def bytes_below(folder):
    return {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.mark.parametrize(
    "names",
    [
        pytest.param(lambda f: ["p1.png", "p2.png"], id="plain"),
        pytest.param(lambda f: [str(f / "truth" / "p1.png")], id="absolute"),
        pytest.param(lambda f: ["../truth/p1.png"], id="parent"),
        pytest.param(lambda f: ["a/p.png", "b/p.png", "P.png", "p.png"], id="one name in folders"),
        pytest.param(lambda f: ["p.png", "p-2.png", "a/p.png"], id="a name that is made"),
        pytest.param(lambda f: ["p1.PNG", "p1.png"], id="suffix"),
        pytest.param(lambda f: ["...png", ".png"], id="dots"),
        pytest.param(lambda f: ["a\nb.png", "a\\..\\b.png", "$(x).png"], id="odd characters"),
        pytest.param(lambda f: ["é" * 100 + ".png", "é" * 100 + "x.png"], id="long"),
    ],
)
def test_predictions_never_leave_their_folder(tmp_path, names):
    root = tmp_path / "a" / "b" / "data"
    names = names(root)
    ids = panoptic_scene(root, names)
    before = bytes_below(tmp_path)
    out = root  # the worst place
    evaluator = PanopticEvaluator(NAME, str(out))
    for record in DatasetCatalog.get(NAME):
        evaluator.process([record], [panoptic_output(ids)])
    evaluator.evaluate()
    after = bytes_below(tmp_path)
    assert {path: after[path] for path in before} == before
    new = set(after) - set(before)
    assert {path.parent for path in new} == {out / "predictions", out}
    written = json.loads((out / "predictions.json").read_text())["annotations"]
    assert {out / "predictions" / x["file_name"] for x in written} == new - {
        out / "predictions.json"
    }
    assert len({x["file_name"] for x in written}) == len(names)
    for entry in written:
        saved = read_panoptic_png(out / "predictions" / entry["file_name"])
        assert np.array_equal(saved, np.roll(ids, 9, 1))


@settings(max_examples=200, deadline=None)
@given(st.lists(st.text(max_size=80), max_size=12))
def test_names_for_predictions_are_plain_and_differ(files):
    names = own_names(dict(enumerate(files)))
    assert len({name.casefold() for name in names.values()}) == len(files)
    for name in names.values():
        assert Path(name).name == name
        assert not name.startswith(".")
        assert name.endswith(".png")
        assert name.isprintable()
        assert len(name.encode()) <= 255


@pytest.mark.parametrize("link", [False, True])
def test_ground_truth_where_predictions_would_go_is_refused(tmp_path, link):
    panoptic_scene(tmp_path, ["p1.png"])
    out = tmp_path / "out"
    out.mkdir()
    if link:
        (out / "predictions").symlink_to(tmp_path / "truth")
    else:
        (tmp_path / "truth").rename(out / "predictions")
        (tmp_path / "truth").symlink_to(out / "predictions")
    with pytest.raises(ValueError, match="predictions would be written among the ground truth"):
        PanopticEvaluator(NAME, str(out))


def test_a_link_among_predictions_is_replaced_and_not_followed(tmp_path):
    ids = panoptic_scene(tmp_path, ["p1.png"])
    before = bytes_below(tmp_path / "truth")
    (tmp_path / "out" / "predictions").mkdir(parents=True)
    (tmp_path / "out" / "predictions" / "p1.png").symlink_to(tmp_path / "truth" / "p1.png")
    evaluator = PanopticEvaluator(NAME, str(tmp_path / "out"))
    evaluator.process(DatasetCatalog.get(NAME), [panoptic_output(ids)])
    assert bytes_below(tmp_path / "truth") == before


@pytest.mark.parametrize(
    ("output", "message"),
    [
        pytest.param(lambda ids: panoptic_output(ids, 5), "thing class 5", id="class"),
        pytest.param(lambda ids: panoptic_output(ids[1:]), "has the size", id="size"),
        pytest.param(
            lambda ids: {"panoptic_seg": (torch.from_numpy(ids), None)}, "segments_info", id="None"
        ),
        pytest.param(lambda ids: panoptic_output(ids + 1), "segment id", id="unknown ids"),
    ],
)
def test_panoptic_results_that_do_not_fit_are_named(tmp_path, output, message):
    ids = panoptic_scene(tmp_path, ["p1.png"])
    with pytest.raises(ValueError, match=message):
        PanopticEvaluator(NAME).process(DatasetCatalog.get(NAME), [output(ids)])


@pytest.mark.parametrize("shape", [(3, H, W), (2, H - 1, W)])
def test_semantic_results_of_another_shape_are_named(tmp_path, shape):
    panoptic_scene(tmp_path, ["p1.png"])
    with pytest.raises(ValueError, match=r"sem_seg has the shape .*expected \(2, 50, 70\)"):
        SemanticEvaluator(NAME).process(DatasetCatalog.get(NAME), [{"sem_seg": torch.zeros(shape)}])


def test_a_panoptic_score_that_is_no_number_is_left_out(tmp_path):
    ids = panoptic_scene(tmp_path, ["p1.png"])
    output = panoptic_output(ids)
    output["panoptic_seg"][1][1]["score"] = math.nan
    evaluator = PanopticEvaluator(NAME, str(tmp_path / "out"))
    evaluator.process(DatasetCatalog.get(NAME), [output])
    evaluator.evaluate()
    written = json.loads((tmp_path / "out" / "predictions.json").read_text())
    assert "score" not in written["annotations"][0]["segments_info"][1]


def test_panoptic_images_that_come_twice_count_once(tmp_path, caplog):
    ids = panoptic_scene(tmp_path, ["p1.png", "p2.png"])
    records = DatasetCatalog.get(NAME)
    figures = []
    for chosen in (records, [*records, records[1]]):
        for make, output in (
            (PanopticEvaluator, panoptic_output(ids)),
            (SemanticEvaluator, {"sem_seg": torch.rand(2, H, W, generator=torch.Generator())}),
        ):
            evaluator = make(NAME)
            for record in chosen:
                evaluator.process([record], [output])
            figures.append(evaluator.evaluate())
    assert figures[:2] == figures[2:]
    assert caplog.text.count("1 images came again and count once") == 2


def test_panoptic_labels_that_changed_are_scored_as_they_are(tmp_path):
    for turn in range(2):
        forget()
        folder = tmp_path / str(turn)
        ids = panoptic_scene(folder, ["p1.png"])
        evaluator = build_evaluator(NAME, str(tmp_path / "out"))
        record = DatasetCatalog.get(NAME)[0]
        output = panoptic_output(np.roll(ids, -9, 1))
        evaluator.process([record], [{**perfect(record), **output}])
        results = evaluator.evaluate()
        assert results["panoptic_seg"]["PQ"] == 100
        assert results["segm"]["AP"] == pytest.approx(100)


# Files that are whole or not there.


def dead_pid():
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def leftover(folder, host, pid):
    path = folder / f".model.pth.{host}-{pid}-0123abcd.partial"
    path.write_text("x")
    return path


@pytest.mark.parametrize(
    ("host", "pid", "goes"),
    [
        pytest.param(host_name(), "dead", True, id="of a dead process"),
        pytest.param(host_name(), "self", True, id="of an earlier process with our pid"),
        pytest.param(host_name(), "parent", False, id="of a living process"),
        pytest.param("elsewhere-7", "dead", False, id="of another machine"),
    ],
)
def test_only_what_dead_processes_left_is_deleted(tmp_path, host, pid, goes):
    pid = {"dead": dead_pid, "self": os.getpid, "parent": os.getppid}[pid]()
    path = leftover(tmp_path, host, pid)
    (tmp_path / ".mine.partial").write_text("of somebody else")
    assert remove_leftovers(tmp_path) == ([path.name] if goes else [])
    assert path.exists() != goes
    assert (tmp_path / ".mine.partial").exists()


def test_a_file_that_is_being_written_is_not_deleted(tmp_path):
    with atomic_write(tmp_path / "a") as file:
        file.write(b"new")
        assert remove_leftovers(tmp_path) == []
    assert (tmp_path / "a").read_bytes() == b"new"
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_what_a_killed_process_left_is_deleted(tmp_path):
    script = (
        "import os, signal, sys\n"
        "from solo_d2.io.atomic import AtomicFile\n"
        "AtomicFile(sys.argv[1]).file.write(b'x')\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    subprocess.run([sys.executable, "-c", script, str(tmp_path / "a")], check=False)
    (file,) = tmp_path.iterdir()
    assert remove_leftovers(tmp_path) == [file.name]


@pytest.mark.parametrize("name", ["x" * 255, "é" * 127, "\U0001f600" * 63, "a b\nc"])
def test_any_name_can_be_written(tmp_path, name):
    with atomic_write(tmp_path / name) as file:
        file.write(b"new")
    assert (tmp_path / name).read_bytes() == b"new"


def test_folders_and_devices_are_not_replaced(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path, tmp_path / "pipe", Path("/dev/null")):
        with pytest.raises(OSError, match="a folder or a device"):
            AtomicFile(path)
    assert not Path("/dev/null").is_file()


# JSON, entry by entry.


@pytest.mark.parametrize(
    ("head", "expected"),
    [
        (None, [1, "é\ud800", {"a": None}]),
        ({}, {"annotations": [1, "é\ud800", {"a": None}]}),
        ({"info": {"x": 1}}, {"info": {"x": 1}, "annotations": [1, "é\ud800", {"a": None}]}),
    ],
)
def test_a_list_is_written_entry_by_entry(tmp_path, head, expected):
    path = tmp_path / "new" / "r.json"
    with JsonListWriter(path, head=head) as file:
        file.extend([1])
        file.extend([])
        file.extend(iter(["é\ud800", {"a": None}]))
        assert not path.exists()
        assert file.count == 3
    assert json.loads(path.read_text()) == expected
    assert len(list(path.parent.iterdir())) == 1


@pytest.mark.parametrize("head", [None, {"a": 1}])
def test_an_empty_list_is_a_list(tmp_path, head):
    with JsonListWriter(tmp_path / "r.json", head=head):
        pass
    content = json.loads((tmp_path / "r.json").read_text())
    assert content == ([] if head is None else {"a": 1, "annotations": []})


@pytest.mark.parametrize("error", [KeyError, KeyboardInterrupt, SystemExit, MemoryError])
def test_what_ends_the_block_keeps_the_old_list(tmp_path, error):
    (tmp_path / "r.json").write_text("[0]")
    with pytest.raises(error), JsonListWriter(tmp_path / "r.json") as file:
        file.extend([1, 2])
        raise error
    assert json.loads((tmp_path / "r.json").read_text()) == [0]
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_numbers_that_json_has_not_are_named(tmp_path, value):
    with (
        pytest.raises(ValueError, match=r"r\.json: a value is NaN or infinite"),
        JsonListWriter(tmp_path / "r.json") as file,
    ):
        file.extend([{"score": value}])
    with pytest.raises(ValueError, match=r"r\.json: a value is NaN or infinite"):
        save_json(tmp_path / "r.json", [value])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("write", [JsonListWriter, lambda path: save_json(path, [])])
@pytest.mark.parametrize("place", ["file/r.json", "folder", "/dev/null"])
def test_a_target_that_cannot_be_written_is_known_at_once(tmp_path, write, place):
    (tmp_path / "file").write_text("")
    (tmp_path / "folder").mkdir()
    with pytest.raises(ValueError, match="cannot be written"):
        write(tmp_path / place)


def test_a_disk_that_gets_full_leaves_the_old_list(tmp_path):
    """``/dev/full`` in place of the temporary file."""
    (tmp_path / "r.json").write_text("[0]")
    with (
        open("/dev/full", "wb", buffering=0) as full,
        pytest.raises(ValueError, match=r"r\.json: cannot be written.*No space"),
        JsonListWriter(tmp_path / "r.json") as writer,
    ):
        writer._list._file = full
        writer.extend([1])
    assert json.loads((tmp_path / "r.json").read_text()) == [0]
    assert len(list(tmp_path.iterdir())) == 1


def test_a_disk_that_is_full_from_the_start_leaves_nothing(tmp_path, monkeypatch):
    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(json_file, "JsonList", full)
    with pytest.raises(ValueError, match=r"r\.json: cannot be written.*No space"):
        JsonListWriter(tmp_path / "r.json")
    assert list(tmp_path.iterdir()) == []


def test_what_a_kill_leaves_is_a_whole_list(tmp_path):
    script = (
        "import os, signal, sys\n"
        "from solo_d2.io.json_file import JsonListWriter\n"
        "writer = JsonListWriter(sys.argv[1])\n"
        "writer.extend([{'a': 1}])\n"
        "writer.extend([{'a': 2}])\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    subprocess.run([sys.executable, "-c", script, str(tmp_path / "r.json")], check=False)
    (file,) = tmp_path.iterdir()
    assert json.loads(file.read_text()) == [{"a": 1}, {"a": 2}]


# The command, on a test set.


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A config file and weights of a model of two classes that has learnt nothing."""
    folder = tmp_path_factory.mktemp("trained")
    keys = ("MODEL.SOLO.NUM_CLASSES", 2, "MODEL.SOLO.SCORE_THRESH_TEST", 0.0)
    keys += ("MODEL.SOLO.FINAL_SCORE_THRESH_TEST", 0.0, "TEST.DETECTIONS_PER_IMAGE", 5)
    keys += ("INPUT.MIN_SIZE_TEST", 64, "DATALOADER.NUM_WORKERS", 0)
    (folder / "config.yaml").write_text(tiny_config(*keys).dump())
    save_checkpoint({"model": tiny_model(*keys).state_dict()}, folder / "model.pth")
    return folder


@pytest.mark.parametrize("annotations", [[], None], ids=["empty list", "no list"])
@pytest.mark.parametrize("kind", ["coco", "lvis"])
def test_a_test_set_is_predicted_and_the_command_says_where(
    tmp_path, trained, monkeypatch, kind, annotations
):
    monkeypatch.setattr(defaults, "collect_env_info", lambda: "")  # takes seconds
    changed = content()
    del changed["annotations"]
    if annotations is not None:
        changed["annotations"] = annotations
    if kind == "lvis":
        for category in changed["categories"]:
            category["frequency"] = "f"
    file = write(tmp_path, changed, "image_info_test-dev2017.json")
    arguments = ["--config-file", trained / "config.yaml", "--eval-only", "--data-format", kind]
    arguments += ["--val-json", file, "--val-images", tmp_path]
    arguments += ["OUTPUT_DIR", tmp_path / "out", "MODEL.WEIGHTS", trained / "model.pth"]
    try:
        assert train_net.invoke_main([str(x) for x in arguments]) == 0
    finally:
        for catalog in (DatasetCatalog, MetadataCatalog):
            if "own_val" in catalog.list():
                catalog.remove("own_val")
    (results,) = (tmp_path / "out").rglob(f"{kind}_instances_results.json")
    entries = json.loads(results.read_text())
    assert {x["image_id"] for x in entries} == {1, 2}
    assert {x["category_id"] for x in entries} <= {3, 17}
    assert len(entries) == 10
    log = (tmp_path / "out" / "log.txt").read_text()
    assert f"no annotations: results for the evaluation server are in {results}" in log
    assert "AP50" not in log
