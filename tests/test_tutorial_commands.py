"""The commands of the tutorials, one after the other as a reader types them, at tiny budgets."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from commands import call
from PIL import Image
from test_doc_commands import ROOT, commands

from solo_d2.cli import main as cli

STEPS = [
    ("README.md", "predict --config-file solo_d2/objects_lite0"),
    ("docs/data.md", "check my_photos/"),
    ("docs/data.md", "train --data my_photos/"),
    ("docs/data.md", "predict --config-file output/mine"),
    ("docs/data.md", "eval --data my_photos/"),
    ("docs/prediction.md", "predict --config-file output/mine/config.yaml --input new_photos/"),
]
# A model that comes along instead of a download, one epoch, small images; the last options hold.
SMALL = ["INPUT.MIN_SIZE_TEST", "64", "DATALOADER.NUM_WORKERS", "0"]
SMALL += ["MODEL.SOLO.SCORE_THRESH_TEST", "0.01", "MODEL.SOLO.FINAL_SCORE_THRESH_TEST", "0.0"]
MODEL = ["--config-file", "solo_d2/objects_lite0"]
SHORT = [*MODEL, "--epochs", "1", "--batch-size", "9", "INPUT.MIN_SIZE_TRAIN", "(64,)"]
MORE = {"train": [*SHORT, *SMALL], "predict": SMALL, "check": MODEL, "eval": SMALL}


def write_photos(folder, count):
    """Images of 64x96 pixels with two bright squares each, and PNGs that number them."""
    for kind in ("images", "masks"):
        (folder / kind).mkdir(parents=True)
    for n in range(count):
        numbers = np.zeros((64, 96), np.uint8)
        numbers[8:40, 8:40], numbers[20:56, 52 + n : 88] = 1, 2
        pixels = np.where(numbers[..., None] > 0, 230, 40).repeat(3, 2).astype(np.uint8)
        Image.fromarray(pixels).save(folder / "images" / f"{n}.png")
        Image.fromarray(numbers).save(folder / "masks" / f"{n}.png")


@pytest.mark.slow
def test_the_commands_of_the_tutorials_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_photos(Path("photos"), 10)
    assert call(cli.main, "convert", "masks:photos", "my_photos", "--to", "labelme").returncode == 0
    Path("new_photos").mkdir()
    Image.open("photos/images/0.png").save("new_photos/a.png")
    Image.open("photos/images/1.png").save("photo.jpg")
    for page, start in STEPS:
        written = commands((ROOT / page).read_text("utf-8"))
        command = next(words for words in written if " ".join(words).startswith(start))
        done = call(cli.main, *command, *MORE[command[0]])
        assert done.returncode == 0, (command, done.stderr)
    for made in ("output/mine/model_best.pth", "out/0.png", "labels/a.json"):
        assert Path(made).exists()
