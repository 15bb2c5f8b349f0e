"""`train_net.py` as a user calls it, on a dataset of the user's own."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from commands import train_net as run

from solo_d2.data.scenes.build import build
from solo_d2.data.scenes.shapes import ShapesSource

ROOT = Path(__file__).resolve().parents[1]
CONFIG = ROOT / "configs" / "Shapes" / "solov2_lite0.yaml"
SMALL = ["MODEL.TIMM.WEIGHTS", "", "INPUT.MIN_SIZE_TRAIN", "(64,)", "INPUT.MIN_SIZE_TEST", "64"]
SMALL += ["SOLVER.IMS_PER_BATCH", "2", "DATALOADER.NUM_WORKERS", "0"]
# Instances even of a model that has learnt nothing: without any there is no AP.
SMALL += ["MODEL.SOLO.SCORE_THRESH_TEST", "0.0", "MODEL.SOLO.FINAL_SCORE_THRESH_TEST", "0.0"]


def run_as_process(*arguments):
    command = [sys.executable, str(ROOT / "train_net.py"), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=300)


@pytest.fixture(scope="module")
def shapes(tmp_path_factory):
    root = tmp_path_factory.mktemp("shapes")
    build(ShapesSource((64, 96)), root, train=6, val=3, workers=1, progress=False)
    return root


def own_data(root):
    return [
        *("--train-json", root / "annotations" / "train.json", "--train-images", root / "train"),
        *("--val-json", root / "annotations" / "val.json", "--val-images", root / "val"),
    ]


def last_line(process):
    return process.stderr.strip().splitlines()[-1]


def test_trains_evaluates_and_resumes_on_own_data(shapes, tmp_path):
    shared = ["--config-file", CONFIG, *own_data(shapes)]
    options = ["OUTPUT_DIR", tmp_path, "SOLVER.MAX_ITER", "2", "TEST.EVAL_PERIOD", "2", *SMALL]
    first = run(*shared, *options)
    assert first.returncode == 0, first.stderr
    assert (tmp_path / "model_best.pth").is_file()
    assert (tmp_path / "last_checkpoint").read_text() == "model_final.pth"
    records = [json.loads(x) for x in (tmp_path / "metrics.json").read_text().splitlines()]
    assert {"segm/AP", "bbox/AP", "loss_category", "loss_mask"} <= set().union(*records)
    # Classes come from the file, over the config's own number.
    saved = torch.load(tmp_path / "model_final.pth", weights_only=True)
    assert saved["iteration"] == 1
    assert saved["model"]["head.category_predictor.weight"].shape[0] == 5

    options[options.index("SOLVER.MAX_ITER") + 1] = "3"
    resumed = run(*shared, "--resume", *options)
    assert resumed.returncode == 0, resumed.stderr
    assert "Starting training from iteration 2" in resumed.stdout + resumed.stderr

    evaluated = run(*shared, "--eval-only", "MODEL.WEIGHTS", tmp_path / "model_final.pth", *options)
    assert evaluated.returncode == 0, evaluated.stderr
    assert "Evaluation results for segm" in evaluated.stdout + evaluated.stderr


def test_a_process_ends_with_the_code_and_the_line(tmp_path):
    process = run_as_process()
    assert process.returncode == 2
    assert last_line(process).startswith("train_net.py: --config-file is missing")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--config-file", "no/such.yaml"], "no/such.yaml"),
        (["--config-file", CONFIG, "MODEL.SOLO.NO_KEY", "1"], "NO_KEY"),
        (["--config-file", CONFIG, "--train-json", "a.json"], "--train-images go together"),
        (["--config-file", CONFIG, "--num-gpus", "64"], "--num-gpus is 64"),
        (["--config-file", CONFIG, "MODEL.DEVICE", "cuda:63"], "cuda:63"),
        (["--config-file", CONFIG, "DATASETS.TRAIN", "('nowhere',)"], "'nowhere'"),
        (["--config-file", CONFIG, "--shapes", "no/such/folder"], "no/such/folder"),
    ],
)
def test_bad_command_lines_end_with_one_clear_line(arguments, said, tmp_path):
    process = run(*arguments, "OUTPUT_DIR", tmp_path)
    assert process.returncode == 2
    assert said in last_line(process)
    assert "Traceback" not in process.stderr


def test_number_of_classes_that_was_asked_for_must_be_the_files(shapes, tmp_path):
    process = run(
        *("--config-file", CONFIG, *own_data(shapes), "OUTPUT_DIR", tmp_path),
        *("MODEL.SOLO.NUM_CLASSES", "80"),
    )
    assert process.returncode == 2
    assert "NUM_CLASSES is 80, the dataset has 5 classes" in last_line(process)


def test_checkpoint_of_another_model_is_refused(shapes, tmp_path):
    torch.save({"model": {"something.else": torch.zeros(2)}}, tmp_path / "other.pth")
    process = run(
        *("--config-file", CONFIG, *own_data(shapes), "--eval-only", "OUTPUT_DIR", tmp_path),
        *("MODEL.WEIGHTS", tmp_path / "other.pth", *SMALL),
    )
    assert process.returncode == 2
    assert "other.pth" in last_line(process)
