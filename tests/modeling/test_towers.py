"""Towers: which layers see coordinates, which are deformable, and how they start."""

from __future__ import annotations

import pytest
import torch
from head_builders import resize, tower, with_coords
from torch import nn

from solo_d2.layers import DeformConv2d
from solo_d2.modeling.towers import LayerStyle, Tower, conv_norm_relu, init_convs, prior_bias

GN = LayerStyle("GN")


def noise(channels=32, size=(6, 8), count=2):
    return torch.randn(count, channels, *size, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("axes", ["x", "y", "xy"])
@pytest.mark.parametrize("num_coord_convs", [0, 1, 2, 3])
def test_the_first_layers_take_the_coordinates_in(axes, num_coord_convs):
    made = Tower(32, 64, 3, GN, axes=axes, num_coord_convs=num_coord_convs)
    extra = [len(axes) if i < num_coord_convs else 0 for i in range(3)]
    assert [conv.in_channels for conv in made] == [32 + extra[0], 64 + extra[1], 64 + extra[2]]
    assert made.out_channels == 64
    x = noise()
    expected = x
    for i, conv in enumerate(made):
        if i < num_coord_convs:
            expected = with_coords(expected, axes)
        expected = tower([conv], expected)
    torch.testing.assert_close(made(x), expected)


@pytest.mark.parametrize("axes", ["x", "y"])
@pytest.mark.parametrize("num_coord_convs", [0, 1, 2])
def test_a_constant_map_varies_along_the_coordinates_only(axes, num_coord_convs):
    made = Tower(32, 32, 2, GN, axes=axes, num_coord_convs=num_coord_convs)
    inner = made(torch.ones(1, 32, 12, 14))[..., 3:-3, 3:-3]  # away from the padding
    spread = {
        "x": (inner - inner[..., :1]).abs().amax().item(),
        "y": (inner - inner[..., :1, :]).abs().amax().item(),
    }
    for axis, found in spread.items():
        assert (found > 1e-2) == (num_coord_convs > 0 and axis == axes)
        assert found > 1e-2 or found < 1e-5


def test_alignment_follows_the_first_coordinates_and_precedes_the_second():
    made = Tower(32, 32, 2, GN, num_coord_convs=2)
    x = noise()
    aligned = resize(with_coords(x), (4, 4))  # published: coordinates are resized as features are
    expected = tower([made[1]], with_coords(tower([made[0]], aligned)))
    torch.testing.assert_close(made(x, lambda x: resize(x, (4, 4))), expected)


def test_a_tower_without_layers_aligns():
    made = Tower(32, 64, 0, GN)
    assert made.out_channels == 32
    x = noise()
    assert torch.equal(made(x), x)
    assert torch.equal(made(x, lambda x: resize(x, (4, 4))), resize(x, (4, 4)))


def with_gradients(tower, align):
    """What a tower yields, its gradients, and the tensors that it kept for them."""
    kept, x = [], noise().requires_grad_()
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
        found = tower(x, align)
    found.square().sum().backward()
    return found, [x.grad, *(p.grad for p in tower.parameters())], kept


@pytest.mark.parametrize("align", [None, lambda x: resize(x, (4, 4))])
@pytest.mark.parametrize("deform", ["none", "all"])
def test_a_tower_that_is_run_again_keeps_its_input_and_has_the_same_gradients(deform, align):
    torch.manual_seed(0)
    plain = Tower(32, 32, 2, LayerStyle("GN", deform), num_coord_convs=1)
    again = Tower(32, 32, 2, LayerStyle("GN", deform, recompute=True), num_coord_convs=1)
    again.load_state_dict(plain.state_dict())
    found, gradients, kept = with_gradients(again, align)
    expected, expected_gradients, all_kept = with_gradients(plain, align)
    assert torch.equal(found, expected) and len(gradients) == len(expected_gradients) > 6
    for one, other in zip(gradients, expected_gradients, strict=True):
        assert torch.equal(one, other)
    assert len(all_kept) > 6 and len(kept) == 1 and torch.equal(kept[0], noise())
    assert len(with_gradients(again.eval(), align)[2]) == len(all_kept)  # as frozen parts


@pytest.mark.parametrize(("num_convs", "num_coord_convs"), [(0, 1), (2, 3), (2, -1)])
def test_there_must_be_layers_for_the_coordinates(num_convs, num_coord_convs):
    with pytest.raises(ValueError, match="NUM_COORD_CONVS must lie between 0 and"):
        Tower(32, 32, num_convs, GN, num_coord_convs=num_coord_convs)


@pytest.mark.parametrize(
    ("deform", "expected"),
    [
        ("none", [False, False, False]),
        ("all", [True, True, True]),
        ("last", [False, False, True]),
    ],
)
@pytest.mark.parametrize(("modulated", "channels"), [(False, 18), (True, 27)])
def test_deformable_layers_are_where_they_are_asked_for(deform, expected, modulated, channels):
    made = Tower(32, 32, 3, LayerStyle("GN", deform, modulated), num_coord_convs=1)
    assert [isinstance(conv, DeformConv2d) for conv in made] == expected
    offsets = [conv.conv_offset for conv in made if isinstance(conv, DeformConv2d)]
    assert all(offset.out_channels == channels for offset in offsets)


@pytest.mark.parametrize("norm", ["", "GN"])
def test_deformable_layers_start_as_plain_ones(norm):
    # v1 with zero offsets is the plain convolution, and its names are the plain layer's.
    plain = conv_norm_relu(8, 32, LayerStyle(norm))
    deformable = conv_norm_relu(8, 32, LayerStyle(norm, "all", modulated=False))
    init_convs(plain, deformable)
    missing, unexpected = deformable.load_state_dict(plain.state_dict(), strict=False)
    assert missing == ["conv_offset.weight", "conv_offset.bias"]
    assert unexpected == []
    torch.testing.assert_close(deformable(noise(8)), plain(noise(8)))


def test_initialisation_leaves_offsets_at_zero():
    made = Tower(64, 64, 2, LayerStyle("GN", "all"))
    for conv in made:
        nn.init.ones_(conv.weight)
    init_convs(made)
    for conv in made:
        assert conv.weight.std().item() == pytest.approx(0.01, rel=0.02)
        assert (conv.conv_offset.weight == 0).all()
        assert (conv.conv_offset.bias == 0).all()


def test_unknown_kind_of_deformation_names_the_key():
    with pytest.raises(ValueError, match=r"DEFORM must be one of .*, got 'first'"):
        LayerStyle("GN", "first")


@pytest.mark.parametrize("prob", [0.01, 0.5, 0.9])
def test_prior_bias_inverts_the_sigmoid(prob):
    assert torch.tensor(prior_bias(prob)).sigmoid().item() == pytest.approx(prob)


class Single(nn.GroupNorm):
    """Normalises to float32, as autocast lets it do on CUDA."""

    def forward(self, x):
        return super().forward(x).float()


@pytest.mark.parametrize("deform", ["none", "all"])
def test_a_layer_hands_on_the_type_of_its_convolution(deform):
    """Normalised in float32 and rounded once."""
    layer = conv_norm_relu(8, 32, LayerStyle("GN", deform)).bfloat16()
    x = noise(8, count=1).bfloat16()
    expected = layer(x)
    single = Single(32, 32)
    single.load_state_dict(layer.norm.state_dict())
    layer.norm = single.bfloat16()
    found = layer(x)
    assert found.dtype == torch.bfloat16
    assert torch.equal(found, expected) and found.any()


def test_a_layer_without_a_norm_is_a_convolution_and_relu():
    layer = conv_norm_relu(3, 4, LayerStyle(""))
    x = noise(3)
    assert torch.equal(layer(x), nn.functional.conv2d(x, layer.weight, layer.bias, 1, 1).relu())
