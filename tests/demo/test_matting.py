"""Facts about the matting command, with a stand-in for a model whose answers are known."""

from __future__ import annotations

import importlib
import os
import sys
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch
from detectron2.structures import Boxes, Instances

from solo_d2.io.video import VideoReader, VideoWriter

FOLDER = Path(__file__).parents[2] / "demo"
SIZE = (48, 64)
NAMES = ["cat", "big dog"]


class Predictor:
    """Two discs: a small cat (0.9) and a large dog (0.6), or nothing in a black image."""

    def __init__(self, soft=True, names=NAMES):
        self.soft = soft
        self.metadata = {"thing_classes": names}
        self.cfg = SimpleNamespace(MODEL=SimpleNamespace(SOLO=SimpleNamespace(NUM_CLASSES=2)))

    def __call__(self, images):
        if isinstance(images, list):
            return [self(image) for image in images]
        found = Instances(images.shape[:2])
        count = 2 if images.any() else 0
        mattes = torch.stack([disc(16, 8, images), disc(46, 16, images)])[:count]
        if self.soft:
            found.pred_mattes = mattes
        found.pred_masks = mattes > 0.5
        found.pred_boxes = Boxes(torch.zeros(count, 4))
        found.scores = torch.tensor([0.9, 0.6][:count])
        found.pred_classes = torch.tensor([0, 1][:count])
        return {"instances": found}


def disc(x, radius, image):
    v, u = torch.meshgrid(*map(torch.arange, image.shape[:2]), indexing="ij")
    return ((radius - torch.hypot(u - x, v - 24.0)) / 4 + 0.5).clamp(0, 1)


@pytest.fixture
def matting(monkeypatch):
    monkeypatch.syspath_prepend(str(FOLDER))
    module = importlib.import_module("matting")
    monkeypatch.setattr(module.demo, "make_predictor", lambda args, overrides: Predictor())
    yield module
    for name in ("matting", "demo"):
        sys.modules.pop(name, None)


@pytest.fixture
def work(tmp_path, monkeypatch):
    (tmp_path / "photos").mkdir()
    for name in ("a.png", "b.png"):
        cv2.imwrite(str(tmp_path / "photos" / name), noise())
    cv2.imwrite(str(tmp_path / "black.png"), np.zeros((*SIZE, 3), np.uint8))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def noise():
    return np.random.default_rng(0).integers(1, 256, (*SIZE, 3), dtype=np.uint8)


def run(matting, line, *more):
    config = str(FOLDER.parent / "configs" / "Shapes" / "solov2_lite0.yaml")
    arguments = ["--config-file", config, "--device", "cpu", "--no-foreground", *line.split()]
    return matting.main([*arguments, *more])


def test_every_instance_becomes_a_png_with_its_matte(matting, work):
    assert run(matting, "--input photos --output out --levels 0 1") == 0
    assert sorted(os.listdir("out")) == [
        f"{picture}_{end}.png" for picture in "ab" for end in ("00_cat", "01_big-dog")
    ]
    piece = cv2.imread("out/a_00_cat.png", cv2.IMREAD_UNCHANGED)
    matte = disc(16, 8, noise()).numpy()
    rows, columns = slice(24 - 9, 24 + 10), slice(16 - 9, 16 + 10)  # alpha > 0 for r < 10
    assert piece.shape == (19, 19, 4)
    assert np.array_equal(piece[..., 3], np.rint(matte[rows, columns] * 255))
    opaque = piece[..., 3] == 255
    assert np.array_equal(piece[opaque][:, :3], noise()[rows, columns][opaque])


def test_levels_make_soft_values_opaque_or_transparent(matting, work):
    assert run(matting, "--input photos/a.png --output out --levels 0.49 0.51") == 0
    piece = cv2.imread("out/a_00_cat.png", cv2.IMREAD_UNCHANGED)
    assert np.isin(piece[..., 3], (0, 255)).mean() > 0.95
    assert piece.shape[0] < 19


def test_an_instance_below_the_levels_everywhere_is_none(matting, work, monkeypatch, capsys):
    class Faint(Predictor):
        def __call__(self, images):
            found = super().__call__(images)  # which calls this for every image of a list
            if not isinstance(images, list):
                found["instances"].pred_mattes *= 0.6
            return found

    monkeypatch.setattr(matting.demo, "make_predictor", lambda args, overrides: Faint())
    assert run(matting, "--input photos/a.png --output faint") == 0
    assert len(os.listdir("faint")) == 2
    assert run(matting, "--input photos/a.png --output none --levels 0.7 0.9") == 1
    assert "no instance as asked for was found" in capsys.readouterr().err
    assert not Path("none").exists()


@pytest.mark.parametrize(
    ("options", "sharp"),
    [("", 0), ("--instance 1", 1), ("--class cat", 0), ("--class", 1)],
    ids=["best", "by number", "by class", "by class with a space"],
)
def test_blur_leaves_the_chosen_instance_alone(matting, work, options, sharp):
    more = ["big dog"] if options == "--class" else []
    assert run(matting, f"--input photos/a.png --output out --blur 5 {options}", *more) == 0
    shown, image = cv2.imread("out/a.png"), noise()
    discs = [disc(16, 8, image).numpy() == 1, disc(46, 16, image).numpy() == 1]
    assert np.array_equal(shown[discs[sharp]], image[discs[sharp]])
    assert np.abs(shown[discs[1 - sharp]].astype(int) - image[discs[1 - sharp]]).mean() > 20


def test_a_colour_or_a_picture_comes_behind(matting, work):
    assert run(matting, "--input photos/a.png --output out/c.png --background #102030") == 0
    shown = cv2.imread("out/c.png")
    assert shown[0, 0].tolist() == [0x30, 0x20, 0x10]
    assert np.array_equal(shown[24, 16], noise()[24, 16])
    cv2.imwrite("wall.png", np.full((10, 10, 3), 77, np.uint8))
    assert run(matting, "--input photos --output out --background wall.png") == 0
    assert sorted(os.listdir("out")) == ["a.png", "b.png", "c.png"]
    assert (cv2.imread("out/b.png")[0, 0] == 77).all()


def test_a_picture_without_the_instance_is_skipped(matting, work, capsys):
    assert run(matting, "--input black.png photos/a.png --output out --blur") == 1
    assert os.listdir("out") == ["a.png"]
    assert "skipped: black: no instance as asked for was found" in capsys.readouterr().err
    assert run(matting, "--input photos/a.png --output out --blur --instance 2") == 1


def test_a_video_gets_the_effect_and_keeps_frames_without_the_instance(matting, work):
    with VideoWriter("clip.mp4", 10) as writer:
        for frame in (np.full((*SIZE, 3), 120, np.uint8), np.zeros((*SIZE, 3), np.uint8)):
            writer.write(frame)
    line = "--video-input clip.mp4 --output out.mp4 --background white"
    assert run(matting, line) == 0
    with VideoReader("out.mp4") as reader:
        first, second = list(reader)
    assert first[0, 0].min() > 230 and abs(int(first[24, 16, 0]) - 120) < 20
    assert second.max() < 25
    assert run(matting, "--video-input clip.mp4 --output out") == 0
    assert sorted(os.listdir("out/clip")) == ["000000_00_cat.png", "000000_01_big-dog.png"]


def test_masks_of_a_model_without_mattes_serve_as_well(matting, work, monkeypatch, caplog):
    monkeypatch.setattr(
        matting.demo, "make_predictor", lambda *_: Predictor(soft=False, names=None)
    )
    assert run(matting, "--input photos --output out --class 1") == 0
    assert sorted(os.listdir("out")) == ["a_00_class1.png", "b_00_class1.png"]
    alpha = cv2.imread("out/a_00_class1.png", cv2.IMREAD_UNCHANGED)[..., 3]
    assert set(np.unique(alpha)) == {0, 255}
    assert len([r for r in caplog.records if "no mattes, only masks" in r.message]) == 1


def test_results_are_saved_as_by_the_other_demo(matting, work):
    assert run(matting, "--input photos --no-draw --save-json r.json") == 0
    assert Path("r.json").is_file() and not Path("output").exists()


def test_an_exported_model_has_no_config_to_read(matting, work, monkeypatch):
    given = []
    monkeypatch.setattr(
        matting.demo,
        "make_predictor",
        lambda _args, overrides: (given.extend(overrides), Predictor())[1],
    )
    words = ["--config-file", "model.torchscript", "--no-foreground", "--input", "photos"]
    assert matting.main([*words, "--output", "out"]) == 0
    assert given == []


BAD_LINES = {
    "--background nocolour": "--background nocolour: neither an image's file nor a colour",
    "--blur -3": "--blur must lie in [0, 20] percent, got -3",
    "--blur 21": "--blur must lie in [0, 20] percent, got 21",
    "--style boxes": "--style is of demo.py",
    "--instance -1": "--instance counts from 0, got -1",
    "--class bird": "--class bird: the model knows cat, big dog",
    "--levels 0.5 0.4": "levels must be 0 <= low < high <= 1",
}


@pytest.mark.parametrize("line", BAD_LINES)
def test_bad_usage_ends_with_one_line_and_code_2(matting, work, capsys, line):
    assert run(matting, f"--input photos --output out {line}") == 2
    lines = capsys.readouterr().err.splitlines()
    assert len([text for text in lines if BAD_LINES[line] in text]) == 1
    assert not Path("out").exists()


def test_pymatting_is_asked_for_before_the_model_is_built(matting, work, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "pymatting.foreground", None)
    monkeypatch.setattr(matting.demo, "make_predictor", None)
    config = str(FOLDER.parent / "configs" / "Shapes" / "solov2_lite0.yaml")
    assert matting.main(["--config-file", config, "--input", "photos"]) == 2
    error = capsys.readouterr().err
    assert "pip install pymatting" in error and "--no-foreground" in error
