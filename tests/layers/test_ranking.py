"""Rank & Sort loss against the primary terms of the paper, pair by pair, and by hand."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from solo_d2.layers import budgets, rank_sort_loss


def above(x):
    """The step of the paper, smoothed between -1/2 and 1/2."""
    return min(max(x + 0.5, 0.0), 1.0)


def slow(logits, positives, quality):
    """Loss, and gradient by the identity update: the term of a pair ij is i's gain and j's loss."""
    y = dict(zip(positives, quality, strict=True))
    negatives = [j for j in range(len(logits)) if j not in y]
    total, gradient = 0.0, [0.0] * len(logits)
    for i in positives:
        h = [above(s - logits[i]) for s in logits]
        false = sum(h[j] for j in negatives)
        rank_positive = sum(h[j] for j in positives)
        ranking = false / (rank_positive + false)
        current = sum(h[j] * (1 - y[j]) for j in positives) / rank_positive
        right = [j for j in positives if y[j] >= y[i]]
        wanted = sum(h[j] * (1 - y[j]) for j in right) / sum(h[j] for j in right)
        sorting = current - wanted
        wrong = [j for j in positives if y[j] < y[i]]
        causes = sum(h[j] for j in wrong)
        terms = {j: ranking * h[j] / false for j in negatives if false}
        terms |= {j: sorting * h[j] / causes for j in wrong if causes}
        for j, term in terms.items():
            gradient[j] += term
            gradient[i] -= term
        total += ranking + sorting
    return total, gradient


def run(logits, positives, quality, dtype=torch.float64):
    x = torch.tensor(logits, dtype=dtype, requires_grad=True)
    loss = rank_sort_loss(x, torch.tensor(positives), torch.tensor(quality, dtype=dtype))
    loss.backward()
    return loss.item(), x.grad


@given(data=st.data())
@settings(max_examples=60, deadline=None)
def test_loss_and_gradient_are_those_of_all_pairs(data):
    count = data.draw(st.integers(1, 12))
    # Some equal, some exactly at the ends of a ramp, some far away.
    logits = [
        data.draw(st.one_of(st.sampled_from([-1.0, -0.5, 0.0, 0.5, 8.0]), st.floats(-9, 9)))
        for _ in range(count)
    ]
    chosen = data.draw(st.lists(st.integers(0, count - 1), min_size=1, unique=True))
    quality = [data.draw(st.sampled_from([0.0, 0.3, 0.3, 0.7, 1.0])) for _ in chosen]
    expected, gradient = slow(logits, chosen, quality)
    found, grad = run(logits, chosen, quality)
    assert found == pytest.approx(expected, abs=1e-9)
    torch.testing.assert_close(
        grad, torch.tensor(gradient, dtype=torch.float64), atol=1e-9, rtol=1e-9
    )


def test_a_negative_above_a_positive_is_pushed_down_as_much_as_that_is_pulled_up():
    # Positive 0, negatives far above and far below: rank 1/2 + 1, one of them false: 2/3.
    loss, grad = run([0.0, 5.0, -5.0], [0], [0.9])
    assert loss == pytest.approx(2 / 3)
    assert grad.tolist() == pytest.approx([-2 / 3, 2 / 3, 0])


def test_a_negative_at_the_same_height_counts_half():
    # Rank 1/2 + 1/2, one half false.
    loss, grad = run([0.0, 0.0], [1], [1.0])
    assert loss == pytest.approx(0.5)
    assert grad.tolist() == pytest.approx([0.5, -0.5])


def test_positives_in_the_right_order_above_all_negatives_cost_nothing():
    loss, grad = run([6.0, 4.0, 2.0, 0.0, -1.0], [0, 1, 2], [0.9, 0.7, 0.5])
    assert loss == pytest.approx(0, abs=1e-12)
    assert grad.abs().max() == pytest.approx(0, abs=1e-12)


def test_a_worse_positive_above_a_better_one_is_a_sorting_error():
    # For the better one, at 0: rank 1/2 + 1; current (1/2 · 0.1 + 0.5) / 1.5, wanted 0.1. The worse
    # one, at 3, has nothing above itself: 1/2 · 0.5 / (1/2) is what is wanted, too.
    loss, grad = run([0.0, 3.0], [0, 1], [0.9, 0.5])
    expected = 0.55 / 1.5 - 0.1
    assert loss == pytest.approx(expected)
    assert grad.tolist() == pytest.approx([-expected, expected])


def test_positives_of_equal_quality_have_no_order():
    loss, grad = run([0.0, 3.0], [0, 1], [0.4, 0.4])
    assert loss == pytest.approx(0)
    assert grad.tolist() == pytest.approx([0, 0])


def test_loss_depends_on_differences_alone_and_its_gradient_sums_up_to_zero():
    generator = torch.Generator().manual_seed(0)
    logits = 2 * torch.randn(3, 5, 40, generator=generator, dtype=torch.float64)
    positives = torch.randperm(600, generator=generator)[:30]
    quality = torch.rand(30, generator=generator)
    losses = []
    for shift in (0, 7):
        x = (logits + shift).requires_grad_()
        losses.append(rank_sort_loss(x, positives, quality))
        losses[-1].backward()
        assert x.grad.shape == logits.shape
        assert x.grad.sum().item() == pytest.approx(0, abs=1e-9)
        assert (x.grad.flatten()[positives] < 0).any()
    assert losses[0].item() == pytest.approx(losses[1].item())


@pytest.mark.parametrize("budget", [1, 7, 10**6])
def test_pieces_make_no_difference(monkeypatch, budget):
    generator = torch.Generator().manual_seed(1)
    logits = torch.randn(200, generator=generator).tolist()
    positives = torch.randperm(200, generator=generator)[:20].tolist()
    quality = torch.rand(20, generator=generator).tolist()
    expected = slow(logits, positives, quality)
    monkeypatch.setattr(budgets, "RANKED_LOGITS", budget)
    monkeypatch.setattr(budgets, "COMPARED_PAIRS", budget)
    found, grad = run(logits, positives, quality, torch.float32)
    assert found == pytest.approx(expected[0], rel=1e-5)
    torch.testing.assert_close(grad, torch.tensor(expected[1]), atol=1e-5, rtol=1e-4)


def test_without_positives_loss_and_gradient_are_zero():
    x = torch.randn(2, 3, requires_grad=True)
    loss = rank_sort_loss(x, torch.zeros(0, dtype=torch.int64), torch.zeros(0))
    loss.backward()
    assert loss.item() == 0
    assert torch.equal(x.grad, torch.zeros(2, 3))


def test_all_logits_may_be_positive():
    loss, grad = run([0.0, 1.0], [0, 1], [0.5, 0.6])
    assert loss == pytest.approx(0)
    assert torch.equal(grad, torch.zeros(2).double())


def test_half_precision_is_compared_in_float32():
    x = torch.tensor([0.5, 1.0, -2.0], dtype=torch.bfloat16, requires_grad=True)
    loss = rank_sort_loss(x, torch.tensor([0]), torch.tensor([0.5]))
    loss.backward()
    assert (loss.dtype, x.grad.dtype) == (torch.float32, torch.bfloat16)
    assert loss.item() == pytest.approx(1 / 1.5)


@pytest.mark.parametrize("kind", [torch.uint8, torch.int32])
def test_indices_may_have_any_whole_type(kind):
    logits, positives = torch.randn(3, 5), torch.tensor([1, 7])
    quality = torch.tensor([0.3, 0.8])
    expected = rank_sort_loss(logits, positives, quality)
    assert torch.equal(rank_sort_loss(logits, positives.to(kind), quality), expected)
