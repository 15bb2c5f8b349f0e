"""Facts about Cityscapes evaluation: the official numbers, on today's NumPy."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pycocotools.mask as mask_util
import pytest
import torch
from cityscapes_folder import SIZE, write_folder
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.structures import Instances

from solo_d2.data.datasets.cityscapes import register_cityscapes
from solo_d2.evaluation import CityscapesInstanceEvaluator, build_evaluator

pytest.importorskip("cityscapesscripts.evaluation.evalInstanceLevelSemanticLabeling")


@pytest.fixture
def records(tmp_path):
    write_folder(tmp_path)
    register_cityscapes(tmp_path, ("val",))
    yield DatasetCatalog.get("cityscapes_val")
    DatasetCatalog.remove("cityscapes_val")
    MetadataCatalog.pop("cityscapes_val")


def truth_as_output(record, chosen=lambda annotation: not annotation["iscrowd"]):
    annotations = [x for x in record["annotations"] if chosen(x)]
    masks = [mask_util.decode(x["segmentation"]) for x in annotations]
    masks = torch.from_numpy(np.array(masks, dtype=bool)).reshape(-1, *SIZE)
    labels = torch.tensor([x["category_id"] for x in annotations], dtype=torch.int64)
    found = Instances(SIZE, pred_masks=masks, pred_classes=labels, scores=torch.ones(len(masks)))
    return {"instances": found}


def evaluate(records, chosen=lambda annotation: not annotation["iscrowd"]):
    evaluator = build_evaluator("cityscapes_val")
    evaluator.reset()
    for record in records:
        evaluator.process([record], [truth_as_output(record, chosen)])
    return evaluator.evaluate()


def test_a_perfect_predictor_has_an_ap_of_100(records):
    result = evaluate(records)["segm"]
    assert [result[k] for k in ("AP", "AP50", "AP-car", "AP-person")] == pytest.approx([100] * 4)
    assert np.isnan(result["AP-train"])  # there is none


def test_what_is_not_found_lowers_its_class_and_the_mean(records):
    result = evaluate(records, lambda x: x["category_id"] == 2 and not x["iscrowd"])["segm"]
    assert result["AP-car"] == pytest.approx(100)
    assert result["AP-person"] == 0
    assert result["AP"] == pytest.approx(50)


def test_groups_are_not_counted_against_the_model(records):
    assert evaluate(records, lambda x: True)["segm"]["AP"] == pytest.approx(100)


def test_numpy_is_left_as_it_was(records):
    before = set(vars(np))
    evaluate(records)
    assert set(vars(np)) == before


def test_an_image_without_prediction_is_named(records):
    with pytest.raises(ValueError, match=r"no prediction was made for .*gtFine_instanceIds"):
        evaluate(records[1:])


def test_of_a_part_of_the_dataset_only_its_images_count(records, tmp_path, caplog):
    first, *rest = records
    everything = evaluate(records)
    Path(first["file_name"]).unlink()
    result = evaluate(rest)["segm"]
    assert result["AP"] == pytest.approx(everything["segm"]["AP"]) == pytest.approx(100)
    (said,) = [x for x in caplog.messages if "ground truth" in x]
    assert "1 of 4 files of ground truth" in said and first["file_name"] in said


def test_a_part_with_all_of_its_images_is_evaluated_without_a_word(records, caplog):
    evaluate(records)
    assert not [x for x in caplog.messages if "ground truth" in x]


def test_a_folder_without_ground_truth_is_named(records, tmp_path):
    for file in (tmp_path / "gtFine" / "val").glob("*/*_instanceIds.png"):
        file.unlink()
    with pytest.raises(ValueError, match="gtFine/val holds no ground truth"):
        CityscapesInstanceEvaluator("cityscapes_val")


def test_the_missing_package_is_named(records, monkeypatch):
    monkeypatch.setitem(sys.modules, "cityscapesscripts.evaluation", None)
    with pytest.raises(ValueError, match="pip install cityscapesscripts"):
        CityscapesInstanceEvaluator("cityscapes_val")
