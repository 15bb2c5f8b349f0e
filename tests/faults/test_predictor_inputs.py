"""Faults of what the predictor is given: images in other forms, and weights that are not named."""

from __future__ import annotations

import os

import numpy as np
import pytest
from detectron2.config import get_cfg
from PIL import Image
from stub_predictor import load_demo, picture
from threshold_model import ThresholdModel

from solo_d2.config import add_solo_config
from solo_d2.inference.predictor import SOLOPredictor
from solo_d2.inference.trained import weights_beside
from solo_d2.io.image_input import to_bgr

BLUE, GREEN, RED = range(3)  # labels of the model


@pytest.fixture(scope="module")
def predictor():
    """Finds bright rectangles of one channel."""
    cfg = get_cfg()
    add_solo_config(cfg)
    cfg.MODEL.SOLO.NUM_CLASSES = 3
    cfg.DATASETS.TEST = ()
    cfg.INPUT.MIN_SIZE_TEST = 0
    return SOLOPredictor(cfg, device="cpu", model=ThresholdModel())


def labels(output):
    return output["instances"].pred_classes.tolist()


def rectangle(channel, channels=3, dtype=np.uint8):
    image = np.zeros((16, 24, channels), dtype)
    image[4:12, 6:20, channel] = np.iinfo(dtype).max * 4 // 5
    if channels == 4:
        image[..., 3] = np.iinfo(dtype).max // 7  # of no consequence
    return image


# Channel order


@pytest.mark.parametrize("channels", [3, 4])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize(("order", "found"), [(None, BLUE), ("BGR", BLUE), ("RGB", RED)])
def test_the_order_of_channels_is_said_by_the_caller(predictor, order, found, dtype, channels):
    assert labels(predictor(rectangle(0, channels, dtype), image_format=order)) == [found]
    assert labels(predictor([rectangle(0, channels, dtype)], order)[0]) == [found]


def test_the_order_can_be_the_predictor_s(predictor):
    rgb = SOLOPredictor(predictor.cfg, device="cpu", model=ThresholdModel(), image_format="RGB")
    assert labels(rgb(rectangle(0))) == [RED]
    assert labels(rgb(rectangle(0), "BGR")) == [BLUE]


@pytest.mark.parametrize("order", ["rgb", "GRB", "", 3])
def test_orders_that_are_none_are_refused(predictor, order):
    with pytest.raises(ValueError, match='image_format must be "BGR" or "RGB"'):
        predictor(rectangle(0), order)
    with pytest.raises(ValueError, match='image_format must be "BGR" or "RGB"'):
        SOLOPredictor(predictor.cfg, device="cpu", model=ThresholdModel(), image_format=order)


# Forms


def saved(path, **options):
    Image.fromarray(rectangle(0)).save(path, **options)  # red, since Pillow has RGB
    return path


def test_files_and_pillow_s_images_have_an_order_of_their_own(predictor, tmp_path):
    path = saved(tmp_path / "a.png")
    for image in (path, str(path), Image.open(path), Image.fromarray(rectangle(0))):
        for order in (None, "RGB", "BGR"):
            assert labels(predictor(image, order)) == [RED]
    mixed = predictor([path, Image.open(path), rectangle(1), rectangle(0, 4)])
    assert [labels(output) for output in mixed] == [[RED], [RED], [GREEN], [BLUE]]


@pytest.mark.parametrize("mode", ["L", "LA", "P", "RGBA", "CMYK", "I;16", "1", "F", "I"])
def test_pillow_s_modes_are_converted(predictor, mode):
    gray = Image.fromarray(rectangle(0)[..., 0])
    if mode in ("I;16", "I"):
        image = Image.fromarray(np.asarray(gray).astype(np.uint16) * 257).convert(mode)
    elif mode == "F":
        image = Image.fromarray(np.asarray(gray).astype(np.float32) / 255)
    else:
        image = gray.convert("RGB").convert(mode)
    assert to_bgr(image)[8, 8].min() > 190 and to_bgr(image)[0, 0].max() < 9
    assert predictor(image)["instances"].image_size == (16, 24)


def test_pillow_s_images_are_upright(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    path = saved(tmp_path / "a.jpg", exif=exif, quality=100)
    assert to_bgr(Image.open(path)).shape == to_bgr(path).shape == (24, 16, 3)


@pytest.mark.parametrize("shape", [(16, 24), (16, 24, 1)])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_gray_arrays_have_three_equal_channels(shape, dtype):
    values = np.arange(384).reshape(shape) % 256
    scaled = (values * (257 if dtype == np.uint16 else 1)).astype(dtype)
    assert np.array_equal(to_bgr(scaled), np.repeat(values.reshape(16, 24, 1), 3, axis=2))


def test_12_bit_arrays_are_scaled_by_the_key_or_said(predictor, caplog):
    image = (rectangle(1, dtype=np.uint16) // 16).astype(np.uint16)
    assert labels(predictor(image)) == []
    assert "The image: a 16-bit image whose values end at 3276" in caplog.text
    predictor.cfg.INPUT.MAX_VALUE = 4095
    try:
        assert labels(predictor(image)) == [GREEN]
    finally:
        predictor.cfg.INPUT.MAX_VALUE = 0


BAD = {
    "floats": np.zeros((4, 4, 3)),
    "floats with NaN": np.full((4, 4, 3), np.nan),
    "int64": np.zeros((4, 4, 3), np.int64),
    "bool": np.zeros((4, 4, 3), bool),
    "objects": np.array([[None]]),
    "text": np.array([["a"]]),
    "channels first": np.zeros((3, 40, 50), np.uint8),
    "a batch": np.zeros((2, 4, 4, 3), np.uint8),
    "two channels": np.zeros((4, 4, 2), np.uint8),
    "five channels": np.zeros((4, 4, 5), np.uint8),
    "no rows": np.zeros((0, 4, 3), np.uint8),
    "no columns": np.zeros((4, 0), np.uint8),
    "one number": np.zeros((), np.uint8),
    "a row": np.zeros(4, np.uint8),
    "None": None,
    "a number": 7,
    "a dict": {"image": 1},
    "bytes": b"\x89PNG",
    "a missing file": "none.png",
    "a folder": ".",
    "a pipe": "pipe.png",
    "an empty name": "",
    "floats of Pillow": Image.new("F", (4, 4), 300.0),
}


@pytest.mark.parametrize("many", [False, True], ids=["alone", "in a list"])
@pytest.mark.parametrize("kind", BAD)
def test_what_is_no_image_is_one_line(predictor, tmp_path, monkeypatch, kind, many):
    monkeypatch.chdir(tmp_path)
    os.mkfifo("pipe.png")
    image = BAD[kind]
    with pytest.raises(ValueError) as caught:
        predictor([rectangle(0), image] if many else image)
    text = str(caught.value)
    assert "\n" not in text
    file = isinstance(image, str)
    assert (text.startswith(f"{image}: ") if file else "mage" in text) or kind == "an empty name"
    assert file or not many or text.startswith("Image 1 of the list")


def test_arrays_of_the_caller_are_not_changed(predictor):
    for image in (rectangle(0), rectangle(0, 4), rectangle(0, 3, np.uint16)):
        before = image.copy()
        predictor(image, "RGB")
        assert np.array_equal(image, before)
    image = rectangle(0)
    image.flags.writeable = False
    assert labels(predictor(image)) == [BLUE]


# Weights beside a config


@pytest.fixture
def training(tmp_path):
    (tmp_path / "config.yaml").touch()
    return tmp_path


@pytest.mark.parametrize(
    ("files", "found"),
    [
        (["model_final.pth", "model_best.pth"], "model_best.pth"),
        (["model_final.pth", "model_0000009.pth"], "model_final.pth"),
        ([], None),
    ],
)
def test_the_weights_of_a_training_lie_beside_its_config(training, files, found):
    for name in files:
        (training / name).touch()
    expected = None if found is None else training / found
    assert weights_beside(training / "config.yaml", "") == expected
    assert weights_beside(str(training / "config.yaml"), "detectron2://R-50.pkl") == expected


def test_weights_of_the_same_folder_that_a_config_names_are_meant(training):
    for name in ("model_final.pth", "model_0000009.pth"):
        (training / name).touch()
    assert weights_beside(training / "config.yaml", str(training / "model_0000009.pth")) is None


def test_other_configs_have_no_weights_beside_them(training):
    (training / "model_final.pth").touch()
    (training / "mine.yaml").touch()
    assert weights_beside(training / "mine.yaml", "") is None
    assert weights_beside("COCO-InstanceSegmentation/solov2_R_50_FPN_3x.yaml", "") is None


def test_checkpoints_without_a_last_one_are_named(training):
    (training / "model_0000009.pth").touch()
    with pytest.raises(ValueError, match=r"model_0000009\.pth, with --weights"):
        weights_beside(training / "config.yaml", "")


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ([], "model_best.pth"),
        (["--weights", "other.pth"], "other.pth"),
        (["MODEL.WEIGHTS", "third.pth"], None),
    ],
)
def test_the_demo_takes_them_unless_told_otherwise(training, monkeypatch, capsys, line, expected):
    (training / "model_best.pth").touch()
    picture(training / "a.png")
    module, seen = load_demo(), []

    class Seen(Exception):
        pass

    def predictor(cfg, *, weights, **options):
        seen.append(weights)
        raise Seen

    monkeypatch.setattr("solo_d2.inference.predictor.SOLOPredictor", predictor)
    monkeypatch.chdir(training)
    assert module.main(["--config-file", "config.yaml", "--input", "a.png", *line]) == 1
    assert [x if x is None else os.path.basename(x) for x in seen] == [expected]
    assert ("weights: model_best.pth" in capsys.readouterr().out) is (line == [])
