"""The tool that makes the images of the README: what does not need its photographs."""

from __future__ import annotations

import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tools"))

import readme_images

GREY, RED = (90, 90, 90), (0, 0, 255)


def plain(height, width, color):
    return np.full((height, width, 3), color, np.uint8)


def test_rows_of_a_mosaic_are_as_wide_as_it_and_as_high_as_that_makes_them():
    wide, square = plain(100, 200, GREY), plain(50, 50, RED)
    image = readme_images.mosaic([[wide, square], [wide]])
    # (960 - 4) / (2 + 1) = 319 and 960 / 2 = 480 rows, with a gap of 4 between them.
    assert image.shape == (319 + 4 + 480, 960, 3)
    assert (image[:319, :637] == GREY).all() and (image[:319, -318:] == RED).all()
    assert (image[:319, 638:642] == 255).all() and (image[319:323] == 255).all()
    assert (image[323:] == GREY).all()


def test_a_checkerboard_shows_where_a_cut_out_is_transparent():
    piece = np.zeros((4, 4, 4), np.uint8)
    piece[:, :2] = (*RED, 255)
    image = readme_images.on_checkerboard(piece, side=1)
    assert (image[:, :2] == RED).all()
    assert image[0, 2:, 0].tolist() == [255, 204] and image[1, 2:, 0].tolist() == [204, 255]


def test_frames_are_read_until_the_end(tmp_path):
    file = str(tmp_path / "film.avi")
    writer = cv2.VideoWriter(file, cv2.VideoWriter_fourcc(*"MJPG"), 10, (32, 16))
    for value in (0, 100, 200):
        writer.write(plain(16, 32, (value,) * 3))
    writer.release()
    means = [frame.mean() for frame in readme_images.read_frames(Path(file))]
    assert means == pytest.approx([0, 100, 200], abs=3)


def test_photographs_that_cannot_be_had_are_an_error_in_one_line(tmp_path, monkeypatch, capsys):
    def fetch(package, wanted, cache):
        raise readme_images.StampsUnavailableError(f"no {package}")

    monkeypatch.setattr(readme_images, "fetch_package", fetch)
    assert readme_images.main(["--output", str(tmp_path / "out")]) == 1
    assert capsys.readouterr().err == "readme_images.py: no opencv-doc\n"
    assert not (tmp_path / "out").exists()
