"""`benchmarks/recipe.py`: rows that differ in their element alone, and paired differences."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from commands import call

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "benchmarks"))

import recipe
from _ablation_rows import differing, flatten
from _against_report import COLUMNS, Run

from solo_d2.data.scenes.build import build
from solo_d2.data.scenes.shapes import ShapesSource

SMALL = ["SOLVER.IMS_PER_BATCH", "1", "MODEL.TIMM.WEIGHTS", ""]
SMALL += ["INPUT.MIN_SIZE_TRAIN", "(64,)", "INPUT.MIN_SIZE_TEST", "64"]
ROWS = """
- {name: steps, label: steps, data: shapes, set: {SOLVER.LR_SCHEDULER_NAME: WarmupMultiStepLR,
   MILESTONES: [0.75, 0.9]}}
- {name: base, label: base, data: shapes}
- {name: ema, label: EMA, over: base, set: {SOLVER.EMA.ENABLED: True}}
"""


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    folder = tmp_path_factory.mktemp("scenes")
    build(ShapesSource((64, 96)), folder, train=4, val=2, workers=1, progress=False)
    return folder


@pytest.fixture
def small_rows(tmp_path, monkeypatch):
    path = tmp_path / "rows.yaml"
    path.write_text(ROWS)
    monkeypatch.setattr(recipe, "ROWS", path)


def words(scenes, *more):
    config = ["--config", "Shapes/solov2_lite0.yaml", "--device", "cpu"]
    return [f"--data={scenes}", *config, *map(str, more), *SMALL]


def configs(scenes, *more):
    arguments, overrides = recipe.split_overrides(words(scenes, *more))
    return recipe.make_configs(recipe.make_parser().parse_args(arguments), overrides)


def test_a_row_differs_from_the_one_below_in_its_element_alone(scenes, small_rows):
    found = configs(scenes, "--iterations", 40)
    assert differing([found["base"], found["ema"]]) == ["SOLVER.EMA.ENABLED"]
    assert found["steps"].SOLVER.STEPS == (30, 36) and found["steps"].SOLVER.MAX_ITER == 40


def test_every_row_of_the_file_is_a_config(scenes):
    rows = recipe.read_rows()
    for name, row in rows.items():
        cfg = recipe.model_zoo.get_config("Stamps/solov2_lite0.yaml")
        flat = flatten(cfg)
        assert set(row.set) - {recipe.MILESTONES} <= set(flat), name
        assert row.data in ("stamps", "composed") and (not row.over or row.over in rows)
        changed = {key for key, value in row.set.items() if flat.get(key) != value}
        assert changed or row.data == "composed" or name == "base"


def run_of(model, seed, ap, speed=8.0):
    metrics = {**dict.fromkeys(COLUMNS, 1.0), "AP": ap}
    facts = {"parameters": 1, "steps": 10, "seconds": 5.0, "test_ms": 2.0}
    return Run(model=model, seed=seed, metrics=metrics, train_speed=speed, **facts)


def test_gains_are_paired_and_judged_by_their_standard_error(small_rows):
    base = [run_of("base", seed, ap) for seed, ap in enumerate((10.0, 20.0, 30.0))]
    ema = [run_of("ema", seed, ap, 4.0) for seed, ap in enumerate((11.0, 22.0, 33.0))]
    head, _, below, above, *_ = recipe.markdown(recipe.read_rows(), [*base, *ema]).splitlines()
    assert head.startswith("| element | over | seeds | AP | Δ AP |") and "Boundary" in head
    assert below.startswith("| base | – | 3 | 20.0 ± 10.0 | – |") and below.endswith("| – | – |")
    assert above.startswith("| EMA | base | 3 | 22.0 ± 11.0 | +2.0 ± 1.0 | +0.0 ± 0.0 |")
    assert above.endswith("| x 2.00 | gain |")  # half the images per second
    # The standard error of 1, 2, 3 is 1 / sqrt(3) = 0.58, twice that is below 2.
    assert (
        recipe.verdict([1.0, 2.0, 3.0]) == "gain" and recipe.verdict([-1.0, -2.0, -3.0]) == "loss"
    )
    # Of 0, 1, 2 the mean of 1 is below 1.15.
    assert recipe.verdict([0.0, 1.0, 2.0]) == "no" and recipe.verdict([5.0, 5.0]) == "–"


def test_what_is_done_is_not_done_again(scenes, small_rows, tmp_path, monkeypatch):
    arguments = ["--rows", "base", "ema", "--seeds", 1, "--iterations", 1, "--output", tmp_path]
    done = call(recipe.main, *words(scenes, *arguments))
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "recipe.md").read_text() in done.stdout
    record = json.loads((tmp_path / "recipe.json").read_text())
    assert [(run["model"], run["seed"]) for run in record["runs"]] == [("base", 0), ("ema", 0)]
    monkeypatch.setattr(recipe, "train", None)  # would fail if called
    again = call(recipe.main, *words(scenes, *arguments))
    assert again.returncode == 0 and again.stdout == done.stdout


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--seeds", 0], "--seeds must be at least 1, got 0"),
        (["--iterations", 0], "--iterations must be at least 1, got 0"),
        (["--rows", "nothing"], "no such row; choose from paper, base"),
        (["--rows", "base", "--data", "no/such"], "no stamps dataset in no/such"),
    ],
)
def test_bad_arguments_end_with_one_clear_line(scenes, more, said):
    done = call(recipe.main, *words(scenes, *more))
    assert done.returncode == 2
    (line,) = done.stderr.strip().splitlines()
    assert line.startswith("recipe.py: ") and said in line
