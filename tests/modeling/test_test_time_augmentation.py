"""Multi-scale testing against plain testing, and with a predictor whose answers are known."""

from __future__ import annotations

from dataclasses import replace

import cv2
import pytest
import torch
import torch.nn.functional as F
from builders import noise_input, tiny_config, tiny_model
from detectron2.data import transforms as T
from torch import nn

from solo_d2 import SOLOPredictor
from solo_d2.layers import budgets
from solo_d2.layers.images import resized_shape
from solo_d2.modeling import SOLO, GridSpec, PanopticSOLO, SoftSOLO
from solo_d2.modeling.criterion import SOLOCriterion
from solo_d2.modeling.postprocessing import Candidates, InferenceSettings, View, build_nms
from solo_d2.modeling.structures import SOLOPredictions
from solo_d2.modeling.targets import SOLOTargetAssigner
from solo_d2.modeling.test_time_augmentation import SOLOWithTTA, TestScales
from solo_d2.modeling.views import keep_large

# Random weights leave all scores near the prior: near one half, they make many candidates.
LIVELY = ("MODEL.SOLO.PRIOR_PROB", 0.5, "MODEL.SOLO.FINAL_SCORE_THRESH_TEST", 0.0)
PLAIN = (64, 120)  # short side and limit of the long side in plain testing


def aug_config(sizes, *overrides, flip=False):
    return tiny_config(
        "INPUT.MIN_SIZE_TEST", PLAIN[0],
        "INPUT.MAX_SIZE_TEST", PLAIN[1],
        "TEST.AUG.ENABLED", True,
        "TEST.AUG.MIN_SIZES", sizes,
        "TEST.AUG.FLIP", flip,
        *overrides,
    )  # fmt: skip


def plain_input(inputs):
    """What Detectron2's test mapper would have made of the image."""
    picture = inputs["image"].permute(1, 2, 0).numpy()
    resized = T.ResizeShortestEdge(*PLAIN).get_transform(picture).apply_image(picture)
    tensor = torch.from_numpy(resized.transpose(2, 0, 1).copy())
    size = {"height": picture.shape[0], "width": picture.shape[1]}
    return {**size, **inputs, "image": tensor}


def assert_same(found, expected):
    assert found.image_size == expected.image_size
    for name in ("pred_masks", "scores", "pred_classes"):
        assert torch.equal(found.get(name), expected.get(name)), name
    assert torch.equal(found.pred_boxes.tensor, expected.pred_boxes.tensor)


def test_one_scale_is_plain_testing_with_opencvs_filter_too():
    keys = (*LIVELY, "INPUT.RESIZE_FILTER", "opencv")
    model, inputs = tiny_model(*keys).eval(), noise_input((130, 170))
    picture = inputs["image"].permute(1, 2, 0).numpy()
    resized = torch.from_numpy(cv2.resize(picture, (84, 64)).transpose(2, 0, 1).copy())
    expected = model([{"image": resized, "height": 130, "width": 170}])[0]["instances"]
    found = SOLOWithTTA(aug_config((PLAIN[0],), *keys), model)([inputs])[0]["instances"]
    assert len(expected) > 50
    assert_same(found, expected)


@pytest.mark.parametrize("head", ["DynamicSOLOHead", "VanillaSOLOHead"])
@pytest.mark.parametrize(
    ("size", "output"),
    [
        ((64, 96), {}),  # fills its canvas
        ((50, 77), {}),  # enlarged, padded on both sides
        ((50, 77), {"height": 33, "width": 140}),
        ((100, 301), {}),  # the limit of the long side makes it 40 x 120
    ],
)
def test_one_scale_is_plain_testing(head, size, output):
    keys = (*LIVELY, "MODEL.SOLO.HEAD", head)
    model = tiny_model(*keys).eval()
    inputs = {**noise_input(size), **output}
    expected = model([plain_input(inputs)])[0]["instances"]
    assert len(expected) > 50
    found = SOLOWithTTA(aug_config((PLAIN[0],), *keys), model)([inputs])[0]["instances"]
    assert_same(found, expected)


def test_pictures_that_plain_testing_does_not_resize():
    model = tiny_model(*LIVELY).eval()
    cfg = aug_config((50,), "INPUT.MIN_SIZE_TEST", 0)
    inputs = noise_input((50, 77))
    expected = model([inputs])[0]["instances"]
    assert_same(SOLOWithTTA(cfg, model)([inputs])[0]["instances"], expected)


def test_the_order_of_scales_does_not_matter():
    model = tiny_model(*LIVELY).eval()
    inputs = [noise_input((50, 77))]
    first, second = (
        SOLOWithTTA(aug_config(sizes), model)(inputs)[0]["instances"]
        for sizes in ((48, 64, 80), (80, 48, 64))
    )
    assert_same(first, second)
    plain = model([plain_input(inputs[0])])[0]["instances"]
    assert not torch.equal(first.scores, plain.scores)  # the other scales do something


def test_with_flips_a_mirrored_picture_has_the_mirrored_result():
    # True of any network where nothing is padded: both see the same two images.
    model = tiny_model(*LIVELY).eval()
    image = noise_input((64, 96))["image"]
    augmented = SOLOWithTTA(aug_config((64, 128), flip=True), model)
    one, other = (augmented([{"image": x}])[0]["instances"] for x in (image, image.flip(2)))
    torch.testing.assert_close(one.scores, other.scores)
    assert torch.equal(one.pred_classes, other.pred_classes)
    # Sums in mirrored order: pixels on the threshold itself may differ.
    assert (one.pred_masks != other.pred_masks.flip(2)).float().mean() < 1e-4
    plain = [model([{"image": x}])[0]["instances"].scores for x in (image, image.flip(2))]
    assert not torch.allclose(*plain, atol=1e-3)  # the network is not symmetric by itself


def test_a_batch_is_its_images_one_by_one():
    model = tiny_model(*LIVELY).eval()
    augmented = SOLOWithTTA(aug_config((48, 64), flip=True), model)
    inputs = [noise_input(size, seed=i) for i, size in enumerate([(64, 96), (50, 77)])]
    together = augmented(inputs)
    for one, output in zip(inputs, together, strict=True):
        assert_same(output["instances"], augmented([one])[0]["instances"])
    assert augmented([]) == []


def test_results_do_not_depend_on_autocast_around_the_post_processing():
    model = tiny_model(*LIVELY).eval()
    inputs = noise_input((64, 96))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        expected = model([plain_input(inputs)])[0]["instances"]
        found = SOLOWithTTA(aug_config((64,)), model)([inputs])[0]["instances"]
    assert_same(found, expected)


# A predictor whose answers are known: cell c finds class c where channel c of an image is bright.


class NoBackbone(nn.Module):
    size_divisibility = 32

    def forward(self, x):
        return x


class ChannelHead(nn.Module):
    """The channel's brightest pixel is the score and its pixels the soft mask."""

    mask_strides = (4,)
    grid = GridSpec.build([2], [[1, 2048]], [8])  # a mask needs more than eight pixels of 4 x 4

    def forward(self, image):
        score = image.amax((2, 3)).div(255).clamp(0.01, 0.99)  # (1, 3)
        probs = torch.full((1, 3, 4), 1e-4)
        probs[:, range(3), range(3)] = score
        return SOLOPredictions([probs.logit().view(1, 3, 2, 2)], image)

    def mask_probs(self, predictions, image, cells, *, levels=None, size=None):
        soft = F.avg_pool2d(predictions.mask_inputs[image] / 255, 4)
        assert soft.shape[1:] == size
        return soft[cells]


def channel_model(**changes):
    grid = ChannelHead.grid
    settings = {
        "score_thresh": 0.1,
        "mask_thresh": 0.5,
        "pre_nms_topk": 500,
        "nms": build_nms("matrix", kernel="gaussian", sigma=0.5, threshold=0.5),
        "final_score_thresh": 0.2,  # a duplicate is left exp(-2) = 0.135
        "max_instances": 100,
    }
    criterion = SOLOCriterion(
        num_classes=3,
        category_weight=1.0,
        mask_weight=3.0,
        focal_alpha=0.25,
        focal_gamma=2.0,
        mask_strides=(4,),
    )
    return SOLO(
        backbone=NoBackbone(),
        head=ChannelHead(),
        assigner=SOLOTargetAssigner(grid, 3, 0.2, (4,)),
        criterion=criterion,
        settings=InferenceSettings(**{**settings, **changes}),
        pixel_mean=(0.0, 0.0, 0.0),
        pixel_std=(1.0, 1.0, 1.0),
    ).eval()


def scene(size, boxes):
    """A black image with a box (x0, y0, x1, y1) in each of the first channels."""
    image = torch.zeros((3, *size), dtype=torch.uint8)
    for channel, (x0, y0, x1, y1) in enumerate(boxes):
        image[channel, y0:y1, x0:x1] = 255 - 10 * channel
    return {"image": image}


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("size", [(64, 96), (60, 90), (128, 180)])
def test_an_object_seen_at_every_scale_is_found_once_and_in_its_place(size, flip):
    k = size[0] // 30
    boxes = [(4 * k, 4 * k, 20 * k, 24 * k), (24 * k, 8 * k, 40 * k, 24 * k)]
    model = channel_model(nms=build_nms("hard", kernel="gaussian", sigma=0.5, threshold=0.5))
    augmented = SOLOWithTTA(aug_config((48, 64, 80, 96), flip=flip), model)
    found = augmented([scene(size, boxes)])[0]["instances"]
    assert found.pred_classes.tolist() == [0, 1]
    assert found.image_size == size
    # A mask pixel of the canvas of plain testing is 4 * size / 64 pixels of the image wide.
    error = (found.pred_boxes.tensor - torch.tensor(boxes)).abs().max()
    assert error <= 2 * size[0] / 64 + 1


def test_a_small_object_counts_its_pixels_where_it_was_seen():
    # 12 x 12 pixels of 4 x 4 are 9 at the scale of plain testing, and have to be more than 8.
    large, small = scene((64, 96), [(32, 32, 44, 44)]), scene((64, 96), [(32, 32, 40, 40)])
    model = channel_model()
    assert len(model([large])[0]["instances"]) == 1
    assert len(model([small])[0]["instances"]) == 0  # 4 pixels
    augmented = SOLOWithTTA(aug_config((64, 128)), model)
    found = augmented([small])[0]["instances"]  # 16 pixels at twice the size
    assert len(found) == 1
    assert (found.pred_boxes.tensor[0] - torch.tensor([32, 32, 40, 40])).abs().max() <= 2


def test_a_picture_without_objects_has_no_instances():
    augmented = SOLOWithTTA(aug_config((48, 64), flip=True), channel_model())
    found = augmented([{**scene((60, 90), []), "height": 30, "width": 40}])[0]["instances"]
    assert len(found) == 0
    assert found.pred_masks.shape == (0, 30, 40)
    assert found.pred_masks.dtype == torch.bool
    assert found.pred_boxes.tensor.shape == (0, 4)


def test_no_more_masks_than_candidates_exist_at_a_time(monkeypatch):
    topk, chunk, views = 7, 3, 4
    keys = (*LIVELY, "MODEL.SOLO.PRE_NMS_TOPK_TEST", topk, "TEST.DETECTIONS_PER_IMAGE", topk)
    model = tiny_model(*keys).eval()
    monkeypatch.setitem(budgets.MASK_PIXELS, "cpu", chunk * 16 * 24)
    asked, joined = [], []
    mask_probs, nms = model.head.mask_probs, model.settings.nms

    def counted(predictions, image, cells, **options):
        asked.append(len(cells))
        return mask_probs(predictions, image, cells, **options)

    def counted_nms(masks, labels, scores):
        joined.append(len(masks))
        return nms(masks, labels, scores)

    monkeypatch.setattr(model.head, "mask_probs", counted)
    object.__setattr__(model.settings, "nms", counted_nms)
    augmented = SOLOWithTTA(aug_config((48, 64), *keys, flip=True), model)
    augmented([noise_input((64, 96))])
    assert joined == [views * topk]
    # The last calls are those of the instances, one for each view.
    assert max(asked[:-views]) <= chunk * 2  # the smaller canvas has room for more
    assert sum(asked[-views:]) <= views * topk


# Sizes


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ((480, 640), [(600, 800), (800, 1067), (1000, 1333)]),
        ((640, 480), [(800, 600), (1067, 800), (1333, 1000)]),
        # Ten times as long as high: limits of 1000, 1333 and 1666 keep the ratio of the scales.
        ((100, 1000), [(100, 1000), (133, 1333), (167, 1666)]),
    ],
)
def test_limits_of_the_long_side_are_in_proportion(size, expected):
    scales = TestScales((800, 600, 1000), 4000, False, (800, 1333))
    assert scales.shapes(size) == expected
    assert resized_shape(size, 800, 1333) == expected[1]


def test_the_limit_of_the_long_side_also_holds_as_it_is():
    assert TestScales((600, 1000), 1000, False, (800, 1333)).shapes((480, 640)) == [
        (600, 800),
        (750, 1000),
    ]
    assert TestScales((600,), 700, False, (0, 1333)).shapes((480, 640)) == [(525, 700)]


def test_large_candidates_keep_their_masks_and_classes():
    masks = torch.zeros(4, 6, 8, dtype=torch.bool)
    for row, area in enumerate((3, 4, 1, 12)):  # 16 pixels of the input each
        masks[row].view(-1)[:area] = True
    found = Candidates(
        scores=torch.tensor([0.9, 0.8, 0.7, 0.6, 0.5]),
        labels=torch.tensor([0, 1, 2, 0, 1]),
        rows=torch.tensor([3, 0, 1, 2, 3]),
        cells=torch.tensor([10, 20, 30, 40]),
        masks=masks,
    )
    kept, cell_masks = keep_large(View(found, str), 8.0)  # 8 x 8 pixels: an area of 4
    assert cell_masks is str
    assert kept.scores.tolist() == pytest.approx([0.9, 0.7, 0.5])
    assert kept.labels.tolist() == [0, 2, 1]
    assert kept.cells[kept.rows].tolist() == [40, 20, 40]
    assert torch.equal(kept.masks, masks[[1, 3]])


def test_smaller_sizes_add_nothing_but_large_objects():
    model, inputs = tiny_model(*LIVELY).eval(), noise_input((130, 170))

    def found(sizes, share, factor=1):
        tta = SOLOWithTTA(aug_config(sizes, *LIVELY, "TEST.AUG.MIN_SHARE", share), model)
        tta.scales = replace(tta.scales, min_share=factor * tta.scales.min_share)
        return tta([inputs])[0]["instances"]

    every, large = (found((48, PLAIN[0]), share) for share in (0.0, 0.9))
    assert not torch.equal(every.scores, large.scores)
    # Nothing is as large as nine short sides.
    assert_same(found((48, PLAIN[0]), 1.0, factor=9), found((PLAIN[0],), 0.0))
    # The size of plain testing, and larger ones, give all that they find.
    assert_same(found((PLAIN[0], 80), 1.0, factor=9), found((PLAIN[0], 80), 0.0))


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (("MIN_SIZES", ()), r"MIN_SIZES expects one or more .* got \(\)"),
        (("MIN_SIZES", (600, 0)), r"MIN_SIZES .* positive .* got \(600, 0\)"),
        (("MIN_SIZES", (600, 600)), r"MIN_SIZES .* named once.* got \(600, 600\)"),
        (("MAX_SIZE", 999), "MAX_SIZE is 999, less than the short side 1000"),
    ],
)
def test_sizes_that_make_no_sense_are_refused(overrides, message):
    key, value = overrides
    cfg = aug_config((600, 1000), f"TEST.AUG.{key}", value)
    with pytest.raises(ValueError, match=message):
        SOLOWithTTA(cfg, channel_model())
    SOLOWithTTA(aug_config((600, 1000), "TEST.AUG.MAX_SIZE", 1000), channel_model())


def test_models_of_which_instances_are_not_all_are_refused():
    class MoreThanInstances(SOLO):
        supports_tta = False

    classes = (MoreThanInstances, PanopticSOLO, SoftSOLO)
    models = [(x.__new__(x), x.__name__) for x in classes]
    for other, name in (*models, (nn.Identity(), "Identity")):
        with pytest.raises(ValueError, match=f"TEST.AUG.ENABLED is for.*got {name}"):
            SOLOWithTTA(aug_config((64,)), other)


def test_a_subclass_that_wraps_a_method_is_tested_at_several_sizes():
    class Counting(SOLO):
        calls = 0

        def predict(self, features, images):
            self.calls += 1
            return super().predict(features, images)

        def forward(self, batched_inputs):
            return super().forward(batched_inputs)

    model = tiny_model(*LIVELY).eval()
    expected = SOLOWithTTA(aug_config((48, 64)), model)([noise_input((50, 77))])
    model.__class__ = Counting
    found = SOLOWithTTA(aug_config((48, 64)), model)([noise_input((50, 77))])
    assert_same(found[0]["instances"], expected[0]["instances"])
    assert model.calls == 2


@pytest.mark.parametrize(
    ("sizes", "plain", "warned"),
    [
        ((600, 800, 1000), 800, False),
        ((600, 1000), 800, False),
        ((800,), 800, False),
        ((600, 800, 1000), 1024, True),
        ((600, 800, 1000), 512, True),
        ((600, 800, 1000), 0, False),  # images as they are
    ],
)
def test_sizes_that_do_not_lie_around_the_plain_one_are_warned_of(caplog, sizes, plain, warned):
    SOLOWithTTA(aug_config(sizes, "INPUT.MIN_SIZE_TEST", plain), channel_model())
    assert ("do not lie around" in caplog.text) == warned


def test_inputs_that_cannot_be_used_are_refused():
    augmented = SOLOWithTTA(aug_config((64,)), channel_model())
    with pytest.raises(ValueError, match='every input needs "image", a tensor'):
        augmented([{"file_name": "a.png"}])
    with pytest.raises(ValueError, match="got ndarray"):
        augmented([{"image": noise_input((64, 96))["image"].numpy()}])
    with pytest.raises(ValueError, match="evaluation mode"):
        augmented.train()([scene((64, 96), [])])


def test_the_predictor_uses_the_scales_on_the_picture_itself():
    model = tiny_model(*LIVELY).eval()
    picture = noise_input((50, 77))["image"].permute(1, 2, 0).numpy()
    expected = SOLOPredictor(aug_config((64,), "TEST.AUG.ENABLED", False), model=model)
    for sizes, same in (((64,), True), ((48, 64), False)):
        predictor = SOLOPredictor(aug_config(sizes), model=model)
        found, plain = predictor([picture, picture])[1], expected(picture)
        assert torch.equal(found["instances"].scores, plain["instances"].scores) == same
