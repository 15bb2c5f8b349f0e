"""ResNets with deformable stages, and the single-level neck."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from builders import noise_input, tiny_config
from detectron2.layers import FrozenBatchNorm2d, ShapeSpec
from detectron2.modeling import BACKBONE_REGISTRY, build_backbone, build_model
from detectron2.modeling.backbone.resnet import BottleneckBlock

from solo_d2.modeling.backbone import DeformBottleneckBlock

FPN = "build_deform_resnet_fpn_backbone"
MERGED = "build_merged_resnet_backbone"
NONE, LAST_THREE = [False] * 4, [False, True, True, True]


def config(builder, *overrides, deform=NONE, depth=50, modulated=True, groups=1):
    cfg = tiny_config("MODEL.BACKBONE.NAME", builder, *overrides)
    node = cfg.MODEL.RESNETS
    node.DEPTH = depth
    node.STEM_OUT_CHANNELS = node.WIDTH_PER_GROUP = 64
    node.RES2_OUT_CHANNELS = 64 if depth < 50 else 256
    node.DEFORM_ON_PER_STAGE = deform
    node.DEFORM_MODULATED = modulated and any(deform)
    node.DEFORM_NUM_GROUPS = groups
    cfg.merge_from_list(list(overrides))
    return cfg


def build_on_meta(builder, cfg):
    with torch.device("meta"):
        return BACKBONE_REGISTRY.get(builder)(cfg, ShapeSpec(channels=3))


def describe(module):
    """Name, shape and frozenness of everything in a state dict."""
    trained = {name for name, p in module.named_parameters() if p.requires_grad}
    return {name: (tuple(x.shape), name in trained) for name, x in module.state_dict().items()}


RESNEXT = ("MODEL.RESNETS.NUM_GROUPS", 64, "MODEL.RESNETS.WIDTH_PER_GROUP", 4)


@pytest.mark.parametrize(
    ("arguments", "overrides"),
    [
        ({"depth": 18}, ()),
        ({"depth": 34}, ()),
        ({"depth": 50}, ()),
        ({"deform": LAST_THREE, "modulated": False}, ()),
        ({"deform": LAST_THREE, "groups": 2}, ()),
        ({"deform": LAST_THREE, "depth": 101}, ()),
        ({"deform": LAST_THREE, "depth": 101}, RESNEXT),
        ({"deform": [True] * 4}, ("MODEL.BACKBONE.FREEZE_AT", 3)),  # frozen offsets, too
        ({"deform": LAST_THREE}, ("MODEL.RESNETS.NORM", "", "MODEL.RESNETS.RES5_DILATION", 2)),
    ],
)
def test_parameters_are_those_of_detectron2(arguments, overrides):
    cfg = config(FPN, *overrides, **arguments)
    ours = describe(build_on_meta("build_deform_resnet_backbone", cfg))
    assert ours == describe(build_on_meta("build_resnet_backbone", cfg))
    assert any("conv2_offset" in name for name in ours) == ("deform" in arguments)


def test_only_the_named_stages_are_deformable():
    cfg = config(FPN, deform=[False, True, False, True])
    resnet = build_on_meta("build_deform_resnet_backbone", cfg)
    deformable = [
        [isinstance(block, DeformBottleneckBlock) for block in stage] for stage in resnet.stages
    ]
    assert deformable == [[False] * 3, [True] * 4, [False] * 6, [True] * 3]
    assert resnet.stages[1] is resnet.res3


@pytest.mark.parametrize(("modulated", "scale"), [(False, 1.0), (True, 0.5)])
@pytest.mark.parametrize("stride_in_1x1", [False, True])
@pytest.mark.parametrize("norm", ["", "BN"])
def test_a_block_starts_as_the_plain_one(modulated, scale, stride_in_1x1, norm):
    # The masks of v2 start at 1/2; Detectron2's do too.
    torch.manual_seed(0)
    arguments = {"bottleneck_channels": 16, "stride": 2, "num_groups": 4, "norm": norm}
    plain = BottleneckBlock(32, 64, stride_in_1x1=stride_in_1x1, **arguments)
    deform = DeformBottleneckBlock(plain, modulated=modulated, num_groups=2)
    x = torch.randn(2, 32, 16, 12)
    found = deform(x)
    plain.conv2.weight.data *= scale
    assert found.shape == (2, 64, 8, 6)
    torch.testing.assert_close(found, plain(x))


def test_offsets_move_what_a_block_sees():
    torch.manual_seed(0)
    plain = BottleneckBlock(8, 16, bottleneck_channels=8, norm="")
    plain.shortcut.weight.data.zero_()  # which looks straight ahead
    deform = DeformBottleneckBlock(plain, modulated=False)
    deform.conv2_offset.bias.data[1::2] = 1.0  # one pixel to the right
    x = torch.randn(1, 8, 9, 9)
    inside = (..., slice(2, -2), slice(2, -2))
    torch.testing.assert_close(deform(x)[inside], plain(torch.roll(x, -1, 3))[inside])


@pytest.mark.parametrize("deform", [NONE, LAST_THREE])
def test_the_pyramid_has_the_declared_shapes(deform):
    backbone = build_backbone(config(FPN, deform=deform)).eval()
    with torch.no_grad():
        features = backbone(torch.zeros(1, 3, 64, 96))
    assert list(features) == ["p2", "p3", "p4", "p5", "p6"]
    for name, shape in backbone.output_shape().items():
        assert features[name].shape == (1, 32, 64 // shape.stride, -(-96 // shape.stride))


def test_the_merged_feature_is_the_sum_of_three_at_stride_8():
    torch.manual_seed(0)
    features = ("MODEL.FPN.IN_FEATURES", ["res3", "res4", "res5"])
    backbone = build_backbone(config(MERGED, *features, depth=18)).eval()
    x = torch.randn(2, 3, 64, 96)
    features = backbone(x)
    c3, c4, c5 = (backbone.bottom_up(x)[name] for name in ("res3", "res4", "res5"))
    total = 0
    for lateral, c in zip(backbone.laterals, (c3, c4, c5), strict=True):
        y = F.conv2d(c, lateral.weight, lateral.bias)
        total = total + F.interpolate(y, size=(8, 12), mode="bilinear", align_corners=False)
    output = backbone.output
    expected = F.conv2d(total, output.weight, output.bias, padding=1)
    assert list(features) == ["p3"]
    torch.testing.assert_close(features["p3"], expected)
    assert backbone.output_shape()["p3"] == ShapeSpec(channels=32, stride=8)
    assert backbone.size_divisibility == 32
    assert sum(p.numel() for p in backbone.laterals.parameters()) == 32 * (128 + 256 + 512 + 3)


def test_the_merged_backbone_normalises_if_asked():
    overrides = ("MODEL.FPN.NORM", "GN", "MODEL.FPN.IN_FEATURES", ["res2", "res3"])
    backbone = build_backbone(config(MERGED, *overrides, depth=18))
    assert list(backbone.output_shape()) == ["p2"]
    assert all(c.norm is not None and c.bias is None for c in [*backbone.laterals, backbone.output])


def test_one_merged_level_is_enough_for_a_model():
    overrides = (
        "MODEL.FPN.IN_FEATURES",
        ["res3", "res4", "res5"],
        "MODEL.SOLO.HEAD",
        "VanillaSOLOHead",
        "MODEL.SOLO.IN_FEATURES",
        ["p3"],
        "MODEL.SOLO.NUM_GRIDS",
        [12],
        "MODEL.SOLO.SCALE_RANGES",
        [[1, 2048]],
    )
    model = build_model(config(MERGED, *overrides, depth=18))
    assert model.head.grid.strides == (8,)
    assert model.head.mask_strides == (4,)
    x = torch.zeros(1, 32, 8, 12)
    assert model.head.resample_levels([x])[0] is x
    # A large and a small object: centres (30, 30) and (87, 47), times 12 / 96 and 12 / 64.
    inputs = noise_input((64, 96), [(4, 4, 56, 56), (84, 44, 90, 50)], [0, 1])
    targets = model.assigner([inputs["instances"]], (64, 96), model.device)
    levels, rows, columns = model.head.grid.locate(targets.cells.sort().values)
    found = set(zip(levels.tolist(), rows.tolist(), columns.tolist(), strict=True))
    assert {(0, 5, 3), (0, 8, 10)} <= found


@pytest.mark.parametrize("builder", [FPN, MERGED])
def test_freezing_keeps_the_first_stages(builder):
    backbone = build_backbone(config(builder, deform=[True] * 4))
    frozen = {n.split(".")[1] for n, p in backbone.named_parameters() if not p.requires_grad}
    trained = {n.split(".")[1] for n, p in backbone.named_parameters() if p.requires_grad}
    assert frozen == {"stem", "res2"}  # FREEZE_AT 2
    assert not frozen & trained


def test_a_step_reaches_every_trained_parameter():
    torch.manual_seed(0)
    model = build_model(config(FPN, deform=[False, False, False, True])).train()
    sum(model([noise_input((32, 64), [(4, 4, 28, 28)], [0])]).values()).backward()
    missing = [n for n, p in model.named_parameters() if p.requires_grad and p.grad is None]
    assert missing == []
    offsets = [p for n, p in model.named_parameters() if "conv2_offset.bias" in n]
    assert len(offsets) == 3
    assert all(p.grad.any() for p in offsets)


@pytest.mark.parametrize(
    ("arguments", "overrides", "message"),
    [
        ({"deform": LAST_THREE, "depth": 34}, (), "DEFORM_ON_PER_STAGE needs.*ResNet-34"),
        ({"deform": [True]}, (), r"DEFORM_ON_PER_STAGE expects.*\[True\]"),
        ({"deform": LAST_THREE, "groups": 3}, (), "DEFORM_NUM_GROUPS is 3.*128 channels"),
        ({"depth": 77}, (), "DEPTH must be one of.*77"),
        ({}, ("MODEL.FPN.FUSE_TYPE", "avg"), "FUSE_TYPE must be .sum."),
        ({}, ("MODEL.FPN.IN_FEATURES", ["res9"]), "IN_FEATURES is.*res9.*yields"),
    ],
)
def test_bad_values_name_the_key(arguments, overrides, message):
    with pytest.raises(ValueError, match=message):
        build_backbone(config(MERGED, *overrides, **arguments))


NORM_EVAL = ("MODEL.RESNETS.NORM", "BN", "MODEL.RESNETS.NORM_EVAL", True)


@pytest.mark.parametrize("builder", [FPN, MERGED, "build_deform_resnet_backbone"])
def test_norm_eval_trains_scale_and_shift_of_what_is_not_frozen(builder):
    frozen, trained = (
        describe(build_on_meta(builder, config(builder, *keys, deform=LAST_THREE)))
        for keys in ((), NORM_EVAL)
    )
    assert list(trained) == list(frozen)  # one's weights are the other's
    assert all(trained[key][0] == frozen[key][0] for key in frozen)
    changed = {key for key in frozen if trained[key] != frozen[key]}
    assert changed == {
        key
        for key in frozen
        if key.endswith((".norm.weight", ".norm.bias"))
        and ("res2" not in key and "stem" not in key)
    }


def test_norm_eval_computes_with_the_statistics_of_the_weights_and_leaves_them():
    torch.manual_seed(0)
    cfg = config("build_deform_resnet_backbone", *NORM_EVAL, depth=18)
    backbone = build_backbone(cfg).train()
    with torch.no_grad():
        for key, value in backbone.state_dict().items():
            if "norm" in key:
                value.uniform_(0.5, 1.5)
    cfg.MODEL.RESNETS.NORM, cfg.MODEL.RESNETS.NORM_EVAL = "FrozenBN", False
    frozen = build_backbone(cfg)
    frozen.load_state_dict(backbone.state_dict())
    before = {key: value.clone() for key, value in backbone.state_dict().items()}
    x = torch.randn(2, 3, 64, 64)
    found, expected = backbone(x), frozen(x)
    for name in expected:
        torch.testing.assert_close(found[name], expected[name])
    found["res5"].sum().backward()
    torch.optim.SGD([p for p in backbone.parameters() if p.requires_grad], lr=1e-3).step()
    for key, value in backbone.state_dict().items():
        stays = "running" in key or key.startswith(("stem", "res2"))
        assert torch.equal(value, before[key]) == stays, key
    kinds = {type(m) for m in backbone.stem.modules() if hasattr(m, "running_mean")}
    assert kinds == {FrozenBatchNorm2d}
