"""Masks, boxes and instances at the output's resolution, against two plain interpolations."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from solo_d2.layers import masks_to_boxes
from solo_d2.modeling import output as output_module
from solo_d2.modeling.output import make_instances, resize_masks


def slow_resize(soft, canvas, image_size, output_size):
    """As the published models: to the canvas, crop the padding, to the output. Soft masks."""
    full = F.interpolate(soft[None], size=canvas, mode="bilinear", align_corners=False)
    crop = full[..., : image_size[0], : image_size[1]]
    return F.interpolate(crop, size=output_size, mode="bilinear", align_corners=False)[0]


def check_resize(soft, canvas, image_size, output_size, threshold=0.5):
    expected = slow_resize(soft, canvas, image_size, output_size)
    masks, boxes = resize_masks(soft.clone(), canvas, image_size, output_size, threshold)
    assert masks.shape == (len(soft), *output_size)
    assert masks.dtype == torch.bool
    # Another order of the same sums: only what lies on the threshold itself may differ.
    clear = (expected - threshold).abs() > 1e-5
    assert torch.equal(masks[clear], expected[clear] > threshold)
    assert (~clear).sum() <= 2 + 1e-3 * clear.numel()
    assert torch.equal(boxes, masks_to_boxes(masks))


def smooth(count, size, seed, level=0.0):
    """Blobs: low-resolution noise, enlarged; some reach 0 or 1."""
    noise = torch.rand(count, 4, 5, generator=torch.Generator().manual_seed(seed)) + level
    return F.interpolate(noise[None], size=size, mode="bicubic")[0].clamp(0, 1)


@given(
    seed=st.integers(0, 10**6),
    level=st.sampled_from([-0.4, 0.0, 0.3]),
    image=st.tuples(st.integers(33, 64), st.integers(65, 96)),
    output=st.tuples(st.integers(1, 200), st.integers(1, 250)),
    threshold=st.sampled_from([0.3, 0.5]),
)
@settings(max_examples=60, deadline=None)
def test_resizing_is_two_interpolations_and_a_crop(seed, level, image, output, threshold):
    check_resize(smooth(4, (16, 24), seed, level), (64, 96), image, output, threshold)


@given(seed=st.integers(0, 10**6))
@settings(max_examples=20, deadline=None)
def test_resizing_noise_loses_no_single_pixel(seed):
    soft = torch.rand(3, 16, 24, generator=torch.Generator().manual_seed(seed))
    soft *= torch.rand(3, 16, 24, generator=torch.Generator().manual_seed(seed + 1)) < 0.1
    check_resize(soft, (64, 96), (60, 90), (117, 203))


@pytest.mark.parametrize("output", [(1, 1), (40, 56), (600, 840)])
def test_resizing_empty_full_and_edge_masks(output):
    soft = torch.zeros(5, 16, 24)
    soft[1] = 1
    soft[2, 0, 0] = soft[3, 9, 13] = 1  # a corner, and the last pixel inside the image
    soft[4, 15, 23] = 1  # lies in the padding only
    check_resize(soft, (64, 96), (40, 56), output)
    masks, boxes = resize_masks(soft, (64, 96), (40, 56), output, 0.5)
    assert not masks[[0, 4]].any()
    assert masks[1].all()
    assert boxes[0].tolist() == boxes[4].tolist() == [0, 0, 0, 0]
    assert boxes[1].tolist() == [0, 0, output[1], output[0]]


@pytest.mark.parametrize("output", [(1, 1), (50, 90), (300, 180)])
@pytest.mark.parametrize("length", [1, 4, 100])
def test_whole_masks_step_by_step_are_those_of_windows(monkeypatch, output, length):
    # What a GPU does. Among them empty masks, also a whole chunk.
    soft = smooth(9, (16, 24), 3, -0.2)
    soft[4:8] = 0
    sizes = (64, 96), (50, 90), output
    masks, _ = resize_masks(soft, *sizes, 0.5)
    monkeypatch.setattr(output_module, "chunk_length", lambda size, device: length)
    whole, boxes = output_module.interpolate_masks(soft, *sizes, 0.5)
    assert (whole != masks).sum() <= 2  # pixels on the threshold itself
    assert torch.equal(boxes, masks_to_boxes(whole))
    nothing, boxes = output_module.interpolate_masks(soft[:0], *sizes, 0.5)
    assert nothing.shape == (0, *output)
    assert boxes.shape == (0, 4)


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_resizing_on_a_gpu_is_that_of_the_cpu():
    soft = smooth(9, (16, 24), 3, -0.2)
    sizes = (64, 96), (50, 90), (300, 180)
    expected, _ = resize_masks(soft, *sizes, 0.5)
    masks, boxes = resize_masks(soft.cuda(), *sizes, 0.5)
    assert (masks.cpu() != expected).float().mean() < 1e-4
    assert torch.equal(boxes, masks_to_boxes(masks))


def test_instances_without_a_pixel_are_dropped():
    masks = torch.zeros(3, 4, 5, dtype=torch.bool)
    masks[1, 2, 3] = True
    instances = make_instances(
        torch.tensor([0.9, 0.8, 0.7]), torch.tensor([0, 1, 2]), masks, masks_to_boxes(masks)
    )
    assert instances.pred_classes.tolist() == [1]
    assert instances.pred_boxes.tensor.tolist() == [[3, 2, 4, 3]]
    assert instances.image_size == (4, 5)
