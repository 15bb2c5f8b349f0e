"""`benchmarks/against.py`: two models alike but for their heads, and a tiny run of both."""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path

import pytest
from commands import call

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "benchmarks"))

import against
from _against_report import COLUMNS, Run, differences, markdown

from solo_d2.data.scenes.build import build
from solo_d2.data.scenes.shapes import ShapesSource

NAMES = ("SOLO", "Mask R-CNN")
SMALL = ["SOLVER.IMS_PER_BATCH", "1", "MODEL.TIMM.WEIGHTS", ""]
SMALL += ["INPUT.MIN_SIZE_TRAIN", "(64,)", "INPUT.MIN_SIZE_TEST", "64"]
FEW_PROPOSALS = "MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE 8 MODEL.RPN.POST_NMS_TOPK_TEST 20"


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    folder = tmp_path_factory.mktemp("scenes")
    build(ShapesSource((64, 96)), folder, train=4, val=2, workers=1, progress=False)
    return folder


def words(scenes, *more):
    config = ["--config", "Shapes/solov2_lite0.yaml", "--device", "cpu"]
    return [f"--data=shapes:{scenes}", *config, *map(str, more), *SMALL]


def configs(scenes, *more):
    arguments, overrides = against.split_overrides(words(scenes, "--steps", 20, *more))
    return against.make_configs(against.make_parser().parse_args(arguments), overrides)


def test_both_models_share_all_but_the_head(scenes):
    one, other = (
        configs(scenes, "--fpn-width", 32, "--amp", "--mask-rcnn", "SOLVER.BASE_LR 0.01")[name]
        for name in NAMES
    )
    assert one.MODEL.META_ARCHITECTURE == "SOLO"
    assert other.MODEL.META_ARCHITECTURE == "GeneralizedRCNN"
    assert one.SOLVER.BASE_LR == 0.0007 and other.SOLVER.BASE_LR == 0.01
    other.SOLVER.BASE_LR = one.SOLVER.BASE_LR
    for node in ("INPUT", "DATASETS", "DATALOADER", "SOLVER", "TEST"):
        assert one[node] == other[node]
    for node in ("BACKBONE", "TIMM", "FPN", "PIXEL_MEAN", "PIXEL_STD", "DEVICE"):
        assert one.MODEL[node] == other.MODEL[node]
    assert one.MODEL.FPN.OUT_CHANNELS == 32 and one.SOLVER.AMP.ENABLED
    assert one.MODEL.SOLO.NUM_CLASSES == other.MODEL.ROI_HEADS.NUM_CLASSES == 5
    # 32 to 512 pixels of 800 are 2.56 to 40.96 of 64.
    assert other.MODEL.ANCHOR_GENERATOR.SIZES == [[3], [5], [10], [20], [41]]


def test_warm_up_is_at_most_a_tenth(scenes):
    cfg = configs(scenes)["SOLO"]
    assert against.with_steps(cfg, 1000).SOLVER.WARMUP_ITERS == cfg.SOLVER.WARMUP_ITERS == 30
    short = against.with_steps(cfg, 40)
    assert (short.SOLVER.MAX_ITER, short.SOLVER.WARMUP_ITERS) == (40, 4)


def run_of(model, seed, ap, **values):
    metrics = {**dict.fromkeys(COLUMNS, 1.0), "AP": ap, "APl": None}
    facts = {"parameters": 4_100_000, "steps": 10, "seconds": 5.0, "train_speed": 8.0}
    return Run(model=model, seed=seed, metrics=metrics, **{**facts, "test_ms": 2.0, **values})


def test_differences_are_those_of_the_same_seed():
    ours = [run_of("SOLO", 0, 10.0), run_of("SOLO", 1, 14.0), run_of("SOLO", 2, 90.0)]
    theirs = [run_of("Mask R-CNN", 1, 11.0), run_of("Mask R-CNN", 0, 6.0, seconds=15.0)]
    assert differences(ours, theirs, "AP") == [4.0, 3.0]
    assert differences(ours, theirs, "APl") == []
    head, _, solo, rival, difference, _, seeds = markdown([*ours[:2], *theirs], NAMES).splitlines()
    assert head.startswith("| model | parameters | steps | seconds | images/s | test ms | AP |")
    # Sample standard deviations: of 10 and 14 the square root of 8, of 4 and 3 that of 1/2.
    assert solo.startswith("| SOLO | 4.1 M | 10 | 5 | 8.0 | 2.0 | 12.0 ± 2.8 | 1.0 ± 0.0 |")
    assert rival.startswith("| Mask R-CNN | 4.1 M | 10 | 10 | 8.0 | 2.0 | 8.5 ± 3.5 |")
    assert difference.startswith("| SOLO - Mask R-CNN |  |  |  |  |  | +3.5 ± 0.7 | +0.0 ± 0.0 |")
    assert {line.split(" | ")[-2] for line in (solo, rival, difference)} == {"–"}  # no large ones
    assert seeds.startswith("2 seeds")
    alone = markdown(ours[:1], NAMES)
    assert "One seed only" in alone and "| Mask R-CNN | – | – |" in alone and "±" not in alone


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--steps", 0], "--steps must be above 0, got 0"),
        (["--seconds", -1], "--seconds must be above 0, got -1.0"),
        (["--steps", 5, "--seeds", 0], "--seeds must be above 0, got 0"),
        (["--steps", 5, "--solo", "MODEL.SOLO.NO_KEY 1"], "NO_KEY"),
        (["--steps", 5, "--mask-rcnn", "MODEL.ROI_HEADS.NO_KEY 1"], "NO_KEY"),
        (["--steps", 5, "--data", "no/such"], "no stamps dataset in no/such"),
        (["--steps", 5, "--data", "stamp:no"], "did you mean stamps?"),
        (["--steps", 5, "--config", "nothing.yaml"], "nothing.yaml"),
    ],
)
def test_bad_arguments_end_with_one_clear_line(scenes, more, said):
    done = call(against.main, *words(scenes, *more))
    assert done.returncode == 2
    (line,) = done.stderr.strip().splitlines()
    assert line.startswith("against.py: ") and said in line


def test_a_tiny_run_of_both(scenes, tmp_path, monkeypatch):
    monkeypatch.setattr(against, "PILOT", 2)
    arguments = ["--seconds", 1e-9, "--mask-rcnn", FEW_PROPOSALS, "--output", tmp_path]
    done = call(against.main, *words(scenes, *arguments))
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "against.md").read_text() in done.stdout
    record = json.loads((tmp_path / "against.json").read_text())
    assert record["device"] == "cpu" and set(record["configs"]) == set(NAMES)
    assert [(run["model"], run["seed"], run["steps"]) for run in record["runs"]] == [
        (name, 0, 1) for name in NAMES
    ]
    for run in record["runs"]:
        assert set(run["metrics"]) == set(COLUMNS) and run["metrics"]["AP"] >= 0
        assert all(run[key] > 0 for key in ("seconds", "train_speed", "test_ms"))
    assert {path.parent.name for path in tmp_path.glob("*/model_final.pth")} == {
        f"{model}_{run}" for model in ("solo", "mask_rcnn") for run in ("pilot", 0)
    }


def test_the_pilots_speed_gives_the_steps(scenes, monkeypatch, tmp_path):
    cfg = configs(scenes)["SOLO"]
    cfg.SOLVER.IMS_PER_BATCH = 4
    asked = []

    def train(cfg, name, seed, folder):
        asked.append((cfg.SOLVER.MAX_ITER, cfg.DATASETS.TEST))
        return run_of(name, seed, math.nan, train_speed=20.0)

    monkeypatch.setattr(against, "train", train)
    assert against.find_steps(cfg, "SOLO", 90, tmp_path) == 450  # 5 steps per second
    assert against.find_steps(cfg, "SOLO", 0.01, tmp_path) == 1
    assert asked == [(against.PILOT, ())] * 2
