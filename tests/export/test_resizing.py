"""The runtime without torch resizes images as Pillow and OpenCV do, its masks are the model's."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch
from PIL import Image
from refinement_builders import MEAN, check_refined, edge_case

from solo_d2.layers import masks_to_boxes
from solo_d2.modeling.output import resize_masks
from solo_d2.modeling.test_time_augmentation import resized_shape

pytest.importorskip("onnxruntime")
solo_d2_runtime = pytest.importorskip("solo_d2_runtime")

SIZES = [((90, 130), (64, 92)), ((64, 96), (90, 135)), ((33, 57), (100, 173)), ((5, 7), (1, 2))]


def noise(*shape):
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


@pytest.mark.parametrize(("size", "output"), SIZES)
def test_images_are_those_of_pillow_and_opencv(size, output):
    image = noise(*size, 3)
    pillow = Image.fromarray(image).resize(output[::-1], Image.Resampling.BILINEAR)
    assert (solo_d2_runtime._resize(image, output, "pillow") == np.asarray(pillow)).all()
    opencv = cv2.resize(image, output[::-1], interpolation=cv2.INTER_LINEAR)
    assert (solo_d2_runtime._resize(image, output, "opencv") == opencv).all()
    assert solo_d2_runtime._resize(image, size, "pillow") is image


@pytest.mark.parametrize("short", [0, 96, 800])
@pytest.mark.parametrize("size", [(90, 130), (200, 50), (1, 3000), (481, 640)])
def test_the_network_sees_images_of_the_same_size(short, size):
    info = {"min_size": short, "max_size": 1333, "size": None}
    assert solo_d2_runtime._network_size(*size, info) == resized_shape(size, short, 1333)


@pytest.mark.parametrize("output", [(70, 110), (33, 20), (200, 301)])
def test_masks_are_those_of_the_model(output):
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(5, 1, 6, 8, generator=generator)
    probs = torch.nn.functional.interpolate(coarse, (24, 32), mode="bilinear")[:, 0]
    probs[4] = 0.1  # nothing is left of it
    canvas, image = (96, 128), (90, 121)
    masks, boxes = resize_masks(probs, canvas, image, output, 0.5)
    found = solo_d2_runtime._resize_masks(probs.numpy(), canvas, image, output, 0.5)
    assert (found != masks.numpy()).mean() < 1e-4
    assert np.abs(solo_d2_runtime._boxes(masks.numpy()) - boxes.numpy()).max() == 0
    assert (masks_to_boxes(torch.from_numpy(found)).numpy() == solo_d2_runtime._boxes(found)).all()
    assert not found[4].any()


def test_masks_along_edges_are_those_of_the_model():
    image, probs, expected = edge_case()
    guide = (image[0] - torch.tensor(MEAN).view(3, 1, 1)).numpy() / 255
    found = solo_d2_runtime._refine(probs.numpy(), solo_d2_runtime._halve(guide), 0.5)
    assert found.dtype == np.float32
    check_refined(torch.from_numpy(found), expected)
    assert solo_d2_runtime._refine(probs[:0].numpy(), guide[:, ::2, ::2], 0.5).shape == (0, 32, 48)
