"""``solo-d2 export``, and the commands that take its files: predict and eval."""

from __future__ import annotations

import json
import sys

import pytest
import torch
from builders import tiny_model
from commands import call, load_script
from PIL import Image

from solo_d2 import SOLOPredictor
from solo_d2.checkpoint import save_checkpoint
from solo_d2.checkpoint.convention import own_info
from solo_d2.cli.accuracy import config_with_data, limit_of_drop
from solo_d2.cli.export import read_images
from solo_d2.cli.main import main
from solo_d2.data.scenes.build import build
from solo_d2.data.scenes.shapes import ShapesSource
from solo_d2.engine.trainer import SOLOTrainer
from solo_d2.export import export_model, load_exported
from solo_d2.export import formats as formats_module
from solo_d2.testing import tiny_config

OVERRIDES = ("INPUT.MIN_SIZE_TEST", 64, "INPUT.MAX_SIZE_TEST", 96)


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A folder with a dataset, and a training's config and weights of a model for it."""
    folder = tmp_path_factory.mktemp("home")
    build(ShapesSource((64, 96)), folder / "data", train=1, val=3, workers=1, progress=False)
    classes = json.loads((folder / "data/annotations/val.json").read_text())["categories"]
    cfg = tiny_config("MODEL.SOLO.NUM_CLASSES", len(classes), *OVERRIDES)
    model = tiny_model("MODEL.SOLO.NUM_CLASSES", len(classes)).eval()
    model.class_names = tuple(x["name"] for x in classes)
    model.category_ids = tuple(x["id"] for x in classes)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        model.head.category_predictor.weight.normal_(std=0.1, generator=generator)
        model.head.category_predictor.bias.fill_(-3.0)
    (folder / "config.yaml").write_text(cfg.dump())
    save(model, folder / "model_final.pth")
    return folder


def save(model, path):
    save_checkpoint({"model": model.state_dict(), "solo_d2": own_info(model)}, path)


@pytest.fixture(scope="module")
def exported(home):
    done = call(
        load_script("tools/export_model.py").main,
        *("--config-file", home / "config.yaml", "--output", home / "m.torchscript"),
        *("--batch", "any", "--max-candidates", 500),
    )
    assert done.returncode == 0, done.stderr
    assert "m.torchscript: torchscript, full, f32" in done.stdout
    return home / "m.torchscript"


def test_the_file_has_what_the_weights_brought_along(home, exported):
    info = load_exported(exported).info
    classes = json.loads((home / "data/annotations/val.json").read_text())["categories"]
    assert list(info.category_ids) == [x["id"] for x in classes]
    assert (info.batch, info.max_candidates, info.min_size) == (None, 500, 64)
    assert str(home) not in info.to_json()


def test_predict_finds_with_the_file_what_it_finds_with_the_weights(home, exported, tmp_path):
    Image.effect_noise((90, 60), 80).convert("RGB").save(tmp_path / "photo.png")
    results = []
    for config in (home / "config.yaml", exported):
        done = call(
            main,
            *("predict", "--config-file", config, "--input", tmp_path / "photo.png"),
            *("--output", tmp_path / "drawn", "--save-json", tmp_path / "found.json"),
            *("--confidence-threshold", 0.1),
        )
        assert done.returncode == 0, done.stderr
        results.append(json.loads((tmp_path / "found.json").read_text()))
    one, other = results
    assert len(one) == len(other) > 10
    for x, y in zip(one, other, strict=True):
        assert x["score"] == pytest.approx(y["score"], abs=1e-3)
        assert x["category_id"] == y["category_id"]


def test_eval_of_the_file_is_one_command_and_has_the_same_ap(home, exported, tmp_path):
    found = []
    for weights in (home / "model_final.pth", exported):
        out = tmp_path / weights.suffix
        annotations, images = home / "data/annotations/val.json", home / "data/val"
        done = call(
            main,
            *("eval", "--weights", weights, "--val-json", annotations, "--val-images", images),
            *("OUTPUT_DIR", out),
        )
        assert done.returncode == 0, done.stderr
        results = next(out.rglob("coco_instances_results.json"))
        found.append(sorted((x["image_id"], x["score"]) for x in json.loads(results.read_text())))
    assert len(found[0]) == len(found[1]) > 10
    for (image, score), (other, its_score) in zip(*found, strict=True):
        assert image == other and score == pytest.approx(its_score, abs=1e-3)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["MODEL.SOLO.SCORE_THRESH_TEST", "0.3"], "MODEL.SOLO.SCORE_THRESH_TEST is 0.1 for good"),
        (["TEST.DETECTIONS_PER_IMAGE", "7"], "TEST.DETECTIONS_PER_IMAGE is 100 for good, got 7"),
        (["TEST.AUG.ENABLED", "True"], "TEST.AUG.ENABLED is False for good, got True"),
        (["--weights", "other.pth"], "has its own weights: leave --weights out"),
        (["--device", "cuda"], 'run on the device "cpu"'),
    ],
)
def test_what_is_fixed_in_the_file_cannot_be_overridden(exported, tmp_path, words, said):
    Image.new("RGB", (64, 64)).save(tmp_path / "photo.png")
    done = call(
        main,
        *("predict", "--config-file", exported, "--input", tmp_path / "photo.png", *words),
        *("--output", tmp_path / "out"),
    )
    assert done.returncode == 2 and done.stderr.count("\n") == 1
    assert said in done.stderr


def test_keys_of_the_input_may_be_overridden(exported, tmp_path):
    Image.new("RGB", (64, 64)).save(tmp_path / "photo.png")
    done = call(
        main,
        *("predict", "--config-file", exported, "--input", tmp_path / "photo.png"),
        *("--output", tmp_path / "out", "INPUT.MIN_SIZE_TEST", 128),
    )
    assert done.returncode == 0, done.stderr


def test_a_dataset_with_other_classes_is_refused(home, exported, tmp_path):
    annotations = json.loads((home / "data/annotations/val.json").read_text())
    annotations["categories"][0]["name"] = "unheard of"
    (tmp_path / "other.json").write_text(json.dumps(annotations))
    done = call(
        main,
        *("eval", "--weights", exported, "--val-json", tmp_path / "other.json"),
        *("--val-images", home / "data/val", "OUTPUT_DIR", tmp_path / "out"),
    )
    assert done.returncode == 2
    assert "unheard of" in done.stderr


def test_classes_in_another_order_are_those_of_the_file(home, exported, tmp_path):
    annotations = json.loads((home / "data/annotations/val.json").read_text())
    annotations["categories"].reverse()
    for number, category in enumerate(annotations["categories"], start=1):
        category["id"] = number
    annotations["annotations"] = []
    (tmp_path / "other.json").write_text(json.dumps(annotations))
    done = call(
        main,
        *("eval", "--weights", exported, "--val-json", tmp_path / "other.json"),
        *("--val-images", home / "data/val", "OUTPUT_DIR", tmp_path / "out"),
    )
    assert "matched with the model's by name" in done.stdout + done.stderr + log(tmp_path / "out")
    assert "cannot be evaluated" not in done.stderr


def log(folder):
    return (folder / "log.txt").read_text()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--output", "m.tflite"], r"m.tflite: the file's suffix must be one of onnx (.onnx)"),
        (["--output", "m.onnx", "--format", "pt2"], "suffix must end in .pt2 for format pt2"),
        (["--size", "480"], "--size expects HEIGHTxWIDTH in pixels, such as 480x640, got '480'"),
        (["--size", "100x96"], "size must be divisible by 32 in both directions, got (100, 96)"),
        (["--batch", "all"], "--batch expects a number of images or \"any\", got 'all'"),
        (["--batch", "0"], "batch must be at least 1, got 0"),
        (["--max-candidates", "0"], "max_candidates must be at least 1, got 0"),
        (["--precision", "bf16"], "format torchscript is written in precision f32, got 'bf16'"),
        (["--output", "m.xml", "--precision", "int8"], "precision int8 needs calibration images"),
        (["--calibrate", ".", "--size", "64x96"], "takes images of any size; leave --size out"),
        (["--calibrate", "nowhere"], "nowhere"),
        (["--max-drop", "1"], "--max-drop and --data go together; one is missing"),
        (["--max-drop", "-1", "--data", "DATA"], "max_drop of at least 0, got 3 images and -1.0"),
        (["--max-drop", "1", "--data", "DATA"], "a limit of the drop is for precision int8 and"),
        (["--output", "."], "the file's suffix must be one of"),
        (["MODEL.SOLO.NMS_TYPE", "hard"], 'only MODEL.SOLO.NMS_TYPE "matrix" and "fast" can be'),
        (["TEST.AUG.ENABLED", "True"], "multi-scale testing cannot be exported"),
        (
            ["--batch", "any", "MODEL.SOLO.KERNEL_SIZE", "3", "MODEL.WEIGHTS", ""],
            "with MODEL.SOLO.KERNEL_SIZE above 1 the number of images must be fixed",
        ),
        (
            ["MODEL.SOLO.ALIGN", "region_grid"],
            "format torchscript has no region_grid: tracing would freeze",
        ),
    ],
)
def test_a_bad_argument_is_one_line_and_no_file(home, tmp_path, monkeypatch, words, said):
    monkeypatch.chdir(tmp_path)
    words = [home / "data" if word == "DATA" else word for word in words]
    output = [] if "--output" in words else ["--output", "m.torchscript"]
    done = call(main, "export", "--config-file", home / "config.yaml", *output, *words)
    assert done.returncode == 2
    assert said in done.stderr.splitlines()[-1]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("overrides", "suffix", "said"),
    [
        (("MODEL.SOLO.ALIGN", "adaptive_max_pool"), ".onnx", "adaptive_max_pool: set MODEL.SOLO"),
        (("MODEL.SOLO.DEFORM", "all"), ".xml", "format openvino has no DeformConv: choose format"),
    ],
)
def test_a_layer_that_a_format_lacks_is_told_at_once(
    tmp_path, monkeypatch, overrides, suffix, said
):
    monkeypatch.setattr(formats_module, "need", lambda *_: None)
    model = tiny_model(*overrides)
    with pytest.raises(ValueError, match=said):
        export_model(model, tmp_path / f"m{suffix}", cfg=tiny_config(*overrides))


def test_a_missing_exporter_is_named_with_its_extra(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(ValueError, match=r'format onnx needs .* onnxscript.*"solo_d2\[export\]"'):
        export_model(tiny_model(), tmp_path / "m.onnx", cfg=tiny_config())


def test_images_for_int8_are_those_that_the_network_sees(home, tmp_path):
    predictor = SOLOPredictor(home / "config.yaml", device="cpu")
    images = read_images(predictor, str(home / "data/val"))
    assert [x.shape for x in images] == [(3, 64, 96)] * 3
    Image.new("RGB", (40, 80), (250, 0, 0)).save(tmp_path / "red.png")
    (image,) = read_images(predictor, str(tmp_path))  # 40x80 becomes 48x96, padded to 64x96
    assert image.shape == (3, 96, 64)
    assert torch.allclose(image[:, :, 48:], predictor.model.pixel_mean.expand(3, 96, 16), atol=1e-3)
    assert image[2, :, :48].min() > 249  # BGR


def test_a_limit_of_the_drop_measures_mask_ap_as_evaluations_do(home):
    predictor = SOLOPredictor(home / "config.yaml", device="cpu")
    limit = limit_of_drop(predictor, str(home / "data"), 0.5)
    total, each = limit.measure(predictor.model, [0, 1, 2])
    cfg = config_with_data(predictor, str(home / "data"))
    cfg.DATALOADER.NUM_WORKERS = 0
    assert total == SOLOTrainer.test(cfg, predictor.model)["segm"]["AP"]
    assert limit.images == len(each) == 3 and limit.max_drop == 0.5
    assert limit.measure(predictor.model, [1]) == (each[1], [each[1]])
    assert limit_of_drop(predictor, str(home / "data"), 0.5, most=2).images == 2


def test_calibration_without_int8_is_refused(tmp_path):
    with pytest.raises(ValueError, match="calibration images, and no other precision does"):
        options = {"cfg": tiny_config(), "calibration": [torch.zeros(3, 64, 96)]}
        export_model(tiny_model(), tmp_path / "m.torchscript", **options)


@pytest.mark.exports
def test_int8_finds_most_of_what_the_model_finds(home, tmp_path):
    pytest.importorskip("nncf")
    words = ("--precision", "int8", "--calibrate", home / "data/val")
    config = home / "config.yaml"
    done = call(main, "export", "--config-file", config, "--output", tmp_path / "m.xml", *words)
    assert done.returncode == 0, done.stderr
    assert "m.xml: openvino, full, int8" in done.stdout
    assert load_exported(tmp_path / "m.xml").info.precision == "int8"


def test_a_benchmark_lists_every_way_with_its_measures_or_a_reason(home, tmp_path):
    done = call(
        main,
        *("benchmark", home / "config.yaml", "--data", home / "data", "--rounds", 1),
        *("--runtime", "pytorch", "torchscript", "tensorrt", "--json", tmp_path / "table.json"),
        *("--max-candidates", 500, "--keep", tmp_path / "files", "TEST.DETECTIONS_PER_IMAGE", 50),
    )
    assert done.returncode == 0, done.stderr
    assert "timing, 1 rounds of 3 images" in done.stderr
    rows = json.loads((tmp_path / "table.json").read_text())
    assert [x["runtime"] for x in rows] == ["pytorch", "torchscript", "tensorrt"]
    pytorch, exported, tensorrt = rows
    assert pytorch["ms"] > 0 and exported["ms"] > 0 and pytorch["reason"] is None
    assert pytorch["ap"] == pytest.approx(exported["ap"], abs=0.1)
    assert exported["parity"]["missing"] == 0 and exported["parity"]["score"] < 1e-3
    file = tmp_path / "files/f32/model.torchscript"
    assert exported["mib"] == file.stat().st_size / 2**20
    assert load_exported(file).info.max_instances == 50
    assert tensorrt["ms"] is None and "give it the .onnx file" in tensorrt["reason"]
    table = [x for x in done.stdout.splitlines() if x.startswith("|")]
    assert len(table) == 5 and {x.count("|") for x in table} == {9}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--rounds", "0"], "--rounds, --images, --threads and --max-candidates must be at least"),
        (["--data", "nowhere"], "nowhere"),
        (["--size", "480"], "--size expects HEIGHTxWIDTH"),
    ],
)
def test_a_benchmark_of_a_bad_argument_is_one_line(home, tmp_path, words, said):
    done = call(main, "benchmark", home / "config.yaml", "--runtime", "tensorrt", *words)
    assert done.returncode == 2 and said in done.stderr.splitlines()[-1]


@pytest.mark.parametrize(
    ("model", "said"),
    [
        (tiny_model, "exported together with its config"),
        (lambda: torch.nn.Linear(1, 1), "expects a name, a SOLOPredictor or a SOLO, got Linear"),
        (lambda: 3, "expects a name, a SOLOPredictor or a SOLO, got int"),
    ],
)
def test_what_is_no_model_is_told(tmp_path, model, said):
    with pytest.raises(ValueError, match=said):
        export_model(model(), tmp_path / "m.torchscript")
