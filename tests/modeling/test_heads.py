"""Dynamic head: architecture, initialisation and masks, as the paper and the published models."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from builders import tiny_config
from detectron2.config import get_cfg
from detectron2.layers import ShapeSpec
from head_builders import (
    STRIDES,
    double,
    layer,
    make_features,
    make_head,
    resize,
    slow_levels,
    tower,
    with_coords,
)
from torch import nn

from solo_d2 import add_solo_config
from solo_d2.modeling import SOLO_HEAD_REGISTRY, GridSpec, SOLOHead, build_solo_head
from solo_d2.modeling.structures import Batched, SOLOPredictions


def slow_mask_feature(module, features):
    merged = 0
    for doublings, name in enumerate(["p2", "p3", "p4", "p5"]):
        x = features[name]
        if name == "p5":
            x = with_coords(x)
        for conv in module.stages[doublings]:
            x = layer(conv, x)
            if doublings:
                x = double(x)
        assert len(module.stages[doublings]) == max(1, doublings)
        merged = merged + x
    return layer(module.predictor, merged, padding=0)


def test_forward_is_the_published_architecture():
    head, features = make_head("MODEL.SOLO.NUM_CONVS", 2), make_features()
    predictions = head(features)
    kernels, (mask_feature, *others) = predictions.mask_inputs
    kernels = kernels.all
    assert len(others) == 4  # the same map for all levels
    assert all(other is mask_feature for other in others)
    for level, (x, size) in enumerate(zip(slow_levels(features), head.grid.num_grids, strict=True)):
        category = head.category_predictor(tower(head.category_tower, resize(x, (size, size))))
        torch.testing.assert_close(predictions.category_logits[level], category)
        # Coordinates at the feature's resolution, then resized with it.
        kernel = head.kernel_predictor(
            tower(head.kernel_tower, resize(with_coords(x), (size, size)))
        )
        for row, column in [(0, 0), (0, size - 1), (size - 1, 0), (1, 2)]:
            own = kernels[:, head.grid.flatten(level, row, column)]
            torch.testing.assert_close(own, kernel[:, :, row, column])
    expected = slow_mask_feature(head.mask_feature, features)
    torch.testing.assert_close(mask_feature.all, expected)


@pytest.mark.parametrize("size", [(64, 96), (32, 32), (96, 160)])
def test_shapes_of_every_output(size):
    head = make_head()
    predictions = head(make_features(size))
    shapes = [tuple(x.shape) for x in predictions.category_logits]
    assert shapes == [(2, 3, s, s) for s in head.grid.num_grids]
    kernels, maps = predictions.mask_inputs
    assert kernels.all.shape == (2, head.grid.num_cells, 32)
    assert maps[0].all.shape == (2, 32, size[0] // 4, size[1] // 4)


def test_published_head_has_the_hand_counted_parameters():
    cfg = get_cfg()
    add_solo_config(cfg)
    head = make_head(cfg=cfg, channels=256)

    def towers(width):
        return 9 * 512 * (width + 3 * 512) + 4 * 2 * 512  # four 3x3 convolutions, four GN

    category = towers(256) + 9 * 512 * 80 + 80
    kernel = towers(258) + 9 * 512 * 256 + 256
    # 1 + 1 + 2 + 3 stages of 128 channels, the last level with coordinates; then 1x1 to 256.
    stages = 9 * 128 * (256 + 256 + (256 + 128) + (258 + 128 + 128)) + 7 * 2 * 128
    mask_feature = stages + 128 * 256 + 2 * 256
    assert sum(p.numel() for p in head.parameters()) == category + kernel + mask_feature


@pytest.mark.parametrize(("threshold", "score"), [(0.1, 0.1), (0.005, 0.01), (0.9, 0.5)])
def test_scores_that_are_ranked_start_at_their_threshold(threshold, score):
    keys = ("MODEL.SOLO.SCORE_THRESH_TEST", threshold)
    for loss, expected in (("rank_sort", score), ("focal", 0.01)):
        head = make_head(*keys, "MODEL.SOLO.CATEGORY_LOSS", loss)
        found = head.category_predictor.bias.sigmoid()
        torch.testing.assert_close(found, torch.full((3,), expected))


@pytest.mark.parametrize("prior", [0.01, 0.2])
def test_initialisation_is_the_published_one(prior):
    head = make_head("MODEL.SOLO.PRIOR_PROB", prior)
    convs = [m for m in head.modules() if isinstance(m, nn.Conv2d)]
    weights = torch.cat([conv.weight.flatten() for conv in convs])
    assert weights.std().item() == pytest.approx(0.01, rel=0.02)
    assert abs(weights.mean().item()) < 1e-4
    scores = head.category_predictor.bias.sigmoid()
    torch.testing.assert_close(scores, torch.full((3,), prior))
    assert (head.kernel_predictor.bias == 0).all()
    with_bias = [conv for conv in convs if conv.bias is not None]
    assert with_bias == [head.category_predictor, head.kernel_predictor]


def test_mask_is_the_sigmoid_of_a_dynamic_convolution():
    # Eq. 2, one cell at a time: M_ij = G_ij * F.
    head = make_head()
    predictions = head(make_features())
    kernels, (features, *_) = predictions.mask_inputs
    cells = torch.tensor([0, 359, 17, 17, 200])
    for image in (0, 1):
        probs = head.mask_probs(predictions, image, cells)
        for k, cell in enumerate(cells):
            weight = kernels.all[image, cell].view(1, -1, 1, 1)
            expected = F.conv2d(features.all[image : image + 1], weight).sigmoid()[0, 0]
            torch.testing.assert_close(probs[k], expected)


def test_size_resizes_the_probabilities():
    head = make_head()
    predictions = head(make_features())
    cells = torch.tensor([3, 77])
    small = head.mask_probs(predictions, 0, cells)
    assert small.shape == (2, 16, 24)
    torch.testing.assert_close(
        head.mask_probs(predictions, 0, cells, size=(40, 30)), resize(small[None], (40, 30))[0]
    )
    assert torch.equal(head.mask_probs(predictions, 0, cells, size=(16, 24)), small)


@pytest.mark.parametrize("size", [None, (10, 12)])
def test_no_cells_give_no_masks_with_a_gradient(size):
    head = make_head()
    predictions = head(make_features())
    probs = head.mask_probs(predictions, 1, torch.zeros(0, dtype=torch.int64), size=size)
    assert probs.shape == (0, *(size or (16, 24)))
    probs.sum().backward()
    assert all(p.grad is not None for p in head.kernel_tower.parameters())
    assert all(p.grad is not None for p in head.mask_feature.parameters())


def test_bfloat16_kernels_give_float32_probabilities():
    head = make_head()
    predictions = head(make_features())
    kernels, features = predictions.mask_inputs
    half = type(predictions.mask_inputs)(
        Batched.split(kernels.all.bfloat16()), [Batched.split(x.all.bfloat16()) for x in features]
    )
    probs = head.mask_probs(SOLOPredictions([], half), 0, torch.tensor([5]))
    assert probs.dtype == torch.float32


def test_coordinates_make_equal_cells_different():
    # On constant features only coordinates can tell one cell's kernel from another's.
    head = make_head()
    features = {name: torch.ones_like(x) for name, x in make_features().items()}
    kernels = head(features).mask_inputs.kernels.all[0, :144].view(12, 12, 32)
    inner = kernels[3:-3, 3:-3]  # away from the padding
    assert (inner[:, 0] - inner[:, -1]).abs().amax() > 1e-4
    assert (inner[0] - inner[-1]).abs().amax() > 1e-4


@pytest.mark.parametrize("norm", ["", "BN"])
def test_norm_applies_to_every_layer(norm):
    head = make_head("MODEL.SOLO.NORM", norm)
    norms = [m for m in head.modules() if isinstance(m, (nn.GroupNorm, nn.BatchNorm2d))]
    layers = 1 + 1 + 7 + 1  # category, kernel, stages, merged
    assert len(norms) == (layers if norm else 0)
    head(make_features())


def test_towers_may_have_no_layers():
    predictions = make_head("MODEL.SOLO.NUM_CONVS", 0, "MODEL.SOLO.NUM_COORD_CONVS", 0)(
        make_features()
    )
    assert predictions.category_logits[0].shape == (2, 3, 12, 12)


def test_unknown_head_names_the_known_ones():
    with pytest.raises(ValueError, match=r"HEAD is 'SOLOv3Head'.*DynamicSOLOHead"):
        make_head("MODEL.SOLO.HEAD", "SOLOv3Head")


def test_registry_states_its_contract():
    assert "mask_probs" in SOLO_HEAD_REGISTRY.__doc__
    assert all(issubclass(head, SOLOHead) for _, head in SOLO_HEAD_REGISTRY)


@pytest.mark.parametrize("prior", [0.0, 1.0, -1.0])
def test_prior_must_be_a_probability(prior):
    with pytest.raises(ValueError, match="PRIOR_PROB"):
        make_head("MODEL.SOLO.PRIOR_PROB", prior)


def test_features_of_different_widths_are_refused():
    cfg = tiny_config()
    shapes = {
        name: ShapeSpec(channels=16 if name == "p4" else 32, stride=s)
        for name, s in STRIDES.items()
    }
    node = cfg.MODEL.SOLO
    grid = GridSpec.build(node.NUM_GRIDS, node.SCALE_RANGES, list(STRIDES.values()))
    with pytest.raises(ValueError, match=r"same number of channels.*\[16, 32\]"):
        build_solo_head(cfg, shapes, grid)
