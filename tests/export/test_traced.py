"""Exported graphs of all heads find what the model finds; traced, which takes least time.

The exporters of ONNX and OpenVINO get the same graphs: see test_runtimes.py.
"""

from __future__ import annotations

import shutil
import zipfile

import pytest
import torch
from export_builders import CASES, COMBINED, export_case, one_input, photo
from PIL import Image

from solo_d2 import SOLOPredictor
from solo_d2.export import export_model, load_exported
from solo_d2.export import writers as writers_module
from solo_d2.export.programs import load_torchscript

NOT_TRACED = {"region_grid"}
ONE_BY_ONE = {"dynamic_3x3"}
TOGETHER = "panoptic_temperature_paths"  # the others: test_runtimes.py
TRACED = {TOGETHER: COMBINED[TOGETHER], **{k: v for k, v in CASES.items() if k not in NOT_TRACED}}


@pytest.mark.parametrize("case", sorted(TRACED))
def test_every_head_is_the_same_at_other_sizes_and_batches(case, tmp_path):
    cfg, model = export_case(*TRACED[case])
    batch = 1 if case in ONE_BY_ONE else None
    report = export_model(model, tmp_path / "m.torchscript", cfg=cfg, batch=batch)
    assert len({x.size for x in report.parity}) == 3
    assert min(x.instances for x in report.parity) > 20
    assert max(x.score for x in report.parity) < 1e-3
    exported = load_exported(report.path)
    samples = [one_input(), one_input((60, 70), height=120, width=150)]
    samples = samples if batch is None else samples[:1]
    with torch.no_grad():
        expected, found = model(samples), exported(samples)
    for one, other in zip(expected, found, strict=True):
        check_same(one["instances"], other["instances"])
        if "panoptic_seg" in one:
            assert torch.allclose(one["sem_seg"], other["sem_seg"], atol=1e-4)
            same = one["panoptic_seg"][0] == other["panoptic_seg"][0]
            assert same.float().mean() > 0.999


def check_same(one, other):
    assert len(one) == len(other) > 20
    assert one.image_size == other.image_size
    assert (one.scores - other.scores).abs().max() < 1e-3
    assert torch.equal(one.pred_classes, other.pred_classes)
    assert (one.pred_masks ^ other.pred_masks).float().mean() < 1e-4
    if one.has("pred_mattes"):
        assert torch.allclose(one.pred_mattes, other.pred_mattes, atol=1e-4)


@pytest.fixture(scope="module")
def traced(tmp_path_factory):
    """A predictor of the model, and the model's file."""
    cfg, model = export_case()
    path = tmp_path_factory.mktemp("traced") / "m.torchscript"
    export_model(model, path, cfg=cfg, batch=None, max_candidates=300)
    return SOLOPredictor(cfg, model=model, device="cpu"), path


def test_the_predictor_takes_the_file_as_a_model(traced):
    predictor, path = traced
    exported = SOLOPredictor(path)
    image = photo(70, 110)
    one, other = predictor(image), exported(image)
    check_same(one.instances, other.instances)
    assert one.names == other.names and set(one.names) <= {"cup", "fork", "spoon"}
    assert {x["category_id"] for x in other.to_coco()} <= {3, 5, 9}
    assert exported.cfg.INPUT.MIN_SIZE_TEST == 96
    both = exported([image, photo(200, 50)])
    check_same(one.instances, both[0].instances)


def test_the_predictor_reads_files_for_a_file(traced, tmp_path):
    Image.fromarray(photo()).save(tmp_path / "photo.png")
    found = SOLOPredictor(str(traced[1]), confidence_threshold=0.2)(tmp_path / "photo.png")
    assert found.instances.scores.min() >= 0.2


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"weights": "model.pth"}, "has its own weights"),
        ({"device": "cuda"}, 'run on the device "cpu"'),
        ({"compile": True}, "exported files are compiled already"),
    ],
)
def test_what_a_file_cannot_do_is_told(traced, options, text):
    with pytest.raises(ValueError, match=text):
        SOLOPredictor(traced[1], **options)


def test_masks_are_refined_behind_the_graph(traced, tmp_path):
    cfg, model = export_case("MODEL.SOLO.REFINE_MASKS_TEST", True)
    path = tmp_path / "refined.torchscript"
    export_model(model, path, cfg=cfg, batch=None, max_candidates=300, check=False)
    exported, images = SOLOPredictor(path), [photo(70, 110), photo(96, 60)]
    expected = SOLOPredictor(cfg, model=model, device="cpu")(images)
    for one, other, plain in zip(expected, exported(images), traced[0](images), strict=True):
        check_same(one.instances, other.instances)
        assert one.instances.pred_masks.sum() != plain.instances.pred_masks.sum()


def test_other_names_of_the_classes_are_taken(traced):
    names = ["a", "b", "c"]
    assert set(SOLOPredictor(traced[1], class_names=names)(photo()).names) <= set(names)


def test_a_file_of_one_size_takes_whatever_fits(tmp_path):
    cfg, model = export_case()
    path = tmp_path / "fixed.torchscript"
    report = export_model(model, path, cfg=cfg, size=(96, 160))
    assert {x.size for x in report.parity} == {(96, 160)}
    predictor = SOLOPredictor(path)
    for height, width in ((50, 300), (300, 50), (96, 160)):
        assert predictor(photo(height, width)).instances.image_size == (height, width)
    with pytest.raises(ValueError, match="takes images of at most 96x160 pixels, got 97x20"):
        predictor.model([one_input((97, 20))])
    with pytest.raises(ValueError, match="takes images of 96x160 pixels only, got 96x96"):
        predictor.model.run(torch.zeros(1, 3, 96, 96).numpy())
    with pytest.raises(ValueError, match="takes 1 images at once, got 2"):
        predictor.model.run(torch.zeros(2, 3, 96, 160).numpy())


def test_sides_that_the_divisor_does_not_divide_are_refused(traced):
    model = load_exported(traced[1])
    with pytest.raises(ValueError, match="whose sides 32 divides, got 64x100; pad them"):
        model.run(torch.zeros(1, 3, 64, 100).numpy())


def test_a_batch_of_fixed_length_is_filled_up(tmp_path):
    cfg, model = export_case()
    report = export_model(model, tmp_path / "two.torchscript", cfg=cfg, batch=2, check=False)
    assert report.parity == ()
    exported = load_exported(report.path)
    with torch.no_grad():
        expected = [model([x])[0]["instances"] for x in [one_input()] * 3]
    found = exported([one_input()] * 3)
    for one, other in zip(expected, found, strict=True):
        check_same(one, other["instances"])
    assert exported([]) == []


def test_more_candidates_than_k_are_told_once(tmp_path, caplog):
    cfg, model = export_case()
    report = export_model(model, tmp_path / "few.torchscript", cfg=cfg, max_candidates=10)
    exported = load_exported(report.path)
    assert exported.info.max_instances == 10
    for _ in range(2):
        assert 0 < len(exported([one_input()])[0]["instances"]) <= 10
    told = [x.message for x in caplog.records if "candidates; the best 10" in x.message]
    assert len(told) == 1


def changed_kernels(recording):
    """An exporter that makes a mistake."""
    with torch.no_grad():
        recording.graph.model.head.kernel_predictor.weight.mul_(1.01)
    return writers_module.to_torchscript(recording)


def test_results_that_differ_leave_no_file(tmp_path, monkeypatch):
    cfg, model = export_case()
    monkeypatch.setitem(writers_module.WRITERS, "torchscript", changed_kernels)
    target = tmp_path / "m.torchscript"
    target.write_bytes(b"older")
    with pytest.raises(ValueError, match="was not written: at 128x192 pixels it does not find"):
        export_model(model, target, cfg=cfg)
    assert [x.name for x in tmp_path.iterdir()] == [target.name]
    assert target.read_bytes() == b"older"


def test_a_model_without_instances_is_exported_with_a_warning(tmp_path, caplog):
    cfg, model = export_case()
    with torch.no_grad():
        model.head.category_predictor.bias.fill_(-20.0)
    export_model(model, tmp_path / "m.torchscript", cfg=cfg)
    assert "compared no instances" in caplog.text


def test_the_raw_output_is_that_of_the_head(tmp_path):
    cfg, model = export_case()
    report = export_model(model, tmp_path / "raw.torchscript", cfg=cfg, kind="raw")
    assert len({x.size for x in report.parity}) == 3
    assert max(x.tensors for x in report.parity) < 1e-4 and "of tensors" in str(report)
    image = torch.rand(1, 3, 96, 64) * 255
    with torch.no_grad():
        scores, kernels, feature = load_torchscript(report.path)(image)
        predictions = model.head(model.backbone((image - model.pixel_mean) / model.pixel_std))
    assert scores.shape == (1, model.head.grid.num_cells, 3)
    assert torch.allclose(kernels, predictions.mask_inputs.kernels.all, atol=1e-5)
    assert torch.allclose(feature, predictions.mask_inputs.features[0].all, atol=1e-5)
    with pytest.raises(ValueError, match="holds the network alone"):
        load_exported(report.path)


def test_raw_outputs_that_differ_leave_no_file(tmp_path, monkeypatch):
    cfg, model = export_case()
    monkeypatch.setitem(writers_module.WRITERS, "torchscript", changed_kernels)
    with pytest.raises(ValueError, match="the tensors that masks are made of differ by"):
        export_model(model, tmp_path / "raw.torchscript", cfg=cfg, kind="raw")
    assert list(tmp_path.iterdir()) == []


def test_a_program_that_could_do_anything_else_is_refused(traced, tmp_path):
    shutil.copy(traced[1], tmp_path)
    with zipfile.ZipFile(tmp_path / traced[1].name, "a") as archive:
        archive.writestr("m/code/__torch__/more.py", "def __setstate__(self): pass")
    with pytest.raises(ValueError, match=r"m\.torchscript: cannot be run \(.*__setstate__"):
        SOLOPredictor(tmp_path / traced[1].name)
