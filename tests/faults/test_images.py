"""Faults of image files: what is read, what is refused, and that nothing is run or waited for."""

from __future__ import annotations

import logging
import os
import socket
import struct

import cv2
import numpy as np
import pytest
from PIL import Image

from solo_d2.data.dataset_mapper import SOLODatasetMapper
from solo_d2.data.datasets.alpha import resolve_alpha
from solo_d2.data.datasets.cityscapes import load_cityscapes
from solo_d2.data.scenes.rgba_folders import read_background
from solo_d2.io import pixels
from solo_d2.io.alpha import read_alpha
from solo_d2.io.image import (
    IMAGE_EXTENSIONS,
    ImageError,
    can_write,
    open_image,
    read_image,
    read_size,
    write_image,
)
from solo_d2.io.panoptic_png import read_panoptic_png
from solo_d2.io.paths import fit_name, printable, refuse_overwriting


@pytest.fixture(autouse=True)
def _nothing_said():
    """Doubts are said once for every folder; every test has folders of its own, but be sure."""
    pixels._said.clear()


def flat(path, value=(10, 20, 30), size=(4, 3), **options):
    Image.new("RGB", size, value).save(path, **options)
    return path


# What is no regular file


def fifo(path):
    os.mkfifo(path)


def bound_socket(path):
    before = os.getcwd()
    os.chdir(path.parent)  # names of sockets are short
    try:
        socket.socket(socket.AF_UNIX).bind(path.name)
    finally:
        os.chdir(before)


def loop(path):
    path.with_name("other").symlink_to(path.name)
    path.symlink_to("other")


NO_FILES = {
    "named pipe": (fifo, "is a named pipe"),
    "socket": (bound_socket, "is a socket"),
    "device": (lambda path: path.symlink_to("/dev/zero"), "is a device"),
    "folder": (lambda path: path.mkdir(), "is a folder"),
    "link that leads to itself": (loop, "a link that leads nowhere or to itself"),
    "link to nothing": (lambda path: path.symlink_to("none"), "a link that leads nowhere"),
    "nothing": (lambda path: None, "no such file"),
    "name of 5000 bytes": (None, "cannot be reached"),
    "NUL in the name": (None, "no such file"),
}
ODD_NAMES = {"name of 5000 bytes": "a" * 5000, "NUL in the name": "a\0"}
READERS = (read_image, read_size, read_alpha, read_panoptic_png)


@pytest.mark.parametrize("kind", NO_FILES)
def test_what_is_no_regular_file_is_named_and_never_opened(tmp_path, kind):
    make, said = NO_FILES[kind]
    path = tmp_path / ODD_NAMES.get(kind, "a.png")
    if make is not None:
        make(path)
    for reader in READERS:
        with pytest.raises(ImageError, match=said) as caught:
            reader(str(path))
        assert "\n" not in str(caught.value)


def test_a_link_to_an_image_is_an_image(tmp_path):
    flat(tmp_path / "a.png")
    (tmp_path / "b.png").symlink_to("a.png")
    assert read_image(tmp_path / "b.png").shape == (3, 4, 3)


# Formats


@pytest.mark.parametrize("format", ["EPS", "ICNS", "ICO", "PCX", "PDF", "SGI", "TGA", "XBM"])
def test_formats_that_are_not_listed_are_not_opened(tmp_path, monkeypatch, format):
    path = tmp_path / "a.png"  # the content counts, not the name
    Image.new("1" if format == "XBM" else "RGB", (16, 16)).save(path, format=format)
    monkeypatch.setattr("subprocess.Popen", None)
    monkeypatch.setattr("subprocess.check_call", None)
    for reader in READERS:
        with pytest.raises(ImageError, match=r"a\.png: not an image in a known format"):
            reader(path)


def test_every_reader_of_the_package_refuses_eps(tmp_path):
    path = tmp_path / "a.png"
    Image.new("RGB", (16, 16)).save(path, format="EPS")
    record = {"file_name": str(path), "height": 16, "width": 16}
    mapper = SOLODatasetMapper(is_train=False, augmentations=[], image_format="BGR")
    for read in (
        lambda: mapper(record),
        lambda: read_background(path, None),
        lambda: resolve_alpha({"file_name": "a.png"}, tmp_path / "x.json", (16, 16)),
    ):
        with pytest.raises(ValueError, match=r"a\.png.*not an image in a known format"):
            read()
    city, truth = (tmp_path / kind / "val" / "ulm" for kind in ("leftImg8bit", "gtFine"))
    city.mkdir(parents=True)
    truth.mkdir(parents=True)
    path.rename(city / "ulm_000000_000000_leftImg8bit.png")
    Image.new("L", (16, 16)).save(truth / "ulm_000000_000000_gtFine_instanceIds.png")
    with pytest.raises(ValueError, match="not an image in a known format"):
        load_cityscapes(tmp_path, "val")


@pytest.mark.parametrize("extension", IMAGE_EXTENSIONS)
def test_every_listed_extension_is_read(tmp_path, extension):
    path = tmp_path / f"a{extension}"
    if extension == ".avif" and "AVIF" not in Image.SAVE:
        pytest.skip("this Pillow knows no AVIF")
    if extension == ".dib":
        flat(path, format="DIB")
    elif extension in (".pnm", ".pbm", ".pgm"):
        flat(path, format="PPM")
    else:
        flat(path)
    assert np.abs(read_image(path, "RGB").astype(int) - (10, 20, 30)).max() < 9


@pytest.mark.parametrize("frames", [1, 3])
@pytest.mark.parametrize("name", ["a.gif", "a.png", "a.webp", "a.tif"])
def test_the_first_frame_of_animations_and_stacks_is_read(tmp_path, name, frames):
    pages = [Image.new("RGB", (8, 8), (80 * k, 80 * k, 80 * k)) for k in range(1, frames + 1)]
    pages[0].save(tmp_path / name, save_all=True, append_images=pages[1:])
    assert np.abs(read_image(tmp_path / name).astype(int) - 80).max() < 3


# More than 8 bits


def tiff(values, *, bits=16, orientation=1, tags=()):
    """An uncompressed TIFF of uint16 (H, W, C); Pillow writes none with colours."""
    height, width, channels = values.shape
    data = values.astype("<u2").tobytes()
    entries = sorted(
        [
            (256, 4, 1, width), (257, 4, 1, height), (258, 3, channels, None), (259, 3, 1, 1),
            (262, 3, 1, 1 if channels == 1 else 2), (273, 4, 1, None), (274, 3, 1, orientation),
            (277, 3, 1, channels), (278, 4, 1, height), (279, 4, 1, len(data)), (284, 3, 1, 1),
            *tags,
        ]
    )  # fmt: skip
    after = 10 + 12 * len(entries) + 4
    result = b"II*\0" + struct.pack("<IH", 8, len(entries))
    for tag, kind, count, value in entries:
        result += struct.pack("<HHI", tag, kind, count)
        if tag == 258 and count > 1:
            value = after
        elif tag == 258:
            value = bits
        elif tag == 273:
            value = after + 2 * channels
        short = kind == 3 and count == 1
        result += struct.pack("<HH", value, 0) if short else struct.pack("<I", value)
    return result + b"\0\0\0\0" + struct.pack(f"<{channels}H", *[bits] * channels) + data


def ramp(bits, channels=1):
    """Every value up to the largest of `bits` bits, at most 4096 of them."""
    values = np.linspace(0, 2**bits - 1, 64 * 64).astype(np.uint16).reshape(64, 64, 1)
    return np.repeat(values, channels, axis=2)


def deep_file(folder, kind, bits, **tags):
    channels = 3 if "colour" in kind else 1
    values = ramp(bits, channels)
    if kind.endswith("png"):
        cv2.imwrite(str(folder / "a.png"), values)
        return folder / "a.png"
    (folder / "a.tif").write_bytes(tiff(values, **tags))
    return folder / "a.tif"


DEEP = ["grey png", "colour png", "grey tif", "colour tif"]


@pytest.mark.parametrize("kind", DEEP)
@pytest.mark.parametrize("bits", [8, 10, 12, 14])
def test_fewer_bits_in_16_bit_files_are_said_with_the_file_and_the_remedy(
    tmp_path, caplog, kind, bits
):
    path = deep_file(tmp_path, kind, bits)
    assert read_image(path).max() == round((2**bits - 1) / 257)
    assert f"{path}: a 16-bit image whose values end at {2**bits - 1}" in caplog.text
    assert f"set INPUT.MAX_VALUE {2**bits - 1}" in caplog.text
    read_image(path)
    assert len(caplog.records) == 1


@pytest.mark.parametrize("kind", DEEP)
@pytest.mark.parametrize("bits", [8, 10, 12, 14, 16])
def test_the_key_gives_all_gray_levels_without_a_word(tmp_path, caplog, kind, bits):
    image = read_image(deep_file(tmp_path, kind, bits), max_value=2**bits - 1)
    assert len(np.unique(image)) == 256
    expected = np.round(ramp(bits).astype(float) * 255 / (2**bits - 1))
    assert np.array_equal(image, np.repeat(expected, 3, axis=2))
    assert not caplog.records


@pytest.mark.parametrize("kind", DEEP)
def test_16_bits_are_scaled_without_a_word(tmp_path, caplog, kind):
    image = read_image(deep_file(tmp_path, kind, 16))
    assert np.array_equal(image[..., :1], np.round(ramp(16) / 257))
    assert not caplog.records


@pytest.mark.parametrize("bits", [10, 12, 14])
@pytest.mark.parametrize("channels", [1, 3])
def test_the_range_of_a_tiff_is_that_of_its_largest_value(tmp_path, caplog, bits, channels):
    """The tag is of one image: its number of bits counts, not the value."""
    values = ramp(bits, channels)[::-1] // 2 + 2 ** (bits - 1) - 100
    tags = ((281, 3, 1, int(values.max())),)
    (tmp_path / "a.tif").write_bytes(tiff(values, tags=tags))
    expected = np.round(values[..., :1] * 255.0 / (2**bits - 1))
    assert np.array_equal(read_image(tmp_path / "a.tif")[..., :1], expected)
    assert not caplog.records


def test_a_tag_that_is_not_so_does_not_count(tmp_path):
    values = np.full((4, 4, 1), 60000)
    (tmp_path / "a.tif").write_bytes(tiff(values, tags=((281, 3, 1, 4095),)))
    assert (read_image(tmp_path / "a.tif") == round(60000 / 257)).all()


def test_colours_keep_their_order_and_turn_with_exif(tmp_path):
    values = np.zeros((2, 3, 3), np.uint16)
    values[0, 0] = (65535, 32896, 257)
    for orientation, corner in ((1, (0, 0)), (3, (1, 2)), (6, (0, 1)), (8, (2, 0))):
        (tmp_path / "a.tif").write_bytes(tiff(values, orientation=orientation))
        assert read_image(tmp_path / "a.tif", "RGB")[corner].tolist() == [255, 128, 1]
        size = (2, 3) if orientation < 5 else (3, 2)
        assert read_size(tmp_path / "a.tif") == size


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("mode", ["RGB", "L", "I;16"])
def test_sizes_of_headers_are_those_of_upright_images(tmp_path, orientation, mode):
    exif = Image.Exif()
    exif[0x0112] = orientation
    for name in ("a.png", "a.tif", *(["a.jpg"] if mode == "RGB" else [])):
        Image.new(mode, (5, 3)).save(tmp_path / name, exif=exif)
        assert read_size(tmp_path / name) == read_image(tmp_path / name).shape[:2]


def test_values_above_the_key_are_white_and_said_once(tmp_path, caplog):
    path = deep_file(tmp_path, "grey png", 12)
    image = read_image(path, max_value=2047)
    assert image.max() == 255 and (image == 255).mean() == pytest.approx(0.5, abs=0.01)
    read_image(path, max_value=2047)
    assert [r.message for r in caplog.records] == [
        f"{path}: values up to 4095 are above INPUT.MAX_VALUE 2047 and become white"
    ]


def test_floats_have_a_scale_with_the_key(tmp_path):
    Image.fromarray(np.array([[0.0, 2047.5, 4095.0]], np.float32)).save(tmp_path / "a.tif")
    with pytest.raises(ImageError, match=r"float values in \[0, 4095\].*INPUT\.MAX_VALUE"):
        read_image(tmp_path / "a.tif")
    assert read_image(tmp_path / "a.tif", max_value=4095)[0, :, 0].tolist() == [0, 128, 255]


@pytest.mark.parametrize("values", [[-1.0, 2.0], [0.0, np.nan], [0.0, np.inf]])
def test_values_that_are_no_brightness_are_refused_with_the_key_too(tmp_path, values):
    Image.fromarray(np.array([values], np.float32)).save(tmp_path / "a.tif")
    with pytest.raises(ImageError, match=r"a\.tif: float values"):
        read_image(tmp_path / "a.tif", max_value=100)


@pytest.mark.parametrize("value", [-1, float("nan")])
def test_a_range_below_zero_is_refused(tmp_path, value):
    with pytest.raises(ValueError, match=r"INPUT\.MAX_VALUE.* must be 0 or more"):
        read_image(flat(tmp_path / "a.png"), max_value=value)


def test_black_16_bit_images_say_nothing(tmp_path, caplog):
    Image.fromarray(np.zeros((4, 4), np.uint16)).save(tmp_path / "a.png")
    assert read_image(tmp_path / "a.png").max() == 0
    assert not caplog.records


def test_training_and_prediction_scale_alike(tmp_path, tiny_cfg):
    path = deep_file(tmp_path, "grey tif", 12)
    tiny_cfg.INPUT.MAX_VALUE = 4095
    tiny_cfg.INPUT.MIN_SIZE_TEST = 0
    record = {"file_name": str(path), "height": 64, "width": 64}
    image = SOLODatasetMapper(tiny_cfg, is_train=False)(record)["image"]
    expected = read_image(path, tiny_cfg.INPUT.FORMAT, max_value=4095)
    assert np.array_equal(image.numpy().transpose(1, 2, 0), expected)


def test_12_bit_mattes_are_said(tmp_path, caplog):
    assert read_alpha(deep_file(tmp_path, "grey png", 12)).max() == 16
    assert "a.png: a 16-bit image" in caplog.text


# Damage, memory, names


def test_an_image_too_large_for_the_memory_left_is_named(tmp_path, monkeypatch):
    def load(self):
        raise MemoryError

    path = flat(tmp_path / "a.png")
    monkeypatch.setattr("PIL.PngImagePlugin.PngImageFile.load", load)
    with pytest.raises(ImageError, match=r"a\.png: too large for the memory that is left"):
        read_image(path)


@pytest.mark.parametrize(
    "error", [RuntimeError("x\ny"), SyntaxError("z"), RecursionError(), KeyError(1)]
)
def test_whatever_decoding_raises_is_one_line_with_the_file(tmp_path, error):
    path = flat(tmp_path / "a.png")
    with (
        pytest.raises(ImageError, match=r"a\.png: damaged or truncated") as caught,
        open_image(path),
    ):
        raise error
    assert "\n" not in str(caught.value)


NAMES = {
    "Latin-1": os.fsdecode(b"\xe9t\xe9"),
    "broken UTF-8": os.fsdecode(b"\xff\xfe\x80"),
    "newline": "a\nb",
    "escape": "a\x1b[31mb",
    "right to left": "\u202e\u05d0",
    "emoji": "\U0001f600",
    "240 bytes": "\u4e2d" * 80,
}


@pytest.mark.parametrize("extension", [".png", ".jpg", ".tif", ".webp"])
@pytest.mark.parametrize("name", NAMES)
def test_every_name_that_the_system_takes_is_written_and_read(tmp_path, name, extension):
    path = tmp_path / (NAMES[name] + extension)
    write_image(path, np.full((8, 8, 3), 90, np.uint8))
    assert np.abs(read_image(path).astype(int) - 90).max() < 4
    assert len(os.listdir(tmp_path)) == 1
    path.write_bytes(b"no image")
    with pytest.raises(ImageError) as caught:
        read_image(path)
    assert "\n" not in str(caught.value)
    str(caught.value).encode()  # every terminal takes it


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain, \u00e9t\u00e9, \u05d0, \U0001f600", None),
        (os.fsdecode(b"\xe9t\xe9"), r"\xe9t\xe9"),
        ("a\nb\tc\x00", r"a\nb\tc\x00"),
        ("\ud800", r"\ud800"),
        ("\u2028", r"\u2028"),
    ],
)
def test_text_is_shown_in_one_line_that_can_be_encoded(text, shown):
    assert printable(text) == (text if shown is None else shown)


@pytest.mark.parametrize("character", ["a", "\u00e9", "\u4e2d", "\U0001f600"])
def test_long_names_are_cut_to_what_file_systems_take(tmp_path, character):
    name = fit_name(character * 300, "_2.png")
    assert name.endswith("_2.png")
    assert 250 < len(os.fsencode(name)) <= 255
    (tmp_path / name).touch()
    assert fit_name("short", ".png") == "short.png"


# Writing


def test_a_full_disk_leaves_the_older_image(tmp_path, monkeypatch):
    path = flat(tmp_path / "a.png")
    before = path.read_bytes()

    def full(self):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", lambda *_: full(None))
    with pytest.raises(ValueError, match=r"a\.png: cannot be written .*No space left"):
        write_image(path, np.zeros((9, 9, 3), np.uint8))
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["a.png"]


@pytest.mark.parametrize("name", ["a", "a.txt", "a.mp4", "a.", os.fsdecode(b"a.\xff")])
def test_names_without_an_image_format_are_refused(tmp_path, name):
    assert not can_write(name)
    with pytest.raises(ValueError, match=r"cannot be written: no known image format"):
        write_image(tmp_path / name, np.zeros((2, 2, 3), np.uint8))


def test_what_the_format_cannot_hold_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"a\.jpg: cannot be written"):
        write_image(tmp_path / "a.jpg", np.zeros((1, 70000, 3), np.uint8))


@pytest.mark.parametrize("link", ["the same", "symbolic", "hard", "through a folder"])
def test_an_output_is_never_an_input(tmp_path, link):
    path = flat(tmp_path / "a.png")
    (tmp_path / "sub").mkdir()
    output = tmp_path / "b.png"
    if link == "symbolic":
        output.symlink_to("a.png")
    elif link == "hard":
        os.link(path, output)
    else:
        output = path if link == "the same" else tmp_path / "sub" / ".." / "a.png"
    with pytest.raises(ValueError, match="is an input, drawing would replace it"):
        refuse_overwriting([tmp_path / "new.png", output], [path])
    refuse_overwriting([tmp_path / "new.png"], [path])


def test_loops_of_links_are_no_input(tmp_path):
    loop(tmp_path / "a.png")
    refuse_overwriting([tmp_path / "a.png"], [flat(tmp_path / "c.png")])


def test_warnings_go_to_the_package_s_logger(tmp_path, caplog):
    with caplog.at_level(logging.WARNING, logger="solo_d2"):
        read_image(deep_file(tmp_path, "grey png", 12))
    assert caplog.records[0].name.startswith("solo_d2.")
