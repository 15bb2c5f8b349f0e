"""The panoptic and semantic evaluators against known figures and Detectron2's own."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.evaluation import COCOPanopticEvaluator, SemSegEvaluator
from detectron2.utils import comm
from panoptic_scenes import CATEGORIES, perfect_output, scenes, write_scenes
from PIL import Image

from solo_d2.data.datasets.panoptic import register_coco_panoptic
from solo_d2.evaluation import build_evaluator
from solo_d2.evaluation.panoptic import PanopticEvaluator, SemanticEvaluator
from solo_d2.io.panoptic_png import read_panoptic_png, semantic_labels

NAME = "evaluated_panoptic"


@pytest.fixture
def records(tmp_path):
    register_coco_panoptic(NAME, *write_scenes(tmp_path))
    yield DatasetCatalog.get(NAME)
    DatasetCatalog.remove(NAME)
    MetadataCatalog.remove(NAME)


def perfect(records):
    return [perfect_output(r, read_panoptic_png(r["pan_seg_file_name"])) for r in records]


def damaged(records):
    """Outputs with segments that moved, in one image by far."""
    outputs = perfect(records)
    for k, output in enumerate(outputs):
        ids, described = output["panoptic_seg"]
        output["panoptic_seg"] = torch.roll(ids, (3, 9 * k), (0, 1)), described
        output["sem_seg"] = torch.roll(output["sem_seg"], (3, 9 * k), (1, 2))
    return outputs


def run(evaluator, records, outputs):
    evaluator.reset()
    for record, output in zip(records, outputs, strict=True):
        evaluator.process([record], [output])
    return evaluator.evaluate()


def test_a_perfect_model_has_100_percent_in_every_evaluator(records, tmp_path):
    results = run(build_evaluator(NAME, str(tmp_path / "out")), records, perfect(records))
    assert set(results["panoptic_seg"].values()) == {100.0}
    assert set(results["panoptic_seg"]) == {
        a + b for a in ("PQ", "SQ", "RQ") for b in ("", "_th", "_st")
    }
    assert results["sem_seg"]["mIoU"] == results["sem_seg"]["pACC"] == 100.0
    assert results["segm"]["AP"] == pytest.approx(100.0)


def test_a_model_for_instances_has_their_figures_alone(records, tmp_path):
    outputs = [{"instances": output["instances"]} for output in perfect(records)]
    results = run(build_evaluator(NAME, str(tmp_path / "out")), records, outputs)
    assert set(results) == {"bbox", "segm"}


def test_outputs_stay_as_they_are(records):
    outputs = perfect(records)
    before = [[dict(s) for s in output["panoptic_seg"][1]] for output in outputs]
    run(PanopticEvaluator(NAME), records, outputs)
    assert [output["panoptic_seg"][1] for output in outputs] == before


def test_the_files_are_in_cocos_format(records, tmp_path):
    run(PanopticEvaluator(NAME, str(tmp_path / "out")), records, perfect(records))
    content = json.loads((tmp_path / "out" / "predictions.json").read_text())
    assert [x["image_id"] for x in content["annotations"]] == [1, 2, 3]
    names = {entry["id"]: entry["name"] for entry in CATEGORIES}
    found = [names[s["category_id"]] for s in content["annotations"][0]["segments_info"]]
    assert found == ["sky", "grass", "cat", "dog"]
    for prediction, (ids, _) in zip(content["annotations"], scenes(), strict=True):
        saved = read_panoptic_png(tmp_path / "out" / "predictions" / prediction["file_name"])
        assert np.array_equal(saved, ids)


def test_figures_are_those_of_hotcoco(records, tmp_path):
    hotcoco = pytest.importorskip("hotcoco.panoptic")
    ours = run(PanopticEvaluator(NAME, str(tmp_path / "out")), records, damaged(records))
    metadata = MetadataCatalog.get(NAME)
    theirs = hotcoco.pq_compute(
        metadata.panoptic_json,
        str(tmp_path / "out" / "predictions.json"),
        gt_folder=metadata.panoptic_root,
        pred_folder=str(tmp_path / "out" / "predictions"),
    )
    for key, suffix in (("All", ""), ("Things", "_th"), ("Stuff", "_st")):
        for figure in ("pq", "sq", "rq"):
            expected = 100 * theirs[key][figure]
            assert ours["panoptic_seg"][figure.upper() + suffix] == pytest.approx(expected)
    assert 0 < ours["panoptic_seg"]["PQ"] < 100


def test_figures_are_those_of_detectron2(records, tmp_path):
    pytest.importorskip("panopticapi")
    outputs = damaged(records)
    ours = run(PanopticEvaluator(NAME), records, outputs)
    theirs = run(COCOPanopticEvaluator(NAME, str(tmp_path)), records, outputs)
    assert ours["panoptic_seg"] == pytest.approx(dict(theirs["panoptic_seg"]))


def test_semantic_figures_are_those_of_detectron2(records, tmp_path, monkeypatch):
    outputs = damaged(records)
    ours = run(SemanticEvaluator(NAME), records, outputs)["sem_seg"]
    for record in records:
        ids = read_panoptic_png(record["pan_seg_file_name"])
        labels = semantic_labels(ids, record["segments_info"], "")
        record["sem_seg_file_name"] = str(tmp_path / f"labels_{record['image_id']}.png")
        Image.fromarray(labels).save(record["sem_seg_file_name"])
    monkeypatch.setattr(DatasetCatalog, "get", lambda name: records)
    theirs = run(SemSegEvaluator(NAME, distributed=False), records, outputs)["sem_seg"]
    assert set(ours) <= set(theirs)
    assert ours == pytest.approx({key: theirs[key] for key in ours})
    assert 0 < ours["mIoU"] < 100


@pytest.mark.parametrize(("make", "key"), [(PanopticEvaluator, "panoptic_seg"),
                                           (SemanticEvaluator, "sem_seg")])  # fmt: skip
def test_two_processes_find_what_one_does(records, monkeypatch, make, key):
    outputs = damaged(records)
    alone = run(make(NAME), records, outputs)[key]
    first, second = make(NAME), make(NAME)
    first.process(records[:1], outputs[:1])
    second.process(records[1:], outputs[1:])
    sent = []
    monkeypatch.setattr(comm, "gather", lambda data, dst=0: sent.append(data) or [])
    monkeypatch.setattr(comm, "is_main_process", lambda: False)
    assert second.evaluate() is None
    monkeypatch.setattr(comm, "gather", lambda data, dst=0: [data, *sent])
    monkeypatch.setattr(comm, "is_main_process", lambda: True)
    assert first.evaluate()[key] == pytest.approx(alone)


def test_segments_of_images_without_a_prediction_count_as_missed(records, caplog):
    """The first image has sky, grass, a cat and a dog; the others grass, and a dog."""
    results = run(PanopticEvaluator(NAME), records[:1], perfect(records)[:1])["panoptic_seg"]
    # One of one: PQ 1. One of two: 1 / (1 + 1/2).
    assert results["PQ_th"] == results["PQ_st"] == pytest.approx(100 * (1 + 2 / 3) / 2)
    assert results["SQ"] == pytest.approx(100)
    assert "2 of 3 images were not processed; their segments count as missed" in caplog.text


def test_images_without_ground_truth_are_an_error(records):
    with pytest.raises(ValueError, match="has no image with the id 99"):
        PanopticEvaluator(NAME).process([{"image_id": 99}], perfect(records)[:1])
