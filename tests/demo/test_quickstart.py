"""The quick start from data to images, at its smallest."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "demo"))

import quickstart
from detectron2.data import DatasetCatalog, MetadataCatalog


@pytest.fixture(autouse=True)
def _no_shapes_registered():
    """Every test has shapes of its own; the names are taken by the first, here or elsewhere."""
    forget_shapes()
    yield
    forget_shapes()


def forget_shapes():
    for name in ("shapes_train", "shapes_val"):
        if name in DatasetCatalog:
            DatasetCatalog.remove(name)
            MetadataCatalog.remove(name)


@pytest.mark.slow
def test_quickstart_leaves_everything_that_it_names(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(quickstart, "VIDEO_SCENES", 2)
    output = tmp_path / "out"
    code = quickstart.main(
        [
            *("--data-kind", "shapes", "--data", str(tmp_path), "--output", str(output)),
            *("--train", "8", "--val", "12", "--iterations", "20", "--setup-seconds", "7"),
            *("SOLVER.IMS_PER_BATCH", "2", "DATALOADER.NUM_WORKERS", "0"),
            *("INPUT.MIN_SIZE_TRAIN", "(64,)", "INPUT.MIN_SIZE_TEST", "64"),
        ]
    )
    assert code == 0
    metrics = json.loads((output / "metrics.json").read_text())
    assert set(metrics["seconds"]) == {"setup", "data", "train", "eval", "draw"}
    assert metrics["seconds"]["setup"] == 7
    assert metrics["data"] == "shapes"
    assert {"AP", "AP50", "AP75"} <= set(metrics["segm"]) & set(metrics["bbox"])
    images = sorted((output / "images").iterdir())
    assert len(images) == quickstart.IMAGES
    for path in [*images, output / "curves.png"]:
        assert cv2.imread(str(path)) is not None
    video = cv2.VideoCapture(str(output / "video.mp4"))
    assert video.get(cv2.CAP_PROP_FRAME_COUNT) == (
        quickstart.VIDEO_SCENES * quickstart.FRAMES_PER_SCENE
    )
    printed = capsys.readouterr().out
    for path in ("metrics.json", "curves.png", "scene_0.jpg", "video.mp4", "model_final.pth"):
        assert str(output) in printed and path in printed


def test_unknown_key_ends_with_one_line(tmp_path, capsys):
    code = quickstart.main(
        [
            *("--data-kind", "shapes", "--data", str(tmp_path), "--output", str(tmp_path / "out")),
            *("--train", "1", "--val", "1", "SOLVER.NO_SUCH_KEY", "1"),
        ]
    )
    assert code == 2
    assert "NO_SUCH_KEY" in capsys.readouterr().err


def test_training_minutes_add_up_whatever_the_records_between_them_hold():
    log = [
        {"iteration": 19, "time": 3.0},
        {"iteration": 29, "segm/AP": 1.0},
        {"iteration": 39, "time": 6.0},
    ]
    # 20 steps of 3 s are a minute, 20 of 6 s two more; step 30 is in the middle of the latter.
    np.testing.assert_allclose(quickstart.training_minutes(log, [19, 29, 39]), [1.0, 2.0, 3.0])


def test_pan_moves_from_corner_to_corner():
    image = np.arange(40 * 80, dtype=np.int64).reshape(40, 80)
    frames = quickstart.pan(image, 3)
    assert [frame.shape for frame in frames] == [(30, 60)] * 3
    assert frames[0][0, 0] == image[0, 0]
    assert frames[-1][-1, -1] == image[-1, -1]
