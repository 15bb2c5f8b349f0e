"""Results that come file by file: the figures of all of them together, to the last bit."""

from __future__ import annotations

import json
from collections import Counter

import numpy as np
import pytest
from commands import call
from detectron2.data import DatasetCatalog, MetadataCatalog
from evaluation_builders import SIZE, annotation, feed, random_mask, random_scene, write_scenes
from pycocotools import mask as mask_util
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from solo_d2.cli import eval as eval_command
from solo_d2.cli import main as cli
from solo_d2.data.datasets.coco_json import register_coco_json
from solo_d2.evaluation import COCOInstanceEvaluator, coco
from solo_d2.evaluation.result_files import read_entries
from solo_d2.evaluation.scoring import METRICS, percent
from solo_d2.evaluation.streamed import StreamedScorer
from solo_d2.evaluation.truth import read_truth

needs_hotcoco = pytest.mark.skipif(coco.hotcoco is None, reason="needs hotcoco")
NAME = "streamed_scenes"


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Folder with a dataset, its results in one file, and the figures of these."""
    root = tmp_path_factory.mktemp("streamed")
    rng = np.random.default_rng(0)
    scenes = [random_scene(rng, detections=20) for _ in range(24)]
    scenes[3] = random_scene(rng, detections=1000)  # more than 100 of a class
    register_coco_json(NAME, str(write_scenes(root, scenes, crowds=0.2)), str(root))
    figures = feed(COCOInstanceEvaluator(NAME, str(root)), scenes)
    yield root, json.loads((root / "coco_instances_results.json").read_text()), figures
    DatasetCatalog.remove(NAME)
    MetadataCatalog.pop(NAME)


def write_files(folder, results, count, seed=0):
    """Divide results at random; those of an image stay together and in order."""
    folder.mkdir(exist_ok=True)
    ids = sorted({x["image_id"] for x in results})
    chosen = dict(zip(ids, np.random.default_rng(seed).integers(count, size=len(ids)), strict=True))
    files = [folder / f"{k:03d}.json" for k in range(count)]
    for k, file in enumerate(files):
        file.write_text(json.dumps([x for x in results if chosen[x["image_id"]] == k]))
    return files


def streamed(files, limit=100, fast=None):
    scorer = StreamedScorer(read_truth(NAME), limit, fast=fast)
    for file in files:
        scorer.add(file)
    return scorer.results()


@pytest.mark.parametrize("fast", [pytest.param(True, marks=needs_hotcoco), False])
@pytest.mark.parametrize("count", [1, 5, 40])
def test_files_are_as_good_as_one(whole, tmp_path, fast, count):
    """With 40 files for 24 images some are empty."""
    _, results, figures = whole
    files = write_files(tmp_path / "shards", results, count, seed=count)
    assert repr(streamed(reversed(files), fast=fast)) == repr(dict(figures))


def test_precision_is_equal_at_every_recall(whole, tmp_path):
    """Also of the classes, sizes and thresholds that no figure has."""
    _, results, _ = whole
    truth = read_truth(NAME)
    scorer = StreamedScorer(truth, 100)
    for file in write_files(tmp_path / "shards", results, 7):
        scorer.add(file)
    entries = [
        {**x, "image_id": truth.numbers[x["image_id"]],
         "category_id": truth.category_ids.index(x["category_id"]) + 1}
        for x in results
    ]  # fmt: skip
    for task, left_out in (("segm", "bbox"), ("bbox", "segmentation")):
        plain = [{k: v for k, v in x.items() if k != left_out} for x in entries]
        expected = coco.Scorer(truth, 100, fast=coco.hotcoco is not None).precision(plain, task)
        found = scorer.precision(task)
        assert found.shape == expected.shape
        assert np.array_equal(found, expected)
    assert (found == -1).any() and (found > 0).any()


def test_the_limit_counts_by_image(whole, tmp_path):
    _, results, figures = whole
    files = write_files(tmp_path / "shards", results, 4)
    three = streamed(files, limit=3)
    assert three["segm"]["AP"] != figures["segm"]["AP"]
    one = write_files(tmp_path / "one", results, 1)
    assert repr(three) == repr(streamed(one, limit=3))


def test_an_object_on_a_border_is_of_both_sizes(tmp_path):
    """COCO's ranges of areas have both ends: 1024 is small and medium."""
    mask = np.zeros((100, 140), bool)
    mask[:32, :32] = True
    entry = annotation(1, 5, mask, 0)
    entry = {**entry, "category_id": 2}
    file = write_scenes(tmp_path, [([], [])])
    content = json.loads(file.read_text())
    file.write_text(json.dumps({**content, "annotations": [entry]}))
    register_coco_json("streamed_border", str(file), str(tmp_path))
    try:
        truth = read_truth("streamed_border")
        (tmp_path / "r.json").write_text(json.dumps([{**entry, "score": 0.5}]))
        scorer = StreamedScorer(truth)
        assert scorer.add(tmp_path / "r.json") == 1
        figures = scorer.results()["segm"]
        assert (figures["APs"], figures["APm"]) == pytest.approx((100, 100))
        assert np.isnan(figures["APl"])
    finally:
        DatasetCatalog.remove("streamed_border")
        MetadataCatalog.pop("streamed_border")


def test_no_result_at_all_is_nan(whole, tmp_path):
    (tmp_path / "r.json").write_text("[]")
    assert all(np.isnan(x) for x in streamed([tmp_path / "r.json"])["segm"].values())


def test_what_is_kept_of_a_detection_are_24_bytes(whole, tmp_path):
    _, results, _ = whole
    scorer = StreamedScorer(read_truth(NAME), 10**6)
    count = sum(scorer.add(file) for file in write_files(tmp_path / "shards", results, 3))
    parts = [x for found in scorer._kept["segm"].values() for x in found]
    assert sum(len(x.scores) for x in parts) == count == len(results)
    assert sum(array.nbytes for x in parts for array in x) == 24 * count


EMPTY = {"size": list(SIZE), "counts": [SIZE[0] * SIZE[1]]}


def with_empty_masks(results):
    """The results, and before each third one a better one of its class without a pixel."""
    empty = {"segmentation": EMPTY, "bbox": [0, 0, 0, 0], "score": 0.99}
    pairs = [[x] if k % 3 else [{**x, **empty}, x] for k, x in enumerate(results)]
    return [x for pair in pairs for x in pair]


@pytest.mark.parametrize("fast", [pytest.param(True, marks=needs_hotcoco), False])
def test_an_empty_mask_is_a_wrong_detection_as_in_pycocotools(whole, tmp_path, fast):
    root, results, figures = whole
    more = with_empty_masks(results)
    found = streamed(write_files(tmp_path, more, 2), fast=fast)
    encoded = [{**x, "segmentation": mask_util.frPyObjects(EMPTY, *SIZE)}
               if x["segmentation"] is EMPTY else x for x in more]  # fmt: skip
    truth = COCO(str(root / "truth.json"))
    for task, unused in (("segm", "bbox"), ("bbox", "segmentation")):
        alone = [{k: v for k, v in x.items() if k != unused} for x in encoded]
        theirs = COCOeval(truth, truth.loadRes(alone), task)
        theirs.evaluate()
        theirs.accumulate()
        theirs.summarize()
        expected = pytest.approx(percent(theirs.stats[:6]), nan_ok=True)
        assert [found[task][k] for k in METRICS] == expected
        assert found[task]["AP"] < figures[task]["AP"]


@pytest.mark.parametrize(
    "segmentation",
    [[EMPTY], [[5, 5, 5, 5, 5, 5]], [{"x": 5, "y": 5}] * 3],
)
def test_what_covers_nothing_may_have_any_form(whole, tmp_path, segmentation):
    _, results, _ = whole
    (tmp_path / "r.json").write_text(json.dumps([{**results[0], "segmentation": segmentation}]))
    (entry,) = read_entries(tmp_path / "r.json", read_truth(NAME))
    assert not mask_util.decode(entry["segmentation"]).any()


# The command, and bad input


@pytest.fixture
def evaluate(whole):
    root, _, _ = whole

    def run(*paths, more=()):
        words = ("--val-json", root / "truth.json", "--val-images", root, *more)
        return call(eval_command.main, "--results", *paths, *words)

    return run


def test_the_command_takes_files_folders_and_shards(whole, tmp_path, evaluate):
    _, results, figures = whole
    files = write_files(tmp_path / "results", results, 3)
    (tmp_path / "plan.json").write_text("{}")
    said = [evaluate(*paths) for paths in (files, [tmp_path / "results"], [tmp_path])]
    assert [x.returncode for x in said] == [0, 0, 0], said[0].stderr
    assert said[0].stdout == said[1].stdout == said[2].stdout
    assert f"{len(results)} instances of" in said[0].stdout
    assert f"{figures['segm']['AP']:.3f}" in said[0].stdout


def result(**more):
    """A file of one result."""
    return json.dumps([{"image_id": 5, "category_id": 2, "score": 0.5, **more}])


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("[", "0.json is not valid json"),
        ("{}", "expected a list of COCO results"),
        ('[{"image_id": 4, "category_id": 2, "score": 1, "segmentation": 1}]', "no image_id 4"),
        ('[{"image_id": 5, "category_id": 1, "score": 1, "segmentation": 1}]', "no category_id 1"),
        (result(segmentation={"size": [9, 9], "counts": [81]}), "its RLE has the size [9, 9]"),
        (result(segmentation=[[float("nan")] * 6]), "its segmentation covers nothing"),
        ('[{"image_id": 5, "category_id": 2, "score": 2, "segmentation": 1}]', r"[0, 1], got 2"),
    ],
)
def test_a_file_that_cannot_be_used_is_named(tmp_path, evaluate, content, said):
    (tmp_path / "0.json").write_text(content)
    done = evaluate(tmp_path / "0.json")
    assert done.returncode == 2
    assert said in done.stderr and done.stderr.strip().count("\n") == 0


def test_an_image_in_two_files_is_refused(whole, tmp_path, evaluate):
    _, results, _ = whole
    for k in range(2):
        (tmp_path / f"{k}.json").write_text(json.dumps(results[:3]))
    done = evaluate(tmp_path)
    assert done.returncode == 2
    assert "1.json: has results of image" in done.stderr and "0.json" in done.stderr


def test_paths_without_results_and_options_of_models_are_refused(tmp_path, evaluate):
    assert "no such file" in evaluate(tmp_path / "none.json").stderr
    (tmp_path / "empty").mkdir()
    assert "has no .json file of results" in evaluate(tmp_path / "empty").stderr
    (tmp_path / "r.json").write_text("[]")
    done = evaluate(tmp_path / "r.json", more=("--weights", "a.pth"))
    assert (done.returncode, "leave --weights out" in done.stderr) == (2, True)
    done = call(eval_command.main, "--results", tmp_path / "r.json")
    assert (done.returncode, "--results needs one dataset" in done.stderr) == (2, True)
    done = call(cli.main, "train", "--results", "r.json")
    assert (done.returncode, "solo-d2 eval --results" in done.stderr) == (2, True)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--allow-partial"], "leave --allow-partial out"),
        (["--num-gpus", "4"], "leave --num-gpus out"),
        (["--resume"], "leave --resume out"),
        (["--report", "r"], "leave --report out"),
        (["TEST.BOUNDARY_AP", "True"], "leave TEST.BOUNDARY_AP out"),
        (["MODEL.SOLO.NMS_SIGMA", "1"], "leave MODEL.SOLO.NMS_SIGMA out"),
        (["--epochs", "3"], "--epochs is of a training"),
        (["--batch-size", "3"], "--batch-size is of a training"),
    ],
)
def test_options_and_keys_that_would_not_be_used_are_refused(tmp_path, evaluate, words, said):
    (tmp_path / "r.json").write_text("[]")
    done = evaluate(tmp_path / "r.json", more=words)
    assert (done.returncode, said in done.stderr) == (2, True), done.stderr


@pytest.mark.parametrize(
    ("keys", "limit"),
    [
        ((), 100),
        (("TEST.DETECTIONS_PER_IMAGE", "7"), 100),
        (("TEST.DETECTIONS_PER_IMAGE", "1000"), 1000),
        (("TEST.TILES.ENABLED", "True"), 5000),
        (("TEST.TILES.ENABLED", "True", "TEST.TILES.DETECTIONS_PER_IMAGE", "120"), 120),
    ],
)
def test_the_command_counts_as_many_detections_as_the_evaluator_and_warns_as_it_does(
    whole, tmp_path, evaluate, keys, limit
):
    _, results, _ = whole
    files = write_files(tmp_path / "shards", results, 3)
    done = evaluate(tmp_path / "shards", more=keys)
    assert done.returncode == 0, done.stderr
    assert f"{streamed(files, limit)['segm']['AP']:.3f}" in done.stdout
    most = max(Counter((x["image_id"], x["category_id"]) for x in results).values())
    said = f"1 images have more than {limit} instances of one class, and the best {limit} count"
    assert 120 < most < 1000
    assert (said in done.stdout) == (limit < most)


def test_masks_of_another_size_are_named(whole, tmp_path, evaluate):
    mask = random_mask(np.random.default_rng(0))
    entry = annotation(1, 5, mask, 0)
    entry["segmentation"]["size"] = [99, 140]
    (tmp_path / "r.json").write_text(json.dumps([{**entry, "category_id": 2, "score": 1}]))
    done = evaluate(tmp_path / "r.json")
    assert (done.returncode, "r.json, entry 0: " in done.stderr) == (2, True)
