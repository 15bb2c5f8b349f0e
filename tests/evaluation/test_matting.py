"""The evaluators of mattes on small scenes with known errors."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.structures import Instances
from detectron2.utils import comm
from PIL import Image
from pycocotools import mask as mask_util

from solo_d2.evaluation.matting import MattingEvaluator, SOFIEvaluator
from solo_d2.evaluation.matting_metrics import METRICS, matting_errors, unknown_region

NAME = "evaluated_mattes"
SIZE = (32, 40)
CLASSES = 3
PIXELS = SIZE[0] * SIZE[1]


def disc(x, radius, y=16):
    """A soft disc in steps of 1/255, as a file holds it."""
    v, u = np.mgrid[: SIZE[0], : SIZE[1]]
    matte = np.clip((radius - np.hypot(v - y, u - x)) / 4 + 0.5, 0, 1)
    return (np.rint(matte * 255) / 255).astype(np.float32)


LEFT, RIGHT, SMALL = disc(10, 7), disc(30, 7), disc(20, 3)


def rle(matte):
    return mask_util.encode(np.asfortranarray(matte >= 0.5).astype(np.uint8))


@pytest.fixture
def register(tmp_path):
    """Registers scenes: a list per image of (class, matte), stored as files or as masks alone."""

    def register(scenes, *, soft=True):
        records = []
        for number, scene in enumerate(scenes):
            annotations = []
            for k, (label, matte) in enumerate(scene):
                entry = {"category_id": label, "iscrowd": 0, "segmentation": rle(matte)}
                if soft:
                    file = tmp_path / f"{number}_{k}.png"
                    Image.fromarray(np.rint(matte * 255).astype(np.uint8)).save(file)
                    entry["alpha"] = {"file_name": str(file)}
                annotations.append(entry)
            records.append(
                {
                    "file_name": f"{number}.jpg",
                    "image_id": 5 + number,
                    "height": SIZE[0],
                    "width": SIZE[1],
                    "annotations": annotations,
                }
            )
        if NAME in DatasetCatalog:
            DatasetCatalog.remove(NAME)
        DatasetCatalog.register(NAME, lambda: records)
        MetadataCatalog.get(NAME).thing_classes = [f"class {k}" for k in range(CLASSES)]
        return records

    yield register
    if NAME in DatasetCatalog:
        DatasetCatalog.remove(NAME)
    MetadataCatalog.pop(NAME, None)


def output(found, *, soft=True, scores=None):
    """A model's output of (class, matte)."""
    instances = Instances(SIZE)
    mattes = torch.from_numpy(np.array([matte for _, matte in found], np.float32)).view(-1, *SIZE)
    if soft:
        instances.pred_mattes = mattes
    instances.pred_masks = mattes > 0.5
    instances.pred_classes = torch.tensor([label for label, _ in found], dtype=torch.int64)
    instances.scores = torch.tensor(scores if scores else [0.5] * len(found))
    return {"instances": instances}


def run(evaluator, outputs):
    evaluator.reset()
    for image_id, found in zip(evaluator.records, outputs, strict=False):
        evaluator.process([{"image_id": image_id}], [found])
    return evaluator.evaluate()[evaluator.name]


SCENES = [[(0, LEFT), (0, RIGHT), (2, SMALL)], [(1, LEFT)], []]


def zero_sofi(classes):
    return {"SOFI_MSE": 0.0, "SOFI_SAD": 0.0, "SOFI_classes": classes}


def test_perfect_mattes_have_no_error_and_thresholded_ones_have(register):
    register(SCENES)
    perfect = [output(scene) for scene in SCENES]
    binary = [output(scene, soft=False) for scene in SCENES]
    sofi = SOFIEvaluator(NAME)
    assert run(sofi, perfect) == zero_sofi(3)
    assert min(run(sofi, binary).values()) > 0
    for region in ("image", "unknown"):
        matting = MattingEvaluator(NAME, region=region)
        assert run(matting, perfect) == dict.fromkeys(METRICS, 0.0)
        assert min(run(matting, binary).values()) > 0


def test_without_files_of_mattes_the_masks_are_the_truth(register):
    register(SCENES, soft=False)
    assert run(SOFIEvaluator(NAME), [output(scene, soft=False) for scene in SCENES]) == zero_sofi(3)
    assert run(SOFIEvaluator(NAME), [output(scene) for scene in SCENES])["SOFI_MSE"] > 0


def test_sofi_of_one_image_and_class_by_hand(register):
    """Class 0: LEFT is found as 0.8 LEFT, RIGHT is missed; both sides count in full."""
    register([[(0, LEFT), (0, RIGHT)]])
    result = run(SOFIEvaluator(NAME), [output([(0, 0.8 * LEFT)])])
    off = float(np.abs(0.2 * LEFT).sum())
    missed = float(np.abs(RIGHT - 0.8 * LEFT).sum())
    assert result["SOFI_SAD"] == pytest.approx(((off + missed) / 2 + off) / 1000, 1e-5)
    off = float(np.square(0.2 * LEFT).sum()) / PIXELS
    missed = float(np.square(RIGHT - 0.8 * LEFT).sum()) / PIXELS
    assert result["SOFI_MSE"] == pytest.approx(1e3 * ((off + missed) / 2 + off), 1e-5)
    assert result["SOFI_classes"] == 1  # of three


def test_both_sides_of_the_error_count_alike(register):
    """One object and two predictions, or two objects and one prediction: the same error."""
    register([[(0, LEFT)]])
    more_found = run(SOFIEvaluator(NAME), [output([(0, LEFT), (0, RIGHT)])])
    register([[(0, LEFT), (0, RIGHT)]])
    less_found = run(SOFIEvaluator(NAME), [output([(0, LEFT)])])
    assert more_found == pytest.approx(less_found)
    assert more_found["SOFI_MSE"] > 0


def test_an_empty_side_is_the_all_zero_matte(register):
    register([[(1, LEFT)], []])
    total = float(LEFT.sum()) / 1000
    images = 2
    nothing = run(SOFIEvaluator(NAME), [output([]), output([])])
    assert nothing["SOFI_SAD"] == pytest.approx(total / images, 1e-5)
    wrong = run(SOFIEvaluator(NAME), [output([(1, LEFT)]), output([(1, LEFT)])])
    assert wrong == pytest.approx(nothing)


def test_a_wrong_class_is_a_miss_and_a_false_alarm(register):
    register([[(0, LEFT)]])
    right = run(SOFIEvaluator(NAME), [output([(0, LEFT)])])
    wrong = run(SOFIEvaluator(NAME), [output([(1, LEFT)])])
    missed = run(SOFIEvaluator(NAME), [output([])])
    assert right == zero_sofi(1)
    assert wrong["SOFI_SAD"] == pytest.approx(2 * missed["SOFI_SAD"])
    assert run(MattingEvaluator(NAME), [output([(1, LEFT)])]) == dict.fromkeys(METRICS, 0.0)


@pytest.mark.parametrize("evaluator", [SOFIEvaluator, MattingEvaluator])
def test_the_order_of_instances_does_not_matter(register, evaluator):
    register([[(0, LEFT), (0, RIGHT), (2, SMALL)]])
    found = [(0, 0.7 * LEFT), (0, RIGHT), (0, SMALL), (2, SMALL), (1, 0.8 * LEFT)]
    first = run(evaluator(NAME), [output(found)])
    second = run(evaluator(NAME), [output(found[::-1])])
    assert first == pytest.approx(second, rel=1e-9)
    assert max(first.values()) > 0


def test_fifty_instances_against_a_literal_sum(register):
    rng = np.random.default_rng(0)
    truth = [(int(rng.integers(3)), disc(*rng.uniform(3, 30, 2))) for _ in range(50)]
    found = [(int(rng.integers(3)), disc(*rng.uniform(3, 30, 2))) for _ in range(50)]
    register([truth])
    result = run(SOFIEvaluator(NAME), [output(found)])
    expected = 0.0
    for label in range(CLASSES):
        wanted = [m.astype(float) for k, m in truth if k == label]
        seen = [m.astype(float) for k, m in found if k == label]
        errors = np.array([[np.abs(g - m).sum() / 1000 for m in seen] for g in wanted])
        expected += (errors.min(1).mean() + errors.min(0).mean()) / CLASSES
    assert result["SOFI_SAD"] == pytest.approx(expected, 1e-5)


def test_scores_below_the_threshold_are_left_out(register):
    register([[(0, LEFT)]])
    found = [output([(0, LEFT), (0, RIGHT)], scores=[0.75, 0.25])]
    assert run(SOFIEvaluator(NAME, score_thresh=0.5), found) == zero_sofi(1)
    assert run(SOFIEvaluator(NAME, score_thresh=0.25), found)["SOFI_MSE"] > 0  # 0.25 is kept
    missed = run(SOFIEvaluator(NAME, score_thresh=0.8), found)
    assert missed == run(SOFIEvaluator(NAME), [output([])])


def test_matting_takes_the_nearest_prediction_and_averages_objects(register):
    register([[(0, LEFT), (0, RIGHT)], [(1, SMALL)]])
    close = np.clip(0.9 * LEFT, 0, 1)
    found = [output([(0, disc(30, 4)), (1, close), (1, disc(20, 12))]), output([])]
    result = run(MattingEvaluator(NAME), found)
    best = [(close, LEFT), (disc(30, 4), RIGHT), (np.zeros_like(SMALL), SMALL)]
    errors = [matting_errors(matte, target) for matte, target in best]
    for key in METRICS:
        scale = 1e3 if key == "MSE" else 1.0
        assert result[key] == pytest.approx(scale * np.mean([x[key] for x in errors]), 1e-5)


def test_the_unknown_region_is_that_of_the_true_matte(register):
    register([[(0, LEFT)]])
    everywhere = np.full(SIZE, 0.5, np.float32)
    result = run(MattingEvaluator(NAME, region="unknown", radius=2), [output([(0, everywhere)])])
    expected = matting_errors(everywhere, LEFT, unknown_region(LEFT, 2))
    assert result["SAD"] == pytest.approx(expected["SAD"], 1e-6)
    whole = run(MattingEvaluator(NAME), [output([(0, everywhere)])])
    assert whole["SAD"] > 1.5 * result["SAD"]


def test_crowd_regions_are_no_objects(register):
    records = register([[(0, LEFT), (1, RIGHT)]])
    records[0]["annotations"][1]["iscrowd"] = 1
    assert run(SOFIEvaluator(NAME), [output([(0, LEFT)])]) == zero_sofi(1)
    assert run(MattingEvaluator(NAME), [output([(0, LEFT)])]) == dict.fromkeys(METRICS, 0.0)


def test_crowds_alone_give_zeros(register):
    records = register([[(0, LEFT)]])
    records[0]["annotations"][0]["iscrowd"] = 1
    assert run(SOFIEvaluator(NAME), [output([])]) == zero_sofi(0)
    assert run(MattingEvaluator(NAME), [output([(0, LEFT)])]) == dict.fromkeys(METRICS, 0.0)


def test_figures_of_every_image_are_written(register, tmp_path):
    register(SCENES)
    run(SOFIEvaluator(NAME, str(tmp_path / "out")), [output(scene) for scene in SCENES])
    content = json.loads((tmp_path / "out" / "sofi.json").read_text())
    assert content["results"] == zero_sofi(3)
    assert [(row["image_id"], row["class"]) for row in content["rows"]] == [(5, 0), (5, 2), (6, 1)]


@pytest.mark.parametrize("evaluator", [SOFIEvaluator, MattingEvaluator])
def test_several_processes_give_what_one_gives(register, monkeypatch, evaluator):
    register(SCENES)
    outputs = [output([(0, 0.9 * LEFT), (1, SMALL)])] * 3
    alone = run(evaluator(NAME), outputs)
    halves = [evaluator(NAME), evaluator(NAME)]
    for number, image_id in enumerate(halves[0].records):
        halves[number % 2].process([{"image_id": image_id}], [outputs[number]])
    parts = []
    monkeypatch.setattr(comm, "gather", lambda data, dst=0: parts.append(data) or parts)
    halves[1].evaluate()
    assert halves[0].evaluate()[halves[0].name] == pytest.approx(alone)
    monkeypatch.setattr(comm, "gather", lambda data, dst=0: [])
    monkeypatch.setattr(comm, "is_main_process", lambda: False)
    assert halves[1].evaluate() is None


def test_bad_use_is_named(register):
    register(SCENES)
    with pytest.raises(ValueError, match="score_thresh must lie in"):
        SOFIEvaluator(NAME, score_thresh=1.5)
    with pytest.raises(ValueError, match="region must be one of"):
        MattingEvaluator(NAME, region="everywhere")
    small = {"instances": Instances((3, 4), scores=torch.zeros(0))}
    with pytest.raises(ValueError, match=r"0\.jpg: predictions of \(3, 4\), expected \(32, 40\)"):
        SOFIEvaluator(NAME).process([{"image_id": 5}], [small])
