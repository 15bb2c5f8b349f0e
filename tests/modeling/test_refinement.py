"""Final masks along the edges of the image: the guided filter, and where it is used."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from builders import noise_input, tiny_config, tiny_model

from solo_d2.layers import budgets, mask_occupancy, profiles_to_boxes
from solo_d2.layers.guided_filter import GuidedFilter
from solo_d2.modeling import refinement
from solo_d2.modeling.refinement import make_guide, refine_masks
from solo_d2.modeling.test_time_augmentation import SOLOWithTTA

REFINED = ("MODEL.SOLO.REFINE_MASKS_TEST", True)
LIVELY = ("MODEL.SOLO.PRIOR_PROB", 0.5, "MODEL.SOLO.FINAL_SCORE_THRESH_TEST", 0.0)


def slow_filter(mask, image):
    """One ridge regression after the other, in double precision."""
    mask, image = mask.double(), image.double()
    height, width = mask.shape
    coarse = F.avg_pool2d(image, 2)
    functions = torch.zeros(height, width, 4, dtype=torch.float64)
    near = [
        [
            [
                (min(max(y + dy, 0), height - 1), min(max(x + dx, 0), width - 1))
                for dy in range(-2, 3)
                for dx in range(-2, 3)
            ]
            for x in range(width)
        ]
        for y in range(height)
    ]
    for y in range(height):
        for x in range(width):
            colors = torch.stack([coarse[:, b, a] for b, a in near[y][x]])
            design = torch.cat([torch.ones(25, 1), colors], dim=1)
            values = torch.stack([mask[b, a] for b, a in near[y][x]])
            ridge = 25 * 1e-4 * torch.diag(torch.tensor([0.0, 1.0, 1.0, 1.0]))
            functions[y, x] = torch.linalg.solve(design.T @ design + ridge, design.T @ values)
    result = torch.zeros(2 * height, 2 * width)
    for y in range(2 * height):
        for x in range(2 * width):
            mean = sum(functions[b, a] for b, a in near[y // 2][x // 2]) / 25
            result[y, x] = mean[0] + mean[1:] @ image[:, y, x]
    return result


def smooth(*size, seed=0):
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(1, size[0], 3, 4, generator=generator)
    return F.interpolate(coarse, size=size[1:], mode="bicubic")[0].clamp(0, 1)


def test_every_neighbourhood_has_its_own_ridge_regression():
    mask, image = smooth(1, 7, 9), smooth(3, 14, 18, seed=1) - 0.5
    found = GuidedFilter(image)(mask, slice(0, 7), slice(0, 9))
    torch.testing.assert_close(found[0], slow_filter(mask[0], image), atol=1e-4, rtol=0)
    window = GuidedFilter(image)(mask, slice(1, 4), slice(6, 9))
    torch.testing.assert_close(window, found[:, 2:8, 12:18])


def test_a_flat_image_smooths_twice_by_the_mean_of_25():
    mask = torch.zeros(1, 15, 15)
    mask[0, 7, 7] = 1.0
    found = GuidedFilter(torch.full((3, 30, 30), 0.3))(mask, slice(0, 15), slice(0, 15))
    row = torch.tensor([0, 0, 0, 1, 2, 3, 4, 5, 4, 3, 2, 1, 0, 0, 0]) / 25
    expected = torch.outer(row, row).repeat_interleave(2, 0).repeat_interleave(2, 1)
    torch.testing.assert_close(found[0], expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize("edge", [16, 17, 18, 19])
@pytest.mark.parametrize("shift", [-1, 0, 1])
def test_the_edge_of_a_mask_moves_to_that_of_the_image(edge, shift):
    true = torch.zeros(36, 40)
    true[8:28, edge:] = 1.0
    image = torch.stack([true, 1 - true, 0.5 * true]) * 0.4 - 0.2
    mask = F.avg_pool2d(true.roll(2 * shift, 1)[None], 2)  # a pixel at stride 4 beside it
    found = refine_masks(mask, image, 0.5)
    assert torch.equal(found[0] > 0.5, true > 0.5)


def masks_and_guide():
    probs = smooth(5, 20, 26) ** 2
    probs[1] = 0.0
    probs[2] = 1.0
    return probs, smooth(3, 40, 52, seed=1) - 0.5


def test_a_window_round_the_box_is_all_that_is_computed_on_a_cpu(monkeypatch):
    probs, guide = masks_and_guide()
    boxes = profiles_to_boxes(*mask_occupancy(probs > 0.5))
    guided = GuidedFilter(guide)
    windows = refine_masks(probs, guide, 0.5)
    assert windows.shape == (5, 40, 52)
    assert not windows[1].any()  # no pixel of it exceeded the threshold
    for length in (2**22, 1):  # pixels in flight
        monkeypatch.setitem(budgets.MASK_PIXELS, "cpu", length)
        whole = refinement._refine_whole(probs, guided, boxes)
        torch.testing.assert_close(windows, whole, atol=1e-6, rtol=0)
    for nothing in (
        refine_masks(probs[:0], guide, 0.5),
        refinement._refine_whole(probs[:0], guided, boxes[:0]),
    ):
        assert nothing.shape == (0, 40, 52)


def test_a_model_in_half_precision_refines_in_single():
    probs, guide = masks_and_guide()
    found = refine_masks(probs, guide.half(), 0.5)
    assert found.dtype == torch.float32
    assert ((found > 0.5) ^ (refine_masks(probs, guide, 0.5) > 0.5)).float().mean() < 0.01


def test_what_a_network_calls_a_unit_is_nothing_to_the_guide():
    pixels = torch.rand(1, 3, 8, 12) * 255 - 128
    std = torch.tensor([57.0, 58.0, 1.0]).view(3, 1, 1)
    guide = make_guide(pixels / std, std)
    torch.testing.assert_close(guide, F.avg_pool2d(pixels, 2) / 255)
    assert guide.shape == (1, 3, 4, 6)


def same(one, other):
    assert len(one) > 5
    assert torch.equal(one.scores, other.scores)
    assert (one.pred_masks ^ other.pred_masks).float().mean() < 1e-4


@pytest.mark.parametrize("fixed", [False, True])
def test_masks_alone_change_and_each_by_its_own_image(fixed):
    plain, model = tiny_model(*LIVELY).eval(), tiny_model(*LIVELY, *REFINED).eval()
    model.fixed = fixed
    one, other = noise_input((64, 96)), noise_input((64, 96), seed=1)
    inputs = [{**one, "height": 90, "width": 70}, {**other, "height": 70, "width": 80}]
    before, after = plain(inputs), model(inputs)
    for one, other in zip(before, after, strict=True):
        one, other = one["instances"], other["instances"]
        assert torch.equal(one.scores, other.scores)
        assert torch.equal(one.pred_classes, other.pred_classes)
        assert not torch.equal(one.pred_masks, other.pred_masks)
    for one, other in zip(model(inputs[::-1])[::-1], after, strict=True):
        same(one["instances"], other["instances"])


def test_multi_scale_testing_refines_at_the_plain_scale():
    cfg = tiny_config(
        *("INPUT.MIN_SIZE_TEST", 64, "INPUT.MAX_SIZE_TEST", 120, "TEST.AUG.ENABLED", True),
        *("TEST.AUG.MIN_SIZES", [64], "TEST.AUG.FLIP", False, *LIVELY, *REFINED),
    )
    model = tiny_model(*LIVELY, *REFINED).eval()
    inputs = {**noise_input((64, 96)), "height": 90, "width": 130}
    same(SOLOWithTTA(cfg, model)([inputs])[0]["instances"], model([inputs])[0]["instances"])


def test_training_makes_no_guide():
    model = tiny_model(*REFINED)
    images = model.preprocess_image([noise_input((64, 96))])
    features = model.backbone(images.tensor)
    assert model.train().predict(features, images).guide is None
    assert model.eval().predict(features, images).guide.shape == (1, 3, 32, 48)
