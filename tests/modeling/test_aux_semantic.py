"""Auxiliary semantic loss: its targets, its value, and that it is for training only."""

from __future__ import annotations

import math

import pytest
import torch
from builders import noise_input, rectangles, tiny_model

from solo_d2.modeling import GridSpec
from solo_d2.modeling.aux_semantic import AuxSemanticBranch, semantic_targets
from solo_d2.modeling.targets import SOLOTargetAssigner

GRID = GridSpec.build([4, 2], [[1, 64], [32, 256]], [8, 16])
AUX = ("MODEL.SOLO.AUX_SEMANTIC_LOSS_WEIGHT", 1.0)


def targets_of(*images, size=(32, 48), num_classes=3):
    assign = SOLOTargetAssigner(GRID, num_classes, 0.2, (4,))
    return assign([rectangles(size, *image) for image in images], size, torch.device("cpu"))


def test_targets_are_the_union_of_the_masks_of_a_class():
    targets = targets_of(
        ([(0, 0, 16, 16), (8, 8, 32, 24), (8, 8, 32, 24)], [2, 2, 0]), ([(40, 0, 48, 32)], [1])
    )
    expected = torch.zeros(2, 3, 8, 12, dtype=torch.bool)
    expected[0, 2, :4, :4] = expected[0, 2, 2:6, 2:8] = True  # overlapping objects
    expected[0, 0, 2:6, 2:8] = True  # a pixel may belong to two classes
    expected[1, 1, :, 10:] = True
    assert torch.equal(semantic_targets(targets, 2, 3, 4), expected)


def test_no_objects_leave_the_targets_empty():
    found = semantic_targets(targets_of(([], []), ([], [])), 2, 3, 4)
    assert found.shape == (2, 3, 8, 12)
    assert not found.any()


def test_many_objects_of_one_class_are_no_more_than_one():
    boxes = [(0, 0, 16, 16)] * 300  # more than a byte counts
    found = semantic_targets(targets_of((boxes, [1] * 300)), 1, 3, 4)
    assert found.sum() == 16
    assert found[0, 1, :4, :4].all()


def branch(**changes):
    values = {"num_classes": 3, "weight": 1.0, "norm": "GN", "prior_prob": 0.01, **changes}
    return AuxSemanticBranch(in_feature="p2", in_channels=32, stride=4, **values)


def test_the_branch_is_three_layers_and_a_predictor():
    made = branch(num_classes=80)
    assert [conv.in_channels for conv in made.tower] == [32, 128, 128]
    assert made.predictor.weight.shape == (80, 128, 1, 1)


@pytest.mark.parametrize("num_classes", [3, 80])
@pytest.mark.parametrize("weight", [1.0, 0.5])
def test_loss_is_summed_over_classes_and_averaged_over_pixels(num_classes, weight):
    made = branch(num_classes=num_classes, weight=weight, prior_prob=0.2)
    made.predictor.weight.data.zero_()  # the prior everywhere
    features = {"p2": torch.randn(2, 32, 8, 12)}
    targets = targets_of(([(0, 0, 48, 16)], [1]), ([(0, 0, 24, 32)], [0]), num_classes=num_classes)
    # In each image half of the pixels have one class, the others none.
    absent, present = -math.log(0.8), -math.log(0.2)
    expected = weight * (num_classes * absent + 0.5 * (present - absent))
    losses = made.losses(features, targets)
    assert list(losses) == ["loss_semantic"]
    assert losses["loss_semantic"].item() == pytest.approx(expected, rel=1e-5)


def test_the_branch_adds_a_loss_in_training_only(training_batch):
    model = tiny_model(*AUX)
    plain = tiny_model()
    extra = {n for n in model.state_dict() if n not in plain.state_dict()}
    assert extra == {n for n in model.state_dict() if n.startswith("aux_semantic.")}
    assert set(model(training_batch)) == {"loss_category", "loss_mask", "loss_semantic"}
    assert set(plain(training_batch)) == {"loss_category", "loss_mask"}

    def refuse(*_):
        raise AssertionError("the branch ran")

    model.aux_semantic.forward = refuse
    model.eval()(training_batch)


def test_a_batch_without_objects_teaches_the_branch_that_nothing_is_there():
    model = tiny_model(*AUX)
    losses = model([noise_input((64, 96)), noise_input((64, 96))])
    sum(losses.values()).backward()
    assert losses["loss_semantic"].item() > 0
    assert all(p.grad is not None for p in model.aux_semantic.parameters())
    assert (model.aux_semantic.predictor.bias.grad > 0).all()  # scores go down


def test_the_stride_is_that_of_the_finest_feature(training_batch):
    model = tiny_model(*AUX, "MODEL.SOLO.IN_FEATURES", ["p3", "p3", "p4", "p5", "p6"])
    assert model.aux_semantic.stride == 8
    assert torch.isfinite(model(training_batch)["loss_semantic"])
