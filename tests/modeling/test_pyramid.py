"""The pyramid with a path back up (path aggregation)."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from builders import noise_input, tiny_config
from detectron2.modeling import build_backbone, build_model
from head_builders import HEADS

from solo_d2.modeling.backbone import PathAggregationFPN

RESNET = ("MODEL.BACKBONE.NAME", "build_deform_resnet_fpn_backbone")
TIMM = ("MODEL.BACKBONE.NAME", "build_timm_fpn_backbone", "MODEL.TIMM.NAME", "test_efficientnet")
PATHS = ("MODEL.FPN.PATH_AGGREGATION", True)


def backbones(builder, *overrides):
    """The plain pyramid, and the one with paths, of the same weights."""
    torch.manual_seed(0)
    plain = build_backbone(tiny_config(*builder, *overrides)).eval()
    paths = build_backbone(tiny_config(*builder, *overrides, *PATHS)).eval()
    missing, unexpected = paths.load_state_dict(plain.state_dict(), strict=False)
    assert {key.split(".")[0] for key in missing} == {"paths"}
    assert unexpected == []
    return plain, paths


@pytest.mark.parametrize("builder", [RESNET, TIMM])
@pytest.mark.parametrize("norm", ["", "GN"])
def test_it_starts_as_the_plain_pyramid(builder, norm):
    plain, paths = backbones(builder, "MODEL.FPN.NORM", norm)
    assert paths.output_shape() == plain.output_shape()
    x = torch.randn(2, 3, 64, 96)
    with torch.no_grad():
        expected, found = plain(x), paths(x)
    assert list(found) == ["p2", "p3", "p4", "p5", "p6"]
    for name in expected:
        torch.testing.assert_close(found[name], expected[name], rtol=0, atol=0)


@pytest.mark.parametrize("levels", [["res2", "res3", "res4", "res5"], ["res4", "res5"]])
def test_a_level_is_its_own_plus_the_path_of_the_next_finer_one(levels):
    plain, paths = backbones(RESNET, "MODEL.FPN.IN_FEATURES", levels)
    for path in paths.paths.values():
        torch.nn.init.normal_(path[1].weight, std=0.1)
    x = torch.randn(1, 3, 64, 96)
    with torch.no_grad():
        expected, found = plain(x), paths(x)
        level, *others = expected
        finer = expected[level]
        for name in others:
            down, output = paths.paths[name]
            finer = F.relu(F.conv2d(finer, down.weight, down.bias, stride=2, padding=1))
            finer = expected[name] + F.conv2d(finer, output.weight, output.bias)
            torch.testing.assert_close(found[name], finer)
            assert not torch.allclose(found[name], expected[name])
    assert torch.equal(found[level], expected[level])
    assert len(paths.paths) == len(others) == len(levels)


@pytest.mark.parametrize("head", HEADS)
def test_every_head_trains_the_paths(head):
    torch.manual_seed(0)
    model = build_model(tiny_config(*HEADS[head], *RESNET, *PATHS)).train()
    assert isinstance(model.backbone, PathAggregationFPN)
    sum(model([noise_input((64, 96), [(4, 4, 60, 60)], [0])]).values()).backward()
    missing = [n for n, p in model.named_parameters() if p.requires_grad and p.grad is None]
    assert missing == []
    assert all(path[1].weight.grad.any() for path in model.backbone.paths.values())
