"""`benchmarks/ablations.py`: its rows, its budget, and a tiny run as a user starts it."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import cv2
import pytest
import torch
from builders import noise_input
from commands import call
from detectron2.modeling import build_model

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "benchmarks"))

import ablations
from _ablation_report import Outcome, agreement, markdown, plot
from _ablation_rows import (
    budget_config,
    differing,
    dropped,
    fingerprint,
    flatten,
    resolve,
)
from _ablation_tables import Row, Table, read_tables, readme_tables

from solo_d2.data.scenes.build import build
from solo_d2.data.scenes.shapes import ShapesSource

ROOT = Path(__file__).resolve().parents[1]
TABLES = read_tables()
SOLO = "MODEL.SOLO."
TINY = ["INPUT.MIN_SIZE_TRAIN", "(64,)", "INPUT.MIN_SIZE_TEST", "64", "MODEL.DEVICE", "cpu"]
TINY += ["SOLVER.IMS_PER_BATCH", "2", "DATALOADER.NUM_WORKERS", "0", "MODEL.TIMM.WEIGHTS", ""]


def resolved(key, kind="stamps", overrides=()):
    return resolve(TABLES[key], budget_config(kind, None, overrides), overrides)


def test_every_file_is_a_row_of_one_table():
    rows = [row.config for key, table in TABLES.items() if key != "heads" for row in table.rows]
    files = sorted((ROOT / "configs" / "Ablations").glob("*.yaml"))
    assert sorted(rows) == [f"Ablations/{file.name}" for file in files]


@pytest.mark.parametrize(
    ("key", "published"),
    [
        ("4b", [32.2, 35.8, 35.7, 35.8]),
        ("5d", [36.6, 37.3]),
        ("section421", [35.8, None, None]),
        ("heads", [36.8, 37.4, 38.8, None]),  # the last is on another backbone
    ],
)
def test_the_papers_numbers(key, published):
    assert [row.paper for row in TABLES[key].rows] == published


def test_the_tables_of_the_readme_are_the_data(capsys):
    readme = (ROOT / "configs" / "README.md").read_text(encoding="utf-8")
    between = readme.partition("### 4(a)")[2].partition("\n6(d), multi-scale")[0]
    assert f"### 4(a){between}".strip() == readme_tables()
    assert ablations.main(["--markdown"]) == 0
    assert capsys.readouterr().out.strip() == readme_tables()
    for row in TABLES["heads"].rows[:3]:  # in Table 1 of the readme, which has no data
        (line,) = [line for line in readme.splitlines() if f"]({row.config})" in line]
        assert line.split(" | ")[2] == row.published


@pytest.mark.parametrize(
    ("key", "made_by"),
    [
        ("4b", {"NUM_COORD_CONVS": [0, 1, 2, 3]}),
        ("4c", {"MASK_LOSS": ["bce", "focal", "dice"], "MASK_LOSS_WEIGHT": [10.0, 20.0, 3.0]}),
        ("4d", {"NUM_CONVS": [4, 5, 6, 7, 8]}),
        ("5a", {"KERNEL_SIZE": [3, 1, 1, 1, 1], "KERNEL_DIM": [64, 64, 128, 256, 512]}),
        ("5c", {"MASK_FEATURE.TYPE": ["separate", "unified"], "MASK_FEATURE.CONV_DIM": [256, 128]}),
        ("5e", {"NMS_TYPE": ["hard", "soft", "fast", "matrix"]}),
        ("6a", {"AUX_SEMANTIC_LOSS_WEIGHT": [0.0, 1.0]}),
        ("6b", {"NUM_GRIDS": [[40, 36, 24, 16, 12], [80, 64, 32, 24, 12]]}),
    ],
)
def test_rows_under_the_budget_differ_exactly_as_in_the_paper(key, made_by):
    configs, varied = resolved(key)
    assert differing(configs) == varied == sorted(SOLO + name for name in made_by)
    for name, values in made_by.items():
        assert [flatten(cfg)[SOLO + name] for cfg in configs] == values
    assert dropped(varied, configs) == []


@pytest.mark.parametrize("kind", ["stamps", "shapes"])
def test_a_shared_size_is_the_budgets(kind):
    (first, *_), _ = resolved("5b", kind)
    budget = budget_config(kind, None, [])
    node, small = first.MODEL.SOLO, budget.MODEL.SOLO
    # The scaled ranges of the paper are those that the config of the small data spells out.
    for name in ("SCALE_RANGES", "NUM_GRIDS", "NUM_CONVS", "CONV_DIM", "KERNEL_DIM", "NUM_CLASSES"):
        assert node[name] == small[name]
    assert budget.INPUT == first.INPUT


def test_the_heads_keep_their_depths_in_proportion_and_get_one_width():
    configs, varied = resolved("heads")
    assert [cfg.MODEL.SOLO.NUM_CONVS for cfg in configs] == [4, 4, 2, 2]  # of 7, 7, 4, 4
    assert {cfg.MODEL.SOLO.CONV_DIM for cfg in configs} == {96}
    # 32 channels, as many as the norm needs, for each of four groups.
    with_kernels = [cfg.MODEL.SOLO for cfg in configs if "Dynamic" in cfg.MODEL.SOLO.HEAD]
    assert {node.KERNEL_DIM for node in with_kernels} == {128}
    assert "MODEL.RESNETS.DEPTH" in dropped(varied, configs)


def test_a_third_of_the_schedule_stays_a_third():
    configs, _ = resolved("5g")
    short, long = (cfg.SOLVER.MAX_ITER for cfg in configs)
    assert 3 * short == long
    assert configs[0].INPUT.MIN_SIZE_TRAIN == [256]
    assert configs[1].INPUT.MIN_SIZE_TRAIN == [205, 215, 225, 236, 246, 256]


def test_sizes_that_the_table_varies_are_scaled_as_the_input_is():
    configs, varied = resolved("5f")
    assert [cfg.INPUT.MIN_SIZE_TEST for cfg in configs] == [143, 164]  # 448 and 512 times 0.32
    assert configs[0].INPUT.MIN_SIZE_TRAIN == [113, 123, 133, 143, 154, 164]
    assert "MODEL.RESNETS.DEFORM_ON_PER_STAGE" in dropped(varied, configs)


def test_the_budgets_own_size_and_length_scale_what_the_table_varies():
    configs, _ = resolved("5f", overrides=["INPUT.MIN_SIZE_TEST", "128"])
    assert [cfg.INPUT.MIN_SIZE_TEST for cfg in configs] == [72, 82]  # 448 and 512 times 0.16
    configs, _ = resolved("5g", overrides=["SOLVER.MAX_ITER", "60"])
    assert [cfg.SOLVER.MAX_ITER for cfg in configs] == [20, 60]


def test_rows_share_weights_where_training_is_the_same():
    nms, _ = resolved("5e")
    assert len({fingerprint(cfg, "data", training=True) for cfg in nms}) == 1
    assert len({fingerprint(cfg, "data") for cfg in nms}) == 4
    coord, loss = resolved("4b")[0], resolved("4c")[0]
    assert fingerprint(coord[1], "data", training=True) == fingerprint(
        loss[2], "data", training=True
    )
    assert len({fingerprint(cfg, "data", training=True) for cfg in coord}) == 4
    assert fingerprint(coord[1], "data") != fingerprint(coord[1], "other data")


@pytest.fixture(scope="module")
def trained():
    """Fingerprints of what was trained: tables share rows."""
    return set()


@pytest.mark.parametrize("key", sorted(TABLES))
def test_every_row_trains_a_step_under_the_budget(key, trained):
    for cfg in resolved(key, "shapes", TINY[2:])[0]:
        training = fingerprint(cfg, "", training=True)
        if training in trained:
            continue
        trained.add(training)
        torch.manual_seed(0)
        model = build_model(cfg).train()
        losses = model([noise_input((64, 96), [(4, 4, 60, 60), (70, 8, 90, 30)], [0, 1])])
        sum(losses.values()).backward()
        assert all(torch.isfinite(loss) for loss in losses.values())


def outcomes():
    rows = [Row("a", "A", "a.yaml", "30.0"), Row("b", "B", "b.yaml", "35.0")]
    rows += [Row("c", "C", "c.yaml", "35.0"), Row("d", "D", "d.yaml", "± 0.1")]
    found = [(10.0, 14.0), (20.0, 20.0), (5.0,), ()]
    metrics = ("AP50", "AP75", "APs", "APm", "APl")
    return [
        Outcome(row, [{"AP": value, **dict.fromkeys(metrics)} for value in values])
        for row, values in zip(rows, found, strict=True)
    ]


def test_table_has_mean_spread_and_the_papers_number(tmp_path):
    given = outcomes()
    # Of the paper's pairs a < b and a < c, only the first is so here; b and c are equal there.
    assert agreement(given) == (1, 2)
    table = Table("1x", "Some table", [x.row for x in given])
    text = markdown(table, given, ["one", "two", "three", "four"], ["Budget: small."], 2)
    # The sample standard deviation of 10 and 14 is the square root of 8.
    assert "| A | one | 2 of 2 | 12.0 ± 2.8 | – | – | – | – | – | 30.0 |" in text
    assert "| C | three | 1 of 2 | 5.0 |" in text
    assert "| D | four | 0 of 2 | – |" in text
    assert "Budget: small." in text and "1 of 2 pairs" in text and "One seed" not in text
    plot(table, given, tmp_path / "plot.png")
    picture = cv2.imread(str(tmp_path / "plot.png")).astype(int)
    assert picture.shape[1] == 8.5 * 120
    # One diamond of the paper's for each row with a result, all in the right half: two rows of the
    # paper are equal, so that their diamonds share columns, and none shares rows.
    red = abs(picture - (0x3A, 0x55, 0xC2)).sum(2) < 10
    assert runs(red.any(1)) == 3 and runs(red.any(0)) == 2
    assert not red[:, : picture.shape[1] // 2].any()


def runs(flags):
    """Number of runs of true values."""
    return int((flags[1:] & ~flags[:-1]).sum()) + int(flags[0])


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "--table is missing"),
        (["--table", "9z"], "--table 9z: no such table; choose from 4a, 4b"),
        (["--table", "4b", "--rows", "nothing"], "--rows nothing: no such row; choose from coord"),
        (["--table", "4b", "--seeds", "0"], "--seeds must be at least 1, got 0"),
        (["--table", "4b", "--iterations", "-5"], "--iterations must be at least 1, got -5"),
        (["--table", "4b", "MODEL.SOLO.NUM_COORD_CONVS", "1"], "NUM_COORD_CONVS is what the rows"),
        (["--table", "5g", "INPUT.MIN_SIZE_TRAIN", "(64,)"], "MIN_SIZE_TRAIN is what the rows"),
        (["--table", "4b", "MODEL.SOLO.NO_KEY", "1"], "NO_KEY"),
        (["--table", "4b", "--data", "no/such"], "no stamps dataset in no/such/stamps"),
    ],
)
def test_bad_arguments_end_with_one_clear_line(arguments, said, capsys):
    assert ablations.main(arguments) == 2
    error = capsys.readouterr().err.strip()
    assert error.startswith("ablations.py: ") and said in error and "\n" not in error


def test_list_and_dry_run_name_rows_and_need_no_data(capsys):
    assert ablations.main(["--list"]) == 0
    printed = capsys.readouterr().out
    assert all(row.name in printed for table in TABLES.values() for row in table.rows)
    assert ablations.main(["--table", "5f", "5e", "--rows", "light_448", "--dry-run"]) == 0
    printed = capsys.readouterr().out
    assert "NUM_CONVS: 2" in printed and "(paper: 34.0)" in printed
    assert "light_512" not in printed and "nms_hard" not in printed
    assert "not kept by the budget: MODEL.BACKBONE.NAME" in printed


def start(tmp_path, *arguments):
    where = ["--data", tmp_path, "--data-kind", "shapes", "--output", tmp_path / "out"]
    return call(ablations.main, *arguments, *where, *TINY)


@pytest.mark.slow
def test_a_run_writes_its_table_and_resumes(tmp_path):
    source = ShapesSource((64, 96))
    build(source, tmp_path / "shapes", train=6, val=3, workers=1, progress=False)
    arguments = ["--table", "5e", "4b", "--rows", "nms_hard", "nms_matrix", "coordconv_1"]
    arguments += ["--iterations", "2"]
    first = start(tmp_path, *arguments)
    assert first.returncode == 0, first.stderr
    out = tmp_path / "out"
    weights = {path: path.stat().st_mtime_ns for path in out.glob("runs/*/model_final.pth")}
    assert len(weights) == 2  # the two rows of 5(e) share theirs
    results = {path.name: path.read_text() for path in out.glob("results/*.json")}
    assert set(results) == {
        f"{x}_0.json" for x in ("5e_nms_hard", "5e_nms_matrix", "4b_coordconv_1")
    }
    assert all(0 <= json.loads(text)["segm"]["AP"] <= 100 for text in results.values())
    for key, rows in (("5e", ["Hard-NMS", "Matrix NMS"]), ("4b", ["1"])):
        text = (out / f"{key}.md").read_text()
        assert text.count("| 1 of 1 |") == len(rows) and all(f"| {row} |" in text for row in rows)
        assert "2 iterations of 2 images, short side 64" in text
        assert "6 training and 3 validation scenes" in text and "seeds 0 to 0" in text
        assert len(json.loads((out / f"{key}.json").read_text())) == len(rows)
        assert cv2.imread(str(out / f"{key}.png")).std() > 0
        assert text in first.stdout

    # A result that is there is not computed again; one that is missing, from its weights; and a
    # run that was cut off leaves nothing behind.
    (out / "results" / "5e_nms_hard_0.json").unlink()
    coord = out / json.loads(results["4b_coordconv_1_0.json"])["weights"]
    coord.parent.rename(f"{coord.parent}.partial")
    (out / "results" / "4b_coordconv_1_0.json").unlink()
    second = start(tmp_path, *arguments)
    assert second.returncode == 0, second.stderr
    again = {path: path.stat().st_mtime_ns for path in out.glob("runs/*/model_final.pth")}
    assert set(again) == set(weights)
    assert [path for path in weights if again[path] != weights[path]] == [coord]
    assert not list(out.glob("runs/*.partial"))
    assert {path.name: path.read_text() for path in out.glob("results/*.json")} == results
