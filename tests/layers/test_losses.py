"""Mask losses in closed form; Dice is the paper's Eq. 6 and 7, with squared denominators."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from fvcore.nn import sigmoid_focal_loss

from solo_d2.layers import (
    binary_mask_loss,
    dice_bce_loss,
    dice_loss,
    focal_mask_loss,
    mae_loss,
    matte_loss,
)

PIXEL_LOSSES = [binary_mask_loss, focal_mask_loss]


def test_half_probability_everywhere_costs_one_fifth():
    # 1 - 2 * 0.5 n / (0.25 n + n) = 0.2; without the squares it would be 1/3.
    loss = dice_loss(torch.full((1, 100, 100), 0.5), torch.ones(1, 100, 100))
    torch.testing.assert_close(loss, torch.tensor([0.2]), atol=1e-6, rtol=0)


def test_perfect_mask_costs_nothing_but_the_constant():
    # 1 - 2 * 4 / (4 + 4 + 0.002)
    target = torch.tensor([[[1, 1], [1, 1]]], dtype=torch.bool)
    expected = torch.tensor([0.002 / 8.002])
    torch.testing.assert_close(dice_loss(target.float(), target), expected, atol=1e-6, rtol=0)


def test_disjoint_masks_cost_one():
    target = torch.tensor([[[1.0, 0.0]]])
    assert dice_loss(1 - target, target).tolist() == [1.0]


def test_empty_target_and_empty_mask_cost_one_with_finite_gradient():
    probs = torch.zeros(1, 3, 3, requires_grad=True)
    loss = dice_loss(probs, torch.zeros(1, 3, 3))
    loss.sum().backward()
    assert loss.tolist() == [1.0]
    assert torch.isfinite(probs.grad).all()


@pytest.mark.parametrize("loss", [dice_loss, *PIXEL_LOSSES])
def test_every_mask_has_its_own_loss(loss):
    probs, targets = torch.rand(3, 4, 5), torch.rand(3, 4, 5) > 0.5
    alone = [loss(probs[k : k + 1], targets[k : k + 1]) for k in range(3)]
    torch.testing.assert_close(loss(probs, targets), torch.cat(alone))


def test_soft_pixels_enter_as_equation_7_says():
    # p = (0.8, 0.2), q = (1, 0): 1 - 2 * 0.8 / (0.64 + 0.04 + 1 + 0.002)
    loss = dice_loss(torch.tensor([[0.8, 0.2]]), torch.tensor([[True, False]]))
    torch.testing.assert_close(loss, torch.tensor([1 - 1.6 / 1.682]))


@pytest.mark.parametrize("loss", [dice_loss, *PIXEL_LOSSES])
def test_no_masks_give_no_losses_and_keep_the_graph(loss):
    probs = torch.zeros(0, 3, 3, requires_grad=True)
    losses = loss(probs, torch.zeros(0, 3, 3, dtype=torch.bool))
    assert losses.shape == (0,)
    losses.sum().backward()
    assert probs.grad.shape == (0, 3, 3)


@pytest.mark.parametrize("loss", [dice_loss, *PIXEL_LOSSES])
def test_gradient_is_that_of_finite_differences(loss):
    probs = torch.rand(2, 3, 3, dtype=torch.float64, requires_grad=True)
    targets = torch.rand(2, 3, 3) > 0.5
    assert torch.autograd.gradcheck(lambda p: loss(p, targets), probs)


@pytest.mark.parametrize("loss", [dice_loss, *PIXEL_LOSSES])
def test_shapes_that_differ_are_named(loss):
    with pytest.raises(ValueError, match=rf"{loss.__name__} .*\(1, 2, 2\).*\(1, 4, 1\)"):
        loss(torch.zeros(1, 2, 2), torch.zeros(1, 4, 1))


def test_cross_entropy_counts_object_pixels_twice():
    # (2 * -ln 0.8 - ln 0.9 - ln 0.5) / 3
    loss = binary_mask_loss(torch.tensor([[0.8, 0.1, 0.5]]), torch.tensor([[True, False, False]]))
    expected = (-2 * math.log(0.8) - math.log(0.9) - math.log(0.5)) / 3
    torch.testing.assert_close(loss, torch.tensor([expected]))


def test_focal_loss_plays_down_pixels_that_are_right():
    # 0.25 * 0.2^2 * -ln 0.8 and 0.75 * 0.5^2 * -ln 0.5
    loss = focal_mask_loss(torch.tensor([[0.8, 0.5]]), torch.tensor([[True, False]]))
    expected = (0.25 * 0.04 * -math.log(0.8) + 0.75 * 0.25 * math.log(2)) / 2
    torch.testing.assert_close(loss, torch.tensor([expected]))


def test_pixel_losses_are_those_of_logits():
    generator = torch.Generator().manual_seed(0)
    logits = 3 * torch.randn(2, 4, 5, generator=generator, dtype=torch.float64)
    targets = torch.rand(2, 4, 5, generator=generator) > 0.5
    truth = targets.double()
    entropy = F.binary_cross_entropy_with_logits(
        logits, truth, pos_weight=torch.tensor(2.0), reduction="none"
    )
    focal = sigmoid_focal_loss(logits, truth, alpha=0.25, gamma=2.0)
    probs = logits.sigmoid()
    torch.testing.assert_close(binary_mask_loss(probs, targets), entropy.mean((1, 2)))
    expected = focal.double().mean((1, 2))  # fvcore computes in float32
    torch.testing.assert_close(focal_mask_loss(probs, targets), expected, rtol=1e-5, atol=0)


@pytest.mark.parametrize("loss", PIXEL_LOSSES)
@pytest.mark.parametrize("value", [0.0, 1.0])
def test_certain_pixels_cost_a_finite_amount(loss, value):
    probs = torch.full((1, 2), value, requires_grad=True)
    found = loss(probs, torch.tensor([[True, False]]))
    found.sum().backward()
    assert 1 < found.item() < 30  # one of the two is wrong
    assert torch.isfinite(probs.grad).all()
    right = loss(torch.tensor([[1.0, 0.0]]), torch.tensor([[True, False]]))
    assert 0 <= right.item() < 1e-5


def test_dice_and_cross_entropy_are_added_without_weights():
    # p = (0.8, 0.2), q = (1, 0): both pixels cost -ln 0.8.
    found = dice_bce_loss(torch.tensor([[0.8, 0.2]]), torch.tensor([[True, False]]))
    torch.testing.assert_close(found, torch.tensor([1 - 1.6 / 1.682 - math.log(0.8)]))


def test_focal_mask_loss_wants_boolean_targets():
    with pytest.raises(ValueError, match=r"boolean targets, got torch\.float32"):
        focal_mask_loss(torch.zeros(1, 2), torch.zeros(1, 2))


def test_cross_entropy_of_a_soft_target_is_that_of_both_binary_ones_by_its_shares():
    # A quarter of 2 * -ln 0.8, three quarters of -ln 0.2; then a certain pixel that is half right.
    found = binary_mask_loss(torch.tensor([[0.8]]), torch.tensor([[0.25]]))
    expected = 0.25 * -2 * math.log(0.8) + 0.75 * -math.log(0.2)
    torch.testing.assert_close(found, torch.tensor([expected]))
    certain = binary_mask_loss(torch.tensor([[1.0]]), torch.tensor([[0.5]]))
    torch.testing.assert_close(certain, torch.tensor([-0.5 * math.log(1e-6)]), rtol=0.02, atol=0)
    probs, targets = torch.rand(3, 4, 5), torch.rand(3, 4, 5) > 0.5
    soft = binary_mask_loss(probs, targets.float())
    torch.testing.assert_close(soft, binary_mask_loss(probs, targets))


LOSSES = {
    "dice": dice_loss,
    "mae": mae_loss,
    "matte": matte_loss,
    "bce": binary_mask_loss,
    "dice_bce": dice_bce_loss,
    "focal": focal_mask_loss,
}


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("name", LOSSES)
def test_losses_of_half_precision_are_those_of_single(name, kind):
    """Sums over an image exceed what half precision holds, and 1 - 1e-6 is 1 there."""
    generator = torch.Generator().manual_seed(0)
    probs = torch.rand(2, 400, 400, generator=generator).to(kind)
    probs[0], probs[1, :200] = 1.0, 0.0
    for targets in (probs > 0.5, probs if name != "focal" else probs > 0.5):
        found, expected = (
            LOSSES[name](probs, targets),
            LOSSES[name](
                probs.float(), targets if targets.dtype == torch.bool else targets.float()
            ),
        )
        assert found.dtype == torch.float32
        assert torch.equal(found, expected) and found.isfinite().all()
