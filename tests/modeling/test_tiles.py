"""Tiled inference, with a model that finds bright objects and says which windows it has seen."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch
from builders import SOFT, noise_input, tiny_config, tiny_model
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.structures import Boxes, BoxMode, Instances
from torch import nn

from solo_d2 import SOLOPredictor
from solo_d2.config import validate_config
from solo_d2.engine import SOLOTrainer
from solo_d2.layers import EncodedMasks
from solo_d2.layers.images import resize_image
from solo_d2.layers.temperature import apply_temperature
from solo_d2.modeling import PanopticSOLO, SoftSOLO
from solo_d2.modeling.tiles import TiledModel

SIDE = 64


class BrightObjects(nn.Module):
    """Finds what hangs together in a channel, which is the class; the score is its brightness.

    `seen` has the shapes of images and wanted outputs of every batch.
    """

    def __init__(self):
        super().__init__()
        self.seen = []

    def forward(self, batched_inputs):
        outputs = [(x["height"], x["width"]) for x in batched_inputs]
        self.seen.append([tuple(x["image"].shape[1:]) for x in batched_inputs] + outputs)
        return [{"instances": self.find(x)} for x in batched_inputs]

    def find(self, inputs):
        size = (inputs["height"], inputs["width"])
        masks, labels, scores = [], [], []
        for label, channel in enumerate(inputs["image"].numpy()):
            count, parts = cv2.connectedComponents((channel > 100).astype(np.uint8))
            for part in range(1, count):
                resized = cv2.resize((parts == part).astype(np.uint8), size[::-1], None, 0, 0, 0)
                masks.append(resized > 0)
                labels.append(label)
                scores.append(channel[parts == part].mean() / 255)
        found = np.array(masks, bool).reshape(-1, *size)
        boxes = [cv2.boundingRect(mask.astype(np.uint8)) for mask in found]
        boxes = [(x, y, x + width, y + height) for x, y, width, height in boxes]
        return Instances(
            size,
            pred_masks=torch.from_numpy(found),
            pred_boxes=Boxes(torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4)),
            pred_classes=torch.tensor(labels, dtype=torch.int64),
            scores=torch.tensor(scores, dtype=torch.float32),
        )


def tiles_config(*overrides):
    return tiny_config(
        *("INPUT.MIN_SIZE_TEST", SIDE, "INPUT.MAX_SIZE_TEST", 4 * SIDE, "TEST.TILES.OVERLAP", 0.5),
        *("TEST.TILES.ENABLED", True, "MODEL.SOLO.FINAL_SCORE_THRESH_TEST", 0.3),
        *overrides,
    )


def scene(size, boxes, value=200):
    image = torch.zeros((3, *size), dtype=torch.uint8)
    for index, (x0, y0, x1, y1) in enumerate(boxes):
        image[index % 3, y0:y1, x0:x1] = value
    return image


def detect(image, *overrides, model=None):
    model = BrightObjects() if model is None else model
    (output,) = TiledModel(tiles_config(*overrides), model.eval())([{"image": image}])
    return output["instances"]


def boxes_of(found):
    return sorted(found.pred_boxes.tensor.int().tolist())


@pytest.mark.parametrize("seed", range(3))
def test_small_objects_anywhere_are_found_once_and_to_the_pixel(seed):
    random, boxes = np.random.default_rng(seed), []
    for y in range(0, 120, 27):  # one in each field of a grid, so that none touch
        for x in range(0, 190, 27):
            w, h = random.integers(2, 25, 2).tolist()
            x0, y0 = x + int(random.integers(26 - w)), y + int(random.integers(26 - h))
            boxes.append([x0, y0, x0 + w, y0 + h])
    image = scene((135, 216), boxes)
    found = detect(image)
    assert boxes_of(found) == sorted(boxes)
    assert torch.allclose(found.scores, torch.tensor(200 / 255))  # nothing has decayed them
    assert torch.equal(found.pred_masks.tensor().any(0), image.amax(0) > 0)
    assert found.pred_masks.boxes.tolist() == found.pred_boxes.tensor.tolist()


def test_large_objects_are_found_whole_in_larger_windows():
    boxes = [[10, 20, 230, 180], [240, 5, 400, 400], [20, 200, 45, 215]]
    found = detect(scene((500, 700), boxes))
    assert len(found) == 3  # no piece of one
    expected = torch.tensor(sorted(boxes))
    error = (torch.tensor(boxes_of(found)) - expected).abs().amax(1)
    # Windows of 256 and 512 pixels show 4 and 8 pixels as one.
    assert (error <= torch.tensor([4, 0, 8])).all()


def test_an_object_that_two_windows_own_is_decayed_by_matrix_nms():
    # The centre, 48, lies in the middle of what the windows from 0 and from 32 share.
    found = detect(scene((64, 96), [[43, 20, 53, 30]]), "MODEL.SOLO.FINAL_SCORE_THRESH_TEST", 0.0)
    torch.testing.assert_close(
        found.scores, torch.tensor([1, float(np.exp(-2))]) * (200 / 255), rtol=0, atol=1e-6
    )
    linear = ("MODEL.SOLO.NMS_KERNEL", "linear")
    assert len(detect(scene((64, 96), [[43, 20, 53, 30]]), *linear)) == 1


def test_an_image_that_fits_a_window_has_the_result_of_plain_inference():
    keys = ("MODEL.SOLO.PRIOR_PROB", 0.5, "MODEL.SOLO.FINAL_SCORE_THRESH_TEST", 0.0)
    model, image = tiny_model(*keys).eval(), noise_input((50, 77))["image"]
    cfg = tiles_config("INPUT.MIN_SIZE_TEST", 48, *keys)
    resized = resize_image(image.permute(1, 2, 0).numpy(), (48, 74), "pillow")
    inputs = {"image": torch.from_numpy(resized.copy()).permute(2, 0, 1), "height": 50, "width": 77}
    expected = model([inputs])[0]["instances"]
    cfg.TEST.TILES.SIZE = 77
    found = TiledModel(cfg, model)([{"image": image}])[0]["instances"]
    assert len(expected) > 50
    assert torch.equal(found.pred_masks.tensor(), expected.pred_masks)
    assert torch.equal(found.scores, expected.scores)
    assert torch.equal(found.pred_classes, expected.pred_classes)
    assert torch.equal(found.pred_boxes.tensor, expected.pred_boxes.tensor)


@pytest.mark.parametrize("temperature", [0.5, 2.0])
def test_the_temperature_of_scores_comes_after_nms_and_its_threshold(temperature):
    keys = ("MODEL.SOLO.PRIOR_PROB", 0.5, "MODEL.SOLO.FINAL_SCORE_THRESH_TEST", 0.05)
    image = noise_input((64, 200))["image"]
    found = []
    for value in (1.0, temperature):
        model = tiny_model(*keys, "MODEL.SOLO.SCORE_TEMPERATURE", value).eval()
        cfg = tiles_config(*keys, "MODEL.SOLO.SCORE_TEMPERATURE", value)
        found.append(TiledModel(cfg, model)([{"image": image}])[0]["instances"])
    plain, other = found
    assert len(plain) == len(other) > 50
    assert torch.equal(plain.pred_boxes.tensor, other.pred_boxes.tensor)
    expected = apply_temperature(plain.scores, temperature)
    torch.testing.assert_close(other.scores, expected, rtol=1e-4, atol=1e-5)


def test_windows_go_through_the_model_in_batches_and_masks_are_no_larger_than_a_window():
    model = BrightObjects()
    detect(scene((150, 200), []), "TEST.TILES.BATCH_SIZE", 3, model=model)
    # 4 x 6 windows of 64 pixels, 2 x 3 of 128, and the image: 150 x 200 pixels, shown at a quarter.
    assert [len(batch) // 2 for batch in model.seen] == [3] * 8 + [3] * 2 + [1]
    assert {shape for batch in model.seen[:-1] for shape in batch} == {(64, 64)}
    assert model.seen[-1] == [(64, 85), (38, 50)]


def test_the_size_of_windows_and_of_what_the_network_sees_are_two():
    model = BrightObjects()
    detect(scene((100, 100), []), "TEST.TILES.SIZE", 100, model=model)
    assert model.seen == [[(64, 64), (100, 100)]]


def test_no_more_instances_than_asked_for_and_the_best_of_them():
    image = scene((64, 400), [[40 * i + 5, 20, 40 * i + 15, 30] for i in range(9)])
    image[1] //= 2  # below the threshold of the model: 6 objects are left
    image[2] = image[2].int().mul(6).div(5, rounding_mode="floor").to(torch.uint8)
    assert len(detect(image)) == 6
    found = detect(image, "TEST.TILES.DETECTIONS_PER_IMAGE", 3)
    assert found.pred_classes.tolist() == [2, 2, 2]


def test_an_image_without_objects_has_no_instances():
    found = detect(scene((100, 300), []))
    assert (len(found), found.image_size) == (0, (100, 300))
    assert isinstance(found.pred_masks, EncodedMasks)
    assert found.pred_masks.shape == (0, 100, 300)
    assert found.pred_boxes.tensor.shape == (0, 4)


def test_what_makes_no_sense_is_refused():
    tiled = TiledModel(tiles_config(), BrightObjects().eval())
    image = scene((100, 100), [])
    with pytest.raises(ValueError, match=r"own size \(100, 100\), got \(50, 100\) as \"height\""):
        tiled([{"image": image, "height": 50, "width": 100}])
    with pytest.raises(ValueError, match='every input needs "image", a tensor'):
        tiled([{"height": 50}])
    with pytest.raises(ValueError, match="evaluation mode"):
        tiled.train()([{"image": image}])
    for kind in (PanopticSOLO, SoftSOLO):
        with pytest.raises(ValueError, match=f"TEST.TILES.ENABLED is for .* got {kind.__name__}"):
            TiledModel(tiles_config(), kind.__new__(kind))


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (SOFT, "TEST.TILES.ENABLED must be False with MODEL.META_ARCHITECTURE SoftSOLO, got True"),
        (("MODEL.META_ARCHITECTURE", "GeneralizedRCNN"), "TEST.TILES.ENABLED must be False with"),
        (("TEST.AUG.ENABLED", True), "TEST.TILES and TEST.AUG are both enabled; leave one"),
        (("INPUT.MIN_SIZE_TEST", 0), "TEST.TILES.SIZE must be >= 1 with INPUT.MIN_SIZE_TEST 0"),
        (("TEST.TILES.SIZE", -1), "TEST.TILES.SIZE must be 0 or an integer >= 32, got -1"),
        (("TEST.TILES.OVERLAP", 1.0), r"TEST.TILES.OVERLAP must be a number in \[0, 0.9\], got 1"),
        (("TEST.TILES.BATCH_SIZE", 0), "TEST.TILES.BATCH_SIZE must be an integer >= 1, got 0"),
        (("TEST.TILES.DETECTIONS_PER_IMAGE", 0), "DETECTIONS_PER_IMAGE must be an integer >= 1"),
    ],
)
def test_configs_that_do_not_fit_are_refused(overrides, message):
    with pytest.raises(ValueError, match=message):
        validate_config(tiles_config(*overrides))


# The predictor


@pytest.mark.parametrize(
    ("overrides", "options", "windows"),
    [
        ((), {}, 24 + 6 + 1),
        ((), {"tiles": False}, 1),
        ((), {"tiles": 128}, 6 + 1),
        (("TEST.TILES.ENABLED", False), {}, 1),
        (("TEST.TILES.ENABLED", False), {"tiles": True}, 24 + 6 + 1),
        (("TEST.TILES.ENABLED", False, "TEST.TILES.SIZE", 128), {"tiles": True}, 6 + 1),
        (("TEST.TILES.OVERLAP", 0.0), {}, 12 + 4 + 1),
    ],
)
def test_the_predictor_takes_a_size_or_what_the_config_says(overrides, options, windows):
    model = BrightObjects()
    predictor = SOLOPredictor(tiles_config(*overrides), model=model, device="cpu", **options)
    found = predictor(np.zeros((150, 200, 3), np.uint8))
    assert sum(len(batch) // 2 for batch in model.seen) == windows
    assert found.instances.image_size == (150, 200)
    assert isinstance(found.instances.pred_masks, EncodedMasks) == (windows > 1)


def test_results_of_the_predictor_are_those_of_a_tensor_of_masks():
    image = scene((150, 200), [[20, 30, 40, 52], [100, 30, 121, 40], [60, 90, 84, 110]])
    image = image.permute(1, 2, 0).numpy()
    cfg = tiles_config("TEST.TILES.ENABLED", False, "INPUT.MIN_SIZE_TEST", 0)
    whole = SOLOPredictor(cfg, model=BrightObjects(), device="cpu")(image)
    tiled = SOLOPredictor(tiles_config(), model=BrightObjects(), device="cpu")(image)
    assert tiled.names == whole.names
    assert tiled.to_coco(7) == whole.to_coco(7)
    for one, other in zip(tiled.polygons(), whole.polygons(), strict=True):
        assert np.array_equal(one, other)
    assert np.array_equal(tiled.draw(), whole.draw())


@pytest.mark.parametrize("tiles", [0, -5])
def test_a_size_that_is_not_positive_is_refused(tiles):
    with pytest.raises(ValueError, match=f"tiles must be the side of a window .*, got {tiles}"):
        SOLOPredictor(tiles_config(), model=BrightObjects(), device="cpu", tiles=tiles)


# Evaluation


@pytest.fixture
def crowd(tmp_path):
    """A dataset of one image with 140 objects of one class; returns its name."""
    boxes = [[x, y, x + 14, y + 14] for y in range(5, 200, 20) for x in range(5, 280, 20)]
    image = np.zeros((206, 290, 3), np.uint8)
    for x0, y0, x1, y1 in boxes:
        image[y0:y1, x0:x1, 0] = 200
    cv2.imwrite(str(tmp_path / "crowd.png"), image)
    annotations = [
        {
            "bbox": [float(value) for value in box],
            "bbox_mode": BoxMode.XYXY_ABS,
            "category_id": 0,
            "iscrowd": 0,
            "segmentation": [[x0, y0, x1, y0, x1, y1, x0, y1]],
        }
        for box in boxes
        for x0, y0, x1, y1 in [box]
    ]
    size = {"file_name": str(tmp_path / "crowd.png"), "height": 206, "width": 290, "image_id": 1}
    DatasetCatalog.register("crowd", lambda: [{**size, "annotations": annotations}])
    MetadataCatalog.get("crowd").set(thing_classes=["a", "b", "c"], evaluator_type="coco")
    yield "crowd"
    DatasetCatalog.remove("crowd")
    MetadataCatalog.remove("crowd")


def test_more_than_a_hundred_objects_of_an_image_count_in_evaluation(crowd, tmp_path):
    few = ("DATASETS.TEST", (crowd,), "DATALOADER.NUM_WORKERS", 0, "OUTPUT_DIR", str(tmp_path))
    model = BrightObjects()
    found = SOLOTrainer.test(tiles_config(*few), model)["segm"]
    assert found["AP"] == pytest.approx(100)
    assert max(len(batch) // 2 for batch in model.seen) == 4
    # The first 60 of 140 objects: a recall of 42 of the 101 points from 0 to 1.
    limited = tiles_config(*few, "TEST.TILES.DETECTIONS_PER_IMAGE", 60)
    limited = SOLOTrainer.test(limited, model)["segm"]
    assert limited["AP"] == pytest.approx(100 * 43 / 101)
    plain = SOLOTrainer.test(tiles_config(*few, "TEST.TILES.ENABLED", False), model)["segm"]
    assert plain["AP"] < 50  # the objects are four pixels wide
