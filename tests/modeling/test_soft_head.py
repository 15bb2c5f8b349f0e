"""Soft SOLO's head against the paper's composition written out, and its targets."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from builders import rectangles
from head_builders import make_features, make_head, perturb, resize

from solo_d2.layers import budgets, dice_loss
from solo_d2.modeling import criterion as criterion_module
from solo_d2.modeling.criterion import SOLOCriterion
from solo_d2.modeling.heads.details_refinement import DetailsRefinement
from solo_d2.modeling.mattes import MatteTargetAssigner, resize_mattes

SOFT = ("MODEL.SOLO.HEAD", "SoftDynamicSOLOHead")
CELLS = torch.tensor([359, 0, 150, 0])


def soft_features(size=(64, 96)):
    generator = torch.Generator().manual_seed(5)
    image = torch.rand((2, 3, *size), generator=generator) - 0.5
    return {**make_features(size), "image": image}


@pytest.mark.parametrize(("norm", "channels"), [("", 4), ("GN", 32)])
def test_refinement_is_the_papers_sequence_of_layers(norm, channels):
    refinement = perturb(
        DetailsRefinement(in_channels=8, channels=channels, num_convs=3, norm=norm)
    )
    feature, image = torch.randn(2, 8, 5, 6), torch.rand(2, 3, 20, 24)
    x = F.conv2d(feature, refinement.reduce.weight, refinement.reduce.bias)
    x = torch.cat([resize(x, (20, 24)), image], 1)
    assert x.shape == (2, channels + 3, 20, 24)
    for layer in refinement.convs:
        x = F.conv2d(x, layer.weight, layer.bias, padding=1)
        x = (F.group_norm(x, 32, layer.norm.weight, layer.norm.bias) if norm else x).relu()
    assert len(refinement.convs) == 3
    torch.testing.assert_close(refinement(feature, image), x)


def test_without_the_picture_nothing_depends_on_it():
    refinement = perturb(
        DetailsRefinement(in_channels=8, channels=4, num_convs=1, use_image=False, norm="")
    )
    feature = torch.randn(1, 8, 2, 3)
    black, white = torch.zeros(1, 3, 8, 12), torch.ones(1, 3, 8, 12)
    torch.testing.assert_close(
        refinement(feature, black), refinement(feature, white), rtol=0, atol=0
    )


def test_mattes_are_kernels_on_the_sum_of_refined_and_enlarged_feature():
    """The E channels at full resolution, which the head never makes, are made here."""
    head = perturb(make_head(*SOFT))
    predictions = head(soft_features())
    inputs = predictions.mask_inputs
    feature = inputs.dynamic.features[0].all[1]  # (E, 16, 24)
    expanded = F.conv2d(
        inputs.details.all[1:], head.details.expand.weight, head.details.expand.bias
    )
    final = expanded + resize(feature[None], (64, 96))  # (1, E, 64, 96)
    expected = torch.einsum("ke,ehw->khw", inputs.dynamic.kernels.all[1, CELLS], final[0]).sigmoid()
    mattes = head.mask_probs(predictions, 1, CELLS)
    assert mattes.shape == (4, 64, 96)
    torch.testing.assert_close(mattes, expected)
    assert mattes.std((1, 2)).min() > 0.01


def test_without_fusion_the_enlarged_feature_is_left_out():
    head = perturb(make_head(*SOFT, "MODEL.SOLO.DETAILS.FUSE", False))
    predictions = head(soft_features())
    inputs = predictions.mask_inputs
    final = F.conv2d(inputs.details.all[:1], head.details.expand.weight, head.details.expand.bias)
    expected = torch.einsum("ke,ehw->khw", inputs.dynamic.kernels.all[0, CELLS], final[0]).sigmoid()
    torch.testing.assert_close(head.mask_probs(predictions, 0, CELLS), expected)


def test_before_training_mattes_are_the_enlarged_logits_of_solov2():
    soft, plain = make_head(*SOFT), make_head()
    missing, unexpected = soft.load_state_dict(perturb(plain).state_dict(), strict=False)
    assert not unexpected
    assert all(key.startswith("details.") for key in missing)
    features = soft_features()
    inputs = plain(features).mask_inputs
    logits = torch.einsum("ke,ehw->khw", inputs.kernels.all[0, CELLS], inputs.features[0].all[0])
    expected = resize(logits[None], (64, 96))[0].sigmoid()
    torch.testing.assert_close(
        soft.mask_probs(soft(features), 0, CELLS), expected, rtol=1e-4, atol=1e-5
    )
    # And those for selection and NMS are SOLOv2's own.
    torch.testing.assert_close(
        soft.mask_probs(soft(features), 0, CELLS, size=(16, 24)),
        plain.mask_probs(plain(features), 0, CELLS),
    )


def test_no_cell_keeps_every_parameter_of_the_branch_in_the_graph():
    head = make_head(*SOFT)
    predictions = head(soft_features())
    masks = head.mask_probs(predictions, 0, torch.zeros(0, dtype=torch.int64))
    assert masks.shape == (0, 64, 96)
    masks.sum().backward()
    lacking = [name for name, p in head.named_parameters() if p.grad is None]
    assert all(name.startswith("category") for name in lacking), lacking


def test_plain_meta_architecture_is_named_as_the_mistake():
    with pytest.raises(ValueError, match="SoftSOLO"):
        make_head(*SOFT)(make_features())


@pytest.mark.parametrize("key", ["CONV_DIM", "NUM_CONVS"])
def test_sizes_of_the_refinement_must_be_positive(key):
    with pytest.raises(ValueError, match=rf"DETAILS.{key}"):
        make_head(*SOFT, f"MODEL.SOLO.DETAILS.{key}", 0)


def test_frozen_category_branch_gets_no_gradient_and_the_rest_does():
    head = make_head(*SOFT, "MODEL.SOLO.FREEZE_CATEGORY_BRANCH", True)
    frozen = {name for name, p in head.named_parameters() if not p.requires_grad}
    assert frozen == {n for n, _ in head.named_parameters() if n.startswith("category")} != set()
    predictions = head(soft_features())
    loss = head.mask_probs(predictions, 0, CELLS).sum()
    (loss + sum(x.sum() for x in predictions.category_logits)).backward()
    lacking = {name for name, p in head.named_parameters() if p.grad is None}
    assert lacking == frozen


def assigner(strides=(1,)):
    return MatteTargetAssigner(make_head().grid, 3, 0.2, strides)


def test_mattes_become_targets_as_they_are():
    instances = rectangles((20, 30), [(2, 3, 12, 13)], [1])
    matte = torch.zeros((1, 20, 30), dtype=torch.uint8)
    matte[0, 3:13, 2:12] = torch.arange(156, 256).view(10, 10)
    instances.gt_mattes = matte
    targets = assigner()([instances], (32, 32), torch.device("cpu"))
    assert targets.masks[1].dtype == torch.float32
    assert targets.masks[1].shape == (1, 32, 32)
    torch.testing.assert_close(targets.masks[1][0, :20, :30], matte[0] / 255)
    assert targets.masks[1][0, 20:].sum() == targets.masks[1][0, :, 30:].sum() == 0


def test_masks_stand_in_for_mattes_and_the_cells_are_the_same():
    instances = rectangles((32, 32), [(2, 3, 12, 13)], [1])
    soft = assigner()([instances], (32, 32), torch.device("cpu"))
    torch.testing.assert_close(soft.masks[1], instances.gt_masks.tensor.float())
    instances.gt_mattes = instances.gt_masks.tensor.byte() * 200
    mattes = assigner((1, 4))([instances], (32, 32), torch.device("cpu"))
    assert torch.equal(soft.cells, mattes.cells)
    assert len(soft.cells)
    assert mattes.masks[4].dtype == torch.bool  # for an auxiliary semantic loss


@pytest.mark.parametrize("shape", [(1, 32, 31), (2, 32, 32)])
def test_mattes_of_another_size_are_refused(shape):
    instances = rectangles((32, 32), [(2, 3, 12, 13)], [1])
    instances._fields["gt_mattes"] = torch.zeros(shape, dtype=torch.uint8)
    with pytest.raises(ValueError, match=r"gt_mattes must be uint8 of shape \(1, 32, 32\)"):
        assigner()([instances], (32, 32), torch.device("cpu"))


def test_loss_in_pieces_has_the_value_and_gradient_of_the_whole(monkeypatch):
    head = perturb(make_head(*SOFT))
    instances = rectangles((64, 96), [(2, 3, 40, 50), (50, 10, 90, 60), (5, 40, 15, 60)], [0, 1, 2])
    targets = assigner()([instances, instances[:0]], (64, 96), torch.device("cpu"))
    assert len(targets.cells) > 4
    criterion = SOLOCriterion(
        num_classes=3,
        category_weight=1.0,
        mask_loss="matte",
        mask_weight=1.0,
        focal_alpha=0.25,
        focal_gamma=2.0,
        mask_strides=head.mask_strides,
    )
    results = []
    for pixels in (2**25, 2 * 64 * 96):
        monkeypatch.setattr(budgets, "MASK_LOSS_PIXELS", pixels)
        largest = []

        def probs(*args, largest=largest, **kwargs):
            masks = head.mask_probs(*args, **kwargs)
            largest.append(len(masks))
            return masks

        head.zero_grad()
        loss = criterion(head(soft_features()), targets, probs)["loss_mask"]
        loss.backward()
        gradients = {n: p.grad.clone() for n, p in head.named_parameters() if p.grad is not None}
        results.append((loss.detach(), gradients, max(largest)))
    (whole, gradients, most), (pieces, same, few) = results
    assert (most, few) == (len(targets.cells), 2)
    torch.testing.assert_close(whole, pieces)
    assert gradients.keys() == same.keys()
    for name, gradient in gradients.items():
        torch.testing.assert_close(gradient, same[name], rtol=1e-4, atol=1e-6)


def test_matte_loss_in_closed_form():
    """p = 1/2 everywhere on a target of 3/4: MAE 1/4, Dice 1 - 2·(3/8) / (1/4 + 9/16) = 1/13."""
    probs, target = torch.full((1, 100, 100), 0.5), torch.full((1, 100, 100), 0.75)
    losses = criterion_module.MASK_LOSSES
    torch.testing.assert_close(losses["mae"](probs, target), torch.tensor([0.25]))
    torch.testing.assert_close(dice_loss(probs, target), torch.tensor([1 / 13]), atol=1e-6, rtol=0)
    torch.testing.assert_close(
        losses["matte"](probs, target), torch.tensor([0.25 + 1 / 13]), atol=1e-6, rtol=0
    )
    torch.testing.assert_close(losses["mae"](probs, probs > 0.4), torch.tensor([0.5]))


def test_mattes_at_the_output_size_leave_the_padding_out():
    ramp = torch.linspace(0, 1, 8).expand(3, 6, 8)

    def cell_mattes(cells):
        return ramp[cells]

    cells = torch.tensor([2, 0])
    same = resize_mattes(cell_mattes, cells, (5, 4), (5, 4))
    torch.testing.assert_close(same, ramp[cells, :5, :4])
    twice = resize_mattes(cell_mattes, cells, (5, 4), (10, 8))
    torch.testing.assert_close(twice, resize(ramp[None, cells, :5, :4], (10, 8))[0])
    half = resize_mattes(cell_mattes, cells, (4, 4), (2, 2))
    assert half.shape == (2, 2, 2)
    assert float(half.mean()) == pytest.approx(float(ramp[0, 0, :4].mean()))
    assert resize_mattes(cell_mattes, cells[:0], (4, 4), (2, 3)).shape == (0, 2, 3)


@pytest.mark.parametrize("size", [(77, 91), (100, 131), (333, 411)])
def test_mattes_stay_at_most_one_when_they_are_resized(size):
    def opaque(cells):
        return torch.ones(len(cells), 100, 130)

    mattes = resize_mattes(opaque, torch.arange(3), (100, 130), size)
    assert mattes.max() <= 1
    torch.testing.assert_close(mattes, torch.ones(3, *size))
