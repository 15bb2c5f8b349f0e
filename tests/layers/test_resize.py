"""Alignment of features to a grid: each mode against an independent computation."""

from __future__ import annotations

import math

import pytest
import torch

from solo_d2.layers import align_to_grid, resize_bilinear
from solo_d2.layers.resize import ALIGN_MODES


def features(height, width, channels=3, count=2):
    generator = torch.Generator().manual_seed(0)
    return torch.randn(count, channels, height, width, generator=generator, dtype=torch.float64)


def sample(x, row, column):
    """Bilinear sample of (C, H, W) at a position where 0 is the middle of the first pixel."""
    height, width = x.shape[-2:]
    row, column = min(max(row, 0), height - 1), min(max(column, 0), width - 1)
    top, left = int(row), int(column)
    bottom, right = min(top + 1, height - 1), min(left + 1, width - 1)
    dy, dx = row - top, column - left
    upper = x[:, top, left] * (1 - dx) + x[:, top, right] * dx
    lower = x[:, bottom, left] * (1 - dx) + x[:, bottom, right] * dx
    return upper * (1 - dy) + lower * dy


def mean_of_samples(x, size, row, column, dense):
    """Samples in the middle of equal parts of a cell: one, or at least as many as pixels."""
    height, width = x.shape[-2:]
    rows = math.ceil(height / size) if dense else 1
    columns = math.ceil(width / size) if dense else 1
    total = 0
    for i in range(rows):
        for j in range(columns):
            y = (row + (i + 0.5) / rows) * height / size - 0.5
            z = (column + (j + 0.5) / columns) * width / size - 0.5
            total = total + sample(x, y, z)
    return total / (rows * columns)


def largest_pixel(x, size, row, column):
    height, width = x.shape[-2:]
    rows = slice(row * height // size, math.ceil((row + 1) * height / size))
    columns = slice(column * width // size, math.ceil((column + 1) * width / size))
    return x[:, rows, columns].amax((1, 2))


@pytest.mark.parametrize("mode", ALIGN_MODES)
@pytest.mark.parametrize("shape", [(8, 12), (5, 7), (2, 3), (1, 1)])
@pytest.mark.parametrize("size", [1, 3, 4])
def test_every_cell_is_what_its_definition_says(mode, shape, size):
    x = features(*shape)
    out = align_to_grid(x, size, mode)
    assert out.shape == (2, 3, size, size)
    for image in range(2):
        for row in range(size):
            for column in range(size):
                if mode == "adaptive_max_pool":
                    expected = largest_pixel(x[image], size, row, column)
                else:
                    dense = mode == "region_grid"
                    expected = mean_of_samples(x[image], size, row, column, dense)
                torch.testing.assert_close(out[image, :, row, column], expected)


@pytest.mark.parametrize("mode", ALIGN_MODES)
def test_a_map_of_the_grids_own_size_stays_as_it_is(mode):
    x = features(6, 6)
    torch.testing.assert_close(align_to_grid(x, 6, mode), x)


@pytest.mark.parametrize("mode", ALIGN_MODES)
def test_alignment_works_under_autocast(mode):
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = align_to_grid(features(8, 12).bfloat16(), 4, mode)
    torch.testing.assert_close(
        out.double(), align_to_grid(features(8, 12), 4, mode), atol=0.03, rtol=0.03
    )


def test_four_pixels_average_in_a_region_but_not_at_a_coarse_sample():
    x = torch.zeros(1, 1, 4, 4)
    x[0, 0, 0, 0] = 16.0
    # Of the 4 x 4 samples of the only cell one is the bright pixel; the middle sees none of it.
    assert align_to_grid(x, 1, "region_grid").item() == 1.0
    assert align_to_grid(x, 1, "bilinear").item() == 0.0
    assert align_to_grid(x, 1, "adaptive_max_pool").item() == 16.0


def test_unknown_mode_names_the_key():
    with pytest.raises(ValueError, match=r"MODEL.SOLO.ALIGN must be one of .*'nearest'"):
        align_to_grid(features(4, 4), 2, "nearest")


def test_bilinear_has_half_pixel_centres():
    x = torch.tensor([[[[0.0, 4.0]]]])
    assert resize_bilinear(x, (1, 4)).flatten().tolist() == [0.0, 1.0, 3.0, 4.0]


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("channels", [15, 16])
def test_a_gpu_resizes_many_channels_as_it_does_few(channels):
    x = features(7, 9, channels)
    found = resize_bilinear(x.cuda(), (14, 18)).cpu()
    torch.testing.assert_close(found, resize_bilinear(x, (14, 18)))
