"""The benchmark of windows as a user calls it, on an image that is no larger than others."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from threshold_model import ThresholdModel

from solo_d2 import SOLOPredictor
from solo_d2.data.scenes.compose import Matte, Scene


@pytest.fixture
def tiles(monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parents[1] / "benchmarks"))
    import tiles

    return tiles


def scene(_cache, side, objects, _seed):
    """Red squares on black."""
    image = np.zeros((side, side, 3), np.uint8)
    mattes = [Matte(np.ones((60, 60), np.float32), 100 * k + 20, 200) for k in range(objects)]
    for matte in mattes:
        image[matte.y : matte.y + 60, matte.x : matte.x + 60, 0] = 255
    return Scene(image, np.zeros(objects, np.int64), mattes)


def test_a_row_has_what_was_found(tiles, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(tiles, "draw_scene", scene)
    # A model that finds what is red.
    monkeypatch.setattr(
        tiles, "SOLOPredictor", lambda cfg: SOLOPredictor(cfg, model=ThresholdModel())
    )
    line = ["--side", "512", "--objects", "1", "--output", str(tmp_path), "--rows", "windows"]
    assert tiles.main(line) == 0
    first, _, _, _, row = capsys.readouterr().out.strip().splitlines()
    assert first == "1 objects on 512x512 pixels"
    assert row.startswith("| windows | 1 | 100.0 | 100.0 | 100.0 | 100.0 | ")


def test_matches_count_every_object_once(tiles):
    squares = [(0, 0, np.ones((4, 4), bool)), (9, 9, np.ones((4, 4), bool))]
    truth = tiles.EncodedMasks.from_crops(squares, (20, 20)).rles()
    crops = [squares[0], (0, 0, np.ones((4, 3), bool)), (9, 9, np.ones((4, 1), bool))]
    found = tiles.EncodedMasks.from_crops(crops, (20, 20)).rles()
    entries = [{"segmentation": rle} for rle in truth]
    assert tiles.matches(found, entries) == 1
    assert tiles.matches([], entries) == 0


def test_wrong_arguments_are_named(tiles, capsys):
    for line, message in (
        (["--side", "100"], "--side must be at least 512"),
        (["--rows", "all"], "--rows must be of whole image, "),
    ):
        with pytest.raises(SystemExit) as stop:
            tiles.main(line)
        assert stop.value.code == 2
        assert message in capsys.readouterr().err
