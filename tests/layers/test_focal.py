"""Facts about category losses: sums of fvcore's focal loss, and of the quality focal loss."""

from __future__ import annotations

import pytest
import torch
from fvcore.nn import sigmoid_focal_loss

from solo_d2.layers import category_focal_loss, quality_focal_loss


def inputs(classes, *, size=5, dtype=torch.float64, seed=0):
    generator = torch.Generator().manual_seed(seed)
    logits = 3 * torch.randn((2, classes, size, size), generator=generator, dtype=dtype)
    labels = torch.randint(0, classes + 3, (2, size * size), generator=generator)
    return logits.requires_grad_(), labels.clamp(max=classes)


def reference(logits, labels, alpha, gamma):
    classes = logits.shape[1]
    flat = logits.flatten(2).transpose(1, 2)
    expected = torch.nn.functional.one_hot(labels, classes + 1)[..., :classes].to(flat.dtype)
    return sigmoid_focal_loss(flat, expected, alpha=alpha, gamma=gamma, reduction="sum")


@pytest.mark.parametrize("classes", [1, 7, 128, 300])  # in one piece and in several
@pytest.mark.parametrize(("alpha", "gamma"), [(0.25, 2.0), (0.6, 1.5)])
def test_value_and_gradient_are_fvcores(classes, alpha, gamma):
    logits, labels = inputs(classes)
    found = category_focal_loss(logits, labels, alpha, gamma)
    wanted = reference(logits, labels, alpha, gamma)
    torch.testing.assert_close(found.float(), wanted)  # fvcore calculates in float32
    (ours,), (theirs,) = (torch.autograd.grad(3 * x, logits) for x in (found, wanted))
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)


def test_gradient_by_finite_differences():
    logits, labels = inputs(3, size=2)
    assert torch.autograd.gradcheck(lambda x: category_focal_loss(x, labels, 0.25, 2.0), (logits,))


def test_only_background_and_no_cell_at_all():
    logits, labels = inputs(4)
    background = torch.full_like(labels, 4)
    found = category_focal_loss(logits, background, 0.25, 2.0)
    torch.testing.assert_close(found.float(), reference(logits, background, 0.25, 2.0))
    assert category_focal_loss(torch.zeros(0, 4, 5, 5), labels[:0], 0.25, 2.0) == 0


def test_extreme_logits_stay_finite():
    logits = torch.tensor([-200.0, -90, 90, 200]).view(1, 4, 1, 1).requires_grad_()
    for label in range(5):
        value = category_focal_loss(logits, torch.tensor([[label]]), 0.25, 2.0)
        (grad,) = torch.autograd.grad(value, logits)
        assert value.isfinite()
        assert grad.isfinite().all()


def test_half_precision_is_summed_in_float32():
    logits, labels = inputs(200, dtype=torch.float32)
    half = logits.detach().bfloat16().requires_grad_()
    value = category_focal_loss(half, labels, 0.25, 2.0)
    assert value.dtype == torch.float32
    torch.testing.assert_close(value, reference(half.float(), labels, 0.25, 2.0))
    value.backward()
    assert half.grad.dtype == torch.bfloat16


def quality_reference(logits, labels, quality, gamma):
    """The definition, with a target for every class of every cell."""
    classes = logits.shape[1]
    flat = logits.flatten(2).transpose(1, 2)
    target = torch.nn.functional.one_hot(labels, classes + 1)[..., :classes] * quality[..., None]
    entropy = torch.nn.functional.binary_cross_entropy_with_logits(flat, target, reduction="none")
    return ((flat.sigmoid() - target).abs() ** gamma * entropy).sum()


@pytest.mark.parametrize("classes", [1, 7, 300])
@pytest.mark.parametrize("gamma", [2.0, 1.5])
def test_quality_focal_loss_is_its_definition(classes, gamma):
    logits, labels = inputs(classes)
    quality = torch.rand(labels.shape, generator=torch.Generator().manual_seed(1)).double()
    found = quality_focal_loss(logits, labels, quality, gamma)
    wanted = quality_reference(logits, labels, quality, gamma)
    torch.testing.assert_close(found, wanted)
    (ours,), (theirs,) = (torch.autograd.grad(3 * x, logits) for x in (found, wanted))
    torch.testing.assert_close(ours, theirs)


def test_a_quality_of_one_is_the_focal_loss_without_balance():
    logits, labels = inputs(5)
    found = quality_focal_loss(logits, labels, torch.ones(labels.shape), 2.0)
    torch.testing.assert_close(found, 2 * category_focal_loss(logits, labels, 0.5, 2.0))


def test_a_score_that_is_the_quality_has_neither_loss_nor_gradient():
    logits = torch.tensor([0.7, -40.0], dtype=torch.float64).view(1, 2, 1, 1).requires_grad_()
    quality = logits.detach()[:, :1].sigmoid().view(1, 1)
    value = quality_focal_loss(logits, torch.tensor([[0]]), quality, 2.0)
    (grad,) = torch.autograd.grad(value, logits)
    assert value < 1e-30
    assert grad.abs().max() < 1e-30


def test_extreme_logits_and_qualities_stay_finite():
    logits = torch.tensor([-200.0, -90, 90, 200]).view(1, 4, 1, 1).requires_grad_()
    for label in range(5):
        for quality in (0.0, 0.5, 1.0):
            for gamma in (0.0, 0.5, 2.0):
                value = quality_focal_loss(
                    logits, torch.tensor([[label]]), torch.tensor([[quality]]), gamma
                )
                (grad,) = torch.autograd.grad(value, logits)
                assert value.isfinite()
                assert grad.isfinite().all()


def test_a_quality_of_another_shape_is_refused():
    logits, labels = inputs(3)
    with pytest.raises(ValueError, match=r"a quality for each label \(2, 25\), got \(2, 24\)"):
        quality_focal_loss(logits, labels, torch.ones(2, 24), 2.0)


@pytest.mark.parametrize("kind", [torch.uint8, torch.int16, torch.int32])
def test_labels_may_have_any_whole_type(kind):
    logits, labels = torch.randn(2, 3, 4, 5), torch.randint(0, 4, (2, 20))
    expected = category_focal_loss(logits, labels, 0.25, 2.0)
    assert torch.equal(category_focal_loss(logits, labels.to(kind), 0.25, 2.0), expected)
    quality = torch.rand(2, 20)
    expected = quality_focal_loss(logits, labels, quality, 2.0)
    assert torch.equal(quality_focal_loss(logits, labels.to(kind), quality, 2.0), expected)
