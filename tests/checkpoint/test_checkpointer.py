"""What fits a model, what is said of the rest, and what a run goes on with."""

from __future__ import annotations

import gzip
import json
import logging
import os
import pickle
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from builders import RESNET18, tiny_config, tiny_model
from detectron2.checkpoint import PeriodicCheckpointer
from detectron2.modeling import build_model
from torch import nn

from solo_d2.checkpoint import (
    Require,
    SOLOCheckpointer,
    load_weights,
    save_checkpoint,
)
from solo_d2.checkpoint.convention import model_convention
from solo_d2.checkpoint.info import MSRA, TORCHVISION, CheckpointInfo
from solo_d2.model_zoo.model_zoo import load_config

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def source():
    """The state dict of a model that others are to be given."""
    return tiny_model(seed=1).state_dict()


@pytest.fixture
def model():
    return tiny_model()


def write(path, state, **more):
    save_checkpoint({"model": dict(state), **more}, path)
    return str(path)


def without(state, *prefixes):
    return {key: value for key, value in state.items() if not key.startswith(prefixes)}


def only(state, *prefixes):
    return {key: value for key, value in state.items() if key.startswith(prefixes)}


def start(model, path, require=Require.BACKBONE):
    """As training starts."""
    SOLOCheckpointer(model, require=require).load(path, checkpointables=[])


def refused(load, model, path, said):
    """The error names file and reason in one line, and the model is what it was."""
    before = {key: value.clone() for key, value in model.state_dict().items()}
    with pytest.raises(ValueError, match=said) as caught:
        load(model, path)
    assert str(caught.value).startswith(str(path)) and "\n" not in str(caught.value)
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())
    return str(caught.value)


# Strictness


@pytest.mark.parametrize("load", [load_weights, start])
@pytest.mark.parametrize("prefix", ["", "module."])
def test_whole_weights_are_taken_over(tmp_path, model, source, load, prefix):
    load(model, write(tmp_path / "a.pth", {prefix + k: v for k, v in source.items()}))
    assert all(torch.equal(source[key], value) for key, value in model.state_dict().items())


def test_backbone_starts_a_training_but_predicts_nothing(tmp_path, model, source, caplog):
    path = write(tmp_path / "a.pth", only(source, "backbone.bottom_up."))
    refused(load_weights, model, path, "or of a backbone alone: .* are missing")
    with caplog.at_level(logging.INFO):
        start(model, path)
    loaded = len(only(source, "backbone.bottom_up."))
    assert f"{loaded} of {len(source)} entries loaded; new: backbone.fpn_lateral2" in caplog.text
    assert torch.equal(
        model.state_dict()["backbone.bottom_up.stem.conv1.weight"],
        source["backbone.bottom_up.stem.conv1.weight"],
    )


@pytest.mark.parametrize("lost", ["backbone.bottom_up.res4.1.conv2.", "backbone.bottom_up."])
def test_backbone_must_be_whole(tmp_path, model, source, lost):
    path = write(tmp_path / "a.pth", without(source, lost))
    refused(start, model, path, "does not fill the backbone")


def test_missing_buffers_of_frozen_normalisation_count(tmp_path, model, source):
    name = "backbone.bottom_up.res4.1.conv2.norm."
    refused(
        load_weights, model, write(tmp_path / "a.pth", without(source, name)), "4 of .* missing"
    )


def test_statistics_may_be_fused_into_frozen_normalisation_only(tmp_path, source):
    fused = {k: v for k, v in source.items() if not re.search("running_(mean|var)$", k)}
    path = write(tmp_path / "a.pth", fused)
    load_weights(tiny_model(), path)
    trained = tiny_model("MODEL.RESNETS.NORM", "BN")
    refused(load_weights, trained, path, "running_mean")


def test_other_class_count_is_refused_for_prediction(tmp_path, source):
    model = tiny_model("MODEL.SOLO.NUM_CLASSES", 5)
    said = r"head\.category_predictor\.\w+ \(3,.* expected \(5,"
    refused(load_weights, model, write(tmp_path / "a.pth", source), said)


@pytest.mark.parametrize("load", [load_weights, start])
def test_weights_without_any_common_name_are_refused(tmp_path, model, load):
    path = write(tmp_path / "a.pth", {"something.else": torch.zeros(2)})
    refused(load, model, path, r"not one of its 1 entries.*tools/convert_weights\.py")


@pytest.mark.parametrize("load", [load_weights, start])
def test_more_layers_than_the_model_has_are_refused(tmp_path, model, load):
    """All that the model has would fit, and the result would be wrong."""
    deeper = tiny_model("MODEL.SOLO.NUM_CONVS", 2)
    path = write(tmp_path / "a.pth", deeper.state_dict())
    refused(load, model, path, r"this one has no head\.\w+_tower\.1")


@pytest.mark.parametrize("load", [load_weights, start])
def test_other_detectors_are_named(tmp_path, model, source, load):
    other = only(source, "backbone.") | {
        "roi_heads.box_head.fc1.weight": torch.zeros(2, 2),
        "proposal_generator.rpn_head.conv.weight": torch.zeros(2, 2),
    }
    said = refused(load, model, write(tmp_path / "a.pth", other), "Mask R-CNN")
    assert "--allow-partial" in said


def test_partial_weights_are_taken_on_request_and_the_rest_is_named(tmp_path, source, caplog):
    model = tiny_model("MODEL.SOLO.NUM_CLASSES", 5)
    lost = "head.kernel_predictor.bias"
    state = without(source, lost) | {"extra.weight": torch.zeros(1)}
    load_weights(model, write(tmp_path / "a.pth", state), allow_partial=True)
    wrong = [key for key, value in model.state_dict().items() if value.shape != source[key].shape]
    assert wrong  # the predictor of categories
    left = f"{len(source) - len(wrong) - 1} entries loaded, {len(wrong) + 1} left random"
    assert left in caplog.text
    lines = {line.strip() for line in caplog.text.splitlines()}
    assert {lost, *wrong} <= lines
    assert all(f"Skipped for its shape: {key} (3," in caplog.text for key in wrong)
    assert "Not used: extra.weight" in caplog.text
    key = "head.kernel_predictor.weight"
    assert torch.equal(model.state_dict()[key], source[key])


def test_not_even_one_common_name_is_needed_on_request(tmp_path, model, caplog):
    path = write(tmp_path / "a.pth", {"x": torch.zeros(1)})
    load_weights(model, path, allow_partial=True)
    assert "0 entries loaded" in caplog.text


def test_new_branches_start_at_random(tmp_path, source):
    """E.g. an auxiliary loss for a model that was trained without."""
    model = tiny_model("MODEL.SOLO.AUX_SEMANTIC_LOSS_WEIGHT", 1.0)
    path = write(tmp_path / "a.pth", source)
    start(model, path)
    load_weights(model, path)  # the branch takes part in training only
    back = write(tmp_path / "b.pth", model.state_dict())
    load_weights(tiny_model(), back)


# Detectron2's files


def caffe2_names(state):
    """Names of Detectron2's ImageNet files; MSRA's have no running statistics."""
    state = only(state, "backbone.bottom_up.")
    state = {k[len("backbone.bottom_up.") :]: v.numpy() for k, v in state.items()}
    return {k: v for k, v in state.items() if "running" not in k}


def test_imagenet_pickle_of_detectron2_is_matched(tmp_path, model, source):
    content = {"model": caffe2_names(source), "__author__": "me", "matching_heuristics": True}
    content["model"]["fc1000.weight"] = np.zeros((2, 2), np.float32)
    path = tmp_path / "R-18.pkl"
    path.write_bytes(pickle.dumps(content, 2))
    start(model, str(path))
    for key in only(source, "backbone.bottom_up."):
        if "running" not in key:
            assert torch.equal(model.state_dict()[key], source[key])


def test_pickle_of_caffe2_is_renamed(tmp_path, model, source):
    blobs = {"conv1_w": source["backbone.bottom_up.stem.conv1.weight"].numpy()}
    (tmp_path / "a.pkl").write_bytes(pickle.dumps({"blobs": blobs}))
    load_weights(model, str(tmp_path / "a.pkl"), allow_partial=True)
    weight = model.state_dict()["backbone.bottom_up.stem.conv1.weight"]
    assert torch.equal(weight, source["backbone.bottom_up.stem.conv1.weight"])


def test_query_asks_for_matching_by_heuristics(tmp_path, model, source):
    names = {k: torch.from_numpy(v) for k, v in caffe2_names(source).items()}
    path = write(tmp_path / "a.pth", names)
    refused(start, model, path, "not one of its")
    start(model, f"{path}?matching_heuristics=True")
    key = "backbone.bottom_up.res5.1.conv2.weight"
    assert torch.equal(model.state_dict()[key], source[key])


def test_imagenet_weights_of_another_depth_are_refused(tmp_path):
    shallow = tiny_model(*RESNET18)
    deep = tiny_model(*RESNET18, "MODEL.RESNETS.DEPTH", 34)
    path = tmp_path / "a.pkl"
    for weights, model, said in (
        (shallow, deep, "does not fill the backbone"),
        (deep, shallow, r"of another backbone: this one has no res[2-5]\."),
    ):
        content = {"model": caffe2_names(weights.state_dict()), "__author__": "me"}
        path.write_bytes(pickle.dumps({**content, "matching_heuristics": True}, 2))
        refused(start, model, str(path), said)


# Files of other projects


def mmdet_file(path, name="solov2-light_r18_fpn_ms-3x_coco"):
    """An unconverted checkpoint with the names and shapes of mmdetection."""
    with gzip.open(Path(__file__).parent / "data" / "mmdet_keys.json.gz") as file:
        shapes = json.load(file)[name]
    state = {key: torch.rand(shape) for key, shape in shapes.items()}
    torch.save({"meta": {"epoch": 36}, "state_dict": state}, path)
    return state, str(path)


LIGHT_R18 = ROOT / "configs/COCO-InstanceSegmentation/solov2_light_448_R_18_FPN_3x.yaml"


@pytest.mark.parametrize("load", [load_weights, start])
def test_other_projects_files_are_converted_on_the_way(tmp_path, caplog, load):
    state, path = mmdet_file(tmp_path / "mmdet.pth")
    keys = ["MODEL.DEVICE", "cpu", "INPUT.RESIZE_FILTER", "opencv"]
    model = build_model(load_config(LIGHT_R18, keys))
    with caplog.at_level(logging.INFO):
        load(model, path)
    assert "Converted from mmdet: SOLOv2" in caplog.text
    weight = model.state_dict()["head.category_predictor.weight"]
    assert torch.equal(weight, state["mask_head.conv_cls.weight"])
    wrong = build_model(load_config(LIGHT_R18, [*keys, "INPUT.FORMAT", "BGR"]))
    refused(load, wrong, path, r"Set .*R_18.* with INPUT\.FORMAT RGB$")


def test_other_projects_other_detectors_are_named(tmp_path, model):
    state = {"backbone.conv1.weight": torch.zeros(1), "roi_head.bbox_head.x": torch.zeros(1)}
    torch.save({"state_dict": state}, tmp_path / "a.pth")
    refused(load_weights, model, str(tmp_path / "a.pth"), "two-stage detector of mmdetection")


def test_incomplete_files_of_other_projects_are_named(tmp_path, model):
    _, path = mmdet_file(tmp_path / "a.pth")
    content = torch.load(path)
    del content["state_dict"]["mask_head.conv_cls.bias"]
    torch.save(content, path)
    refused(load_weights, model, path, r"conv_cls\.bias|category_predictor\.bias")


# Input convention


def bottleneck_model(*overrides):
    return build_model(
        tiny_config(
            "MODEL.RESNETS.DEPTH", 50, "MODEL.RESNETS.RES2_OUT_CHANNELS", 32,
            "MODEL.RESNETS.STEM_OUT_CHANNELS", 8, "MODEL.RESNETS.WIDTH_PER_GROUP", 8, *overrides,
        )
    )  # fmt: skip


RGB = (
    "INPUT.FORMAT", "RGB", "INPUT.RESIZE_FILTER", "opencv",
    "MODEL.PIXEL_MEAN", [123.675, 116.28, 103.53],
    "MODEL.PIXEL_STD", [58.395, 57.12, 57.375], "MODEL.RESNETS.STRIDE_IN_1X1", False,
)  # fmt: skip


@pytest.mark.parametrize("dcn", [False, True])
def test_model_tells_its_own_convention(dcn):
    name = "build_deform_resnet_fpn_backbone" if dcn else "build_resnet_fpn_backbone"
    keys = ("MODEL.BACKBONE.NAME", name, "MODEL.RESNETS.DEFORM_ON_PER_STAGE", [dcn] * 4)
    assert model_convention(bottleneck_model(*keys)) == MSRA
    assert model_convention(bottleneck_model(*keys, *RGB)) == TORCHVISION
    assert model_convention(tiny_model(*RESNET18)).stride_in_1x1 is None  # no bottlenecks
    assert model_convention(nn.Linear(1, 1)) is None


@pytest.mark.parametrize("load", [load_weights, start])
def test_wrong_input_is_an_error_with_the_keys_to_set(tmp_path, load):
    source = bottleneck_model(*RGB)
    info = CheckpointInfo("mmdet", "SOLOv2 R50", "COCO/solov2.yaml", TORCHVISION).to_dict()
    path = write(tmp_path / "a.pth", source.state_dict(), solo_d2=info)
    load(bottleneck_model(*RGB), path)
    said = refused(load, bottleneck_model(), path, "trained with another input")
    assert said.endswith(
        "Set COCO/solov2.yaml with INPUT.FORMAT RGB INPUT.RESIZE_FILTER opencv "
        'MODEL.PIXEL_MEAN "[123.675, 116.28, 103.53]" MODEL.PIXEL_STD "[58.395, 57.12, 57.375]" '
        "MODEL.RESNETS.STRIDE_IN_1X1 False"
    )
    only_stride = bottleneck_model(*RGB[:-2])
    assert "Set COCO/solov2.yaml with MODEL.RESNETS.STRIDE_IN_1X1 False" in refused(
        load, only_stride, path, "trained with"
    )


def test_own_checkpoints_remember_their_input(tmp_path, caplog):
    saved = tiny_model()
    SOLOCheckpointer(saved, str(tmp_path)).save("a")
    load_weights(tiny_model(), str(tmp_path / "a.pth"))
    other = tiny_model("INPUT.FORMAT", "RGB")
    refused(load_weights, other, str(tmp_path / "a.pth"), r"Set INPUT\.FORMAT BGR$")
    load_weights(other, str(tmp_path / "a.pth"), allow_partial=True)
    assert "Set INPUT.FORMAT BGR" in caplog.text
    other = tiny_model("INPUT.RESIZE_FILTER", "opencv")
    refused(load_weights, other, str(tmp_path / "a.pth"), r"Set INPUT\.RESIZE_FILTER pillow$")
    SOLOCheckpointer(other, str(tmp_path)).save("b")
    refused(load_weights, saved, str(tmp_path / "b.pth"), r"Set INPUT\.RESIZE_FILTER opencv$")


def test_names_of_classes_travel_with_own_checkpoints(tmp_path):
    saved = tiny_model()
    saved.class_names, saved.stuff_names = ("cat", "dog", "cow"), ("things", "sky")
    SOLOCheckpointer(saved, str(tmp_path)).save("a")
    file = str(tmp_path / "a.pth")
    unnamed = tiny_model()
    load_weights(unnamed, file)
    assert unnamed.class_names == ("cat", "dog", "cow")
    assert unnamed.stuff_names == ("things", "sky")
    partly = tiny_model()  # what fits may leave the classes random
    load_weights(partly, file, allow_partial=True)
    assert partly.class_names == ()


def test_damaged_info_is_named(tmp_path, model, source):
    path = write(tmp_path / "a.pth", source, solo_d2={"source": "mmdet"})
    refused(load_weights, model, path, "'solo_d2' of this checkpoint is damaged")


# Saving and resuming


class Counter:
    """Something with a state, such as a trainer."""

    def __init__(self, value=0):
        self.value = value

    def state_dict(self):
        return {"value": self.value}

    def load_state_dict(self, state):
        self.value = state["value"]


def training(folder, value=0):
    return SOLOCheckpointer(nn.Linear(3, 2), str(folder), trainer=Counter(value))


def saved_run(folder, count=3):
    """Checkpoints of iterations 0, 1, ... with the state 10, 11, ..."""
    for i in range(count):
        training(folder, 10 + i).save(f"model_{i}", iteration=i)


def resumed_value(folder):
    checkpointer = training(folder)
    rest = checkpointer.resume_or_load("")
    assert checkpointer.resumed is (checkpointer.checkpointables["trainer"].value != 0)
    return checkpointer.checkpointables["trainer"].value, rest.get("iteration")


def test_resumes_the_last_checkpoint(tmp_path):
    saved_run(tmp_path)
    assert (tmp_path / "last_checkpoint").read_text() == "model_2.pth"
    assert resumed_value(tmp_path) == (12, 2)


def test_works_under_detectron2s_periodic_checkpointer(tmp_path):
    periodic = PeriodicCheckpointer(training(tmp_path, 5), 1, max_iter=3, max_to_keep=1)
    for i in range(3):
        periodic.step(i)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "last_checkpoint", "model_0000002.pth", "model_final.pth",
    ]  # fmt: skip
    assert resumed_value(tmp_path) == (5, 2)


def truncate(path):
    path.write_bytes(path.read_bytes()[:-300])


BROKEN = {
    "empty tag": (lambda d: (d / "last_checkpoint").write_text(""), 12, "is empty"),
    "outside": (lambda d: (d / "last_checkpoint").write_text("../../etc/passwd"), 12, "outside"),
    "absolute": (lambda d: (d / "last_checkpoint").write_text("/etc/passwd"), 12, "outside"),
    "binary tag": (lambda d: (d / "last_checkpoint").write_bytes(b"\xff\x00"), 12, ""),
    "missing": (lambda d: (d / "model_2.pth").unlink(), 11, "no such file"),
    "truncated": (lambda d: truncate(d / "model_2.pth"), 11, "damaged or cut off"),
    "emptied": (lambda d: (d / "model_2.pth").write_bytes(b""), 11, r"is empty \(0 bytes\)"),
    "not a checkpoint": (lambda d: (d / "model_2.pth").write_text("{}"), 11, "is not a"),
    "no tag": (lambda d: (d / "last_checkpoint").unlink(), 12, "there is no"),
    "two broken": (lambda d: [truncate(d / f"model_{i}.pth") for i in (1, 2)], 10, "damaged"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_resumes_the_newest_whole_one_and_says_so(tmp_path, caplog, name):
    harm, value, said = BROKEN[name]
    saved_run(tmp_path)
    # Weights that somebody put there are not the state of a training.
    save_checkpoint({"model": nn.Linear(3, 2).state_dict()}, tmp_path / "z.pth")
    harm(tmp_path)
    assert resumed_value(tmp_path) == (value, value - 10)
    assert re.search(f"{said}.*Going on with the newest whole checkpoint", caplog.text)


def test_newest_is_by_iteration_not_by_date(tmp_path):
    saved_run(tmp_path)
    (tmp_path / "last_checkpoint").unlink()
    os.utime(tmp_path / "model_0.pth")
    assert resumed_value(tmp_path)[0] == 12


def test_no_whole_checkpoint_left_is_an_error(tmp_path):
    saved_run(tmp_path, 1)
    truncate(tmp_path / "model_0.pth")
    with pytest.raises(ValueError, match=r"cannot resume: .* no whole checkpoint\. Start without"):
        training(tmp_path).resume_or_load("")


def test_nothing_to_resume_starts_from_the_weights(tmp_path):
    other = nn.Linear(3, 2)
    save_checkpoint({"model": other.state_dict()}, tmp_path / "w.pth")
    checkpointer = training(tmp_path / "out")
    checkpointer.resume_or_load(str(tmp_path / "w.pth"))
    assert torch.equal(checkpointer.model.weight, other.weight)
    assert not checkpointer.resumed


def test_resuming_needs_the_same_model_and_state(tmp_path):
    saved_run(tmp_path, 1)
    with pytest.raises(ValueError, match=r"cannot resume: .*another shape"):
        SOLOCheckpointer(nn.Linear(4, 2), str(tmp_path)).resume_or_load("")
    checkpointer = SOLOCheckpointer(
        nn.Linear(3, 2), str(tmp_path), trainer=torch.optim.SGD([torch.zeros(1)], 0.1)
    )
    with pytest.raises(ValueError, match=r"cannot resume: .*'trainer' does not fit this run"):
        checkpointer.resume_or_load("")


def test_only_plain_types_are_saved(tmp_path, caplog):
    class State(Counter):
        def state_dict(self):
            return {"loss": np.float64(0.5), "n": np.int64(3), "a": [np.ones(2)], "odd": object()}

    SOLOCheckpointer(nn.Linear(3, 2), str(tmp_path), trainer=State()).save("a", iteration=1)
    trainer = torch.load(tmp_path / "a.pth", weights_only=True)["trainer"]
    assert (trainer["loss"], trainer["n"], trainer["odd"]) == (0.5, 3, None)
    assert torch.equal(trainer["a"][0], torch.ones(2, dtype=torch.float64))
    assert "Not saved: trainer.odd, a object" in caplog.text


def test_names_with_folders_are_refused(tmp_path):
    with pytest.raises(ValueError, match="without folders"):
        training(tmp_path).save("../a")


def test_processes_that_do_not_save_write_nothing(tmp_path):
    SOLOCheckpointer(nn.Linear(3, 2), str(tmp_path), save_to_disk=False).save("a")
    SOLOCheckpointer(nn.Linear(3, 2)).save("a")
    assert not list(tmp_path.iterdir())
