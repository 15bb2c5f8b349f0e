"""Label assignment against a slow loop, written from the paper (§3.3.1) and the design's rules.

The loop works on exact fractions: centre of mass of 0-based pixel indices, box of the mask,
centre region (c_x, c_y, eps w, eps h) clipped to 3x3 cells, cell = floor(c S / extent), ranges
inclusive, the smaller mask wins a cell.
"""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from builders import rectangles
from detectron2.structures import BitMasks, Instances, PolygonMasks
from hypothesis import given, settings
from hypothesis import strategies as st

from solo_d2.modeling import GridSpec
from solo_d2.modeling.targets import Measures, SOLOTargetAssigner

CPU = torch.device("cpu")


def slow_owners(masks, canvas, num_grids, ranges, epsilon):
    """Object that owns every cell (level, row, column) of one image that has an owner."""
    height, width = canvas
    owners = {}
    for index, mask in enumerate(masks):
        ys, xs = (axis.tolist() for axis in np.nonzero(mask))
        if not xs:
            continue
        area = len(xs)
        cx, cy = Fraction(sum(xs), area), Fraction(sum(ys), area)
        w, h = max(xs) - min(xs) + 1, max(ys) - min(ys) + 1
        for level, (size, (low, high)) in enumerate(zip(num_grids, ranges, strict=True)):
            if not low**2 <= w * h <= high**2:
                continue
            column, row = math.floor(cx * size / width), math.floor(cy * size / height)
            for j in range(column - 1, column + 2):
                for i in range(row - 1, row + 2):
                    if not (0 <= i < size and 0 <= j < size):
                        continue
                    left = math.floor((cx - epsilon * w / 2) * size / width)
                    right = math.floor((cx + epsilon * w / 2) * size / width)
                    top = math.floor((cy - epsilon * h / 2) * size / height)
                    bottom = math.floor((cy + epsilon * h / 2) * size / height)
                    if not (left <= j <= right and top <= i <= bottom):
                        continue
                    other = owners.get((level, i, j))
                    if other is None or area <= masks[other].sum():
                        owners[level, i, j] = index
    return owners


def assigner(num_grids=(5,), ranges=((1, 999),), epsilon=0.2, strides=(4,), num_classes=4):
    grid = GridSpec.build(num_grids, ranges, [8] * len(num_grids))
    return SOLOTargetAssigner(grid, num_classes, epsilon, strides)


def from_masks(masks, classes):
    masks = torch.as_tensor(np.asarray(masks))
    return Instances(
        tuple(masks.shape[1:]),
        gt_masks=BitMasks(masks),
        gt_classes=torch.tensor(classes, dtype=torch.int64),
    )


def owned_cells(targets, grid, image=0):
    """What `slow_owners` gives, read from targets; objects are numbered over the whole batch."""
    per_image = [sum(counts) for counts in targets.counts]
    start = sum(per_image[:image])
    stop = start + per_image[image]
    cells = zip(*(x.tolist() for x in grid.locate(targets.cells[start:stop])), strict=True)
    return dict(zip(cells, targets.instances[start:stop].tolist(), strict=True))


def columns_of_point(x, width, size, epsilon=0.2):
    """Grid columns that a one-pixel object at column x claims."""
    assign = assigner([size], [[1, 9]], epsilon)
    targets = assign([rectangles((8, width), [(x, 3, x + 1, 4)], [0])], (8, width), CPU)
    return sorted({column for _, _, column in owned_cells(targets, assign.grid)})


@st.composite
def scenes(draw):
    """Random blobs on up to two images of different sizes, with a canvas that holds both."""
    rng = np.random.default_rng(draw(st.integers(0, 10**6)))
    canvas = draw(st.sampled_from([(32, 48), (40, 40), (64, 24)]))
    images = []
    for _ in range(draw(st.integers(1, 2))):
        height = int(rng.integers(8, canvas[0] + 1))
        width = int(rng.integers(8, canvas[1] + 1))
        masks = np.zeros((int(rng.integers(0, 6)), height, width), dtype=bool)
        for mask in masks:
            y0, x0 = int(rng.integers(0, height)), int(rng.integers(0, width))
            y1, x1 = int(rng.integers(y0, height + 1)), int(rng.integers(x0, width + 1))
            density = draw(st.sampled_from([0.2, 1.0]))
            mask[y0:y1, x0:x1] = rng.random((y1 - y0, x1 - x0)) < density
        images.append((masks, rng.integers(0, 4, len(masks)).tolist()))
    return canvas, images


@given(scene=scenes(), epsilon=st.sampled_from([Fraction(1, 5), Fraction(1, 2), Fraction(0)]))
@settings(max_examples=120, deadline=None)
def test_targets_are_those_of_the_slow_loop(scene, epsilon):
    canvas, images = scene
    grids, ranges = [10, 8, 5, 3], [[1, 12], [6, 20], [10, 40], [20, 99]]
    assign = assigner(grids, ranges, float(epsilon))
    instances = [from_masks(masks, classes) for masks, classes in images]
    targets = assign(instances, canvas, CPU)
    first_object = 0
    for image, (masks, classes) in enumerate(images):
        expected = slow_owners(masks, canvas, grids, ranges, epsilon)
        got = owned_cells(targets, assign.grid, image)
        assert {cell: owner - first_object for cell, owner in got.items()} == expected
        labels = torch.full((assign.grid.num_cells,), 4)
        for cell, owner in expected.items():
            labels[assign.grid.flatten(*cell)] = classes[owner]
        assert torch.equal(targets.labels[image], labels)
        levels = [cell[0] for cell in expected]
        assert targets.counts[image] == [levels.count(level) for level in range(4)]
        first_object += len(masks)
    check_masks(targets, images, canvas)


def check_masks(targets, images, canvas):
    """Padded to the canvas, bilinear, at least one half."""
    padded = [
        np.pad(masks, [(0, 0), (0, canvas[0] - masks.shape[1]), (0, canvas[1] - masks.shape[2])])
        for masks, _ in images
    ]
    full = torch.from_numpy(np.concatenate(padded)).float()
    size = (canvas[0] // 4, canvas[1] // 4)
    if len(full):
        soft = F.interpolate(full[None], size=size, mode="bilinear", align_corners=False)[0]
        assert torch.equal(targets.masks[4], soft >= 0.5)
    else:
        assert targets.masks[4].shape == (0, *size)


def test_positives_are_sorted_by_image_and_cell_and_match_the_labels():
    images = [
        rectangles((64, 64), [(0, 0, 60, 60), (30, 2, 40, 12)], [3, 1]),
        rectangles((64, 64), [(8, 8, 24, 24)], [2]),
    ]
    targets = assigner([10, 5], [[1, 30], [10, 99]])(images, (64, 64), CPU)
    image, cells = (targets.labels != 4).nonzero(as_tuple=True)
    assert torch.equal(targets.cells, cells)
    classes = torch.tensor([3, 1, 2])
    assert torch.equal(classes[targets.instances], targets.labels[image, cells])
    assert [sum(counts) for counts in targets.counts] == torch.bincount(image).tolist()


# W = 800 and S = 40: a cell is 20 pixels wide. In float division by 1 / S, 100 falls into cell 4.
@pytest.mark.parametrize(
    ("x", "column"),
    [(99, 4), (100, 5), (101, 5), (140, 7), (180, 9), (200, 10), (0, 0), (799, 39)],
)
def test_a_centre_on_a_border_belongs_to_the_next_cell(x, column):
    assert columns_of_point(x, 800, 40, epsilon=0) == [column]


@pytest.mark.parametrize("size", [40, 36, 24, 16, 12])
@pytest.mark.parametrize("width", [800, 1344, 320])
def test_every_border_that_is_a_pixel_is_exact(size, width):
    for column in range(size):
        if column * width % size == 0:
            assert columns_of_point(column * width // size, width, size, epsilon=0) == [column]


def test_an_edge_of_the_centre_region_on_a_border_belongs_to_the_next_cell():
    # 50 pixels between the columns 44 and 84 with the mean 3205 / 50 = 64.1: the centre region
    # begins at 64.1 - 0.1 * 41 = 60, where cell 3 of 20 pixels begins (59.999... in float64).
    mask = np.zeros((1, 8, 800), dtype=bool)
    mask[0, 0, 44:85] = True
    mask[0, 1, [60, 61, 62, 63, 64, 65, 66, 67, 73]] = True
    assign = assigner([40], [[1, 99]], epsilon=0.2)
    targets = assign([from_masks(mask, [0])], (8, 800), CPU)
    assert {column for _, _, column in owned_cells(targets, assign.grid)} == {3}


@pytest.mark.parametrize(
    ("side", "levels"),
    [(11, [0]), (12, [0, 1]), (20, [0, 1]), (21, [1]), (40, [1]), (41, [])],
)
def test_scale_ranges_hold_both_ends(side, levels):
    assign = assigner([5, 5], [[1, 20], [12, 40]])
    targets = assign([rectangles((48, 48), [(0, 0, side, side)], [0])], (48, 48), CPU)
    assert sorted({level for level, _, _ in owned_cells(targets, assign.grid)}) == levels


def test_scale_is_the_geometric_mean_of_the_box_and_not_the_root_of_the_area():
    # 36 x 4 pixels: sqrt(144) = 12 exactly. A frame of the same box has fewer pixels.
    assign = assigner([5], [[12, 12]])
    frame = rectangles((48, 48), [(0, 0, 36, 4)], [0])
    frame.gt_masks.tensor[0, 1:3, 1:35] = False
    assert sum(assign([frame], (48, 48), CPU).counts[0]) > 0


def test_centre_is_that_of_mass_and_not_of_the_box():
    # An L of one row and one column: both means are 780 / 79 = 9.87, the box's centre is 19.5.
    mask = np.zeros((1, 40, 40), dtype=bool)
    mask[0, 0, :] = mask[0, :, 0] = True
    assign = assigner([4], [[1, 99]], epsilon=0)
    targets = assign([from_masks(mask, [0])], (40, 40), CPU)
    assert owned_cells(targets, assign.grid) == {(0, 0, 0): 0}  # 9.87 < 10 = one cell


def test_centre_region_is_clipped_to_three_by_three_cells():
    # A full canvas with eps = 1 touches all 100 cells.
    assign = assigner([10], [[1, 99]], epsilon=1.0)
    targets = assign([rectangles((40, 40), [(0, 0, 40, 40)], [0])], (40, 40), CPU)
    expected = {(0, row, column): 0 for row in (3, 4, 5) for column in (3, 4, 5)}
    assert owned_cells(targets, assign.grid) == expected  # c = 19.5 lies in cell 4


def test_centre_region_is_clipped_to_the_canvas():
    assign = assigner([10], [[1, 99]], epsilon=1.0)
    targets = assign([rectangles((40, 40), [(0, 37, 8, 40)], [0])], (40, 40), CPU)
    # c = (3.5, 38): cell (9, 0); x reaches from -0.5 to 7.5, y from 36.5 to 39.5.
    assert owned_cells(targets, assign.grid) == {(0, 9, 0): 0, (0, 9, 1): 0}


@pytest.mark.parametrize("order", [[0, 1], [1, 0]])
def test_the_smaller_object_gets_a_shared_cell(order):
    boxes = [(0, 0, 39, 39), (15, 15, 24, 24)]  # both centred at 19
    assign = assigner([5], [[1, 99]], epsilon=0.0)
    instances = rectangles((40, 40), [boxes[i] for i in order], [order[0], order[1]])
    targets = assign([instances], (40, 40), CPU)
    assert targets.labels[0, assign.grid.flatten(0, 2, 2)] == 1
    assert owned_cells(targets, assign.grid) == {(0, 2, 2): order.index(1)}


def test_smaller_means_mask_area_and_not_box():
    # A frame of 30 x 30 with 116 pixels against a full 12 x 12 with 144.
    instances = rectangles((40, 40), [(0, 0, 30, 30), (9, 9, 21, 21)], [0, 1])
    instances.gt_masks.tensor[0, 1:29, 1:29] = False
    targets = assigner([5], [[1, 99]], epsilon=0.0)([instances], (40, 40), CPU)
    assert targets.labels[0][targets.labels[0] != 4].tolist() == [0]


def test_the_larger_object_keeps_its_other_cells():
    instances = rectangles((40, 40), [(0, 0, 40, 40), (18, 18, 22, 22)], [0, 1])
    targets = assigner([10], [[1, 99]], epsilon=0.2)([instances], (40, 40), CPU)
    assert {0, 1} <= set(targets.labels.flatten().tolist())


def test_objects_of_different_images_do_not_meet():
    first, second = ([rectangles((40, 40), [(0, 0, 40, 40)], [label])] for label in (0, 1))
    assign = assigner([5], [[1, 99]])
    targets = assign([*first, *second], (40, 40), CPU)
    for image, alone in enumerate([first, second]):
        assert torch.equal(targets.labels[image], assign(alone, (40, 40), CPU).labels[0])


def test_the_grid_lies_over_the_canvas_and_not_over_the_image():
    assign = assigner([4], [[1, 99]], epsilon=0)
    instances = [rectangles((40, 40), [(30, 30, 31, 31)], [0])]
    assert list(owned_cells(assign(instances, (40, 40), CPU), assign.grid)) == [(0, 3, 3)]
    assert list(owned_cells(assign(instances, (40, 80), CPU), assign.grid)) == [(0, 3, 1)]


def bare(size=(16, 16)):
    return Instances(size)


def without_masks(size=(16, 16)):
    return Instances(size, gt_classes=torch.zeros(0, dtype=torch.int64))


@pytest.mark.parametrize("empty", [bare, without_masks])
def test_no_objects_give_background(empty):
    targets = assigner()([empty(), empty()], (16, 16), CPU)
    assert (targets.labels == 4).all()
    assert targets.cells.shape == targets.instances.shape == (0,)
    assert targets.counts == [[0], [0]]
    assert targets.masks[4].shape == (0, 4, 4)


@pytest.mark.parametrize("empty", [bare, without_masks])
def test_an_image_without_objects_may_stand_beside_one_with(empty):
    full = rectangles((16, 16), [(2, 2, 9, 9)], [1])
    assign = assigner()
    alone = assign([full], (16, 16), CPU)
    for position in (0, 1):
        batch = [empty(), empty()]
        batch[position] = full
        targets = assign(batch, (16, 16), CPU)
        assert torch.equal(targets.labels[position], alone.labels[0])
        assert (targets.labels[1 - position] == 4).all()
        assert torch.equal(targets.masks[4], alone.masks[4])


def test_empty_masks_claim_nothing_and_do_not_disturb():
    masks = np.zeros((3, 16, 16), dtype=bool)
    masks[1, 2:9, 2:9] = True
    assign = assigner(ranges=[[0, 99]])  # even where the range holds the size 0
    targets = assign([from_masks(masks, [0, 1, 2])], (16, 16), CPU)
    assert set(targets.instances.tolist()) == {1}
    assert set(targets.labels.flatten().tolist()) == {1, 4}


def test_polygons_are_the_same_as_bitmaps():
    polygons = Instances((32, 32), gt_classes=torch.tensor([2]))
    polygons.gt_masks = PolygonMasks([[np.array([4.0, 4, 20, 4, 20, 28, 4, 28])]])
    assign = assigner()
    bitmap = rectangles((32, 32), [(4, 4, 20, 28)], [2])
    expected, got = (assign([x], (32, 32), CPU) for x in (bitmap, polygons))
    assert torch.equal(got.labels, expected.labels)
    assert torch.equal(got.masks[4], expected.masks[4])


def test_six_hundred_objects():
    boxes = [(x, y, x + 3, y + 3) for y in range(0, 80, 4) for x in range(0, 120, 4)]
    classes = [i % 4 for i in range(len(boxes))]
    assign = assigner([40], [[1, 99]], epsilon=0)
    targets = assign([rectangles((80, 120), boxes, classes)], (80, 120), CPU)
    assert sum(targets.counts[0]) == len(targets.cells) == 600  # every centre has its own cell


@pytest.mark.parametrize("label", [-1, 4])
def test_class_outside_the_model_names_the_key(label):
    with pytest.raises(ValueError, match=r"\[0, 4\).*NUM_CLASSES"):
        assigner()([rectangles((16, 16), [(0, 0, 4, 4)], [label])], (16, 16), CPU)


def test_masks_larger_than_the_canvas_are_refused():
    with pytest.raises(ValueError, match=r"16x24 pixels.*16x16.*same size"):
        assigner()([rectangles((16, 24), [(0, 0, 4, 4)], [0])], (16, 16), CPU)


def test_objects_without_masks_are_refused():
    with pytest.raises(ValueError, match="MASK_ON"):
        assigner()([Instances((16, 16), gt_classes=torch.tensor([1]))], (16, 16), CPU)


@pytest.mark.parametrize("epsilon", [-0.1, 1.1])
def test_centre_region_is_a_fraction(epsilon):
    with pytest.raises(ValueError, match="CENTER_REGION"):
        assigner(epsilon=epsilon)


def test_masks_on_the_host_are_measured_there_and_only_targets_travel():
    """A device that holds nothing: what is computed on it would have no values to count."""
    truth = [rectangles((64, 96), [(4, 4, 40, 40), (50, 20, 90, 60)], [0, 1])]
    assign = SOLOTargetAssigner(
        GridSpec.build([12, 6], [[1, 48], [24, 512]], [8, 16]), 2, 0.2, (4,)
    )
    expected = assign(truth, (64, 96), CPU)
    found = assign(truth, (64, 96), torch.device("meta"))
    assert found.counts == expected.counts
    for name in ("labels", "cells", "instances", "classes", "images"):
        moved, stayed = getattr(found, name), getattr(expected, name)
        assert moved.device.type == "meta"
        assert (moved.shape, moved.dtype) == (stayed.shape, stayed.dtype)
    assert {x.shape for x in found.masks.values()} == {(2, 16, 24)}


def test_measures_of_images_with_their_own_canvases_claim_as_the_images_do():
    assign = assigner((5, 3), ((1, 12), (6, 99)))
    boxes = [[(2, 2, 9, 9), (3, 3, 8, 8)], [], [(20, 5, 40, 30), (0, 0, 4, 4), (1, 1, 3, 3)]]
    canvases = [(16, 16), (32, 32), (32, 64)]
    owners, start = [], 0
    for group, canvas in zip(boxes, canvases, strict=True):
        targets = assign([rectangles(canvas, group, [0] * len(group))], canvas, CPU)
        owner = torch.full((assign.grid.num_cells,), -1)
        owner[targets.cells] = targets.instances + start
        owners.append(owner)
        start += len(group)
    corners = torch.tensor([box for group in boxes for box in group], dtype=torch.float64)
    sizes = corners[:, 2:] - corners[:, :2]
    images = torch.tensor([0, 0, 2, 2, 2])
    measures = Measures(
        images=images,
        sizes=sizes,
        areas=sizes.prod(1),
        centers=(corners[:, :2] + corners[:, 2:] - 1) / 2,
        canvases=torch.tensor(canvases, dtype=torch.float64)[images].flip(1),
    )
    assert torch.equal(assign.claim(measures, 3), torch.stack(owners))
