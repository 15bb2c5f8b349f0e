"""Facts about reading images: what each kind of file becomes, and what is refused how."""

from __future__ import annotations

import io

import cv2
import numpy as np
import pytest
from PIL import Image

from solo_d2.io import image as image_module
from solo_d2.io.image import ImageError, read_image


def save(tmp_path, picture, name="picture.png", **options):
    path = tmp_path / name
    picture.save(path, **options)
    return path


def test_channel_order_follows_format(tmp_path):
    path = save(tmp_path, Image.new("RGB", (2, 1), (10, 20, 30)))
    assert read_image(path, "RGB")[0, 0].tolist() == [10, 20, 30]
    assert read_image(path, "BGR")[0, 0].tolist() == [30, 20, 10]
    assert read_image(path).tolist() == read_image(str(path), "BGR").tolist()


@pytest.mark.parametrize(
    ("mode", "color", "expected"),
    [
        ("L", 77, (77, 77, 77)),
        ("LA", (77, 9), (77, 77, 77)),  # alpha is dropped, not blended
        ("RGBA", (10, 20, 30, 0), (10, 20, 30)),
        ("1", 1, (255, 255, 255)),
        ("1", 0, (0, 0, 0)),
    ],
)
def test_modes_become_three_channels(tmp_path, mode, color, expected):
    result = read_image(save(tmp_path, Image.new(mode, (3, 2), color)), "RGB")
    assert result.shape == (2, 3, 3)
    assert result.dtype == np.uint8
    assert result.flags["C_CONTIGUOUS"]
    assert (result == expected).all()


def test_palette_gives_the_palette_colors(tmp_path):
    picture = Image.new("P", (2, 1))
    picture.putpalette([1, 2, 3, 200, 100, 50])
    picture.putpixel((1, 0), 1)
    result = read_image(save(tmp_path, picture), "RGB")
    assert result.tolist() == [[[1, 2, 3], [200, 100, 50]]]


def test_cmyk_inks_subtract(tmp_path):
    picture = Image.new("CMYK", (2, 1), (0, 0, 0, 0))  # no ink is white
    picture.putpixel((1, 0), (255, 0, 0, 0))  # full cyan removes red
    result = read_image(save(tmp_path, picture, "ink.tif"), "RGB")
    assert result.tolist() == [[[255, 255, 255], [0, 255, 255]]]


@pytest.mark.parametrize("name", ["deep.png", "deep.tif"])
def test_16_bit_is_scaled_not_saturated(tmp_path, name):
    # 257 = 65535 / 255: one 8-bit step; 128 is below half a step, 129 above it.
    values = np.array([[0, 128, 129, 257, 32896, 65535]], dtype=np.uint16)
    result = read_image(save(tmp_path, Image.fromarray(values), name))
    assert result[0, :, 0].tolist() == [0, 0, 1, 1, 128, 255]
    assert (result == result[:, :, :1]).all()


RAMP = np.arange(3 * 20 * 30, dtype=np.uint16).reshape(20, 30, 3) * 36
"""Colours of 16 bits, (20, 30, 3)."""


@pytest.mark.parametrize("options", [{}, {"compression": "zlib"}])
def test_planes_of_16_bits_are_refused_and_of_8_bits_read(tmp_path, options):
    tifffile = pytest.importorskip("tifffile")
    file = tmp_path / "planes.tif"
    tifffile.imwrite(file, RAMP.transpose(2, 0, 1), photometric="rgb", **options)
    with pytest.raises(ImageError, match="one plane after the other"):
        read_image(file)
    tifffile.imwrite(file, RAMP, photometric="rgb", **options)
    assert np.abs(read_image(file, "RGB") - RAMP / 257).max() <= 0.5
    small = (RAMP >> 8).astype(np.uint8)
    tifffile.imwrite(file, small.transpose(2, 0, 1), photometric="rgb")
    assert (read_image(file, "RGB") == small).all()


@pytest.mark.parametrize("kind", [np.uint8, np.uint16])
def test_white_that_is_zero_becomes_white(tmp_path, kind):
    tifffile = pytest.importorskip("tifffile")
    values = np.array([[0, 51, 255]], dtype=kind) * kind(np.iinfo(kind).max // 255)
    file = tmp_path / "radiograph.tif"
    tifffile.imwrite(file, values, photometric="miniswhite")
    assert read_image(file)[0, :, 0].tolist() == [255, 204, 0]
    tifffile.imwrite(file, values, photometric="minisblack")
    assert read_image(file)[0, :, 0].tolist() == [0, 51, 255]


@pytest.mark.parametrize(
    ("tags", "max_value"),
    [([(281, "H", 1, 4000, True)], 0), ([], 4095), ([(281, "H", 1, 9, True)], 4095)],
)
def test_white_that_is_zero_of_12_bits_has_their_range(tmp_path, tags, max_value):
    tifffile = pytest.importorskip("tifffile")
    file = tmp_path / "radiograph.tif"
    values = np.array([[0, 819, 4095]], np.uint16)
    tifffile.imwrite(file, values, photometric="miniswhite", extratags=tags)
    assert read_image(file, max_value=max_value)[0, :, 0].tolist() == [255, 204, 0]


def test_values_above_the_largest_that_is_stated_do_not_wrap(tmp_path):
    tifffile = pytest.importorskip("tifffile")
    file = tmp_path / "radiograph.tif"
    values = np.array([[0, 65535]], np.uint16)
    tifffile.imwrite(file, values, photometric="miniswhite", extratags=[(281, "H", 1, 4000, True)])
    assert read_image(file)[0, :, 0].tolist() == [255, 0]
    assert read_image(file, max_value=4095)[0, :, 0].tolist() == [255, 0]


@pytest.mark.parametrize("channels", [1, 3])
def test_jpeg_2000_keeps_all_of_its_bits(tmp_path, channels):
    values = np.repeat(np.array([2000, 65500], np.uint16), 64 * 16).reshape(32, 64)
    values = np.repeat(values[..., None], channels, axis=2)
    file = tmp_path / "deep.jp2"
    cv2.imwrite(str(file), values, [cv2.IMWRITE_JPEG2000_COMPRESSION_X1000, 1000])  # lossless
    assert np.unique(read_image(file)).tolist() == [8, 255]
    assert np.unique(read_image(file, max_value=4095)).tolist() == [125, 255]
    cv2.imwrite(str(file), (values >> 8).astype(np.uint8))
    assert np.ptp(read_image(file)[:8]) < 8 < read_image(file).max()


def test_32_bit_mode_with_16_bit_values_is_scaled(tmp_path):
    values = np.array([[0, 65535]], dtype=np.int32)
    assert read_image(save(tmp_path, Image.fromarray(values), "i.tif"))[0, :, 0].tolist() == [
        0,
        255,
    ]


@pytest.mark.parametrize("value", [-1, 65536])
def test_integers_beyond_16_bit_are_refused(tmp_path, value):
    path = save(tmp_path, Image.fromarray(np.array([[0, value]], dtype=np.int32)), "i.tif")
    with pytest.raises(ValueError, match=rf"i\.tif: integer values in .*{value}.*8 bits"):
        read_image(path)


def test_float_in_unit_range_is_scaled(tmp_path):
    values = np.array([[0.0, 0.5, 1.0]], dtype=np.float32)
    result = read_image(save(tmp_path, Image.fromarray(values), "f.tif"))
    assert result[0, :, 0].tolist() == [0, 128, 255]  # 127.5 rounds to even


@pytest.mark.parametrize("value", [-0.01, 1.01, float("nan")])
def test_float_without_defined_scale_is_refused(tmp_path, value):
    path = save(tmp_path, Image.fromarray(np.array([[0.0, value]], dtype=np.float32)), "f.tif")
    with pytest.raises(ValueError, match=r"f\.tif: float values .* expected \[0, 1\]"):
        read_image(path)


# Stored 3 x 2 with one bright pixel at the stored top left; where is it once upright?
ORIENTATIONS = {
    1: ((2, 3), (0, 0)),
    2: ((2, 3), (0, 2)),
    3: ((2, 3), (1, 2)),
    4: ((2, 3), (1, 0)),
    5: ((3, 2), (0, 0)),
    6: ((3, 2), (0, 1)),  # the camera was turned left: stored left edge is the upright top
    7: ((3, 2), (2, 1)),
    8: ((3, 2), (2, 0)),
}


@pytest.mark.parametrize("orientation", ORIENTATIONS)
@pytest.mark.parametrize("mode", ["L", "RGB", "I;16"])
def test_exif_orientation_is_applied(tmp_path, orientation, mode):
    picture = Image.new(mode, (3, 2))
    picture.putpixel((0, 0), {"L": 255, "RGB": (255, 255, 255), "I;16": 65535}[mode])
    exif = Image.Exif()
    exif[0x0112] = orientation
    result = read_image(save(tmp_path, picture, exif=exif))
    shape, corner = ORIENTATIONS[orientation]
    assert result.shape == (*shape, 3)
    assert np.argwhere(result[:, :, 0] == 255).tolist() == [list(corner)]


def test_broken_exif_keeps_the_pixels(tmp_path, caplog):
    path = save(tmp_path, Image.new("RGB", (2, 2), (9, 9, 9)), exif=b"Exif\0\0garbage")
    assert (read_image(path) == 9).all()
    assert "picture.png: EXIF orientation ignored" in caplog.text


@pytest.mark.parametrize("size", [(5, 1), (1, 5), (1, 1)])
def test_one_pixel_sides_are_fine(tmp_path, size):
    assert read_image(save(tmp_path, Image.new("RGB", size))).shape == (size[1], size[0], 3)


def test_first_frame_of_an_animation_is_read(tmp_path):
    frames = [Image.new("L", (2, 2), value) for value in (50, 200)]
    path = save(tmp_path, frames[0], "a.gif", save_all=True, append_images=frames[1:])
    assert (read_image(path) == 50).all()


def encoded(format_name):
    noise = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(noise).save(buffer, format_name)
    return buffer.getvalue()


@pytest.mark.parametrize("format_name", ["PNG", "JPEG", "TIFF", "BMP", "WEBP", "PPM", "GIF"])
def test_truncated_files_are_named(tmp_path, format_name):
    data = encoded(format_name)
    path = tmp_path / "cut.img"
    path.write_bytes(data)
    assert read_image(path).shape == (32, 32, 3)
    path.write_bytes(data[: len(data) // 2])
    with pytest.raises(ValueError, match=r"cut\.img: (damaged or truncated|not an image)"):
        read_image(path)


@pytest.mark.parametrize("data", [b"", b"this is no picture", b"\x89PNG\r\n\x1a\n" + b"\0" * 40])
def test_garbage_is_named(tmp_path, data):
    path = tmp_path / "garbage.jpg"
    path.write_bytes(data)
    with pytest.raises(ValueError, match=r"garbage\.jpg: .*(Convert|Get the file again)"):
        read_image(path)


def test_missing_file_and_folder_are_told_apart(tmp_path):
    with pytest.raises(ValueError, match=r"none\.png: no such file"):
        read_image(tmp_path / "none.png")
    with pytest.raises(ValueError, match="is a folder"):
        read_image(tmp_path)


def test_size_limit_holds_on_both_sides(tmp_path, monkeypatch):
    path = save(tmp_path, Image.new("L", (10, 10)))
    monkeypatch.setattr(image_module, "MAX_PIXELS", 100)
    assert read_image(path).shape == (10, 10, 3)
    monkeypatch.setattr(image_module, "MAX_PIXELS", 99)
    with pytest.raises(ValueError, match=r"picture\.png: too large \(10 x 10 pixels; limit 99"):
        read_image(path)


def test_decompression_bomb_is_refused_before_decoding(tmp_path):
    # A bitmap header that promises 60000 x 60000 pixels: 10 GB if anything were decoded.
    small = tmp_path / "bomb.bmp"
    Image.new("L", (4, 4)).save(small)
    data = bytearray(small.read_bytes())
    data[18:26] = (60000).to_bytes(4, "little") * 2
    small.write_bytes(data)
    with pytest.raises(ValueError, match=r"bomb\.bmp: too large"):
        read_image(small)


def test_unknown_channel_order_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"BGR.*RGB.*'L'"):
        read_image(save(tmp_path, Image.new("L", (1, 1))), "L")
