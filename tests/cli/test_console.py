"""What ``solo-d2 train`` and ``eval`` show, line by line, and what is in ``log.txt`` alone."""

from __future__ import annotations

import fcntl
import json
import logging
import os
import pty
import re
import shlex
import struct
import termios
import warnings

import pytest
import training_runs as runs
from commands import call

from solo_d2.cli.main import main
from solo_d2.engine import progress as module
from solo_d2.engine.log import begin_log, end_log, open_log

FINDS = ("MODEL.SOLO.SCORE_THRESH_TEST", "0.001", "MODEL.SOLO.FINAL_SCORE_THRESH_TEST", "0.0")


def write_data(folder):
    """Annotations of one image with a bad object besides the good ones."""
    file = runs.write_images(folder, name="annotations.json")
    content = json.loads(file.read_text())
    content["annotations"][1]["segmentation"] = [[5, 12, 23, 12, 40, 12]]  # a line
    file.write_text(json.dumps(content))
    return folder


def noisy(*_, **__):
    """What other packages do."""
    warnings.warn("`torch.f` is deprecated", FutureWarning, stacklevel=1)
    logging.getLogger("torch").warning("No CUDA runtime is found")
    return "GPU: none of the environment"


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Output and folder of a training of ten evaluations, on five images with an object."""
    folder = tmp_path_factory.mktemp("console")
    (folder / "tiny.yaml").write_text(runs.config(folder / "unused").dump())
    data = write_data(folder / "data")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("detectron2.engine.defaults.collect_env_info", noisy)
        done = call(
            *(main, "train", "--data", data, "--config-file", folder / "tiny.yaml"),
            *("--epochs", 4, "--batch-size", 1, "OUTPUT_DIR", folder / "out"),
            *("MODEL.WEIGHTS", "", *FINDS),
        )
    assert done.returncode == 0, done.stderr
    return done, folder


def test_a_training_is_some_thirty_lines(trained):
    done, _ = trained
    lines = done.stdout.splitlines()
    assert 20 <= len(lines) <= 40 and done.stderr == ""
    assert "\x1b" not in done.stdout and "\r" not in done.stdout
    assert "Warning" not in done.stdout and "deprecated" not in done.stdout
    assert not [x for x in lines if "detectron2" in x or "INFO" in x or x != x.strip()]


def test_warnings_about_the_data_are_told_once_in_a_line(trained):
    warned = [x for x in trained[0].stdout.splitlines() if x.startswith("warning: ")]
    assert len([x for x in warned if "annotations.json" in x]) == 1
    assert len(warned) == len(set(warned))


def test_every_evaluation_is_a_line_with_its_ap(trained):
    lines = [x for x in trained[0].stdout.splitlines() if x.startswith("iteration ")]
    line = r"iteration (\d+)/20, loss \d+\.\d{3}, segm AP (\d+\.\d|-)(, the best so far)?.*"
    found = [re.fullmatch(line, x) for x in lines]
    assert all(found)
    assert [int(x[1]) for x in found] == [2, 4, 6, 8, 10, 12, 14, 16, 18, 20]


def test_it_ends_with_ap_files_and_the_next_command(trained):
    done, folder = trained
    *_, box = done.stdout.split("-" * 72 + "\n", 1)
    assert re.search(r"model_best\.pth \(segm AP \d+\.\d at iteration \d+\)", box)
    for name in ("model_final.pth", "log.txt", f"tensorboard --logdir {folder / 'out'}"):
        assert name in box
    best = folder / "out" / "model_best.pth"
    assert f"predict --config-file {folder / 'out' / 'config.yaml'} --weights {best}" in box


def test_the_details_are_in_the_log(trained):
    done, folder = trained
    log = (folder / "out" / "log.txt").read_text()
    details = [
        "GPU: none of the environment", "MAX_ITER: 20", "Namespace(", "total_loss", "by class",
        "`torch.f` is deprecated", "No CUDA runtime is found", "Saving ",
    ]  # fmt: skip
    assert [x for x in details if x not in log] == []
    assert [x for x in details if x in done.stdout] == []


def test_an_evaluation_shows_its_tables(trained):
    _, folder = trained
    best = folder / "out" / "model_best.pth"
    done = call(main, "eval", "--weights", best, "--data", folder / "data", "--no-hold-out")
    assert (done.returncode, done.stderr) == (0, "")
    assert "Evaluation results for segm" in done.stdout and "AP50" in done.stdout
    assert "Warning" not in done.stdout and "detectron2" not in done.stdout
    counted = [x for x in done.stdout.splitlines() if x.startswith("evaluation: batch ")]
    assert [x.split(",")[0] for x in counted] == [f"evaluation: batch {i}/7" for i in range(1, 7)]


def test_an_evaluation_of_the_trainings_data_is_on_what_it_set_aside(trained):
    training, folder = trained
    aside = "1 of 7 images of own_train are set aside for validation (--no-hold-out: none)"
    assert aside in training.stdout.splitlines()
    best = folder / "out" / "model_best.pth"
    done = call(main, "eval", "--weights", best, "--data", folder / "data")
    assert aside in done.stdout.splitlines()
    results = folder / "out/eval/inference/own_train_held_out/coco_instances_results.json"
    assert len({x["image_id"] for x in json.loads(results.read_text())}) == 1
    scored = call(main, "eval", "--results", results, "--data", folder / "data")
    assert aside in scored.stdout.splitlines()
    assert "instances of 1 images in 1 files" in scored.stdout


def write_empty_validation_set(folder):
    """Annotations of images without an object beside those to train on."""
    content = json.loads((folder / "annotations.json").read_text())
    (folder / "train.json").write_text(json.dumps(content))
    (folder / "val.json").write_text(json.dumps({**content, "annotations": []}))
    (folder / "annotations.json").unlink()
    return folder


def test_it_ends_with_why_there_is_no_ap_and_with_commands_for_a_shell(tmp_path):
    """Epochs do not help where the validation set has no object."""
    (tmp_path / "tiny.yaml").write_text(runs.config(tmp_path / "unused").dump())
    data = write_empty_validation_set(write_data(tmp_path / "data"))
    out = tmp_path / "my $out"
    words = ("--config-file", tmp_path / "tiny.yaml", "--epochs", 1, "--batch-size", 6)
    done = call(
        main, "train", "--data", data, *words, "OUTPUT_DIR", out, "MODEL.WEIGHTS", "", *FINDS
    )
    assert done.returncode == 0, done.stderr
    box = {x.partition(": ")[0]: x.partition(": ")[2] for x in done.stdout.splitlines()[-5:]}
    assert box["best model"].endswith("the validation set has no object (annotate some in it)")
    command = shlex.split(box["try it"])
    assert command[command.index("--weights") + 1] == str(out / "model_final.pth")
    assert command[command.index("--config-file") + 1] == str(out / "config.yaml")
    assert shlex.split(box["log, curves"])[-1] == str(out)


def test_verbose_is_what_detectron2_shows(trained):
    _, folder = trained
    best = folder / "out" / "model_best.pth"
    done = call(main, "eval", "--verbose", "--weights", best, "--data", folder / "data")
    assert "detectron2.evaluation.evaluator INFO: Start inference" in done.stdout


@pytest.fixture
def quiet(tmp_path):
    begin_log()
    open_log(str(tmp_path), hidden=("solo_d2.modeling",))
    yield tmp_path / "log.txt"
    end_log()


@pytest.mark.parametrize(
    ("name", "level", "shown"),
    [
        ("solo_d2.data", logging.INFO, "two\nlines\n"),
        ("solo_d2.data", logging.WARNING, "warning: two lines\n"),
        ("detectron2.data", logging.ERROR, "error: two lines\n"),
        ("solo_d2.modeling.heads", logging.WARNING, "warning: two lines\n"),
        ("solo_d2.modeling.heads", logging.INFO, ""),
        ("solo_d2.data", logging.DEBUG, ""),
        ("detectron2.data", logging.INFO, ""),
        ("torch", logging.WARNING, ""),
    ],
)
def test_who_is_heard(quiet, capsys, name, level, shown):
    for _ in range(2):
        logging.getLogger(name).log(level, "two\nlines")
    twice = level == logging.INFO
    assert capsys.readouterr().out == shown * (1 + twice)
    assert quiet.read_text().count("two\nlines") == 2


def test_foreign_loggers_are_as_before(tmp_path):
    logger = logging.getLogger("torch")
    before = list(logger.handlers), logger.propagate
    begin_log()
    open_log(str(tmp_path), hidden=())
    assert (logger.handlers, logger.propagate) != before
    end_log()
    assert (logger.handlers, logger.propagate) == before


def count(total, done=0):
    progress = module.Progress("step", total, done)
    for number in range(done, total):
        progress.step(f"loss {number}")
    progress.close()


@pytest.mark.parametrize(
    ("total", "done", "lines"),
    [
        (100, 0, [10, 20, 30, 40, 50, 60, 70, 80, 90]),
        (95, 0, [10, 20, 30, 40, 50, 60, 70, 80, 90]),
        (3, 0, [1, 2]),
        (100, 75, [85, 95]),
        (1, 0, []),
        (5, 5, []),
    ],
)
def test_outside_of_a_terminal_a_tenth_is_a_line(capsys, total, done, lines):
    count(total, done)
    said = capsys.readouterr()
    assert [int(re.match(r"step (\d+)/", x)[1]) for x in said.out.splitlines()] == lines
    assert said.err == ""


def test_time_left_is_in_proportion(capsys, monkeypatch):
    clock = iter([100.0, 130.0])
    monkeypatch.setattr(module.time, "monotonic", lambda: next(clock))
    progress = module.Progress("step", 40, 10)
    progress.step(news="so far")  # one of thirty in half a minute
    progress.close()
    assert capsys.readouterr().out == "step 11/40, so far, 14:30 left\n"


def test_on_a_terminal_there_is_a_bar_and_no_line(monkeypatch, capsys):
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("4H", 24, 80, 0, 0))
    with os.fdopen(slave, "w") as terminal:
        monkeypatch.setattr("sys.stderr", terminal)
        count(10)
        terminal.flush()
        shown = os.read(master, 100_000).decode()
    os.close(master)
    assert "step:" in shown and "10" in shown
    assert capsys.readouterr().out == ""
