"""Reports: the evaluator's own figures, reasons that are known beforehand, and whole pages."""

from __future__ import annotations

import json
import re

import cv2
import numpy as np
import pytest
import training_runs as runs
from builders import tiny_config
from commands import call
from evaluation_builders import CATEGORY_IDS, SIZE, feed, random_scene, write_scenes

from solo_d2.cli.main import main
from solo_d2.data.datasets.coco_json import register_coco_json
from solo_d2.evaluation import COCOInstanceEvaluator, coco
from solo_d2.evaluation.calibration import calibrate
from solo_d2.io.segmentation import encode_mask
from solo_d2.report import overlays, plan_report, write
from solo_d2.report.matches import ImageFacts, best_threshold, match, why_missed
from solo_d2.report.runs import read_dataset, read_results
from solo_d2.report.unlearnable import BEATEN, DROPPED, OUTSIDE, find_unlearnable

pytestmark = pytest.mark.skipif(coco.hotcoco is None, reason="needs hotcoco")

FILE = COCOInstanceEvaluator.results_file


def square(x, y, side):
    mask = np.zeros(SIZE, bool)
    mask[y : y + side, x : x + side] = True
    return mask


A, B, C, D = square(4, 4, 20), square(40, 4, 40), square(4, 50, 40), square(60, 60, 36)


def config(name, output, temperature=1.0):
    """That of an evaluation whose results lie in a folder."""
    return tiny_config(
        *("DATASETS.TEST", (name,), "OUTPUT_DIR", str(output)),
        *("MODEL.SOLO.SCORE_TEMPERATURE", temperature, "INPUT.MIN_SIZE_TEST", 0),
    )


def evaluated(folder, name, scenes, **options):
    """Register scenes, evaluate their predictions, and return metrics and the file of results."""
    folder.mkdir(exist_ok=True)
    register_coco_json(name, write_scenes(folder, scenes, **options), folder)
    evaluator = COCOInstanceEvaluator(name, str(folder / "inference" / name), boundary=True)
    return feed(evaluator, scenes), folder / "inference" / name / FILE


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Folder, metrics and report.json of a report on random scenes that names itself as other."""
    folder = tmp_path_factory.mktemp("report")
    rng = np.random.default_rng(5)
    scenes = [random_scene(rng) for _ in range(25)]
    metrics, file = evaluated(folder, "reported_scenes", scenes, crowds=0.2)
    plan_report(config("reported_scenes", folder), folder / "first", None).write()
    first = folder / "first" / "report.json"
    plan_report(config("reported_scenes", folder, 0.5), folder / "both", first).write()
    return folder, metrics, json.loads(first.read_text()), file


@pytest.fixture
def matches(run):
    dataset = read_dataset("reported_scenes")
    return match(dataset, read_results(run[3], dataset))


def known(values):
    return {k: float("nan") if x is None else x for k, x in values.items()}


def test_figures_are_the_evaluators(run):
    _, metrics, report, _ = run
    for task in ("segm", "bbox", "boundary"):
        expected = {k: v for k, v in metrics[task].items() if not k.startswith("AP-")}
        assert known(report["figures"][task]) == pytest.approx(expected, nan_ok=True)
    by_class = {k: v for k, v in metrics["segm"].items() if k.startswith("AP-")}
    found = {f"AP-{k}": x["AP"] for k, x in report["classes"].items()}
    assert known(found) == pytest.approx(by_class, nan_ok=True)
    assert report["perfect"]["nothing"]["AP"] == pytest.approx(metrics["segm"]["AP"])


def test_an_empty_mask_is_a_false_detection(tmp_path):
    _, file = evaluated(tmp_path, "with_empty", [([(A, 0), (B, 0)], [(A, 0, 0.9)])])
    results = json.loads(file.read_text())
    empty = {"size": list(SIZE), "counts": [SIZE[0] * SIZE[1]]}
    more = {**results[0], "segmentation": empty, "bbox": [0, 0, 0, 0], "score": 0.95}
    other = tmp_path / "with_empty.json"
    other.write_text(json.dumps([*results, more]))
    cfg = config("with_empty", tmp_path)
    plan_report(cfg, tmp_path / "report", other).write()
    assert (tmp_path / "report" / "index.html").is_file()
    dataset = read_dataset("with_empty")
    found = match(dataset, read_results(other, dataset))
    assert found.images(dataset, 0.5)[1] == ImageFacts(1, 1, 1)


def test_objects_are_found_or_missed(run, matches):
    report = run[2]
    objects = len(matches.objects)
    assert sum(x["objects"] for x in report["classes"].values()) == objects
    assert sum(x["true"] + x["missed"] for x in report["images"]) == objects
    missed = sum(x["all"] for x in report["missed"].values())
    assert missed == sum(x["missed"] for x in report["images"])
    for row in report["missed"].values():
        assert row["all"] == sum(v for k, v in row.items() if k != "all")
    ids = {x["id"] for x in json.loads((run[0] / "truth.json").read_text())["images"]}
    assert {x["image_id"] for x in report["images"]} == ids


def test_no_other_threshold_has_a_higher_f1(run, matches):
    def f1(threshold):
        shown = matches.counted & (matches.scores >= threshold)
        true = int((shown & matches.true).sum())
        return 2 * true / (int(shown.sum()) + len(matches.objects))

    best = best_threshold(matches)
    assert best == run[2]["threshold"]
    assert f1(best) == max(map(f1, matches.scores))


def test_the_temperature_is_that_of_the_counted_detections(run, matches):
    scores, true = matches.scores[matches.counted], matches.true[matches.counted]
    assert run[2]["calibration"]["temperature"] == calibrate(scores, true)
    assert not matches.counted.all()  # some lie on crowds


def test_the_page_has_its_parts_and_nothing_outside(run):
    text = (run[0] / "first" / "index.html").read_text()
    parts = ("Figures", "Where AP is lost", "Missed objects", "Scores", "Classes", "Worst images")
    assert all(f">{part}</h2>" in text for part in parts)
    assert re.findall(r"(?:src|href)='(?!data:|#)", text) == [] and "http" not in text
    assert "Where the runs differ" not in text
    wrong = sum(x["missed"] + x["false"] > 0 for x in run[2]["images"])
    assert text.count("<img ") == 2 * wrong


def test_a_run_beside_itself_differs_nowhere(run):
    text = (run[0] / "both" / "index.html").read_text()
    assert "F1 is higher in 0 images and lower in 0, 25 are equal." in text
    assert text.count("<td class='n'>0.0</td>") >= len(run[2]["classes"])


def test_the_temperature_multiplies_that_of_the_run(run):
    found = run[2]["calibration"]["temperature"]
    text = (run[0] / "both" / "index.html").read_text()
    shown = float(re.search(r"SCORE_TEMPERATURE: ([0-9.]+)", text)[1])
    assert shown == pytest.approx(min(max(0.5 * found, 0.2), 5), abs=6e-4)


def test_where_two_runs_differ_is_shown(tmp_path):
    scenes = [([(A, 0)], [(A, 0, 0.9)]), ([(B, 1)], [(A, 1, 0.8)])]
    _, first = evaluated(tmp_path / "a", "one", scenes)
    (tmp_path / "other.json").write_text(first.read_text().replace("0.9", "0.7"))
    content = json.loads(first.read_text())
    content[1]["segmentation"] = encode_mask(B)
    (tmp_path / "other.json").write_text(json.dumps(content))
    plan_report(config("one", tmp_path / "a"), tmp_path / "r", tmp_path / "other.json").write()
    text = (tmp_path / "r" / "index.html").read_text()
    assert "F1 is higher in 0 images and lower in 1, 1 are equal." in text
    assert "F1 1.00 → 0.00" in text


def test_reasons_of_missed_objects(tmp_path):
    objects = [(A, 0), (B, 0), (C, 0), (D, 1)]
    found = [
        (A, 0, 0.2),  # true, below the threshold
        (np.roll(B, 20, axis=1), 0, 0.9),  # IoU 1/3
        (C, 1, 0.9),  # of another class
    ]
    _, file = evaluated(tmp_path, "reasons", [(objects, found)])
    dataset = read_dataset("reasons")
    matches = match(dataset, read_results(file, dataset))
    table = why_missed(dataset, matches, 0.5)
    assert {k: x["all"] for k, x in table.items()} == {
        "low score": 1,
        "bad mask": 1,
        "other class": 1,
        "not found": 1,
    }
    assert (table["low score"]["small"], table["bad mask"]["medium"]) == (1, 1)
    assert why_missed(dataset, matches, 0.2)["low score"]["all"] == 0
    known = why_missed(dataset, matches, 0.5, {4: "no cell of its own"})
    assert known["no cell of its own"]["all"] == 1 and known["not found"]["all"] == 0


def test_objects_that_the_grid_loses_are_named(tmp_path):
    """Two cells a side, 80 x 64 pixels each, and objects up to 60 pixels."""
    large, tiny = square(0, 0, 100), square(120, 90, 2)
    scenes = [([(A, 0), (B, 0), (large, 0)], []), ([(tiny, 0)], [])]
    evaluated(tmp_path, "lost", scenes)
    cfg = config("lost", tmp_path)
    cfg.MODEL.SOLO.NUM_GRIDS = [2] * 5
    cfg.MODEL.SOLO.SCALE_RANGES = [[1, 60]] * 5
    assert find_unlearnable(cfg, read_dataset("lost")) == {
        2: BEATEN,  # by the smaller one, whose centre is in the same cell
        3: OUTSIDE,
        4: DROPPED,
    }


def test_facts_of_an_image():
    assert ImageFacts(2, 1, 1).f1 == pytest.approx(2 / 3)
    assert (ImageFacts(0, 0, 0).f1, ImageFacts(0, 1, 0).f1) == (1, 0)


def test_missed_objects_and_false_detections_are_red(tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr(overlays, "image", lambda pixels, text: drawn.append(pixels) or "")
    scenes = [([(A, 0), (B, 0)], [(B, 0, 0.9), (C, 0, 0.95)])]
    _, file = evaluated(tmp_path, "colours", scenes)
    dataset = read_dataset("colours")
    run = write.measure(dataset, read_results(file, dataset), "run", file, 100)
    overlays.draw_image(dataset, 1, [run])
    truth, found = drawn

    def hue(pixels, mask):
        inner = cv2.erode(mask.astype(np.uint8), np.ones((7, 7))) > 0
        _, green, red = np.median(pixels[inner], axis=0)
        return "red" if red > green else "green"

    assert [hue(truth, x) for x in (A, B)] == ["red", "green"]
    assert [hue(found, x) for x in (B, C)] == ["green", "red"]
    assert not found[A].any()


@pytest.mark.parametrize(
    ("truth", "missed"), [([(A, 0), (B, 1)], 1), ([(A, 0)], 0)], ids=["objects", "crowds alone"]
)
@pytest.mark.filterwarnings("error::RuntimeWarning")
def test_a_report_says_that_no_detection_counts_where_all_lie_on_crowds(tmp_path, truth, missed):
    folder = tmp_path / "a"
    _, file = evaluated(folder, "on_crowds", [(truth, [(A, 0, 0.9)])])
    content = json.loads((folder / "truth.json").read_text())
    content["annotations"][0]["iscrowd"] = 1
    (folder / "truth.json").write_text(json.dumps(content))
    plan_report(config("on_crowds", folder), tmp_path / "r", file).write()
    report = json.loads((tmp_path / "r" / "report.json").read_text())
    assert sum(x["all"] for x in report["missed"].values()) == missed
    assert report["threshold"] == 0 and report["calibration"]["ECE"] is None
    assert [(x["true"], x["false"], x["missed"]) for x in report["images"]] == [(0, 0, missed)]
    text = (tmp_path / "r" / "index.html").read_text()
    assert "this run: no detection counts, as all of them lie on crowds." in text
    assert "nothing is known of the scores" in text and "SCORE_TEMPERATURE" not in text


def test_without_detections_a_line_names_the_file_and_an_old_report_goes(tmp_path, caplog):
    folder = tmp_path / "r"
    _, file = evaluated(tmp_path, "bare", [([(A, 0)], [(A, 0, 0.9)])])
    plan = plan_report(config("bare", tmp_path), folder, None)
    plan.write()
    assert {x.name for x in folder.iterdir()} == {"index.html", "report.json"}
    file.write_text("[]")
    with pytest.raises(ValueError, match=r"results.json: has no detections.*lower MODEL.SOLO"):
        plan.write()
    assert not list(folder.iterdir())
    assert f"Removed {folder / 'index.html'}, which was of an earlier evaluation" in caplog.text


def crowded():
    """A scene of 160 objects of one class, all of them found."""
    objects = [(square(x, y, 4), 0) for x in range(0, 80, 5) for y in range(0, 50, 5)]
    return objects, [(*x, 0.9 - k / 1000) for k, x in enumerate(objects)]


@pytest.mark.parametrize(("keys", "counted"), [
    ((), 100),
    (("TEST.DETECTIONS_PER_IMAGE", 150), 150),
    (("TEST.DETECTIONS_PER_IMAGE", 10), 100),
    (("TEST.TILES.ENABLED", True), 160),
])  # fmt: skip
def test_every_figure_of_a_report_counts_the_same_detections(tmp_path, keys, counted):
    _, file = evaluated(tmp_path, "crowded", [crowded()])
    cfg = config("crowded", tmp_path)
    cfg.merge_from_list(list(keys))
    plan_report(cfg, tmp_path / "r", file).write()
    report = json.loads((tmp_path / "r" / "report.json").read_text())
    metrics = COCOInstanceEvaluator("crowded", max_dets_per_image=counted)
    expected = feed(metrics, [crowded()])["segm"]["AP"]
    assert report["figures"]["segm"]["AP"] == pytest.approx(expected)
    assert report["perfect"]["nothing"]["AP"] == pytest.approx(expected)
    assert report["errors"]["object without a detection"]["number"] == 160 - counted
    assert sum(x["all"] for x in report["missed"].values()) == 160 - counted
    (image,) = report["images"]
    assert (image["true"], image["false"], image["missed"]) == (counted, 0, 160 - counted)
    text = (tmp_path / "r" / "index.html").read_text()
    assert f"{counted} detections" in text
    assert "F1 is higher in 0 images and lower in 0, 1 are equal." in text


def test_detections_of_the_other_run_that_do_not_count_are_told(tmp_path, caplog):
    _, file = evaluated(tmp_path, "crowded", [crowded()])
    caplog.clear()
    plan_report(config("crowded", tmp_path), tmp_path / "r", file).write()
    assert f"{file}: 1 images have more than 100 instances of one class" in caplog.text


def test_an_image_that_is_gone_is_a_line(tmp_path):
    evaluated(tmp_path, "gone", [([(A, 0)], [(B, 0, 0.9)])])
    (tmp_path / "0.png").write_bytes(b"")
    plan_report(config("gone", tmp_path), tmp_path / "r", None).write()
    text = (tmp_path / "r" / "index.html").read_text()
    assert "<img" not in text and "0.png: " in text


def entry(**changes):
    return {
        "image_id": 5,
        "category_id": CATEGORY_IDS[0],
        "score": 0.5,
        "segmentation": encode_mask(A),
        **changes,
    }


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({}, "expected a list of COCO results, or a report.json; got a json dict"),
        ([7], "entry 0: a result needs image_id.*; missing: image_id"),
        ([entry(), entry(image_id=6)], "entry 1: the dataset reported_scenes has no image_id 6"),
        ([entry(category_id=1)], "the dataset reported_scenes has no category_id 1"),
        ([entry(category_id=[1])], "has no category_id"),
        ([entry(score=float("nan"))], r"the score must be a number in \[0, 1\], got nan"),
        ([entry(segmentation={"size": [2, 2], "counts": "4"})], "entry 0: "),
        ({"results": "nowhere.json"}, "nowhere.json: "),
    ],
)
def test_other_files_are_refused_in_a_line(run, tmp_path, content, message):
    (tmp_path / "x.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match=message) as caught:
        read_results(tmp_path / "x.json", read_dataset("reported_scenes"))
    assert "\n" not in str(caught.value)


def test_what_a_report_needs_is_said_before_the_evaluation(run, tmp_path, monkeypatch):
    with pytest.raises(ValueError, match=r"--report-against .*none.json: .*report.json"):
        plan_report(config("reported_scenes", tmp_path), tmp_path, tmp_path / "none.json")
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match=r"file/r/index.html: cannot be written"):
        plan_report(config("reported_scenes", tmp_path), tmp_path / "file" / "r", None)
    with pytest.raises(ValueError, match="scored by those of None; leave it out"):
        plan_report(config("unknown", tmp_path), tmp_path, None)
    monkeypatch.setattr(write, "hotcoco", None)
    with pytest.raises(ValueError, match="--report needs hotcoco; install it"):
        plan_report(config("reported_scenes", tmp_path), tmp_path, None)


def test_the_command_writes_both_files(tmp_path):
    (tmp_path / "tiny.yaml").write_text(runs.config(tmp_path / "unused").dump())
    file = runs.write_images(tmp_path / "data", count=3)
    done = call(
        *(main, "eval", "--config-file", tmp_path / "tiny.yaml"),
        *("--val-json", file, "--val-images", tmp_path / "data"),
        *("--report", tmp_path / "r", "OUTPUT_DIR", tmp_path / "out", "MODEL.WEIGHTS", ""),
        *("MODEL.SOLO.SCORE_THRESH_TEST", 0.0, "MODEL.SOLO.FINAL_SCORE_THRESH_TEST", 0.0),
    )
    assert done.returncode == 0, done.stderr
    assert f"Saved the report to {tmp_path / 'r' / 'index.html'}" in done.stdout
    report = json.loads((tmp_path / "r" / "report.json").read_text())
    assert report["dataset"] == "own_val" and len(report["images"]) == 3


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["eval", "--report-against", "a.json"], "--report-against needs --report DIR"),
        (["train", "--report", "r"], "--report is of an evaluation: solo-d2 eval --report DIR"),
    ],
)
def test_options_that_do_not_go_together(words, message, capsys):
    assert main([*words, "--data", "x"]) == 2
    assert message in capsys.readouterr().err
