"""Members of the dynamic head's family against literal forms of Eq. 2 and 3."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from detectron2.config import get_cfg
from head_builders import (
    HEADS,
    double,
    layer,
    make_features,
    make_head,
    perturb,
    resize,
    slow_levels,
    tower,
    with_coords,
)
from torch import nn

from solo_d2 import add_solo_config
from solo_d2.layers import dynamic_conv

CELLS = [(0, 0, 0), (0, 11, 3), (1, 4, 9), (2, 7, 7), (3, 0, 5), (4, 3, 1)]
DECOUPLED = ("MODEL.SOLO.HEAD", "DecoupledDynamicSOLOHead")
SEPARATE = ("MODEL.SOLO.MASK_FEATURE.TYPE", "separate")


@pytest.mark.parametrize("kernel_size", [1, 3])
@pytest.mark.parametrize("count", [0, 1, 4])
def test_dynamic_convolution_slides_every_kernel_over_the_map(kernel_size, count):
    generator = torch.Generator().manual_seed(0)
    feature = torch.randn(3, 5, 6, generator=generator, dtype=torch.float64)
    kernels = torch.randn(count, 3 * kernel_size**2, generator=generator, dtype=torch.float64)
    found = dynamic_conv(feature, kernels, kernel_size)
    assert found.shape == (count, 5, 6)
    reach = kernel_size // 2
    padded = F.pad(feature, (reach,) * 4)
    for k in range(count):
        weight = kernels[k].view(3, kernel_size, kernel_size)
        for row in range(5):
            for column in range(6):
                window = padded[:, row : row + kernel_size, column : column + kernel_size]
                expected = (window * weight).sum()
                torch.testing.assert_close(found[k, row, column], expected)


@pytest.mark.parametrize("size", [None, (20, 28)])
def test_three_by_three_kernels_make_masks(size):
    head = perturb(make_head(*HEADS["dynamic_3x3"]))
    assert head.kernel_predictor.out_channels == 9 * 32
    predictions = head(make_features())
    kernels, (feature, *_) = predictions.mask_inputs
    cells = torch.tensor([3, 200, 17])
    found = head.mask_probs(predictions, 1, cells, size=size)
    for k, cell in enumerate(cells):
        weight = kernels.all[1, cell].view(1, 32, 3, 3)
        mask = F.conv2d(feature.all[1:], weight, padding=1).sigmoid()
        expected = mask if size is None else resize(mask, size)
        torch.testing.assert_close(found[k], expected[0, 0])


def test_separate_features_are_vanillas_branch_with_dynamic_last_layer():
    # Seven layers on every level, coordinates in the first; then, as published for the vanilla
    # head, the features are enlarged before the last, here dynamic, convolution.
    head, features = perturb(make_head(*HEADS["dynamic_separate"])), make_features()
    predictions = head(features)
    convs = [*head.mask_feature.tower, head.mask_feature.predictor]
    assert [conv.in_channels for conv in convs] == [34, 32, 32, 32, 32, 32, 32]
    levels = slow_levels(features)
    for level, row, column in CELLS:
        x = tower(convs[1:], layer(convs[0], with_coords(levels[level][:1])))
        cell = head.grid.flatten(level, row, column)
        weight = predictions.mask_inputs.kernels.all[0, cell].view(1, -1, 1, 1)
        expected = F.conv2d(double(x), weight).sigmoid()
        found = head.mask_probs(predictions, 0, torch.tensor([cell]), levels=[level])
        torch.testing.assert_close(found, expected[0])
        stride = (4, 4, 8, 16, 16)[level]
        assert head.mask_strides[level] == stride
        assert found.shape == (1, 64 // stride, 96 // stride)


@pytest.mark.parametrize("groups", [1, 2, 4])
@pytest.mark.parametrize("kernel_size", [1, 3])
@pytest.mark.parametrize("feature", [(), SEPARATE])
def test_decoupled_dynamic_mask_is_a_product_of_groups(groups, kernel_size, feature):
    # Eq. 3, cell by cell and group by group.
    head = perturb(
        make_head(
            *DECOUPLED,
            *feature,
            *("MODEL.SOLO.KERNEL_DIM", 32 * groups, "MODEL.SOLO.NUM_KERNEL_GROUPS", groups),
            *("MODEL.SOLO.KERNEL_SIZE", kernel_size),
        )
    )
    predictions = head(make_features())
    kernels, features = predictions.mask_inputs
    assert kernels.all.shape[2] == 32 * groups * kernel_size**2
    assert features[0].all.shape[1] == 32
    for level, row, column in CELLS:
        cell = torch.tensor([head.grid.flatten(level, row, column)])
        expected = 1
        for weights in kernels.all[1, cell[0]].chunk(groups):
            weight = weights.view(1, 32, kernel_size, kernel_size)
            logits = F.conv2d(features[level].all[1:], weight, padding=kernel_size // 2)
            mask = (double(logits) if feature else logits).sigmoid()
            expected = expected * resize(mask, (20, 28))  # resized before the product
        found = head.mask_probs(predictions, 1, cell, size=(20, 28))
        torch.testing.assert_close(found, expected[0])


@pytest.mark.parametrize("feature", [(), SEPARATE])
@pytest.mark.parametrize("kernel_size", [1, 3])
@pytest.mark.parametrize("size", [None, (20, 28)])
def test_one_group_is_the_dynamic_head_bit_for_bit(feature, kernel_size, size):
    options = (*feature, "MODEL.SOLO.KERNEL_SIZE", kernel_size)
    dynamic, decoupled = make_head(*options), make_head(*DECOUPLED, *options)
    features = make_features()
    first, second = dynamic(features), decoupled(features)
    assert all(
        torch.equal(a, b)
        for a, b in zip(first.category_logits, second.category_logits, strict=True)
    )
    cells = torch.tensor([5, 0, 143])
    masks = [
        head.mask_probs(p, 0, cells, levels=[0], size=size)
        for head, p in ((dynamic, first), (decoupled, second))
    ]
    assert torch.equal(*masks)
    for head, mask in zip((dynamic, decoupled), masks, strict=True):
        mask.square().sum().backward()
        assert head.kernel_predictor.weight.grad.abs().sum() > 0
    gradients = [dict(head.named_parameters()) for head in (dynamic, decoupled)]
    assert gradients[0].keys() == gradients[1].keys()
    for key, parameter in gradients[0].items():
        other = gradients[1][key]
        assert torch.equal(parameter, other)
        assert (parameter.grad is None) == (other.grad is None)
        assert parameter.grad is None or torch.equal(parameter.grad, other.grad)


@pytest.mark.parametrize("groups", [1, 2, 4])
@pytest.mark.parametrize("kernel_size", [1, 3])
def test_decoupled_dynamic_masks_start_near_one_half(groups, kernel_size):
    head = make_head(
        *DECOUPLED,
        *("MODEL.SOLO.KERNEL_DIM", 256, "MODEL.SOLO.NUM_KERNEL_GROUPS", groups),
        *("MODEL.SOLO.KERNEL_SIZE", kernel_size),
    )
    # Without what is random about kernels, which goes in all directions.
    head.kernel_predictor.weight.data.zero_()
    predictions = head(make_features())
    masks = head.mask_probs(predictions, 0, torch.arange(head.grid.num_cells))
    assert masks[:, 1:-1, 1:-1].mean().item() == pytest.approx(0.5, abs=0.03)
    assert (head.kernel_predictor.bias == 0).all() == (groups == 1)


def test_paper_sized_decoupled_head_has_a_compact_feature():
    cfg = get_cfg()
    add_solo_config(cfg)
    cfg.merge_from_list([*DECOUPLED, "MODEL.SOLO.NUM_KERNEL_GROUPS", 4])
    with torch.device("meta"):
        head = make_head(cfg=cfg, channels=256)
    assert head.kernel_predictor.out_channels == 256  # D
    assert head.mask_feature.predictor.out_channels == 64  # E / A (§3.2.4)


def convs_with_coordinates(module):
    return [m for m in module.modules() if isinstance(m, nn.Conv2d) and m.in_channels == 34]


@pytest.mark.parametrize("kernel", [0, 1])
@pytest.mark.parametrize("feature", [False, True])
@pytest.mark.parametrize("kind", ["unified", "separate"])
def test_kernel_and_feature_have_switches_of_their_own(kernel, feature, kind):
    head = make_head(
        *("MODEL.SOLO.NUM_COORD_CONVS", kernel, "MODEL.SOLO.MASK_FEATURE.COORDS", feature),
        *("MODEL.SOLO.MASK_FEATURE.TYPE", kind),
    )
    assert len(convs_with_coordinates(head.kernel_tower)) == kernel
    assert len(convs_with_coordinates(head.mask_feature)) == feature
    assert convs_with_coordinates(head.category_tower) == []
    head(make_features())


def test_deformable_heads_are_the_published_ones():
    # "last": towers only. "all": the unified mask feature too, its 1x1 convolution included.
    offsets = {
        deform: [
            name
            for name, _ in make_head(
                "MODEL.SOLO.DEFORM", deform, "MODEL.SOLO.NUM_CONVS", 2
            ).named_modules()
            if name.endswith("conv_offset")
        ]
        for deform in ("none", "last", "all")
    }
    assert offsets["none"] == []
    last = ["category_tower.1.conv_offset", "kernel_tower.1.conv_offset"]
    assert offsets["last"] == last
    stages = [f"mask_feature.stages.{i}.{j}" for i in range(4) for j in range(max(i, 1))]
    layers = [f"{t}_tower.{i}" for t in ("category", "kernel") for i in range(2)]
    everything = [*layers, *stages, "mask_feature.predictor"]
    assert sorted(offsets["all"]) == sorted(f"{name}.conv_offset" for name in everything)


def test_published_deformable_head_has_its_published_size():
    cfg = get_cfg()
    add_solo_config(cfg)
    cfg.merge_from_list(["MODEL.SOLO.DEFORM", "all"])
    with torch.device("meta"):
        head = make_head(cfg=cfg, channels=256)
    count = sum(p.numel() for p in head.parameters())
    assert math.isclose(count / 1e6, 20.955, abs_tol=5e-4)
