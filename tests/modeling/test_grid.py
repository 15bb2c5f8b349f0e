"""Numbering of grid cells."""

from __future__ import annotations

import pytest
import torch

from solo_d2.modeling import GridSpec

RANGES = [[1, 96], [48, 192], [96, 384], [192, 768], [384, 2048]]


def published_grid():
    return GridSpec.build([40, 36, 24, 16, 12], RANGES, [4, 8, 16, 32, 64])


def test_published_pyramid_has_3872_cells():
    grid = published_grid()
    assert grid.num_levels == 5
    assert grid.level_sizes == (1600, 1296, 576, 256, 144)
    assert grid.starts == (0, 1600, 2896, 3472, 3728)
    assert grid.num_cells == 3872


def test_finest_level_is_halved_and_coarsest_doubled():
    assert published_grid().strides == (8, 8, 16, 32, 32)


def test_masks_of_a_level_are_twice_its_size():
    assert published_grid().mask_strides == (4, 4, 8, 16, 16)


def test_split_finds_the_cells_of_every_level_in_any_order():
    grid = GridSpec.build([3, 1, 2], RANGES[:3], [8, 16, 32])  # cells 0-8, 9, 10-13
    cells = torch.tensor([13, 0, 9, 8, 10, 0])
    parts = {level: cells[chosen].tolist() for level, chosen in grid.split(cells, [0, 1, 2])}
    assert {level: sorted(part) for level, part in parts.items()} == {
        0: [0, 0, 8],
        1: [9],
        2: [10, 13],
    }
    nothing = grid.split(cells[:0], [0, 1, 2])
    assert [(level, len(chosen)) for level, chosen in nothing] == [(0, 0), (1, 0), (2, 0)]


def test_split_refuses_cells_of_other_levels():
    grid = GridSpec.build([3, 1, 2], RANGES[:3], [8, 16, 32])
    assert len(grid.split(torch.tensor([0, 9]), [0, 1])) == 2
    with pytest.raises(ValueError, match=r"levels \[0, 1\] only"):
        grid.split(torch.tensor([0, 10]), [0, 1])


def test_locate_inverts_flatten_for_every_cell():
    grid = GridSpec.build([3, 1, 2], RANGES[:3], [8, 16, 32])
    flat = [
        grid.flatten(level, row, column)
        for level, size in enumerate(grid.num_grids)
        for row in range(size)
        for column in range(size)
    ]
    assert flat == list(range(grid.num_cells))  # level by level, k = i * S + j
    located = zip(*(part.tolist() for part in grid.locate(torch.tensor(flat))), strict=True)
    assert [grid.flatten(*cell) for cell in located] == flat


def test_levels_change_at_their_first_cell():
    cells = torch.tensor([0, 1599, 1600, 2895, 2896, 3471, 3472, 3727, 3728, 3871])
    assert published_grid().levels(cells).tolist() == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4]


def test_one_level_and_no_cells():
    grid = GridSpec.build([2], [[1, 9]], [8])
    assert grid.levels(torch.arange(4)).tolist() == [0, 0, 0, 0]
    assert [part.shape for part in grid.locate(torch.zeros(0, dtype=torch.int64))] == [(0,)] * 3


@pytest.mark.parametrize("cell", [(0, 3, 0), (0, 0, 3), (0, -1, 0), (1, 1, 0)])
def test_cells_outside_the_grid_are_refused(cell):
    grid = GridSpec.build([3, 1], RANGES[:2], [8, 16])
    with pytest.raises(ValueError, match="cells, got"):
        grid.flatten(*cell)


@pytest.mark.parametrize(
    ("grids", "ranges", "strides", "key"),
    [
        ([3, 1], RANGES[:1], [8, 16], "SCALE_RANGES with 1"),
        ([3], RANGES[:2], [8, 16], "NUM_GRIDS with 1"),
        ([3, 1], RANGES[:2], [8], "IN_FEATURES with 1"),
        ([], [], [], "one grid"),
        ([3, 0], RANGES[:2], [8, 16], "NUM_GRIDS must be positive"),
        ([3], [[96, 1]], [8], "SCALE_RANGES expects"),
        ([3], [[1, 48, 96]], [8], "SCALE_RANGES expects"),
    ],
)
def test_pyramids_that_do_not_fit_name_the_key(grids, ranges, strides, key):
    with pytest.raises(ValueError, match=key):
        GridSpec.build(grids, ranges, strides)
