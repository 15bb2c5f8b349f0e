"""Area-coverage mask targets: their values, what they bring, and what refuses them."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from builders import SOFT, noise_input, rectangles, tiny_model

from solo_d2.modeling import GridSpec
from solo_d2.modeling.aux_semantic import semantic_targets
from solo_d2.modeling.targets import SOLOTargetAssigner

CPU = torch.device("cpu")
COVERAGE = ("MODEL.SOLO.MASK_TARGETS", "coverage")
GRID = GridSpec.build([4], [[1, 999]], [8])


def targets_of(mask_targets, *boxes, size=(16, 24), canvas=None):
    assign = SOLOTargetAssigner(GRID, 3, 0.2, (4,), mask_targets)
    truth = rectangles(size, boxes, list(range(len(boxes))))
    return assign([truth], canvas or size, CPU)


def test_a_target_is_the_share_of_a_cell_that_the_object_covers():
    targets = targets_of("coverage", (2, 4, 11, 9), (0, 0, 1, 1))
    # Columns 2, 4 and 3 of three cells, rows 4 and 1 of two; of the other one pixel of sixteen.
    expected = torch.zeros(2, 4, 6)
    expected[0, 1, :3] = torch.tensor([0.5, 1.0, 0.75])
    expected[0, 2, :3] = torch.tensor([0.5, 1.0, 0.75]) / 4
    expected[1, 0, 0] = 1 / 16
    assert torch.equal(targets.masks[4].float(), expected)


def test_padding_is_covered_by_nothing():
    targets = targets_of("coverage", (12, 8, 18, 14), size=(14, 18), canvas=(16, 24))
    expected = torch.zeros(4, 6)
    expected[2:, 3:5] = torch.tensor([[1.0, 0.5], [0.5, 0.25]])
    assert torch.equal(targets.masks[4][0].float(), expected)


def test_cells_and_labels_are_those_of_binary_targets():
    boxes = (2, 4, 11, 9), (5, 5, 20, 14)
    binary, coverage = (targets_of(kind, *boxes) for kind in ("binary", "coverage"))
    assert binary.masks[4].dtype == torch.bool
    for name in ("labels", "cells", "instances", "classes", "images"):
        assert torch.equal(getattr(binary, name), getattr(coverage, name))


@pytest.mark.parametrize("left", range(4))
def test_enlarged_coverage_finds_an_edge_that_a_binary_target_moves(left):
    boxes = [(8 + left, 0, 40 + left, 32)]
    truth = rectangles((32, 64), boxes, [0]).gt_masks.tensor
    wrong = {}
    for kind in ("binary", "coverage"):
        target = targets_of(kind, *boxes, size=(32, 64)).masks[4].float()
        found = F.interpolate(target[None], (32, 64), mode="bilinear")[0] > 0.5
        wrong[kind] = int((found ^ truth).sum()) // 32  # columns
    # Both vertical edges are off by as much as the box is off the cells, or by nothing.
    assert wrong == {"binary": [0, 2, 4, 2][left], "coverage": 0}


def test_semantic_targets_are_binary_at_one_half():
    targets = targets_of("coverage", (0, 0, 10, 8), (16, 0, 17, 16))
    found = semantic_targets(targets, 1, 3, 4)[0]
    assert found[0].sum() == 6  # two whole cells and a half, of two rows each
    assert not found[1].any()  # a quarter


@pytest.mark.parametrize(
    "given",
    [
        ("MODEL.SOLO.MASK_LOSS", "bce"),
        ("MODEL.SOLO.MASK_LOSS", "dice", "MODEL.SOLO.CATEGORY_LOSS", "quality_focal"),
        ("MODEL.SOLO.HEAD", "DecoupledSOLOHead", "MODEL.SOLO.AUX_SEMANTIC_LOSS_WEIGHT", 1.0),
    ],
)
def test_models_learn_from_coverage(given):
    model = tiny_model(*COVERAGE, *given)
    batch = [
        noise_input((64, 96), [(3, 5, 42, 38), (50, 10, 91, 61)], [0, 1]),
        noise_input((64, 96)),
    ]
    losses = model(batch)
    sum(losses.values()).backward()
    assert all(torch.isfinite(loss) and loss > 0 for loss in losses.values())
    assert any(p.grad is not None and p.grad.abs().sum() > 0 for p in model.head.parameters())


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (("MODEL.SOLO.MASK_LOSS", "focal"), "coverage needs a .*MASK_LOSS of soft.* got 'focal'"),
        (SOFT, "MASK_TARGETS is 'coverage', but the targets of SoftSOLO are whole mattes"),
        (
            (*SOFT, "MODEL.SOLO.MASK_TARGETS", "binary", "MODEL.SOLO.MASK_LOSS_POINTS", 9),
            "MASK_LOSS_POINTS is 9, but the targets of SoftSOLO are whole mattes",
        ),
        (("MODEL.SOLO.MASK_TARGETS", "soft"), "one of 'binary', 'coverage', got 'soft'"),
    ],
)
def test_what_does_not_go_with_coverage_is_told(given, said):
    with pytest.raises(ValueError, match=said):
        tiny_model(*COVERAGE, *given)
