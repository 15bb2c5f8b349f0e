"""Dynamic soft assignment against slow loops, by hand, and through every head."""

from __future__ import annotations

import math

import pytest
import torch
from builders import SOFT, noise_input, rectangles, tiny_model
from hypothesis import given, settings
from hypothesis import strategies as st

from solo_d2.layers import budgets
from solo_d2.modeling import GridSpec
from solo_d2.modeling.dynamic_assigner import DynamicSoftAssigner, cheapest, costs
from solo_d2.modeling.structures import SOLOPredictions

CPU = torch.device("cpu")
DYNAMIC = ("MODEL.SOLO.ASSIGNER", "dynamic_soft")
# No object is in the range of any level.
GRID = GridSpec.build([8, 4, 2], [[900, 999]] * 3, [8, 16, 32])
SIZE = (64, 64)


def assigner(**changes):
    return DynamicSoftAssigner(GRID, 3, (4,), level_strides=(4, 4, 4), **changes)


def candidates_of(*images):
    truth = [rectangles(SIZE, boxes, [i % 3 for i in range(len(boxes))]) for boxes in images]
    return assigner()(truth, SIZE, CPU)


def pairs(targets):
    located = zip(*(x.tolist() for x in GRID.locate(targets.cells)), strict=True)
    return list(zip(targets.instances.tolist(), located, strict=True))


def test_candidates_are_the_cells_around_the_centre_that_the_box_touches():
    # Around the centre of mass (27.5, 11.5) the box reaches from 19.5 to 35.5 and from 7.5 to 15.5.
    targets = candidates_of([(20, 8, 36, 16)])
    assert pairs(targets) == [
        *((0, (0, row, column)) for row in (0, 1) for column in (2, 3, 4)),
        *((0, (1, 0, column)) for column in (1, 2)),
        *((0, (2, 0, column)) for column in (0, 1)),
    ]
    assert targets.counts == [[6, 2, 2]]
    assert (targets.labels == 3).all()


def test_distances_are_counted_in_cells_from_the_middle_of_a_cell():
    targets = candidates_of([(20, 8, 36, 16)])
    # In cells the centre is (27.5, 11.5) / 8, / 16 and / 32.
    for (_, (level, row, column)), distance in zip(pairs(targets), targets.distances, strict=True):
        side = (8, 16, 32)[level]
        expected = math.hypot(27.5 / side - column - 0.5, 11.5 / side - row - 0.5)
        assert distance.item() == pytest.approx(expected)


def test_candidates_of_several_images_are_sorted_by_image_and_cell():
    targets = candidates_of([(0, 0, 60, 60), (8, 8, 50, 50)], [], [(30, 30, 34, 34)])
    images = targets.images[targets.instances]
    keys = (images * GRID.num_cells + targets.cells).tolist()
    assert keys == sorted(keys)
    assert len(set(keys)) < len(keys)  # both objects of the first image want the same cells
    for image, counts in enumerate(targets.counts):
        levels = GRID.levels(targets.cells[images == image]).tolist()
        assert counts == [levels.count(level) for level in range(3)]
    assert targets.counts[0] == [18, 18, 8]


def test_a_candidate_costs_scores_mask_and_distance():
    logits = torch.tensor([[0.0, 0.0], [2.0, -1.0]])
    found = costs(logits, torch.tensor([0, 1]), torch.tensor([0.5, 0.8]), torch.tensor([3.0, 0.0]))
    # Scores of 1/2: a wanted 1/2 costs nothing, a wanted 0 a quarter of ln 2. Distance 3 costs 1.
    first = 0.25 * math.log(2) - 3 * math.log(0.5) + 1
    p, q = 1 / (1 + math.exp(-2)), 1 / (1 + math.exp(1))
    second = -math.log(1 - p) * p**2
    second -= (0.8 * math.log(q) + 0.2 * math.log(1 - q)) * (0.8 - q) ** 2
    second += -3 * math.log(0.8) + 1e-3
    assert found.tolist() == pytest.approx([first, second], rel=1e-5)


def test_a_mask_that_misses_its_object_has_a_finite_cost():
    found = costs(torch.zeros(1, 2), torch.tensor([1]), torch.zeros(1), torch.zeros(1))
    assert found.item() == pytest.approx(-3 * math.log(1e-7) + 0.5 * math.log(2) / 2, rel=1e-2)


def slow_choice(objects, count, cells, ious, cost):
    """The candidates of every object in order of their cost, then the contested cells."""
    wanted = set()
    for index in range(count):
        mine = [q for q, owner in enumerate(objects) if owner == index]
        number = max(1, int(sum(sorted((ious[q] for q in mine), reverse=True)[:13])))
        wanted |= set(sorted(mine, key=lambda q: cost[q])[:number])
    return [
        q in wanted and all(cost[q] <= cost[r] for r in wanted if cells[r] == cells[q])
        for q in range(len(objects))
    ]


@given(data=st.data())
@settings(max_examples=60, deadline=None)
def test_choice_is_that_of_the_slow_loop(data):
    count = data.draw(st.integers(0, 4))
    per_object = [data.draw(st.integers(0, 20)) for _ in range(count)]
    objects = [index for index, number in enumerate(per_object) for _ in range(number)]
    cells = [cell for number in per_object for cell in range(number)]
    # Sixteenths, of which sums are exact, and costs that are all different.
    ious = [data.draw(st.integers(0, 16)) / 16 for _ in objects]
    cost = data.draw(st.permutations(range(len(objects))))
    found = cheapest(
        torch.tensor(objects, dtype=torch.int64),
        count,
        torch.tensor(cells, dtype=torch.int64),
        torch.tensor(ious, dtype=torch.float32),
        torch.tensor(cost, dtype=torch.float32),
    )
    assert found.tolist() == slow_choice(objects, count, cells, ious, cost)


@pytest.mark.parametrize(
    ("ious", "number"),
    [([0.0] * 5, 1), ([0.9] * 5, 4), ([0.5] * 3, 1), ([0.5] * 4, 2), ([1.0] * 20, 13)],
)
def test_an_object_gets_as_many_cells_as_the_ious_of_its_best_masks_add_up_to(ious, number):
    objects = torch.zeros(len(ious), dtype=torch.int64)
    cost = torch.arange(len(ious)).float().flip(0)
    chosen = cheapest(objects, 1, torch.arange(len(ious)), torch.tensor(ious), cost)
    assert chosen.nonzero().flatten().tolist() == list(range(len(ious)))[-number:]


def test_equal_costs_for_one_cell_let_one_object_win():
    chosen = cheapest(
        torch.tensor([0, 1]), 2, torch.tensor([7, 7]), torch.tensor([0.6, 0.6]), torch.ones(2)
    )
    assert chosen.tolist() == [True, False]


BOXES = [(4, 4, 40, 40), (44, 44, 60, 60)]


def predicted(good, num_images=1):
    """Scores of one half, and masks that fit only at some (image, cell): index of the object."""
    logits = [torch.zeros(num_images, 3, size, size) for size in GRID.num_grids]
    masks = [rectangles(SIZE, BOXES, [0, 1]).gt_masks.tensor[:, ::4, ::4].float()] * num_images

    def mask_probs(predictions, image, cells, *, levels=None):
        found = torch.zeros(len(cells), 16, 16)
        for row, cell in zip(found, cells.tolist(), strict=True):
            if (image, cell) in good:
                row.copy_(masks[image][good[image, cell]])
        return found

    return SOLOPredictions(logits, None), mask_probs


@pytest.mark.parametrize("budget", [2**25, 1])
def test_cells_whose_masks_fit_are_chosen_on_any_level(monkeypatch, budget):
    monkeypatch.setattr(budgets, "MASK_LOSS_PIXELS", budget)
    make, truth = assigner(), rectangles(SIZE, BOXES, [0, 1])
    fine, middle, coarse = GRID.flatten(0, 3, 2), GRID.flatten(1, 1, 1), GRID.flatten(2, 1, 1)
    good = {(1, fine): 0, (1, middle): 0, (1, coarse): 1}
    candidates = make([rectangles(SIZE, [], []), truth], SIZE, CPU)
    targets = make.match(candidates, *predicted(good, num_images=2))
    assert targets.cells.tolist() == sorted([fine, middle, coarse])
    assert targets.instances.tolist() == [0, 0, 1]
    assert targets.counts == [[0, 0, 0], [1, 1, 1]]
    labels = torch.full((2, GRID.num_cells), 3)
    labels[1, [fine, middle]], labels[1, coarse] = 0, 1
    assert torch.equal(targets.labels, labels)
    assert torch.equal(targets.masks[4], candidates.masks[4])
    assert int(make.lost_objects.lost) == 0


def test_without_any_mask_an_object_gets_the_cell_nearest_to_its_centre():
    make = assigner()
    candidates = make([rectangles(SIZE, BOXES, [0, 1])], SIZE, CPU)
    targets = make.match(candidates, *predicted({}))
    nearest = [
        candidates.cells[rows][candidates.distances[rows].argmin()].item()
        for rows in (candidates.instances == 0, candidates.instances == 1)
    ]
    assert dict(zip(targets.instances.tolist(), targets.cells.tolist(), strict=True)) == dict(
        enumerate(nearest)
    )


def test_an_object_whose_only_cell_another_one_gets_is_lost():
    make = assigner()
    truth = rectangles(SIZE, [(30, 30, 34, 34)] * 2, [0, 1])
    targets = make.match(make([truth], SIZE, CPU), *predicted({}))
    assert len(targets.cells) == 1
    assert (make.lost_objects.seen, int(make.lost_objects.lost)) == (2, 1)
    assert "SCALE_RANGES" not in make.lost_objects.cause


@pytest.mark.parametrize(
    "head",
    [
        ("VanillaSOLOHead",),
        ("DecoupledSOLOHead", "MODEL.SOLO.CATEGORY_LOSS", "rank_sort"),
        ("DecoupledLightSOLOHead", "MODEL.SOLO.MASK_TARGETS", "coverage"),
        ("DynamicSOLOHead", "MODEL.SOLO.CATEGORY_LOSS", "quality_focal"),
        ("DynamicSOLOHead", "MODEL.SOLO.MASK_FEATURE.TYPE", "separate"),
        ("DecoupledDynamicSOLOHead", "MODEL.SOLO.MASK_LOSS_POINTS", 50),
    ],
)
def test_every_head_learns_from_it(head):
    model = tiny_model(*DYNAMIC, "MODEL.SOLO.HEAD", *head)
    batch = [noise_input((64, 96), [(3, 5, 42, 38), (50, 10, 91, 61)], [0, 1])]
    losses = model([*batch, noise_input((64, 96))])
    sum(losses.values()).backward()
    assert all(torch.isfinite(x) and x > 0 for x in losses.values())
    assert all(p.grad is not None for p in model.head.parameters())
    empty = model([noise_input((64, 96))])
    assert empty["loss_mask"].item() == 0
    assert all(torch.isfinite(x) for x in empty.values())


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (SOFT, 'ASSIGNER must be "center" with SoftSOLO, which has an assigner of its own'),
        (("MODEL.SOLO.CENTER_REGION", 0.5), "CENTER_REGION is 0.5, but dynamic_soft has no use"),
        (("MODEL.SOLO.ASSIGNER", "simota"), "ASSIGNER must be one of .* got 'simota'"),
    ],
)
def test_what_does_not_go_with_it_is_told(given, said):
    with pytest.raises(ValueError, match=said):
        tiny_model(*DYNAMIC, *given)


def test_scale_ranges_make_no_difference():
    batch = [noise_input((64, 96), [(3, 5, 42, 38)], [0])]
    other = ("MODEL.SOLO.SCALE_RANGES", [[900, 999]] * 5)
    first, second = (tiny_model(*DYNAMIC, *more)(batch) for more in ((), other))
    assert {k: v.item() for k, v in first.items()} == {k: v.item() for k, v in second.items()}
