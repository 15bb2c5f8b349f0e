"""Cut-outs, blur and backgrounds on images whose parts are known."""

from __future__ import annotations

import sys

import cv2
import numpy as np
import pytest

from solo_d2.inference import effects as matting_effects
from solo_d2.inference.effects import (
    blur_background,
    cut_out,
    drop_faint_parts,
    estimate_foreground,
    fill_frame,
    matte_box,
    parse_color,
    replace_background,
    set_levels,
    union_matte,
)
from solo_d2.layers import budgets

SIZE = (40, 60)


def soft_disc(center=(20, 30), radius=12.0, width=6.0, size=SIZE):
    y, x = np.mgrid[: size[0], : size[1]]
    distance = np.hypot(y - center[0], x - center[1])
    return np.clip((radius - distance) / width + 0.5, 0, 1).astype(np.float32)


def noise(seed=0, size=SIZE):
    return np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)


def over(foreground, background, matte):
    alpha = matte[..., None]
    return np.rint(alpha * foreground + (1 - alpha) * background).astype(np.uint8)


def plain(color, size=SIZE):
    return np.full((*size, 3), color, dtype=np.uint8)


RED, BLUE, GREEN = (0, 0, 200), (180, 20, 0), (0, 255, 0)


def test_levels_stretch_and_clip():
    matte = np.array([[0.0, 0.1, 0.3, 0.5, 0.6, 1.0]], dtype=np.float32)
    stretched = set_levels(matte, 0.1, 0.5)
    np.testing.assert_allclose(stretched, [[0, 0, 0.5, 1, 1, 1]], atol=1e-6)
    assert np.array_equal(set_levels(matte, 0, 1), matte)
    for low, high in ((0.5, 0.5), (-0.1, 1), (0, 1.1), (0.6, 0.2)):
        with pytest.raises(ValueError, match="levels must be"):
            set_levels(matte, low, high)


def test_faint_islands_are_dropped_and_soft_edges_and_firm_parts_stay():
    matte = np.zeros((5, 9), dtype=np.float32)
    matte[1, :4] = [0.2, 0.9, 0.6, 0.1]  # an object with soft edges ...
    matte[2, 4] = 0.05  # ... and a hair that hangs on it by a corner
    matte[4, 0] = 0.5  # a firm part behind something
    expected = matte.copy()
    matte[0:2, 7] = 0.49
    assert np.array_equal(drop_faint_parts(matte), expected)
    assert np.array_equal(drop_faint_parts(matte, firm=0.49), matte)
    assert not drop_faint_parts(matte, firm=0.91).any()
    nothing = np.zeros((2, 3), dtype=np.float32)
    assert np.array_equal(drop_faint_parts(nothing), nothing)


def test_the_union_of_parts_has_no_seam():
    whole = soft_disc()
    share = np.linspace(0, 1, SIZE[1], dtype=np.float32)
    parts = np.stack([whole * share, whole * (1 - share)])
    np.testing.assert_allclose(union_matte(parts), whole, atol=1e-6)
    assert union_matte(np.stack([whole, whole])).max() == 1
    assert not union_matte(np.zeros((0, *SIZE), np.float32)).any()


def test_the_box_of_a_matte_holds_what_eight_bits_show():
    matte = np.zeros(SIZE, np.float32)
    matte[3, 5], matte[10, 20], matte[30, 40] = 0.5 / 255 + 1e-4, 1, 0.5 / 255 - 1e-4
    assert matte_box(matte) == (5, 3, 21, 11)
    with pytest.raises(ValueError, match="transparent everywhere"):
        matte_box(np.zeros(SIZE, np.float32))


def test_a_cut_out_over_the_old_background_is_the_picture():
    matte, front, back = soft_disc(), noise(1), noise(2)
    image = over(front, back, matte)
    rgba = cut_out(image, matte, front)
    x0, y0, x1, y1 = matte_box(matte)
    assert rgba.shape == (y1 - y0, x1 - x0, 4) and rgba.dtype == np.uint8
    again = over(rgba[..., :3], back[y0:y1, x0:x1], rgba[..., 3].astype(np.float32) / 255)
    assert np.abs(again.astype(int) - image[y0:y1, x0:x1]).max() <= 1
    assert not rgba[rgba[..., 3] == 0].any()


def test_without_foreground_a_cut_out_keeps_the_colours():
    image, matte = noise(), np.zeros(SIZE, np.float32)
    matte[4:9, 7:20] = 1
    rgba = cut_out(image, matte)
    assert np.array_equal(rgba[..., :3], image[4:9, 7:20])
    assert (rgba[..., 3] == 255).all()


def test_a_new_background_shows_by_what_the_matte_leaves():
    matte, front, new = soft_disc(), noise(1), noise(3)
    image = over(front, noise(2), matte)
    shown = replace_background(image, matte, new, front)
    assert np.abs(shown.astype(int) - over(front, new, matte)).max() <= 1
    assert np.array_equal(shown[matte == 0], new[matte == 0])
    assert np.array_equal(shown[matte == 1], image[matte == 1])
    colored = replace_background(image, matte, np.array(GREEN, np.uint8))
    assert (colored[matte == 0] == GREEN).all()


def literal_blur(background, share, radius):
    """Mean light of the background over a disc, pixel by pixel."""
    height, width = share.shape
    light = (background / 255.0) ** 2.2
    result = background.astype(float)
    reach = int(np.ceil(radius))
    for y in range(height):
        for x in range(width):
            total, seen = 0.0, np.zeros(3)
            for v in range(max(0, y - reach), min(height, y + reach + 1)):
                for u in range(max(0, x - reach), min(width, x + reach + 1)):
                    disc = min(max(radius + 0.5 - np.hypot(v - y, u - x), 0), 1)
                    total += disc * share[v, u]
                    seen += disc * share[v, u] * light[v, u]
            if total > 1e-9:
                result[y, x] = (seen / total) ** (1 / 2.2) * 255
    return result


@pytest.mark.parametrize("band_pixels", [2**21, 100])
def test_blur_equals_a_literal_one(monkeypatch, band_pixels):
    monkeypatch.setattr(budgets, "BAND_PIXELS", band_pixels)
    size = (14, 18)
    matte = soft_disc((7, 9), 3, 3, size)
    front, back = noise(1, size), cv2.blur(noise(2, size), (3, 3))
    image = over(front, back, matte)
    image[matte == 1] = front[matte == 1]
    shown = blur_background(image, matte, 2.5, front)
    expected = over(front, literal_blur(back, 1 - matte, 2.5), matte)
    # Where the matte is nearly opaque, the 8 bits of the image say little about the background.
    assert np.abs(shown.astype(int) - expected).max() <= 4


def test_no_colour_of_the_object_spreads():
    matte = soft_disc()
    image = over(plain(RED), plain(BLUE), matte)
    shown = blur_background(image, matte, 8, plain(RED))
    assert np.abs(shown.astype(int) - image).max() <= 2  # a plain background stays plain
    shown = blur_background(image, matte, 8)  # without colours of the foreground
    assert np.abs(shown[matte == 0].astype(int) - BLUE).max() <= 12
    naive = cv2.blur(image, (17, 17))
    assert np.abs(naive[matte == 0].astype(int) - BLUE).max() > 50


def test_the_object_stays_and_radius_zero_blurs_nothing():
    matte, image = soft_disc(), noise()
    shown = blur_background(image, matte, 6, image)
    assert np.array_equal(shown[matte == 1], image[matte == 1])
    assert np.abs(shown.astype(int) - image)[matte == 0].max() > 20
    same = blur_background(image, matte, 0, image)
    assert np.abs(same.astype(int) - image).max() <= 1


def test_small_lights_become_discs():
    """The mean of light, not of stored values: 255 among 0 over n pixels is 255 n^(-1/2.2)."""
    image = plain((0, 0, 0), (21, 21))
    image[10, 10] = 255
    shown = blur_background(image, np.zeros((21, 21), np.float32), 3)
    pixels = matting_effects._disc(3)[3, 3] ** -1
    assert shown[10, 10, 0] == pytest.approx(255 * pixels ** (-1 / 2.2), abs=1)
    assert shown[10, 15].max() == 0


def test_an_object_larger_than_the_disc_does_not_break_the_blur():
    image = noise()
    shown = blur_background(image, np.full(SIZE, 1, np.float32), 3, image)
    assert np.array_equal(shown, image)


def test_a_background_fills_the_frame_without_distortion():
    picture = np.zeros((10, 20, 3), np.uint8)
    picture[:, 10:] = 255
    shown = fill_frame(picture, (40, 40))  # 40x80, the middle of it
    assert shown.shape == (40, 40, 3)
    assert (shown[:, :17] == 0).all() and (shown[:, 23:] == 255).all()
    assert fill_frame(picture, (3, 50)).shape == (3, 50, 3)
    assert np.array_equal(fill_frame(picture, (10, 20)), picture)


def test_colours_by_name_and_number():
    assert parse_color("red").tolist() == [0, 0, 255]
    assert parse_color("#102030").tolist() == [0x30, 0x20, 0x10]
    with pytest.raises(ValueError, match="nocolour"):
        parse_color("nocolour")


def test_bad_arrays_are_named():
    with pytest.raises(ValueError, match=r"matte must be float \(40, 60\)"):
        cut_out(noise(), np.zeros((4, 4), np.float32))
    with pytest.raises(ValueError, match="image must be uint8"):
        cut_out(noise().astype(np.float32), soft_disc())
    with pytest.raises(ValueError, match="radius must be 0 or more"):
        blur_background(noise(), soft_disc(), -1)


def test_foreground_needs_pymatting(monkeypatch):
    monkeypatch.setitem(sys.modules, "pymatting.foreground", None)
    with pytest.raises(ValueError, match="pip install pymatting"):
        estimate_foreground(noise(), soft_disc())


@pytest.mark.slow  # the first import of pymatting compiles for a minute
def test_estimated_foreground_is_free_of_the_background():
    pytest.importorskip("pymatting")
    matte = soft_disc()
    image = over(plain(RED), plain(BLUE), matte)
    found = estimate_foreground(image, matte)
    edge = (matte > 0.1) & (matte < 0.9)
    assert np.abs(image[edge].astype(int) - RED).max() > 100
    assert np.abs(found[edge].astype(int) - RED).max() < 40
    assert np.array_equal(estimate_foreground(image, 0 * matte), image)
