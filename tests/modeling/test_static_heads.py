"""Vanilla and decoupled heads: architecture, initialisation and masks, as published."""

from __future__ import annotations

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
    with_coords,
)
from torch import nn

from solo_d2 import add_solo_config

TWO_CONVS = ("MODEL.SOLO.NUM_CONVS", 2)


def mask_tower(module, x, axes):
    return layer(module[1], layer(module[0], with_coords(x, axes)))


def slow_vanilla(head, features, image, level):
    """All S² masks of a level, in the published order: tower, enlarge, 1x1 convolution."""
    x = mask_tower(head.mask_tower, slow_levels(features)[level][image : image + 1], "xy")
    return head.mask_predictors[level](double(x)).sigmoid()[0]


def slow_decoupled(head, features, image, level):
    """The S maps of all columns, and those of all rows."""
    x = slow_levels(features)[level][image : image + 1]
    maps = []
    for axes, predictors in zip(
        head.tower_axes, (head.x_predictors, head.y_predictors), strict=True
    ):
        large = double(mask_tower(head.mask_towers[axes], x, axes))
        conv = predictors[level]
        maps.append(F.conv2d(large, conv.weight, conv.bias, padding=1).sigmoid()[0])
    return maps


CELLS = [(0, 0, 0), (0, 11, 3), (1, 4, 9), (2, 7, 7), (3, 0, 5), (4, 3, 1), (0, 5, 5), (0, 5, 5)]


@pytest.mark.parametrize("image", [0, 1])
def test_vanilla_mask_of_a_cell_is_its_channel(image):
    head, features = perturb(make_head(*HEADS["vanilla"], *TWO_CONVS)), make_features()
    predictions = head(features)
    for level, row, column in CELLS:
        cell = torch.tensor([head.grid.flatten(level, row, column)])
        found = head.mask_probs(predictions, image, cell, levels=[level])[0]
        masks = slow_vanilla(head, features, image, level)
        expected = masks[row * head.grid.num_grids[level] + column]  # k = i * S + j
        torch.testing.assert_close(found, expected)
        # The size of the input divided by the stride of the masks.
        stride = (4, 4, 8, 16, 16)[level]
        assert head.mask_strides[level] == stride
        assert found.shape == (64 // stride, 96 // stride)


@pytest.mark.parametrize("name", ["decoupled", "decoupled_light"])
def test_decoupled_mask_is_the_product_of_its_column_and_its_row(name):
    # Eq. 1: m_k = x_j * y_i after the sigmoid, for the cell in row i and column j.
    head, features = perturb(make_head(*HEADS[name], *TWO_CONVS)), make_features()
    predictions = head(features)
    for level, row, column in CELLS:
        cell = torch.tensor([head.grid.flatten(level, row, column)])
        x, y = slow_decoupled(head, features, 1, level)
        found = head.mask_probs(predictions, 1, cell, levels=[level])[0]
        torch.testing.assert_close(found, x[column] * y[row])
        # Each factor is resized before the product, which a resized product would differ from.
        size = (20, 28)
        expected = resize(x[None, [column]], size) * resize(y[None, [row]], size)
        found = head.mask_probs(predictions, 1, cell, size=size)
        torch.testing.assert_close(found, expected[0])
        assert not torch.allclose(found, resize((x[column] * y[row])[None, None], size)[0])


def test_decoupled_towers_see_one_coordinate_each():
    head = make_head(*HEADS["decoupled"])
    assert {k: t[0].in_channels for k, t in head.mask_towers.items()} == {"x": 33, "y": 33}
    # On constant features, columns tell x maps apart and rows y maps, but for the padding.
    features = {name: torch.ones_like(x) for name, x in make_features((128, 192)).items()}
    x, y = (maps[0].all[0, ..., 10:-10, 10:-10] for maps in perturb(head)(features).mask_inputs)
    assert (x - x[..., :1, :]).abs().amax() < 1e-4 < (x - x[..., :1]).abs().amax()
    assert (y - y[..., :1]).abs().amax() < 1e-4 < (y - y[..., :1, :]).abs().amax()


def test_light_head_has_one_tower_with_both_coordinates():
    head = make_head(*HEADS["decoupled_light"])
    assert [tower[0].in_channels for tower in head.mask_towers.values()] == [34]


@pytest.mark.parametrize(("name", "layers"), [("vanilla", 2), ("decoupled", 3)])
@pytest.mark.parametrize("num_coord_convs", [0, 2])
def test_coordinates_of_the_mask_branch_are_counted(name, layers, num_coord_convs):
    count = ("MODEL.SOLO.NUM_COORD_CONVS", num_coord_convs)
    head = make_head(*HEADS[name], *TWO_CONVS, *count)
    wide = [m for m in head.modules() if isinstance(m, nn.Conv2d) and m.in_channels > 32]
    towers = 1 if name == "vanilla" else 2
    assert len(wide) == towers * num_coord_convs
    assert all(conv.in_channels == 32 for conv in head.category_tower)


# Sums of the shapes of the published state dicts: convolution, GN weight and bias.
def tower_size(width, num_convs, channels=256):
    return 9 * channels * (width + (num_convs - 1) * channels) + num_convs * 2 * channels


GRIDS = (40, 36, 24, 16, 12)
CATEGORY = 9 * 256 * 80 + 80
AXIS = sum(9 * 256 * size + size for size in GRIDS)
PUBLISHED = {
    "vanilla": (
        7,
        tower_size(256, 7) + CATEGORY + tower_size(258, 7) + 257 * sum(size**2 for size in GRIDS),
    ),
    "decoupled": (7, tower_size(256, 7) + CATEGORY + 2 * (tower_size(257, 7) + AXIS)),
    "decoupled_light": (4, tower_size(256, 4) + CATEGORY + tower_size(258, 4) + 2 * AXIS),
}


@pytest.mark.parametrize(
    ("name", "millions"),
    [("vanilla", 9.449), ("decoupled", 13.176), ("decoupled_light", 5.502)],
)
def test_published_heads_have_their_published_size(name, millions):
    num_convs, expected = PUBLISHED[name]
    cfg = get_cfg()
    add_solo_config(cfg)
    depth = ("MODEL.SOLO.NUM_CONVS", num_convs, "MODEL.SOLO.CONV_DIM", 256)
    cfg.merge_from_list([*HEADS[name], *depth])
    with torch.device("meta"):
        head = make_head(cfg=cfg, channels=256)
    count = sum(p.numel() for p in head.parameters())
    assert count == expected
    assert round(count / 1e6, 3) == millions


@pytest.mark.parametrize("name", ["vanilla", "decoupled", "decoupled_light"])
@pytest.mark.parametrize("prior", [0.01, 0.2])
def test_masks_start_at_the_prior_as_published(name, prior):
    head = make_head(*HEADS[name], "MODEL.SOLO.PRIOR_PROB", prior)
    convs = [m for m in head.modules() if isinstance(m, nn.Conv2d)]
    weights = torch.cat([conv.weight.flatten() for conv in convs])
    assert weights.std().item() == pytest.approx(0.01, rel=0.02)
    biases = torch.cat([conv.bias for conv in convs if conv.bias is not None])
    torch.testing.assert_close(biases.sigmoid(), torch.full_like(biases, prior))


def test_vanilla_computes_the_cells_asked_for_and_no_others(monkeypatch):
    # At 800 x 1344, masks of all 3872 cells at stride 4 take 992 MiB; here the largest tensor of
    # masks has the rows asked for.
    head = make_head(*HEADS["vanilla"])
    predictions = head(make_features())
    seen = []
    interpolate = F.interpolate

    def spy(x, **kwargs):
        out = interpolate(x, **kwargs)
        seen.append(len(out))
        return out

    monkeypatch.setattr(F, "interpolate", spy)
    assert len(head.mask_probs(predictions, 0, torch.tensor([5, 150, 359]), size=(16, 24))) == 3
    assert max(seen) == 1  # one cell on each of three levels
