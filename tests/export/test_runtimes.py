"""ONNX Runtime and OpenVINO find what PyTorch finds; files that are damaged are refused."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from export_builders import CASES, COMBINED, export_case, one_input, photo
from head_builders import HEADS

from solo_d2 import SOLOPredictor
from solo_d2.export import (
    Accuracy,
    DropLimit,
    ExportedModel,
    export_model,
    exporter,
    load_exported,
    open_exported,
)

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxscript")
pytest.importorskip("onnxruntime")
solo_d2_runtime = pytest.importorskip("solo_d2_runtime")

if tuple(map(int, torch.__version__.split(".")[:2])) < (2, 7):
    pytest.skip("torch exports to ONNX from 2.7 on", allow_module_level=True)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A predictor of a model, and the model as .onnx and, converted from that, as .xml."""
    pytest.importorskip("openvino")
    cfg, model = export_case()
    folder = tmp_path_factory.mktemp("files")
    options = {"cfg": cfg, "batch": None, "max_candidates": 300}
    reports = [export_model(model, folder / "m.onnx", **options)]
    reports.append(export_model(model, folder / "m.xml", onnx=folder / "m.onnx", **options))
    return SOLOPredictor(cfg, model=model, device="cpu"), folder, reports


def check_same(one, other):
    assert len(one) == len(other) > 20
    assert (one.scores - other.scores).abs().max() < 1e-3
    assert torch.equal(one.pred_classes, other.pred_classes)
    assert (one.pred_masks ^ other.pred_masks).float().mean() < 1e-4


def test_the_graph_holds_nothing_that_other_runtimes_lack(files):
    model = onnx.load(files[1] / "m.onnx", load_external_data=False)
    kinds = {node.op_type for node in model.graph.node}
    assert not kinds & {"NonZero", "If", "Loop", "Scan", "SequenceAt", "Unique"}
    assert not any(x.external_data for x in model.graph.initializer)
    sides = [d.dim_param or d.dim_value for d in model.graph.input[0].type.tensor_type.shape.dim]
    assert sides[1] == 3 and all(isinstance(sides[i], str) for i in (0, 2, 3))
    assert [x.name for x in model.graph.output] == ["scores", "labels", "masks", "num_candidates"]
    assert [x.name for x in files[1].glob("*.data")] == []


def test_the_check_has_found_no_difference(files):
    for report in files[2]:
        assert len({x.size for x in report.parity}) == 3
        assert all(x.matched == x.instances > 20 for x in report.parity)
    onnx_report, openvino_report = files[2]
    assert {x.name for x in openvino_report.files} == {"m.xml", "m.bin"}
    text = str(onnx_report)
    assert "m.onnx: onnx, full, f32" in text and text.count("\n") == len(onnx_report.parity)


@pytest.mark.parametrize("name", ["m.onnx", "m.xml"])
def test_a_predictor_of_the_file_finds_the_same(files, name):
    predictor, folder, _ = files
    exported = SOLOPredictor(folder / name)
    images = [photo(70, 110), photo(70, 110, seed=3), photo(200, 50)]
    for one, other in zip(predictor(images), exported(images), strict=True):
        check_same(one.instances, other.instances)
    info = exported.model.info
    assert len(info.parity) == len(files[2][0].parity) and "torch" in info.tools


def test_the_runtime_without_torch_finds_the_same(files):
    predictor, folder, _ = files
    model = solo_d2_runtime.Model(folder / "m.onnx", threads=1)
    assert model.class_names == ["cup", "fork", "spoon"] and model.category_ids == [3, 5, 9]
    for size in ((70, 110), (130, 80), (96, 128)):
        one, other = predictor(photo(*size)).instances, model(photo(*size))
        assert len(one) == len(other.scores) > 20
        assert np.abs(one.scores.numpy() - other.scores).max() < 1e-3
        assert (one.pred_classes.numpy() == other.labels).all()
        assert (one.pred_masks.numpy() != other.masks).mean() < 1e-4
        assert np.abs(one.pred_boxes.tensor.numpy() - other.boxes).max() <= 1
    assert (model(photo(), threshold=0.4).scores >= 0.4).all()
    with pytest.raises(ValueError, match=r"must be uint8 \(H, W, 3\), got float32 \(4, 4\)"):
        model(np.zeros((4, 4), np.float32))


def edit(source, target, metadata):
    """Copy an ONNX file with other metadata; None for none."""
    model = onnx.load(source)
    del model.metadata_props[:]
    if metadata is not None:
        onnx.helper.set_model_props(model, {"solo_d2": metadata})
    onnx.save(model, target)


def metadata_of(file):
    return {x.key: x.value for x in onnx.load(file).metadata_props}["solo_d2"]


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (lambda text: None, "has no metadata of solo_d2"),
        (lambda text: text.replace('"max_size": 160', '"max_size": 161'), "changed after export"),
        (lambda text: text.replace('"layout": 1', '"layout": 2'), "layout 2"),
        (lambda text: text[:-5], "damaged metadata"),
        (lambda text: "[]", "damaged metadata"),
    ],
)
def test_other_metadata_are_refused(files, tmp_path, change, text):
    target = tmp_path / "changed.onnx"
    edit(files[1] / "m.onnx", target, change(metadata_of(files[1] / "m.onnx")))
    for load in (SOLOPredictor, solo_d2_runtime.Model):
        with pytest.raises(ValueError, match=text) as error:
            load(target)
        assert "changed.onnx" in str(error.value) and "\n" not in str(error.value)


def test_masks_are_refined_with_and_without_torch(files, tmp_path):
    info = open_exported(files[1] / "m.onnx")[1]
    config = info.config.replace("REFINE_MASKS_TEST: false", "REFINE_MASKS_TEST: true")
    edit(files[1] / "m.onnx", tmp_path / "m.onnx", replace(info, config=config).to_json())
    image = photo(70, 110)
    plain, refined = (SOLOPredictor(x / "m.onnx")(image).instances for x in (files[1], tmp_path))
    assert (plain.pred_masks ^ refined.pred_masks).any()
    found = solo_d2_runtime.Model(tmp_path / "m.onnx")(image)
    assert len(found.scores) == len(refined) > 20
    assert (refined.pred_masks.numpy() != found.masks).mean() < 1e-4


@pytest.mark.parametrize("name", ["m.onnx", "m.xml", "m.bin"])
def test_a_file_that_is_cut_off_is_refused(files, tmp_path, name):
    for file in files[1].glob("m.*"):
        shutil.copy(file, tmp_path)
    cut = tmp_path / name
    cut.write_bytes(cut.read_bytes()[: cut.stat().st_size // 2])
    model = cut.with_suffix(".xml") if name == "m.bin" else cut
    with pytest.raises(ValueError, match="cannot be opened; is it cut off") as error:
        load_exported(model)
    assert "\n" not in str(error.value)
    if name == "m.onnx":
        with pytest.raises(ValueError, match="is it cut off"):
            solo_d2_runtime.Model(model)


def test_files_that_are_not_there_are_named(files, tmp_path):
    shutil.copy(files[1] / "m.xml", tmp_path)
    with pytest.raises(ValueError, match=r"m\.xml: its weights, m\.bin, are not beside it"):
        load_exported(tmp_path / "m.xml")
    for load in (SOLOPredictor, load_exported, solo_d2_runtime.Model):
        with pytest.raises(ValueError, match=r"nothing\.onnx: no such file"):
            load(tmp_path / "nothing.onnx")
    with pytest.raises(ValueError, match=r"m\.pth: the file's suffix must be one of onnx"):
        load_exported("m.pth")


@pytest.mark.parametrize(("file", "package"), [("m.onnx", "onnxruntime"), ("m.xml", "openvino")])
def test_a_missing_runtime_is_named_with_its_extra(files, monkeypatch, file, package):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ValueError, match=rf'package {package}.*pip install "solo_d2\[export\]"'):
        SOLOPredictor(files[1] / file)


@pytest.mark.exports
def test_the_raw_graph_of_a_size_is_an_onnx_file(tmp_path):
    cfg, model = export_case("MODEL.SOLO.NMS_TYPE", "hard")
    report = export_model(model, tmp_path / "raw.onnx", cfg=cfg, kind="raw", size=(64, 96))
    with pytest.raises(ValueError, match="is no model of instances"):
        solo_d2_runtime.Model(report.path)
    backend, info = open_exported(report.path)
    backend.load(info.precision)
    image = one_input((64, 96))["image"].float()[None]
    with torch.no_grad():
        predictions = model.head(model.backbone((image - model.pixel_mean) / model.pixel_std))
    kernels = predictions.mask_inputs.kernels.all
    assert np.abs(backend(image.numpy())[1] - kernels.numpy()).max() < 1e-4


RUNTIME = """
import sys, time
import numpy, onnxruntime
start = time.perf_counter()
import solo_d2_runtime
print(time.perf_counter() - start)
assert not {"torch", "detectron2", "cv2", "PIL", "solo_d2"} & set(sys.modules)
"""


def test_the_runtime_imports_numpy_and_onnxruntime_alone():
    folder = str(Path(solo_d2_runtime.__file__).parent)
    program = f"import sys; sys.path.insert(0, {folder!r})\n{RUNTIME}"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


# Half the levels, and one size, which takes a quarter of the time.
TWO_LEVELS = (
    *("MODEL.SOLO.IN_FEATURES", ["p2", "p3"], "MODEL.SOLO.NUM_GRIDS", [12, 6]),
    *("MODEL.SOLO.SCALE_RANGES", [[1, 64], [32, 2048]]),
)


def both(folder, model, **options):
    """Reports of an export to ONNX and to OpenVINO."""
    pytest.importorskip("openvino")
    onnx_report = export_model(model, folder / "m.onnx", **options)
    return onnx_report, export_model(model, folder / "m.xml", onnx=folder / "m.onnx", **options)


def test_another_file_is_not_converted_for_a_model(files, tmp_path):
    predictor, folder, _ = files
    for options in ({"max_candidates": 200}, {"batch": 2}, {"size": (96, 128)}):
        options = {"batch": None, "max_candidates": 300, **options}
        with pytest.raises(ValueError, match=r"m\.onnx is no \.onnx file of this model with these"):
            export_model(predictor, tmp_path / "m.xml", onnx=folder / "m.onnx", **options)


def int8(files, path, limit):
    """Write the model of `files` in int8, calibrated on two images."""
    predictor, folder, _ = files
    images = [torch.from_numpy(photo(96, 128, seed=i)).permute(2, 0, 1) for i in range(2)]
    options = {"batch": None, "max_candidates": 300, "onnx": folder / "m.onnx"}
    return export_model(
        predictor, path, precision="int8", calibration=images, limit=limit, **options
    )


def test_accuracy_below_the_limit_leaves_no_file(files, tmp_path, monkeypatch):
    def measure(model, numbers):
        each = [40.0 if isinstance(model, ExportedModel) else 50.0 for _ in numbers]
        return Accuracy(sum(each) / len(each), each)

    monkeypatch.setattr(exporter, "quantize", lambda program, **options: program)
    with pytest.raises(ValueError, match=r"accuracy is 40.00, which is 10.00 below .* are 9.9\."):
        int8(files, tmp_path / "m.xml", DropLimit(measure, images=2, max_drop=9.9))
    assert list(tmp_path.iterdir()) == []
    report = int8(files, tmp_path / "m.xml", DropLimit(measure, images=2, max_drop=10))
    assert report.accuracy == (50.0, 40.0) and "50.00 of the model, 40.00 of the" in str(report)
    assert load_exported(report.path).info.precision == "int8"


@pytest.mark.parametrize("case", sorted(set(HEADS) - {"dynamic"}))  # of which `files` has all
def test_every_head_of_two_levels_runs_in_both_runtimes(case, tmp_path):
    cfg, model = export_case(*CASES[case], *TWO_LEVELS)
    for report in both(tmp_path, model, cfg=cfg, size=(96, 128)):
        assert min(x.instances for x in report.parity) > 10


@pytest.mark.exports
def test_a_light_model_with_its_backbone_runs_in_both_runtimes(tmp_path):
    predictor = SOLOPredictor("solo_d2/stamps_lite0", device="cpu")
    for report in both(tmp_path, predictor, size=(128, 160)):
        assert min(x.instances for x in report.parity) > 10


@pytest.mark.exports
@pytest.mark.parametrize("suffix", [".onnx", ".xml", ".pt2"])
@pytest.mark.parametrize("case", [*CASES, *COMBINED])
def test_every_head_runs_in_every_format(case, suffix, tmp_path):
    cfg, model = export_case(*{**CASES, **COMBINED}[case])
    if case == "deform" and suffix == ".xml":
        with pytest.raises(ValueError, match="format openvino has no DeformConv"):
            export_model(model, tmp_path / "m.xml", cfg=cfg)
        return
    batch = 1 if case == "dynamic_3x3" else None
    report = export_model(model, tmp_path / f"m{suffix}", cfg=cfg, batch=batch)
    assert min(x.instances for x in report.parity) > 20
    exported = load_exported(report.path)
    sample = one_input((75, 100), height=150, width=200)
    with torch.no_grad():
        expected = model([sample])[0]["instances"]
    check_same(expected, exported([sample])[0]["instances"])
    assert json.loads(exported.info.to_json())["kind"] == "full"


@pytest.mark.exports
def test_layers_return_to_f32_until_the_limit_is_kept(files, tmp_path):
    pytest.importorskip("nncf")
    images = [one_input(), one_input((60, 120))]

    def scores(model, number):
        found = model([images[number]])[0]["instances"].scores
        return torch.nn.functional.pad(found, (0, 100 - len(found)))

    expected = [scores(files[0].model, i) for i in range(2)]

    def measure(model, numbers):
        each = [-1e3 * float((scores(model, i) - expected[i]).abs().mean()) for i in numbers]
        return Accuracy(sum(each) / len(each), each)

    free = int8(files, tmp_path / "free.xml", DropLimit(measure, images=2, max_drop=1e9))
    lost = free.accuracy[0] - free.accuracy[1]
    kept = int8(files, tmp_path / "kept.xml", DropLimit(measure, images=2, max_drop=lost / 4))
    assert 0 < kept.accuracy[0] - kept.accuracy[1] <= lost / 4
    assert free.size_bytes < kept.size_bytes  # layers that are in f32 again
