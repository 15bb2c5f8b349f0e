"""What a model is given is checked, alike with and without several scales and windows."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from builders import noise_input, tiny_config, tiny_model
from detectron2.structures import Instances, PolygonMasks

from solo_d2.modeling import SOLO, PanopticSOLO
from solo_d2.modeling.grid import GridSpec
from solo_d2.modeling.targets import SOLOTargetAssigner
from solo_d2.modeling.test_time_augmentation import SOLOWithTTA
from solo_d2.modeling.tiles import TiledModel

SIZE = (64, 96)
BOX = [(8, 8, 40, 40)]


@pytest.fixture(scope="module")
def ways():
    """A model, and the same through scales and windows."""
    cfg = tiny_config("INPUT.MIN_SIZE_TEST", 64, "TEST.AUG.MIN_SIZES", [64])
    model = SOLO(cfg).eval()
    return {"plain": model, "scales": SOLOWithTTA(cfg, model), "tiles": TiledModel(cfg, model)}


@pytest.mark.parametrize("way", ["plain", "scales", "tiles"])
def test_images_that_are_none_are_refused_in_every_way(ways, way):
    model, image = ways[way], noise_input(SIZE)["image"]
    assert model([]) == []
    for bad, said in (
        (None, "got NoneType"),
        (image.numpy(), "got ndarray"),
        (image.permute(1, 2, 0), r"must have the shape \(3, H, W\)"),
        (image > 100, "torch.bool"),
        (image[:, :0], r"got \(3, 0, 96\)"),
    ):
        with pytest.raises(ValueError, match=said):
            model([{"image": bad}])
    for size in ({"height": 0}, {"width": -3}):
        with pytest.raises(ValueError, match="must be at least 1"):
            model([{"image": image, **size}])
    if way == "plain":
        assert len(model([{"image": image.float()}])) == 1
    else:
        with pytest.raises(ValueError, match=r"must be uint8.*got torch.float32"):
            model([{"image": image.float()}])


def training_input(**fields):
    inputs = noise_input(SIZE, BOX, [0])
    for name, value in fields.items():
        inputs["instances"].set(name, value)
    return inputs


def polygons(size):
    objects = Instances(size, gt_classes=torch.tensor([0]))
    objects.gt_masks = PolygonMasks([[np.array([2.0, 2, 20, 2, 20, 20])]])
    return {**noise_input(SIZE), "instances": objects}


def without(field):
    inputs = training_input()
    inputs["instances"].remove(field)
    return inputs


BAD_OBJECTS = {
    "of a smaller image": (
        lambda: {**noise_input((128, 192)), "instances": training_input()["instances"]},
        r"\(64, 96\) do not belong to an image of \(128, 192\)",
    ),
    "polygons of a smaller image": (lambda: polygons((32, 48)), "do not belong to an image"),
    "smaller masks": (
        lambda: training_input(gt_masks=torch.ones(1, 32, 48, dtype=torch.bool)),
        r"gt_masks of \(height, width\) \(32, 48\)",
    ),
    "RLEs": (lambda: training_input(gt_masks=[{"size": SIZE, "counts": b""}]), "got list"),
    "no classes": (lambda: without("gt_classes"), "have no gt_classes"),
    "float classes": (lambda: training_input(gt_classes=torch.tensor([0.0])), "torch.float32"),
    "no Instances": (lambda: {**noise_input(SIZE), "instances": [1]}, "must be Instances"),
}


@pytest.mark.parametrize("kind", BAD_OBJECTS)
def test_ground_truth_that_does_not_belong_to_the_image_is_refused(kind):
    make, said = BAD_OBJECTS[kind]
    with pytest.raises(ValueError, match=said):
        tiny_model()([make()])


@pytest.mark.parametrize("assigner", ["center", "dynamic_soft"])
@pytest.mark.parametrize("kind", [torch.int32, torch.int16, torch.uint8])
def test_labels_of_any_whole_type_train_alike(assigner, kind):
    model = tiny_model("MODEL.SOLO.ASSIGNER", assigner)
    expected = model([training_input()])
    found = model([training_input(gt_classes=torch.tensor([0], dtype=kind))])
    for key, value in expected.items():
        torch.testing.assert_close(found[key], value)


def panoptic_input(labels):
    return {**training_input(), "sem_seg": labels}


def test_semantic_labels_are_those_of_the_image():
    torch.manual_seed(0)
    cfg = tiny_config(
        *("MODEL.META_ARCHITECTURE", "PanopticSOLO", "MODEL.SEM_SEG_HEAD.NUM_CLASSES", 4),
        *("MODEL.SEM_SEG_HEAD.CONVS_DIM", 32, "MODEL.SEM_SEG_HEAD.IN_FEATURES", ["p2", "p3"]),
    )
    model = PanopticSOLO(cfg)
    labels = torch.randint(0, 4, SIZE)
    expected = model([panoptic_input(labels)])["loss_sem_seg"]
    found = model([panoptic_input(labels.to(torch.uint8))])["loss_sem_seg"]
    torch.testing.assert_close(found, expected)
    for bad, said in (
        (labels[:32, :48], r"\(32, 48\) do not belong"),
        (torch.zeros(128, 128, dtype=torch.int64), r"\(128, 128\) do not belong"),
        (labels.float(), "tensor of integers"),
    ):
        with pytest.raises(ValueError, match=said):
            model([panoptic_input(bad)])


def test_parts_that_do_not_belong_together_are_refused():
    """As a `LazyConfig` may name them."""
    model = tiny_model()
    names = ("backbone", "head", "assigner", "criterion", "settings")
    parts = {name: getattr(model, name) for name in names}
    parts |= {"pixel_mean": (0.0,) * 3, "pixel_std": (1.0,) * 3}
    SOLO(**parts)
    grid = model.head.grid
    with pytest.raises(ValueError, match=r"same num_classes, got 3, 1, 3"):
        SOLO(**{**parts, "assigner": SOLOTargetAssigner(grid, 1, 0.2, [4])})
    other = GridSpec.build(
        [n + 1 for n in grid.num_grids], [list(x) for x in grid.scale_ranges], list(grid.strides)
    )
    with pytest.raises(ValueError, match="same grid"):
        SOLO(**{**parts, "assigner": SOLOTargetAssigner(other, 3, 0.2, [4])})
    with pytest.raises(ValueError, match="MASK_TARGETS must be one of binary, coverage"):
        SOLOTargetAssigner(grid, 3, 0.2, [4], "coverag")
