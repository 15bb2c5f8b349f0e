"""Dice loss in closed form (paper Eq. 6 and 7, squared denominators)."""

from __future__ import annotations

import pytest
import torch

from solo_d2.layers import dice_loss


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


def test_every_mask_has_its_own_loss():
    probs, targets = torch.rand(3, 4, 5), torch.rand(3, 4, 5) > 0.5
    alone = [dice_loss(probs[k : k + 1], targets[k : k + 1]) for k in range(3)]
    torch.testing.assert_close(dice_loss(probs, targets), torch.cat(alone))


def test_soft_pixels_enter_as_equation_7_says():
    # p = (0.8, 0.2), q = (1, 0): 1 - 2 * 0.8 / (0.64 + 0.04 + 1 + 0.002)
    loss = dice_loss(torch.tensor([[0.8, 0.2]]), torch.tensor([[True, False]]))
    torch.testing.assert_close(loss, torch.tensor([1 - 1.6 / 1.682]))


def test_no_masks_give_no_losses_and_keep_the_graph():
    probs = torch.zeros(0, 3, 3, requires_grad=True)
    loss = dice_loss(probs, torch.zeros(0, 3, 3, dtype=torch.bool))
    assert loss.shape == (0,)
    loss.sum().backward()
    assert probs.grad.shape == (0, 3, 3)


def test_gradient_is_that_of_finite_differences():
    probs = torch.rand(2, 3, 3, dtype=torch.float64, requires_grad=True)
    targets = torch.rand(2, 3, 3) > 0.5
    assert torch.autograd.gradcheck(lambda p: dice_loss(p, targets), probs)


def test_shapes_that_differ_are_named():
    with pytest.raises(ValueError, match=r"\(1, 2, 2\).*\(1, 4, 1\)"):
        dice_loss(torch.zeros(1, 2, 2), torch.zeros(1, 4, 1))
