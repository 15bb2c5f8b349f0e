"""Where AP is lost: scenes whose answer is known beforehand."""

from __future__ import annotations

import math

import numpy as np
import pytest
from builders import tiny_config
from evaluation_builders import SIZE, feed, random_scene, write_scenes

from solo_d2.data.datasets.coco_json import register_coco_json
from solo_d2.engine import SOLOTrainer
from solo_d2.engine.arguments import parse_arguments
from solo_d2.evaluation import COCOInstanceEvaluator, LVISInstanceEvaluator, coco
from solo_d2.evaluation.coco import entries_of
from solo_d2.evaluation.diagnosis import diagnose
from solo_d2.evaluation.scoring import within_limit
from solo_d2.io.segmentation import encode_mask

pytestmark = pytest.mark.skipif(coco.hotcoco is None, reason="needs hotcoco")


def square(x, y, side):
    mask = np.zeros(SIZE, bool)
    mask[y : y + side, x : x + side] = True
    return mask


def diagnosed(tmp_path, scenes):
    register_coco_json("scenes", write_scenes(tmp_path, scenes), tmp_path)
    evaluator = COCOInstanceEvaluator("scenes")
    metrics = feed(evaluator, scenes)
    gathered = evaluator._found.gather(distributed=False, missing="")
    found = {evaluator._truth.numbers[i]: x for i, x in gathered.items() if len(x)}
    names = {number: i for i, number in evaluator._truth.numbers.items()}
    return diagnose(evaluator._truth.content, entries_of(found, "segm"), names), metrics["segm"]


A, B = square(4, 4, 20), square(60, 30, 60)  # small, medium


def test_wrong_classes_are_all_that_is_missing(tmp_path):
    found, metrics = diagnosed(tmp_path, [([(A, 0), (B, 1)], [(A, 1, 0.9), (B, 0, 0.8)])])
    assert metrics["AP"] == found.perfect["nothing"][0] == 0
    for name in ("classes", "class-agnostic scoring"):
        assert found.perfect[name] == pytest.approx((100, 100, 100))
    assert found.perfect["masks"][0] == 0
    assert found.errors["wrong class"][1] == 2
    assert found.confused == [("class 2", "class 3", 1), ("class 3", "class 2", 1)]
    assert found.recall == {"all": (100, 100), "small": (100, 100), "medium": (100, 100),
                            "large": pytest.approx((math.nan, math.nan), nan_ok=True)}  # fmt: skip


def test_a_shifted_mask_is_all_that_is_missing(tmp_path):
    """IoU of a square shifted by a quarter of its side: 45 / 75."""
    found, metrics = diagnosed(tmp_path, [([(B, 0)], [(np.roll(B, 15, axis=1), 0, 0.9)])])
    assert metrics["AP50"] == pytest.approx(100)
    assert metrics["AP75"] == 0
    assert found.perfect["masks"] == pytest.approx((100, 100, 100))
    assert found.perfect["classes"] == found.perfect["nothing"]
    assert found.recall["all"] == (100, 0)


def test_a_false_detection_ranked_first_is_all_that_is_missing(tmp_path):
    found, metrics = diagnosed(tmp_path, [([(B, 0)], [(A, 0, 0.9), (B, 0, 0.5)])])
    assert metrics["AP"] == pytest.approx(50)
    assert found.perfect["ranking by IoU"] == pytest.approx((100, 100, 100))
    assert found.errors["background"][1] == 1
    assert found.worst[0] == (5, pytest.approx(200 / 3))
    (suspect,) = (x for x in found.suspects if x["image_id"] == 5)
    assert suspect["type"] == "missing_annotation"
    assert found.calibration == pytest.approx(100 * (0.9 + 0.5) / 2)


def test_nothing_to_gain_from_the_truth(tmp_path):
    rng = np.random.default_rng(1)
    scenes = [random_scene(rng)[0] for _ in range(6)]
    found, _ = diagnosed(tmp_path, [(x, [(*pair, 0.9) for pair in x]) for x in scenes])
    for values in found.perfect.values():
        assert values == pytest.approx((100, 100, 100), abs=1e-6)
    assert found.confused == []


def test_random_scenes_gain_from_the_true_order_and_polygons_are_masks(tmp_path):
    rng = np.random.default_rng(0)
    found, metrics = diagnosed(tmp_path, [random_scene(rng) for _ in range(20)])
    assert found.perfect["nothing"] == tuple(metrics[k] for k in ("AP", "AP50", "AP75"))
    assert found.perfect["ranking by IoU"][0] > metrics["AP"] > 0
    polygon = {"id": 1, "image_id": 1, "category_id": 1, "iscrowd": 0, "area": 400,
               "bbox": [4, 4, 20, 20], "segmentation": [[4, 4, 24, 4, 24, 24, 4, 24]]}  # fmt: skip
    content = {"images": [{"id": 1, "height": SIZE[0], "width": SIZE[1]}],
               "annotations": [polygon], "categories": [{"id": 1, "name": "a"}]}  # fmt: skip
    result = {"image_id": 1, "category_id": 1, "score": 0.9, "segmentation": encode_mask(A)}
    assert diagnose(content, [result]).perfect["nothing"][0] == pytest.approx(100)


def rows_of(text, title):
    """Cells of the table of a title, by the first one of a row."""
    lines = text.split(f"## {title}")[1].split("\n\n")[1].splitlines()[2:]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return {name: cells for name, *cells in rows}


@pytest.mark.parametrize(("limit", "counted"), [(None, 100), (200, 160), (50, 50)])
def test_a_diagnosis_counts_as_many_detections_of_a_class_as_the_ap(tmp_path, limit, counted):
    """Of 160 objects of two classes each, all of them found."""
    places = [(square(x, y, 4), label) for label in (0, 1)
              for x in range(0, 80, 5) for y in range(50 * label, 50 * label + 50, 5)]  # fmt: skip
    found = [(*x, 0.9 - k / 1000) for k, x in enumerate(places)]
    register_coco_json("scenes", write_scenes(tmp_path, [(places, found)]), tmp_path)
    options = {"max_dets_per_image": limit, "diagnosis": True}
    metrics = feed(COCOInstanceEvaluator("scenes", str(tmp_path), **options), [(places, found)])
    text = (tmp_path / "diagnosis.md").read_text()
    nothing = rows_of(text, "AP with one thing made perfect")["nothing"]
    expected = [metrics["segm"][k] for k in ("AP", "AP50", "AP75")]
    assert list(map(float, nothing)) == pytest.approx(expected, abs=0.01)
    share = 100 * counted / 160
    assert expected[0] == pytest.approx(share, abs=1)  # the first recall is 0
    recall = rows_of(text, "Objects with a detection of that IoU, in percent")["all"]
    assert list(map(float, recall)) == pytest.approx([share, share], abs=0.01)
    missed = rows_of(text, "Errors at IoU 0.5, and the AP50 that each costs")
    assert float(missed["object without a detection"][1]) == 2 * (160 - counted)
    assert float(rows_of(text, "Images with the lowest F1")["5"][0]) == pytest.approx(
        200 * counted / (160 + counted), abs=0.01
    )
    assert "Classes taken for others" not in text


def test_detections_that_count_are_not_cut_where_their_classes_are_made_perfect(tmp_path):
    """Of two classes, two detections of each count; with true classes all four are of one."""
    content = {"images": [{"id": 1, "height": SIZE[0], "width": SIZE[1]}], "annotations": [],
               "categories": [{"id": k, "name": str(k)} for k in (1, 2)]}  # fmt: skip
    masks = [encode_mask(square(30 * k, 4, 20)) for k in range(4)]
    content["annotations"] = [
        {"id": k + 1, "image_id": 1, "category_id": 1, "iscrowd": 0, "area": 400,
         "bbox": [30 * k, 4, 20, 20], "segmentation": mask}
        for k, mask in enumerate(masks)
    ]  # fmt: skip
    results = [
        {"image_id": 1, "category_id": 1 + k % 2, "score": 0.9 - k / 10, "segmentation": mask}
        for k, mask in enumerate(masks)
    ]
    counted = within_limit(results, 2)
    assert counted == results
    assert diagnose(content, counted).perfect["classes"] == pytest.approx((100, 100, 100))
    assert diagnose(content, counted).confused == [("1", "2", 2)]
    assert within_limit(results, 1) == results[:2]


def test_the_key_writes_a_file_and_the_option_sets_the_key(tmp_path):
    scenes = [([(A, 0), (B, 1)], [(A, 1, 0.9), (B, 0, 0.8)])]
    register_coco_json("scenes", write_scenes(tmp_path, scenes), tmp_path)
    args = parse_arguments(["--diagnose", "OUTPUT_DIR", str(tmp_path)])
    assert args.opts[-2:] == ["TEST.DIAGNOSE", "True"]
    evaluator = SOLOTrainer.build_evaluator(tiny_config(*args.opts), "scenes")
    feed(evaluator, scenes)
    text = (tmp_path / "inference" / "scenes" / "diagnosis.md").read_text()
    for part in ("| classes ", "| wrong class", "class 2", "Images with the lowest F1"):
        assert part in text
    SOLOTrainer.build_evaluator(tiny_config("OUTPUT_DIR", str(tmp_path / "none")), "scenes")
    assert not list((tmp_path / "none").rglob("diagnosis.md"))


@pytest.mark.parametrize("diagnosis", [True, False])
def test_an_old_diagnosis_does_not_stay_beside_new_results_that_have_none(
    tmp_path, diagnosis, caplog
):
    scenes = [([(A, 0)], [(A, 0, 0.9)])]
    register_coco_json("scenes", write_scenes(tmp_path, scenes), tmp_path)
    feed(COCOInstanceEvaluator("scenes", str(tmp_path), diagnosis=True), scenes)
    assert (tmp_path / "diagnosis.md").exists() and "Removed" not in caplog.text
    found = [] if diagnosis else scenes[0][1]
    evaluator = COCOInstanceEvaluator("scenes", str(tmp_path), diagnosis=diagnosis)
    feed(evaluator, [(scenes[0][0], found)])
    assert not (tmp_path / "diagnosis.md").exists()
    assert f"Removed {tmp_path / 'diagnosis.md'}, which was of an earlier" in caplog.text
    assert ("scenes: there is no diagnosis without" in caplog.text) == diagnosis


def test_a_diagnosis_that_cannot_be_is_told_where_there_are_no_annotations(tmp_path, caplog):
    register_coco_json("scenes", write_scenes(tmp_path, [([], [])]), tmp_path)
    feed(COCOInstanceEvaluator("scenes", str(tmp_path), diagnosis=True), [([], [(A, 0, 0.9)])])
    assert "there is no diagnosis without annotations and detections" in caplog.text
    assert not (tmp_path / "diagnosis.md").exists()


def test_what_it_needs_is_said(tmp_path, monkeypatch):
    scenes = [([(A, 0)], [])]
    register_coco_json("scenes", write_scenes(tmp_path, scenes), tmp_path)
    with pytest.raises(ValueError, match="output_dir"):
        COCOInstanceEvaluator("scenes", diagnosis=True)
    with pytest.raises(ValueError, match=r"TEST.DIAGNOSE follows COCO's rules"):
        LVISInstanceEvaluator("scenes", diagnosis=True)
    with pytest.raises(ValueError, match=r"needs detections, got none; lower SCORE_THRESH_TEST"):
        diagnose({}, [])
    monkeypatch.setattr(coco, "hotcoco", None)
    with pytest.raises(ValueError, match="a diagnosis needs hotcoco; install it"):
        COCOInstanceEvaluator("scenes", str(tmp_path), diagnosis=True)
