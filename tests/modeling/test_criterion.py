"""Training loss in closed form and against a loop over Equation 5."""

from __future__ import annotations

import math

import pytest
import torch

from solo_d2.layers import budgets
from solo_d2.modeling.criterion import MASK_LOSSES, SOLOCriterion
from solo_d2.modeling.structures import SOLOPredictions, SOLOTargets

ALPHA, GAMMA, LAMBDA = 0.25, 2.0, 3.0
LN2 = math.log(2)


def criterion(num_classes=2, mask_strides=(4, 4), **changes):
    values = {
        "category_weight": 1.0,
        "mask_weight": LAMBDA,
        "focal_alpha": ALPHA,
        "focal_gamma": GAMMA,
        **changes,
    }
    return SOLOCriterion(num_classes=num_classes, mask_strides=mask_strides, **values)


def targets_of(positives, *, num_images=1, sizes=(2, 1), num_classes=2, masks=None):
    """Targets with the positives (image, level, cell in level, class, object)."""
    starts = [sum(s * s for s in sizes[:level]) for level in range(len(sizes))]
    num_cells = sum(size * size for size in sizes)
    labels = torch.full((num_images, num_cells), num_classes)
    counts = [[0] * len(sizes) for _ in range(num_images)]
    for image, level, cell, label, _ in positives:
        labels[image, starts[level] + cell] = label
        counts[image][level] += 1
    return SOLOTargets(
        labels=labels,
        cells=torch.tensor([starts[p[1]] + p[2] for p in positives], dtype=torch.int64),
        instances=torch.tensor([p[4] for p in positives], dtype=torch.int64),
        counts=counts,
        classes=torch.zeros(9, dtype=torch.int64),
        images=torch.zeros(9, dtype=torch.int64),
        masks=masks if masks is not None else {4: torch.ones(9, 5, 5, dtype=torch.bool)},
    )


def zero_logits(num_images=1, sizes=(2, 1), num_classes=2):
    logits = [
        torch.zeros(num_images, num_classes, size, size, requires_grad=True) for size in sizes
    ]
    return SOLOPredictions(logits, None)


def constant_masks(value, size=(5, 5)):
    def mask_probs(predictions, image, cells, *, levels=None, size_=size):
        return torch.full((len(cells), *size_), value)

    return mask_probs


def test_focal_loss_of_undecided_logits():
    # p = 0.5 everywhere: 10 (cell, class) pairs, one positive.
    # Positive: 0.25 * 0.25 * ln 2. Negative: 0.75 * 0.25 * ln 2. One positive cell.
    targets = targets_of([(0, 0, 1, 1, 0)])
    losses = criterion()(zero_logits(), targets, constant_masks(1.0))
    expected = (0.25 * 0.25 + 9 * 0.75 * 0.25) * LN2
    assert losses["loss_category"].item() == pytest.approx(expected, rel=1e-5)


def test_masks_of_one_half_cost_lambda_fifths():
    positives = [(0, 0, 1, 1, 0), (0, 0, 2, 0, 1), (0, 1, 0, 0, 1)]
    losses = criterion()(zero_logits(), targets_of(positives), constant_masks(0.5))
    # Each 1 - 2 * 12.5 / (6.25 + 25 + 0.002); the mean over three positives is that of one.
    expected = LAMBDA * (1 - 25 / 31.252)
    assert losses["loss_mask"].item() == pytest.approx(expected, rel=1e-5)


def test_perfect_masks_cost_next_to_nothing():
    losses = criterion()(zero_logits(), targets_of([(0, 0, 1, 1, 0)]), constant_masks(1.0))
    assert losses["loss_mask"].item() == pytest.approx(LAMBDA * 0.002 / 50.002, rel=1e-3)


@pytest.mark.parametrize(
    ("name", "each"),
    [
        ("bce", 2 * LN2),  # all pixels of the target are foreground, which counts twice
        ("focal", 0.25 * 0.25 * LN2),
    ],
)
def test_other_mask_losses_are_means_over_pixels_then_positives(name, each):
    positives = [(0, 0, 1, 1, 0), (0, 0, 2, 0, 1), (0, 1, 0, 0, 1)]
    losses = criterion(mask_loss=name, mask_weight=7.0)(
        zero_logits(), targets_of(positives), constant_masks(0.5)
    )
    assert losses["loss_mask"].item() == pytest.approx(7 * each, rel=1e-5)


def test_unknown_mask_loss_names_the_known_ones():
    with pytest.raises(ValueError, match=r"MASK_LOSS must be one of .*dice.*, got 'iou'"):
        criterion(mask_loss="iou")


def test_weights_multiply_their_own_loss():
    targets = targets_of([(0, 0, 1, 1, 0)])
    one = criterion()(zero_logits(), targets, constant_masks(0.3))
    more = criterion(category_weight=2.0, mask_weight=2 * LAMBDA)(
        zero_logits(), targets, constant_masks(0.3)
    )
    for key in ("loss_category", "loss_mask"):
        assert more[key].item() == pytest.approx(2 * one[key].item())


def test_both_losses_are_per_positive_cell():
    one = targets_of([(0, 0, 1, 1, 0)])
    two = targets_of([(0, 0, 1, 1, 0), (0, 0, 2, 1, 0)])
    first, second = (criterion()(zero_logits(), t, constant_masks(0.5)) for t in (one, two))
    assert second["loss_mask"].item() == pytest.approx(first["loss_mask"].item())
    expected = (2 * 0.25 * 0.25 + 8 * 0.75 * 0.25) * LN2 / 2
    assert second["loss_category"].item() == pytest.approx(expected, rel=1e-5)


def test_without_positives_the_normaliser_is_one_and_the_mask_loss_zero():
    predictions = zero_logits(num_images=2)
    losses = criterion()(predictions, targets_of([], num_images=2), constant_masks(0.5))
    assert losses["loss_mask"].item() == 0
    assert losses["loss_category"].item() == pytest.approx(20 * 0.75 * 0.25 * LN2, rel=1e-5)
    losses["loss_category"].backward()
    assert all((x.grad > 0).all() for x in predictions.category_logits)


def slow_losses(logits, targets, soft, masks):
    """Equations 4 to 7 and the focal loss, cell by cell; `soft` (N, T, h, w), one mask stride."""
    cells = torch.cat([x.flatten(2) for x in logits], 2).double()  # (N, C, T)
    category = mask = count = 0
    for image in range(cells.shape[0]):
        for cell in range(cells.shape[2]):
            label = int(targets.labels[image, cell])
            for c in range(cells.shape[1]):
                p = cells[image, c, cell].sigmoid().item()
                if label == c:
                    category += ALPHA * (1 - p) ** GAMMA * -math.log(p)
                else:
                    category += (1 - ALPHA) * p**GAMMA * -math.log(1 - p)
            if label < cells.shape[1]:
                p = soft[image, cell].double()
                q = masks[int(targets.instances[count])].double()
                overlap = 2 * (p * q).sum() / ((p * p).sum() + (q * q).sum() + 0.002)
                mask += 1 - overlap.item()
                count += 1
    return category / max(count, 1), LAMBDA * mask / max(count, 1)


def test_random_predictions_cost_what_the_loop_says():
    generator = torch.Generator().manual_seed(0)
    sizes, num_images, num_classes = (3, 2), 2, 4
    masks = torch.rand(5, 6, 7, generator=generator) > 0.5
    positives = [
        (0, 0, 2, 1, 0),
        (0, 0, 5, 0, 1),
        (0, 1, 0, 1, 0),
        (1, 0, 0, 3, 4),
        (1, 1, 3, 2, 2),
    ]
    targets = targets_of(
        positives, num_images=num_images, sizes=sizes, num_classes=num_classes, masks={4: masks}
    )
    logits = [torch.randn(num_images, num_classes, s, s, generator=generator) for s in sizes]
    soft = torch.rand(num_images, 13, 6, 7, generator=generator)
    losses = criterion(num_classes=num_classes)(
        SOLOPredictions(logits, soft), targets, lambda p, n, cells, levels=None: soft[n][cells]
    )
    category, mask = slow_losses(logits, targets, soft, masks)
    assert losses["loss_category"].item() == pytest.approx(category, rel=1e-5)
    assert losses["loss_mask"].item() == pytest.approx(mask, rel=1e-5)


@pytest.mark.parametrize(
    ("by_level", "groups"), [(False, [(0, 1), (2,)]), (True, [(0,), (1,), (2,)])]
)
def test_levels_with_other_mask_strides_meet_their_own_targets(by_level, groups):
    # Perfect masks at three strides; any mixture of sizes or cells would fail or cost.
    sizes, strides = (2, 2, 1), (4, 4, 8)
    generator = torch.Generator().manual_seed(1)
    masks = {4: torch.rand(3, 8, 8, generator=generator) > 0.5}
    masks[8] = torch.rand(3, 4, 4, generator=generator) > 0.5
    positives = [(0, 0, 3, 0, 2), (0, 1, 1, 1, 0), (0, 2, 0, 0, 1), (1, 2, 0, 1, 2)]
    targets = targets_of(positives, num_images=2, sizes=sizes, masks=masks)
    owners = {(0, 3): 2, (0, 5): 0, (0, 8): 1, (1, 8): 2}
    asked = []

    def mask_probs(predictions, image, cells, *, levels=None):
        stride = 4 if 2 not in levels else 8
        asked.append((image, tuple(levels)))
        own = [owners[image, int(cell)] for cell in cells]
        return masks[stride][own].float()

    predictions = zero_logits(num_images=2, sizes=sizes)
    losses = criterion(mask_strides=strides, by_level=by_level)(predictions, targets, mask_probs)
    assert losses["loss_mask"].item() < 1e-3
    assert sorted(asked) == [(image, levels) for image in (0, 1) for levels in groups]


@pytest.mark.parametrize("budget", [2**25, 64, 1])
def test_masks_of_all_images_are_compared_at_once_and_their_ious_keep_their_places(
    monkeypatch, budget
):
    """Of object n, n pixels in 16 and as many of 64 are found where all should be."""
    monkeypatch.setattr(budgets, "MASK_LOSS_PIXELS", budget)
    masks = {4: torch.ones(5, 8, 8, dtype=torch.bool), 8: torch.ones(5, 4, 4, dtype=torch.bool)}
    positives = [(0, 1, 0, 0, 1), (1, 0, 3, 1, 2), (1, 1, 0, 0, 3), (2, 1, 0, 1, 4)]
    targets = targets_of(positives, num_images=3, sizes=(2, 1), masks=masks)
    numbers = {(0, 4): 1, (1, 3): 2, (1, 4): 3, (2, 4): 4}

    def mask_probs(predictions, image, cells, *, levels=None):
        side = 8 if 0 in levels else 4
        found = torch.zeros(len(cells), side * side)
        for row, cell in zip(found, cells, strict=True):
            row[: numbers[image, int(cell)] * side * side // 16] = 1
        return found.view(-1, side, side)

    calls = []

    def loss(probs, wanted):
        calls.append(len(probs))
        return probs.mean((1, 2))

    monkeypatch.setitem(MASK_LOSSES, "counted", loss)
    make = criterion(mask_strides=(4, 8), mask_loss="counted", category_loss="quality_focal")
    total, ious = make._mask_loss(zero_logits(num_images=3), targets, mask_probs)
    assert total.item() == pytest.approx(10 / 16)
    assert ious.tolist() == [n / 16 for n in (1, 2, 3, 4)]
    if budget == 2**25:
        assert calls == [1, 3]


def test_loss_is_float32_for_bfloat16_logits():
    predictions = SOLOPredictions(
        [x.detach().bfloat16() for x in zero_logits().category_logits], None
    )
    losses = criterion()(predictions, targets_of([(0, 0, 1, 1, 0)]), constant_masks(0.5))
    assert {loss.dtype for loss in losses.values()} == {torch.float32}


@pytest.mark.parametrize("pieces", [1, 3])
def test_the_target_of_the_quality_focal_loss_is_the_iou_of_the_mask(monkeypatch, pieces):
    """Object 0 fills 10 of 25 pixels, object 1 all; a mask of ones has the IoU 0.4 and 1."""
    masks = torch.ones(9, 5, 5, dtype=torch.bool)
    masks[0, 2:] = False
    positives = [(0, 0, 0, 0, 1), (0, 0, 3, 1, 0), (1, 1, 0, 1, 0)]
    targets = targets_of(positives, num_images=2, masks={4: masks})
    targets.images[:2] = torch.tensor([0, 0])
    targets.images[2], targets.instances[2] = 1, 2
    masks[2] = masks[0]
    predictions = zero_logits(num_images=2)
    if pieces > 1:
        monkeypatch.setattr(budgets, "MASK_LOSS_PIXELS", 25)

    def mask_probs(predictions, image, cells, *, levels=None):
        return torch.full((len(cells), 5, 5), 0.8, requires_grad=True)

    found = criterion(category_loss="quality_focal")(predictions, targets, mask_probs)
    wrong = 2 * 5 * 2 - 3  # logits of a class that is not the cell's
    # |y - 1/2|^2 · ln 2 for y = 0, 1, 0.4 and 0.4: a logit of 0 has the entropy ln 2 for any y.
    expected = LN2 * (wrong * 0.25 + 0.25 + 2 * 0.01) / 3
    assert found["loss_category"].item() == pytest.approx(expected)
    plain = criterion()(zero_logits(num_images=2), targets, mask_probs)
    assert found["loss_mask"].item() == pytest.approx(plain["loss_mask"].item())


def test_positives_of_all_images_are_ranked_by_the_iou_of_their_masks():
    """The masks are the targets of the quality focal loss's test: IoU 1, 0.4 and 0.4."""
    masks = torch.ones(9, 5, 5, dtype=torch.bool)
    masks[0, 2:] = masks[2, 2:] = False
    targets = targets_of([(0, 0, 0, 0, 1), (0, 1, 0, 1, 0), (1, 0, 3, 1, 2)], num_images=2)
    targets.masks[4] = masks
    targets.images[2] = 1
    targets.classes[:3] = torch.tensor([1, 0, 1])
    predictions = zero_logits(num_images=2)
    with torch.no_grad():
        # Of the class, level and cell of each positive; all negatives stay at 0.
        predictions.category_logits[0][0, 0, 0, 0] = 4.0
        predictions.category_logits[1][0, 1, 0, 0] = 8.0  # above the better one: a sorting error
        predictions.category_logits[0][1, 1, 1, 1] = -4.0  # below all 17 negatives
    losses = criterion(category_loss="rank_sort", category_weight=2.0)(
        predictions, targets, constant_masks(0.8)
    )
    # The better one has rank 1/2 + 1 among positives: current (0.6) / 1.5, wanted 0. The last one
    # has 17 negatives in a rank of 2.5 + 17; those above are no worse than itself, and of an IoU of
    # 1 and 0.4: what is wanted is what there is.
    expected = 2 * (0.6 / 1.5 + 17 / 19.5) / 3
    assert losses["loss_category"].item() == pytest.approx(expected)
    losses["loss_category"].backward()
    grad = predictions.category_logits[0].grad
    assert grad[0, 0, 0, 0].item() == pytest.approx(-2 * 0.4 / 3)
    assert grad[1, 1, 1, 1].item() == pytest.approx(-2 * 17 / 19.5 / 3)
    assert predictions.category_logits[1].grad[0, 1].item() == pytest.approx(2 * 0.4 / 3)


@pytest.mark.parametrize("loss", ["quality_focal", "rank_sort"])
def test_every_category_loss_without_objects_keeps_the_graph(loss):
    predictions = zero_logits()
    losses = criterion(category_loss=loss)(predictions, targets_of([]), constant_masks(0.5))
    losses["loss_category"].backward()
    assert all(x.grad is not None for x in predictions.category_logits)
    assert losses["loss_category"].item() == pytest.approx(10 * 0.25 * LN2 * (loss[0] == "q"))


def test_the_quality_focal_loss_without_objects_is_finite_and_differentiable():
    predictions = zero_logits()
    losses = criterion(category_loss="quality_focal")(
        predictions, targets_of([]), constant_masks(0.5)
    )
    losses["loss_category"].backward()
    assert losses["loss_category"].item() == pytest.approx(10 * 0.25 * LN2)
    assert all(x.grad.abs().sum() > 0 for x in predictions.category_logits)


def test_an_unknown_category_loss_is_refused():
    with pytest.raises(ValueError, match=r"CATEGORY_LOSS must be one of .*'quality_focal'.*'qfl'"):
        criterion(category_loss="qfl")


# ------------------------------------------------------------------ points of masks


def random_masks(count=2, size=(12, 16)):
    generator = torch.Generator().manual_seed(4)
    masks = torch.rand(9, *size, generator=generator) > 0.5
    soft = torch.rand(count, *size, generator=generator)
    return masks, soft


def soft_masks_of(soft):
    return lambda predictions, image, cells, *, levels=None: soft[: len(cells)]


@pytest.mark.parametrize("loss", ["dice", "bce", "dice_bce", "focal"])
def test_as_many_points_as_pixels_are_the_whole_mask(loss):
    masks, soft = random_masks()
    targets = targets_of([(0, 0, 1, 1, 0), (0, 0, 2, 1, 3)], masks={4: masks})
    whole, points = (
        criterion(mask_loss=loss, mask_points=count)(zero_logits(), targets, soft_masks_of(soft))
        for count in (0, 12 * 16)
    )
    assert whole["loss_mask"].item() == points["loss_mask"].item()


def test_the_loss_is_that_of_the_sampled_pixels_alone(monkeypatch):
    masks, soft = random_masks()
    soft.requires_grad_()
    chosen = torch.tensor([[3, 3, 100, 191], [0, 5, 17, 30]])
    monkeypatch.setattr("solo_d2.modeling.criterion.sample_points", lambda *_: chosen)
    targets = targets_of([(0, 0, 1, 1, 0), (0, 0, 2, 1, 3)], masks={4: masks})
    found = criterion(mask_loss="dice_bce", mask_points=4)(
        zero_logits(), targets, soft_masks_of(soft)
    )["loss_mask"]
    expected = 0.0
    for k, target in enumerate((masks[0], masks[3])):
        p, q = soft[k].flatten()[chosen[k]], target.flatten()[chosen[k]].float()
        dice = 1 - 2 * (p * q).sum() / ((p * p).sum() + (q * q).sum() + 0.002)
        entropy = -(q * p.log() + (1 - q) * (1 - p).log()).mean()
        expected += LAMBDA * (dice + entropy) / 2
    torch.testing.assert_close(found, expected)
    (gradient,) = torch.autograd.grad(found, soft)
    assert set(gradient[0].flatten().nonzero().flatten().tolist()) == {3, 100, 191}


@pytest.mark.parametrize("points", [0, 20])
def test_pieces_that_are_made_anew_have_the_gradient_of_the_same_points(monkeypatch, points):
    masks, soft = random_masks()
    soft.requires_grad_()
    seen = []

    def count_points(probs, wanted):
        seen.append(probs.detach().clone())
        return probs.square().flatten(1).sum(1)

    monkeypatch.setitem(MASK_LOSSES, "counted", count_points)
    monkeypatch.setattr(budgets, "MASK_LOSS_PIXELS", 1)
    targets = targets_of([(0, 0, 1, 1, 0), (0, 0, 2, 1, 3)], masks={4: masks})
    make = criterion(mask_loss="counted", mask_points=points)
    make(zero_logits(), targets, soft_masks_of(soft))["loss_mask"].backward()
    assert len(seen) == 4  # of two masks, forwards and backwards
    first, again = ({tuple(x.flatten().tolist()) for x in half} for half in (seen[:2], seen[2:]))
    assert first == again


def test_ious_of_points_are_those_of_whole_masks():
    masks, soft = random_masks()
    targets = targets_of([(0, 0, 1, 1, 0), (0, 0, 2, 1, 3)], masks={4: masks})
    whole, points = (
        criterion(category_loss="quality_focal", mask_points=count)(
            zero_logits(), targets, soft_masks_of(soft)
        )["loss_category"].item()
        for count in (0, 10)
    )
    assert whole == points
