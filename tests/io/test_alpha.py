"""Reading mattes from files, and what is no matte."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from solo_d2.io.alpha import read_alpha, read_matte

RAMP = np.linspace(0, 255, 12).astype(np.uint8).reshape(3, 4)


def save(path, array, mode=None):
    Image.fromarray(array, mode).save(path)
    return str(path)


def test_eight_and_sixteen_bits_and_an_alpha_channel_are_the_same_matte(tmp_path):
    gray = save(tmp_path / "gray.png", RAMP)
    deep = save(tmp_path / "deep.png", RAMP.astype(np.uint16) * 257)
    rgba = np.full((3, 4, 4), 77, np.uint8)
    rgba[..., 3] = RAMP
    for path in (gray, deep, save(tmp_path / "rgba.png", rgba)):
        found = read_alpha(path)
        assert found.dtype == np.uint8
        np.testing.assert_array_equal(found, RAMP)


def test_a_bilevel_picture_is_a_hard_matte(tmp_path):
    Image.fromarray(RAMP > 100).save(tmp_path / "mask.png")
    np.testing.assert_array_equal(read_alpha(tmp_path / "mask.png"), (RAMP > 100) * 255)


def test_what_is_no_matte_is_named(tmp_path):
    rgb = save(tmp_path / "rgb.png", np.zeros((3, 4, 3), np.uint8))
    with pytest.raises(ValueError, match=r"rgb.png: an image of mode RGB without an alpha"):
        read_alpha(rgb)
    with pytest.raises(ValueError, match=r"none.png: no such file"):
        read_alpha(tmp_path / "none.png")
    (tmp_path / "text.png").write_text("no picture")
    with pytest.raises(ValueError, match=r"text.png: not an image in a known format"):
        read_alpha(tmp_path / "text.png")


def test_a_crop_lies_at_its_offset(tmp_path):
    path = save(tmp_path / "crop.png", RAMP)
    matte = read_matte({"file_name": path, "offset": [2, 1]}, (5, 7))
    np.testing.assert_array_equal(matte[1:4, 2:6], RAMP)
    assert matte.sum() == RAMP.sum()
    whole = read_matte({"file_name": path}, (3, 4))
    np.testing.assert_array_equal(whole, RAMP)


@pytest.mark.parametrize("offset", [[4, 1], [2, 3], [-1, 0]])
def test_a_crop_outside_of_its_picture_is_refused(tmp_path, offset):
    path = save(tmp_path / "crop.png", RAMP)
    with pytest.raises(ValueError, match=r"crop.png: a crop of 4x3 pixels at .* of 7x5"):
        read_matte({"file_name": path, "offset": offset}, (5, 7))


def test_a_matte_of_another_size_than_its_picture_is_refused(tmp_path):
    path = save(tmp_path / "matte.png", RAMP)
    with pytest.raises(ValueError, match=r"has 4x3 pixels, its image 6x5"):
        read_matte({"file_name": path}, (5, 6))
