"""Deformable convolution: zero offsets, known offsets, and the layout of the prediction."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from solo_d2.layers import DeformConv2d, deform_conv
from solo_d2.layers.deform_conv import offset_channels

SHAPES = [
    {"kernel_size": 3, "padding": 1},
    {"kernel_size": 1},
    {"kernel_size": 3, "stride": 2, "padding": 1, "groups": 2, "bias": False},
    {"kernel_size": 3, "padding": 2, "dilation": 2, "deform_groups": 4},
    {"kernel_size": 5, "groups": 4, "deform_groups": 2},
]


def make(modulated=False, **shape):
    torch.manual_seed(0)
    return DeformConv2d(4, 8, modulated=modulated, **{"kernel_size": 3, "padding": 1, **shape})


def plain(layer, x, scale=1.0):
    return F.conv2d(
        x,
        layer.weight * scale,
        layer.bias,
        layer.stride,
        layer.padding,
        layer.dilation,
        layer.groups,
    )


@pytest.mark.parametrize("shape", SHAPES)
def test_version_1_starts_as_the_plain_convolution(shape):
    layer, x = DeformConv2d(4, 8, modulated=False, **shape), torch.randn(2, 4, 9, 11)
    torch.testing.assert_close(layer(x), plain(layer, x))


@pytest.mark.parametrize("shape", SHAPES)
def test_version_2_starts_with_half_of_every_tap(shape):
    # The sigmoid of 0 weights every tap by 1/2; the bias is whole.
    layer, x = DeformConv2d(4, 8, modulated=True, **shape), torch.randn(2, 4, 9, 11)
    torch.testing.assert_close(layer(x), plain(layer, x, 0.5))


@pytest.mark.parametrize(
    ("modulated", "groups", "channels"), [(False, 1, 18), (True, 1, 27), (True, 2, 54)]
)
def test_parameters_are_those_of_the_published_layers(modulated, groups, channels):
    layer = make(modulated, deform_groups=groups)
    shapes = {name: tuple(value.shape) for name, value in layer.state_dict().items()}
    assert shapes == {
        "weight": (8, 4, 3, 3),
        "bias": (8,),
        "conv_offset.weight": (channels, 4, 3, 3),
        "conv_offset.bias": (channels,),
    }
    assert not layer.conv_offset.weight.any()
    assert not layer.conv_offset.bias.any()


def test_offsets_of_a_1x1_kernel_have_three_channels_with_a_mask():
    assert offset_channels(1, 1, True) == 3


@pytest.mark.parametrize("modulated", [False, True])
@pytest.mark.parametrize(("dy", "dx"), [(1, 0), (0, 1), (-2, 1)])
def test_constant_offsets_move_the_image(modulated, dy, dx):
    # Pairs are (y, x) tap by tap, whether they come as two thirds or as a whole.
    layer, x = make(modulated), torch.randn(1, 4, 9, 9)
    bias = layer.conv_offset.bias.data
    bias[0:18:2], bias[1:18:2], bias[18:] = dy, dx, 100.0  # masks of 1
    moved = torch.roll(x, (-dy, -dx), (2, 3))
    inside = (..., slice(3, -3), slice(3, -3))
    torch.testing.assert_close(layer(x)[inside], plain(layer, moved)[inside])


def test_offsets_between_pixels_are_interpolated():
    # One tap, half a pixel down and a quarter right, of the ramp 10 y + x.
    layer = DeformConv2d(1, 1, 1, bias=False, modulated=False)
    nn.init.ones_(layer.weight)
    layer.conv_offset.bias.data = torch.tensor([0.5, 0.25])
    ramp = 10 * torch.arange(4.0)[:, None] + torch.arange(4.0)
    found = layer(ramp[None, None])[0, 0]
    torch.testing.assert_close(found[:3, :3], ramp[:3, :3] + 5.25)


def test_every_tap_and_group_has_its_own_offset_and_mask():
    """Against a literal sum over taps, at offsets of whole pixels."""
    torch.manual_seed(0)
    conv = nn.Conv2d(4, 3, 3, padding=1)
    x = torch.randn(1, 4, 6, 7)
    offsets = torch.randint(-1, 2, (2, 9, 2, 6, 7)).float()  # group, tap, (y, x)
    logits = torch.randn(2, 9, 6, 7)
    prediction = torch.cat([offsets.reshape(1, 36, 6, 7), logits.reshape(1, 18, 6, 7)], 1)
    found = deform_conv(x, prediction, conv, modulated=True)[0]
    padded = F.pad(x[0], (3, 3, 3, 3))
    for row, column in [(0, 0), (2, 3), (5, 6)]:
        expected = conv.bias.detach().clone()
        for tap in range(9):
            for group in range(2):
                channels = slice(2 * group, 2 * group + 2)
                dy, dx = offsets[group, tap, :, row, column].int().tolist()
                pixel = padded[channels, row + 2 + tap // 3 + dy, column + 2 + tap % 3 + dx]
                weight = conv.weight[:, channels, tap // 3, tap % 3]
                expected += logits[group, tap, row, column].sigmoid() * (weight @ pixel)
        torch.testing.assert_close(found[:, row, column], expected)


@pytest.mark.parametrize("modulated", [False, True])
def test_gradients_reach_every_parameter_and_the_input(modulated):
    layer, x = make(modulated), torch.randn(1, 4, 5, 5, requires_grad=True)
    layer(x).square().sum().backward()
    for name, value in [("x", x), *layer.named_parameters()]:
        assert value.grad is not None and value.grad.any(), name


@pytest.mark.parametrize("modulated", [False, True])
def test_no_images_keep_the_shape_and_the_gradient(modulated):
    layer = make(modulated, stride=2)
    found = layer(torch.zeros(0, 4, 9, 12))
    assert found.shape == (0, 8, 5, 6)
    found.sum().backward()
    assert all(p.grad is not None for p in layer.parameters())


@pytest.mark.parametrize("modulated", [False, True])
def test_autocast_keeps_positions_exact(modulated):
    # torchvision's operator has no bfloat16; the result has the type of the input.
    layer, x = make(modulated), torch.randn(1, 4, 6, 6)
    expected = layer(x)
    with torch.autocast("cpu", torch.bfloat16):
        found = layer(x.bfloat16())
    assert found.dtype == torch.bfloat16
    torch.testing.assert_close(found.float(), expected, rtol=0.02, atol=0.02)
    half = layer.bfloat16()(x.bfloat16())
    torch.testing.assert_close(half.float(), expected, rtol=0.05, atol=0.05)


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("modulated", [False, True])
def test_devices_agree(modulated):
    layer, x = make(modulated), torch.randn(2, 4, 9, 9)
    nn.init.normal_(layer.conv_offset.weight, std=0.1)
    expected = layer(x)
    torch.testing.assert_close(layer.cuda()(x.cuda()).cpu(), expected, rtol=1e-3, atol=1e-4)


def test_offset_groups_must_divide_the_channels():
    with pytest.raises(ValueError, match="4 channels cannot be divided into 3 offset groups"):
        make(deform_groups=3)
