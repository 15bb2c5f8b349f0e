"""Facts about SOLOPredictor, with a model whose answers are known."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch
from builders import tiny_config, tiny_model
from detectron2.config import get_cfg
from detectron2.data import MetadataCatalog
from threshold_model import ThresholdModel

from solo_d2.config import add_solo_config
from solo_d2.inference.prediction import Prediction
from solo_d2.inference.predictor import SOLOPredictor

BLUE, GREEN, RED = (200, 0, 0), (0, 200, 0), (0, 0, 200)


@pytest.fixture
def cfg():
    cfg = get_cfg()
    add_solo_config(cfg)
    cfg.MODEL.SOLO.NUM_CLASSES = 3
    cfg.DATASETS.TEST = ()
    cfg.INPUT.MIN_SIZE_TEST = 32
    cfg.INPUT.MAX_SIZE_TEST = 64
    return cfg


def predictor_of(cfg, **options):
    return SOLOPredictor(cfg, device="cpu", model=ThresholdModel(), **options)


def scene(height, width, color, box):
    image = np.zeros((height, width, 3), dtype=np.uint8)
    top, left, bottom, right = box
    image[top:bottom, left:right] = color
    return image


def test_instances_come_at_the_size_of_the_picture(cfg):
    # 16 x 24 is doubled for the model and halved back: the rectangle returns exactly.
    output = predictor_of(cfg)(scene(16, 24, GREEN, (4, 6, 12, 20)))
    (mask,) = output["instances"].pred_masks
    expected = np.zeros((16, 24), dtype=bool)
    expected[4:12, 6:20] = True
    assert (mask.numpy() == expected).all()
    assert output["instances"].image_size == (16, 24)
    assert output["instances"].pred_boxes.tensor.tolist() == [[6, 4, 20, 12]]


@pytest.mark.parametrize(("order", "label"), [("BGR", 0), ("RGB", 2)])
def test_channel_order_is_that_of_the_config(cfg, order, label):
    cfg.INPUT.FORMAT = order
    instances = predictor_of(cfg)(scene(32, 32, BLUE, (0, 0, 32, 32)))["instances"]
    assert instances.pred_classes.tolist() == [label]


@pytest.mark.parametrize(
    ("size", "seen"),
    [
        ((16, 24), (32, 48)),  # short side to 32
        ((16, 40), (26, 64)),  # long side limited to 64: 16 * 64 / 40 = 25.6
        ((32, 64), (32, 64)),
        ((1, 10), (6, 64)),
        ((1, 3000), (1, 64)),  # 0.02 pixels high is one pixel
        ((3000, 1), (64, 1)),
    ],
)
def test_resizing_follows_the_config(cfg, size, seen):
    predictor = predictor_of(cfg)
    output = predictor(np.zeros((*size, 3), dtype=np.uint8))
    assert predictor.model.batches == [[seen]]
    assert output["instances"].image_size == size


def test_min_size_zero_means_no_resizing(cfg):
    cfg.INPUT.MIN_SIZE_TEST = 0
    predictor = predictor_of(cfg)
    predictor(np.zeros((7, 5, 3), dtype=np.uint8))
    assert predictor.model.batches == [[(7, 5)]]


def test_a_list_gives_what_its_pictures_give_alone_in_order(cfg):
    images = [
        scene(16, 24, RED, (1, 1, 9, 9)),
        scene(24, 16, GREEN, (2, 3, 20, 9)),
        scene(32, 48, BLUE, (5, 5, 30, 40)),  # the first one's size after resizing
        scene(16, 24, GREEN, (0, 0, 16, 24)),
    ]
    predictor = predictor_of(cfg)
    together = predictor(images)
    assert predictor.model.batches == [[(32, 48)] * 3, [(48, 32)]]
    for output, image in zip(together, images, strict=True):
        alone = predictor(image)["instances"]
        assert torch.equal(output["instances"].pred_masks, alone.pred_masks)
        assert torch.equal(output["instances"].scores, alone.scores)
        assert torch.equal(output["instances"].pred_classes, alone.pred_classes)


def test_an_empty_list_gives_an_empty_list(cfg):
    predictor = predictor_of(cfg)
    assert predictor([]) == []
    assert predictor.model.batches == []


@pytest.mark.parametrize(("threshold", "count"), [(None, 1), (0.0, 1), (0.8, 1), (0.81, 0)])
def test_threshold_keeps_equal_scores_and_drops_lower_ones(cfg, threshold, count):
    image = scene(32, 32, (0, 204, 0), (0, 0, 16, 16))  # 204 / 255 = 0.8
    predictor = predictor_of(cfg, confidence_threshold=threshold)
    assert len(predictor(image)["instances"]) == count


@pytest.mark.parametrize("threshold", [-0.1, 1.1, float("nan")])
def test_threshold_outside_the_unit_range_is_refused(cfg, threshold):
    with pytest.raises(ValueError, match=r"confidence_threshold must be in \[0, 1\]"):
        predictor_of(cfg, confidence_threshold=threshold)


def test_a_picture_without_objects_gives_no_instances(cfg):
    instances = predictor_of(cfg)(np.zeros((8, 8, 3), dtype=np.uint8))["instances"]
    assert len(instances) == 0
    assert instances.pred_masks.shape == (0, 8, 8)


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (np.zeros((4, 4, 3), dtype=np.float32), "uint8 .* got float32"),
        (torch.zeros(4, 4, 3, dtype=torch.uint8), "numpy array .* got Tensor"),
        ("picture.jpg", r"picture\.jpg: no such file"),
        (np.zeros((4, 4, 2), dtype=np.uint8), r"shape \(height, width, 3\).* got \(4, 4, 2\)"),
        (np.zeros((1, 4, 4, 3), dtype=np.uint8), r"got \(1, 4, 4, 3\)"),
        (np.zeros((0, 4, 3), dtype=np.uint8), r"not empty, got \(0, 4, 3\)"),
        (np.zeros((3, 4, 4), dtype=np.uint8), r"got \(3, 4, 4\)"),
    ],
)
def test_unusable_arrays_are_refused(cfg, image, message):
    with pytest.raises(ValueError, match=message):
        predictor_of(cfg)(image)


def test_the_unusable_array_of_a_list_is_numbered(cfg):
    good = np.zeros((4, 4, 3), dtype=np.uint8)
    with pytest.raises(ValueError, match="Image 1 of the list"):
        predictor_of(cfg)([good, good[0, 0]])


def test_views_with_negative_strides_are_fine(cfg):
    image = scene(16, 24, RED, (4, 6, 12, 20))
    instances = predictor_of(cfg)(image[:, :, ::-1])["instances"]
    assert instances.pred_classes.tolist() == [0]


def test_the_config_is_copied(cfg):
    predictor = SOLOPredictor(cfg, device="cpu", model=ThresholdModel(), weights="a.pth")
    assert predictor.cfg.MODEL.WEIGHTS == "a.pth"
    assert cfg.MODEL.WEIGHTS == ""


def test_auto_device_is_cuda_where_there_is_one(cfg):
    expected = "cuda" if torch.cuda.is_available() else "cpu"
    predictor = SOLOPredictor(cfg, model=ThresholdModel())
    assert predictor.device.type == predictor.model.weight.device.type == expected


@pytest.mark.parametrize("device", ["tpu9000", "cuda:99"])
def test_unusable_devices_are_named(cfg, device):
    with pytest.raises(ValueError, match=f"{device}.*cpu"):
        SOLOPredictor(cfg, device=device, model=ThresholdModel())


def test_unknown_input_format_is_refused(cfg):
    cfg.INPUT.FORMAT = "YUV"
    with pytest.raises(ValueError, match=r"INPUT\.FORMAT.*YUV"):
        predictor_of(cfg)


def test_class_names_are_given_or_of_the_test_set(cfg):
    MetadataCatalog.get("predictor_names").set(thing_classes=["a", "b", "c"])
    try:
        assert predictor_of(cfg).metadata.get("thing_classes") is None
        given = predictor_of(cfg, class_names=["x", "y", "z"])
        assert given.metadata.get("thing_classes") == ["x", "y", "z"]
        cfg.DATASETS.TEST = ("predictor_names",)
        assert predictor_of(cfg).metadata.get("thing_classes") == ["a", "b", "c"]
        cfg.MODEL.SOLO.NUM_CLASSES = 4  # these names cannot be the model's
        assert predictor_of(cfg).metadata.get("thing_classes") is None
    finally:
        MetadataCatalog.remove("predictor_names")


def test_names_that_the_weights_bring_along_come_before_those_of_the_test_set(cfg):
    metadata = MetadataCatalog.get("predictor_names").set(thing_classes=["a", "b", "c"])
    cfg.DATASETS.TEST = ("predictor_names",)
    model = ThresholdModel()
    try:
        model.class_names = ("a", "b", "c")  # the catalogue knows more of these, such as their ids
        assert SOLOPredictor(cfg, device="cpu", model=model).metadata is metadata
        model.class_names, model.stuff_names = ("x", "y", "z"), ("things", "sky")
        found = SOLOPredictor(cfg, device="cpu", model=model).metadata
        assert found.get("thing_classes") == ["x", "y", "z"]
        assert found.get("stuff_classes") == ["things", "sky"]
        given = SOLOPredictor(cfg, device="cpu", model=model, class_names=["k", "l", "m"])
        assert given.metadata.get("thing_classes") == ["k", "l", "m"]
    finally:
        MetadataCatalog.remove("predictor_names")


def test_a_wrong_number_of_class_names_is_refused(cfg):
    with pytest.raises(ValueError, match=r"2 class names given, MODEL\.SOLO\.NUM_CLASSES is 3"):
        predictor_of(cfg, class_names=["x", "y"])


def test_a_frozen_config_is_fine(cfg):
    cfg.freeze()
    assert predictor_of(cfg).cfg.MODEL.DEVICE == "cpu"


def test_weights_that_fit_partly_are_an_error_unless_asked_for(tmp_path, tiny_cfg):
    state = tiny_model(seed=1).state_dict()
    torch.save({"model": {k: v for k, v in state.items() if "bottom_up" in k}}, tmp_path / "a.pth")
    with pytest.raises(ValueError, match=r"a\.pth: is of another model, or of a backbone alone"):
        SOLOPredictor(tiny_cfg, weights=tmp_path / "a.pth", device="cpu")
    predictor = SOLOPredictor(
        tiny_cfg, weights=tmp_path / "a.pth", device="cpu", allow_partial=True
    )
    key = "backbone.bottom_up.stem.conv1.weight"
    assert torch.equal(predictor.model.state_dict()[key], state[key])


def test_results_are_predictions_of_images_lists_and_iterators(tmp_path):
    file = tmp_path / "noise.png"
    pixels = np.random.default_rng(0).integers(0, 255, (40, 60, 3), np.uint8)
    cv2.imwrite(str(file), pixels)
    predictor = SOLOPredictor(tiny_config("MODEL.SOLO.PRIOR_PROB", 0.5), device="cpu")
    one = predictor(file)
    assert isinstance(one, Prediction) and one.file_name == str(file)
    np.testing.assert_array_equal(one.image, pixels)
    both = predictor([pixels, file])
    assert [x.file_name for x in both] == [None, str(file)]
    later = predictor(image for image in (file, pixels))
    assert not isinstance(later, list)
    for x in (*both, *later):
        torch.testing.assert_close(x.instances.scores, one.instances.scores)


def test_compiling_on_a_cpu_says_so_and_changes_nothing(caplog):
    cfg = tiny_config("INPUT.MIN_SIZE_TEST", 64)
    predictor = SOLOPredictor(cfg, compile=True, device="cpu")
    assert caplog.messages[-1].startswith("compile does nothing on 'cpu'")
    assert predictor.model.runner is None


def test_compiling_is_for_one_scale():
    with pytest.raises(ValueError, match=r"compile=True is for one scale; set TEST.AUG.ENABLED"):
        SOLOPredictor(tiny_config("TEST.AUG.ENABLED", True), compile=True)
    with pytest.raises(ValueError, match=r"compile must be False, True or \"fuse\", got 'fast'"):
        SOLOPredictor(tiny_config(), compile="fast")
