"""Facts about the demo's command line, as a user calls it, with a tiny untrained SOLO."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pycocotools.mask as mask_util
import pytest
import torch

from solo_d2.io.video import VideoReader, VideoWriter

DEMO = Path(__file__).parents[2] / "demo" / "demo.py"
CONFIG = """
VERSION: 2
MODEL:
  META_ARCHITECTURE: SOLO
  WEIGHTS: ""
  BACKBONE: {NAME: build_resnet_fpn_backbone}
  RESNETS: {DEPTH: 18, RES2_OUT_CHANNELS: 64, OUT_FEATURES: [res2, res3, res4, res5]}
  FPN: {IN_FEATURES: [res2, res3, res4, res5], OUT_CHANNELS: 32}
  SOLO:
    NUM_CLASSES: 2
    NUM_CONVS: 1
    CONV_DIM: 32
    KERNEL_DIM: 32
    PRIOR_PROB: 0.5  # so that untrained weights find something
    MASK_FEATURE: {CONV_DIM: 32}
INPUT: {MIN_SIZE_TEST: 64, MAX_SIZE_TEST: 128}
DATASETS: {TEST: []}
SEED: 1
"""


@pytest.fixture(scope="module")
def main():
    spec = importlib.util.spec_from_file_location("solo_demo", DEMO)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.main


@pytest.fixture
def work(tmp_path, monkeypatch):
    """A folder to work in, with a config and images."""
    (tmp_path / "tiny.yaml").write_text(CONFIG)
    (tmp_path / "photos").mkdir()
    rng = np.random.default_rng(0)
    for name, size in (("a.png", (48, 64)), ("b.jpg", (64, 48)), ("c.png", (48, 64))):
        image = cv2.resize(rng.integers(0, 256, (6, 8, 3), dtype=np.uint8), size[::-1])
        cv2.imwrite(str(tmp_path / "photos" / name), image)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(main, line, *more):
    """Run on the CPU: on a GPU the facts would be the same, and starting it is slow."""
    return main(["--config-file", "tiny.yaml", "--device", "cpu", *line.split(), *more])


def test_a_user_calls_it_as_a_script(work):
    command = [sys.executable, str(DEMO), "--config-file", "tiny.yaml", "--device", "cpu"]
    command += ["--input", "photos", "bad.png", "--output", "out", "--save-json", "out/r.json"]
    command += ["INPUT.MIN_SIZE_TEST", "48"]
    (work / "bad.png").write_bytes(b"no picture")
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 1, done.stderr
    assert "Traceback" not in done.stderr
    assert [line for line in done.stderr.splitlines() if "bad.png" in line] == [
        "skipped: bad.png: not an image in a known format, or empty. Convert it to PNG or JPEG."
    ]
    assert "1 inputs skipped" in done.stdout
    assert sorted(os.listdir("out")) == ["a.png", "b.jpg", "c.png", "r.json"]


def test_help_names_every_option(main, capsys):
    with pytest.raises(SystemExit) as exit_info:
        main(["--help"])
    assert exit_info.value.code == 0
    text = capsys.readouterr().out
    for option in ("--input", "--video-input", "--webcam", "--save-json", "--no-draw", "KEY VALUE"):
        assert option in text


def test_json_holds_masks_at_the_size_of_each_picture(main, work):
    code = run(main, "--input photos/*.png photos/b.jpg --no-draw --save-json r.json", "SEED", "1")
    assert code == 0
    results = json.loads(Path("r.json").read_text())
    assert {entry["image_id"]: entry["file_name"] for entry in results} == {
        1: os.path.join("photos", "a.png"),
        2: os.path.join("photos", "c.png"),
        3: os.path.join("photos", "b.jpg"),
    }
    for entry in results:
        size = [64, 48] if entry["image_id"] == 3 else [48, 64]
        mask = mask_util.decode(entry["segmentation"])
        assert list(mask.shape) == size
        x, y, width, height = (round(value) for value in entry["bbox"])
        assert mask[y : y + height, x : x + width].sum() == mask.sum()
    assert not Path("output").exists()


def test_threshold_keeps_exactly_the_better_instances(main, work):
    """All instances of one checkpoint, against those of a threshold between two scores."""
    line = "--confidence-threshold 0 --input photos/a.png --no-draw --save-json all.json"
    assert run(main, line, *weights(work)) == 0
    scores = sorted(entry["score"] for entry in json.loads(Path("all.json").read_text()))
    assert len(scores) > 1
    middle = (scores[len(scores) // 2 - 1] + scores[len(scores) // 2]) / 2
    line = f"--confidence-threshold {middle} --input photos/a.png --no-draw --save-json some.json"
    assert run(main, line, *weights(work)) == 0
    kept = sorted(entry["score"] for entry in json.loads(Path("some.json").read_text()))
    assert kept == [score for score in scores if score >= middle]


def test_batches_give_what_single_pictures_give(main, work):
    for size in (1, 3):
        line = f"--input photos --no-draw --save-json {size}.json --batch-size {size}"
        assert run(main, line, *weights(work)) == 0
    one, three = (json.loads(Path(f"{size}.json").read_text()) for size in (1, 3))
    assert [entry["image_id"] for entry in one] == [entry["image_id"] for entry in three]
    for left, right in zip(one, three, strict=True):
        assert left["score"] == pytest.approx(right["score"], abs=1e-4)


def weights(work):
    """One checkpoint for all runs of a test, since untrained weights differ from run to run."""
    import torch
    from detectron2.modeling import build_model

    from solo_d2.model_zoo.model_zoo import load_config

    if not (work / "tiny.pth").exists():
        cfg = load_config(work / "tiny.yaml", ["MODEL.DEVICE", "cpu"])
        torch.manual_seed(0)
        torch.save({"model": build_model(cfg).state_dict()}, work / "tiny.pth")
    return ["--weights", "tiny.pth"]


def test_class_names_reach_the_results(main, work):
    (work / "names.txt").write_text("zebra\nteddy bear\n")
    line = "--input photos/a.png --class-names names.txt --no-draw --save-json r.json"
    assert run(main, line, *weights(work)) == 0
    names = {entry["category_name"] for entry in json.loads(Path("r.json").read_text())}
    assert names
    assert names <= {"zebra", "teddy bear"}


def test_a_video_becomes_a_video_of_the_same_length(main, work):
    with VideoWriter("clip.mp4", 10) as writer:
        for n in range(3):
            writer.write(np.full((48, 64, 3), 60 * n, dtype=np.uint8))
    assert run(main, "--video-input clip.mp4 --output out") == 0
    with VideoReader("out/clip.mp4") as reader:
        assert len(list(reader)) == 3
    assert run(main, "--video-input clip.mp4 --output new.mp4 --save-json r.json") == 0
    assert Path("new.mp4").is_file()
    assert run(main, "--video-input clip.mp4 --output clip.mp4") == 2


BAD_LINES = {
    "--input none.png": "none.png: no such file",
    "--input photos/*.gif": "photos/*.gif: no such file, and no file matches it",
    "--input photos --output photos": "is an input, drawing would replace it",
    "--input photos --no-draw": "--no-draw without --save-json or --save leaves nothing to do",
    "--input photos --weights none.pth": "none.pth: no such file",
    "--input photos --weights photos": "photos: is a folder",
    "--input photos --weights tiny.yaml": "tiny.yaml: is no checkpoint",
    "--input photos --confidence-threshold 1.5": "confidence_threshold must be in [0, 1], got 1.5",
    "--input photos --batch-size 0": "batch_size must be 1 or more, got 0",
    "--input photos --device tpu9000": "tpu9000",
    "--input photos --class-names none.txt": "none.txt: no class names can be read",
    "--input photos MODEL.NO_SUCH_KEY 1": "MODEL.NO_SUCH_KEY",
    "--input photos INPUT.FORMAT": "INPUT.FORMAT has no value",
    "--input photos --config-file none.yaml": "none.yaml",
    "--video-input none.mp4": "none.mp4: no such video file",
    "--webcam 97": "camera 97: no frame can be read",
}


@pytest.mark.parametrize("line", BAD_LINES)
def test_bad_usage_ends_with_one_line_and_code_2(main, work, capsys, line):
    assert run(main, line) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len([text for text in lines if BAD_LINES[line] in text]) == 1
    assert not Path("output").exists()


def test_weights_that_fit_partly_are_an_error_unless_asked_for(main, work, capsys):
    torch.save({"model": {"head.category_predictor.bias": torch.zeros(2)}}, "part.pth")
    assert run(main, "--input photos --output out --weights part.pth") == 2
    assert "part.pth: is of another model" in capsys.readouterr().err
    assert run(main, "--input photos --output out --weights part.pth --allow-partial") == 0
    assert len(list(Path("out").iterdir())) == 3


@pytest.mark.parametrize("line", ["", "--input photos --webcam", "--input photos --nonsense"])
def test_wrong_options_end_with_code_2(main, work, capsys, line):
    with pytest.raises(SystemExit) as exit_info:
        run(main, line)
    assert exit_info.value.code == 2
    assert "usage:" in capsys.readouterr().err


def test_when_every_input_fails_the_code_is_1(main, work):
    (work / "bad.png").write_bytes(b"")
    assert run(main, "--input bad.png --output out") == 1


@pytest.mark.parametrize("side", ["64", ""])
def test_windows_over_a_large_image(work, main, side):
    image = np.random.default_rng(1).integers(0, 256, (13, 17, 3), dtype=np.uint8)
    cv2.imwrite("large.png", cv2.resize(image, (170, 130)))
    line = f"--input large.png --output out --save-json r.json --tiles {side} "
    line += "--confidence-threshold 0"
    assert run(main, line, "TEST.TILES.DETECTIONS_PER_IMAGE", "9") == 0
    found = json.loads((work / "r.json").read_text())
    assert len(found) == 9
    for entry in found:
        assert entry["segmentation"]["size"] == [130, 170]
        assert mask_util.toBbox(entry["segmentation"]).tolist() == entry["bbox"]
    assert cv2.imread("out/large.png").shape == (130, 170, 3)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("--tiles 0", "tiles must be the side of a window in pixels or True, got 0"),
        ("--tiles 16", "TEST.TILES.SIZE must be 0 or an integer >= 32, got 16"),
        ("--tiles 64 TEST.TILES.OVERLAP 1.0", "TEST.TILES.OVERLAP must be a number in [0, 0.9]"),
        ("--tiles TEST.AUG.ENABLED True", "TEST.TILES and TEST.AUG are both enabled"),
        ("--tiles INPUT.MIN_SIZE_TEST 0", "TEST.TILES.SIZE must be >= 1 with INPUT.MIN_SIZE_TEST"),
    ],
)
def test_windows_that_make_no_sense_are_named(work, main, capsys, line, message):
    assert run(main, f"--input photos {line}") == 2
    (error,) = capsys.readouterr().err.strip().splitlines()
    assert message in error
