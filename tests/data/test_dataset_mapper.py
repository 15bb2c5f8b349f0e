"""From a dataset's record to the model's input: every kind of image and annotation."""

from __future__ import annotations

import copy
import json

import cv2
import numpy as np
import pycocotools.mask as coco_mask
import pytest
import torch
from builders import tiny_config, tiny_model
from detectron2.data import transforms as T
from detectron2.data.datasets import load_coco_json
from detectron2.structures import BoxMode
from PIL import Image

from solo_d2.data.dataset_mapper import SOLODatasetMapper
from solo_d2.data.resize import use_resize_filter

HEIGHT, WIDTH = 40, 60
SQUARE = [[10.0, 10.0, 30.0, 10.0, 30.0, 20.0, 10.0, 20.0]]  # x 10 to 30, y 10 to 20


def mapper(*overrides, is_train=True):
    cfg = tiny_config(
        "INPUT.MIN_SIZE_TRAIN",
        (HEIGHT,),
        "INPUT.MIN_SIZE_TEST",
        HEIGHT,
        "INPUT.RANDOM_FLIP",
        "none",
    )
    cfg.merge_from_list(list(overrides))
    return SOLODatasetMapper(cfg, is_train=is_train)


def record(tmp_path, *annotations, picture=None, name="picture.png"):
    picture = picture or Image.new("RGB", (WIDTH, HEIGHT), (10, 20, 30))
    picture.save(tmp_path / name)
    return {
        "file_name": str(tmp_path / name),
        "height": HEIGHT,
        "width": WIDTH,
        "image_id": 1,
        "annotations": list(annotations),
    }


def annotation(segmentation=None, category=0, **more):
    made = {
        "bbox": [0, 0, 5, 5],  # wrong on purpose: boxes are those of the masks
        "bbox_mode": BoxMode.XYWH_ABS,
        "category_id": category,
        **more,
    }
    if segmentation is not None:
        made["segmentation"] = segmentation
    return made


def rle(*, empty=False):
    mask = np.zeros((HEIGHT, WIDTH), dtype=np.uint8, order="F")
    mask[10:20, 10:30] = not empty
    return coco_mask.encode(mask)


def uncompressed_rle():
    """Runs of 0 and 1, column by column, of the same mask."""
    runs = [10 * HEIGHT + 10] + [10, HEIGHT - 10] * 19 + [10]
    return {"size": [HEIGHT, WIDTH], "counts": [*runs, HEIGHT * WIDTH - sum(runs)]}


def test_image_is_a_contiguous_uint8_tensor_in_the_configs_channel_order(tmp_path):
    image = mapper()(record(tmp_path))["image"]
    assert image.shape == (3, HEIGHT, WIDTH)
    assert image.dtype == torch.uint8
    assert image.is_contiguous()
    assert image[:, 0, 0].tolist() == [30, 20, 10]  # BGR by default
    image = mapper("INPUT.FORMAT", "RGB")(record(tmp_path))["image"]
    assert image[:, 0, 0].tolist() == [10, 20, 30]


@pytest.mark.parametrize("segmentation", [SQUARE, rle(), uncompressed_rle()])
def test_polygons_and_rle_of_a_file_become_the_same_masks(tmp_path, segmentation):
    if isinstance(segmentation, dict) and isinstance(segmentation["counts"], bytes):
        segmentation = {**segmentation, "counts": segmentation["counts"].decode()}
    sample = record(tmp_path)
    content = {
        "images": [{"id": 1, "file_name": "picture.png", "height": HEIGHT, "width": WIDTH}],
        "annotations": [
            {
                "id": 1,
                "image_id": 1,
                "category_id": 2,
                "bbox": [0, 0, 5, 5],
                "area": 200,
                "iscrowd": 0,
                "segmentation": segmentation,
            }
        ],
        "categories": [{"id": k, "name": f"class {k}"} for k in range(3)],
    }
    (tmp_path / "annotations.json").write_text(json.dumps(content))
    (sample,) = load_coco_json(str(tmp_path / "annotations.json"), str(tmp_path))
    objects = mapper()(sample)["instances"]
    expected = torch.zeros(1, HEIGHT, WIDTH, dtype=torch.bool)
    expected[0, 10:20, 10:30] = True
    assert torch.equal(objects.gt_masks.tensor, expected)
    assert objects.gt_classes.tolist() == [2]
    assert objects.gt_boxes.tensor.tolist() == [[10, 10, 30, 20]]


def test_masks_follow_the_picture(tmp_path):
    # A bright square on black: after flip and resize the mask is still where the light is.
    pixels = np.zeros((HEIGHT, WIDTH, 3), dtype=np.uint8)
    pixels[10:20, 10:30] = 255
    sample = record(tmp_path, annotation(rle()), picture=Image.fromarray(pixels))
    data = mapper("INPUT.MIN_SIZE_TRAIN", (80,), "INPUT.RANDOM_FLIP", "horizontal")
    for _ in range(4):
        output = data(sample)
        assert output["image"].shape == (3, 80, 120)
        light = output["image"][0] > 127
        mask = output["instances"].gt_masks.tensor[0]
        assert (light & mask).sum() / (light | mask).sum() > 0.9


def test_record_is_not_changed(tmp_path):
    sample = record(tmp_path, annotation(SQUARE))
    before = copy.deepcopy(sample)
    mapper()(sample)
    assert sample == before


@pytest.mark.parametrize("annotations", [[], [annotation(SQUARE, iscrowd=1)]])
def test_no_objects_or_only_crowds_give_empty_instances_that_train(tmp_path, annotations):
    output = mapper()(record(tmp_path, *annotations))
    assert len(output["instances"]) == 0
    assert output["instances"].gt_classes.dtype == torch.int64
    losses = tiny_model("MODEL.SOLO.MASK_FEATURE.CONV_DIM", 64)([output])
    assert all(torch.isfinite(loss) for loss in losses.values())


def test_record_without_the_key_annotations_counts_as_empty(tmp_path):
    sample = record(tmp_path)
    del sample["annotations"]
    assert len(mapper()(sample)["instances"]) == 0


def test_crowds_are_dropped_and_the_rest_stays(tmp_path):
    crowd = annotation(rle(), 1, iscrowd=1)
    objects = mapper()(record(tmp_path, crowd, annotation(SQUARE, 2)))["instances"]
    assert objects.gt_classes.tolist() == [2]


@pytest.mark.parametrize(
    "flat",
    [
        [[10.0, 10.0, 30.0, 10.0, 20.0, 10.0]],  # a line
        [[15.0, 15.0, 15.0, 15.0, 15.0, 15.0]],  # a point
        rle(empty=True),
    ],
)
def test_masks_without_area_are_dropped(tmp_path, flat):
    data = mapper()
    objects = data(record(tmp_path, annotation(flat, 0), annotation(SQUARE, 2)))["instances"]
    assert objects.gt_classes.tolist() == [2]
    assert len(data(record(tmp_path, annotation(flat)))["instances"]) == 0


def test_objects_outside_a_crop_are_dropped(tmp_path):
    data = mapper(
        "INPUT.CROP.ENABLED", True, "INPUT.CROP.TYPE", "absolute", "INPUT.CROP.SIZE", [4, 4]
    )
    for _ in range(10):
        objects = data(record(tmp_path, annotation(rle())))["instances"]
        assert len(objects) == 0 or objects.gt_masks.tensor.any((1, 2)).all()


def test_more_than_512_objects(tmp_path):
    many = [annotation(SQUARE, i % 3) for i in range(600)]
    assert len(mapper()(record(tmp_path, *many))["instances"]) == 600


def test_boxes_alone_are_refused_by_name(tmp_path):
    with pytest.raises(ValueError, match=r"1 of 2 annotations of .*picture\.png have no segm"):
        mapper()(record(tmp_path, annotation(SQUARE), annotation()))


@pytest.mark.parametrize(
    ("mode", "color"), [("L", 77), ("RGBA", (9, 9, 9, 0)), ("P", 3), ("1", 1), ("LA", (7, 7))]
)
def test_pictures_of_other_modes_train(tmp_path, mode, color):
    picture = Image.new(mode, (WIDTH, HEIGHT), color)
    output = mapper()(record(tmp_path, annotation(SQUARE), picture=picture))
    assert output["image"].shape == (3, HEIGHT, WIDTH)
    assert len(output["instances"]) == 1


def test_sixteen_bits_are_scaled_and_not_clipped(tmp_path):
    pixels = np.full((HEIGHT, WIDTH), 32896, dtype=np.uint16)  # 128 * 257
    image = mapper()(record(tmp_path, picture=Image.fromarray(pixels)))["image"]
    assert (image == 128).all()


def test_rotation_of_the_camera_is_applied(tmp_path):
    # Stored lying, 40 wide and 60 high; orientation 6 stands for a turn by 90 degrees.
    exif = Image.Exif()
    exif[0x0112] = 6
    sample = record(tmp_path)
    Image.new("RGB", (HEIGHT, WIDTH)).save(tmp_path / "turned.jpg", exif=exif)
    sample["file_name"] = str(tmp_path / "turned.jpg")
    assert mapper()(sample)["image"].shape == (3, HEIGHT, WIDTH)


def test_size_that_is_not_the_annotated_one_is_named(tmp_path):
    sample = record(tmp_path, picture=Image.new("RGB", (WIDTH + 1, HEIGHT)))
    with pytest.raises(ValueError, match=r"picture\.png"):
        mapper()(sample)


def test_picture_that_is_one_pixel_high(tmp_path):
    sample = record(tmp_path, picture=Image.new("RGB", (WIDTH, 1)))
    sample["height"] = 1
    image = mapper("INPUT.MIN_SIZE_TRAIN", (1,))(sample)["image"]
    assert image.shape == (3, 1, WIDTH)


@pytest.mark.parametrize("damage", ["missing", "truncated", "garbage"])
def test_unreadable_picture_is_named(tmp_path, damage):
    noise = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
    sample = record(tmp_path, picture=Image.fromarray(noise))
    path = tmp_path / "picture.png"
    if damage == "missing":
        path.unlink()
    else:
        content = path.read_bytes()
        path.write_bytes(content[: len(content) // 2] if damage == "truncated" else b"no picture")
    with pytest.raises(ValueError, match=r"picture\.png"):
        mapper()(sample)


def test_at_test_time_only_the_image_remains(tmp_path):
    sample = record(tmp_path, annotation(SQUARE))
    output = mapper("INPUT.MIN_SIZE_TEST", 80, is_train=False)(sample)
    assert "instances" not in output
    assert "annotations" not in output
    assert output["image"].shape == (3, 80, 120)
    assert (output["height"], output["width"]) == (HEIGHT, WIDTH)  # of the file


# The filter of resizing


def noise(height, width):
    pixels = np.random.default_rng(3).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


@pytest.mark.parametrize("is_train", [True, False])
def test_the_filter_of_the_config_resizes_images_and_not_masks(tmp_path, is_train):
    sample = record(tmp_path, annotation(rle()), annotation(SQUARE), picture=noise(HEIGHT, WIDTH))
    sizes = ("INPUT.MIN_SIZE_TRAIN", (22,), "INPUT.MIN_SIZE_TEST", 22)
    with_pillow = mapper(*sizes, is_train=is_train)(sample)
    with_opencv = mapper(*sizes, "INPUT.RESIZE_FILTER", "opencv", is_train=is_train)(sample)
    expected = cv2.resize(cv2.imread(sample["file_name"]), (33, 22))
    np.testing.assert_array_equal(with_opencv["image"], expected.transpose(2, 0, 1))
    assert not torch.equal(with_opencv["image"], with_pillow["image"])
    if is_train:
        masks = [x["instances"].gt_masks.tensor for x in (with_pillow, with_opencv)]
        assert masks[0].any() and torch.equal(*masks)


@pytest.mark.parametrize(
    ("augmentation", "shape"),
    [
        (T.Resize((22, 33)), (22, 33)),
        (T.ResizeShortestEdge(22, 100), (22, 33)),
        (T.ResizeScale(1.0, 1.0, 22, 33), (22, 33)),
        (T.ResizeShortestEdge(0, 100), (HEIGHT, WIDTH)),  # 0 leaves images as they are
    ],
)
def test_augmentations_of_ones_own_resize_with_the_filter_too(tmp_path, augmentation, shape):
    cfg = tiny_config("INPUT.RESIZE_FILTER", "opencv")
    own = SOLODatasetMapper(cfg, is_train=False, augmentations=[augmentation])
    sample = record(tmp_path, picture=noise(HEIGHT, WIDTH))
    expected = cv2.resize(cv2.imread(sample["file_name"]), shape[::-1])
    np.testing.assert_array_equal(own(sample)["image"], expected.transpose(2, 0, 1))


def test_another_method_than_bilinear_stays(tmp_path):
    nearest = T.Resize((80, 120), interp=Image.Resampling.NEAREST)
    cfg = tiny_config("INPUT.RESIZE_FILTER", "opencv")
    own = SOLODatasetMapper(cfg, is_train=False, augmentations=[nearest])
    sample = record(tmp_path, picture=noise(HEIGHT, WIDTH))
    image = own(sample)["image"]
    assert torch.equal(image[:, ::2, ::2], image[:, 1::2, 1::2])


def test_the_log_shows_the_filter():
    (resize,) = use_resize_filter([T.Resize((22, 33))], "opencv")
    assert str(resize).startswith("FilteredResize(resize=Resize(")
    assert str(resize).endswith("resize_filter='opencv')")
    transform = resize.get_transform(np.zeros((2, 3, 3), np.uint8))
    assert str(transform) == (
        "FilteredResizeTransform(h=2, w=3, new_h=22, new_w=33, resize_filter='opencv')"
    )
