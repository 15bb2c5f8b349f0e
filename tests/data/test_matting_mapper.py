"""Mattes go through augmentations as the image that they belong to."""

from __future__ import annotations

import numpy as np
import pycocotools.mask as coco_mask
import pytest
import torch
from builders import SOFT, tiny_config, tiny_model
from detectron2.data import transforms as T
from detectron2.structures import BoxMode
from PIL import Image

from solo_d2.data.matting_mapper import MattingDatasetMapper, transform_matte

HEIGHT, WIDTH = 60, 80


def mapper(*augmentations, **options):
    return MattingDatasetMapper(
        is_train=True, augmentations=list(augmentations), image_format="RGB",
        use_instance_mask=True, instance_mask_format="bitmask", **options,
    )  # fmt: skip


def soft_disc(x=40.0, y=30.0, radius=18.0, softness=6.0):
    """An opaque disc whose edge fades out over `softness` pixels, uint8."""
    rows, columns = np.mgrid[:HEIGHT, :WIDTH]
    distance = np.hypot(columns - x, rows - y)
    return np.rint(255 * np.clip((radius - distance) / softness, 0, 1)).astype(np.uint8)


def record(folder, mattes, image=None, classes=None, **more):
    """White objects of these mattes, the last on top, on black; or the image given."""
    if image is None:
        image = np.clip(sum((m.astype(int) for m in mattes), np.zeros((HEIGHT, WIDTH))), 0, 255)
        image = np.repeat(image[..., None], 3, axis=2).astype(np.uint8)
    Image.fromarray(image).save(folder / "picture.png")
    annotations = []
    for k, matte in enumerate(mattes):
        Image.fromarray(matte).save(folder / f"matte{k}.png")
        annotations.append(
            {
                "bbox": [0, 0, 1, 1],
                "bbox_mode": BoxMode.XYWH_ABS,
                "category_id": k if classes is None else classes[k],
                "segmentation": coco_mask.encode(np.asfortranarray(matte >= 128, np.uint8)),
                "alpha": {"file_name": str(folder / f"matte{k}.png")},
                **more,
            }
        )
    return {
        "file_name": str(folder / "picture.png"), "height": HEIGHT, "width": WIDTH,
        "image_id": 1, "annotations": annotations,
    }  # fmt: skip


GEOMETRY = {
    "none": (),
    "smaller": (T.Resize((31, 47)),),
    "larger": (T.Resize((133, 171)),),
    "flip": (T.RandomFlip(1.0),),
    "crop": (T.RandomCrop("absolute", (40, 50)),),
    "rotation": (T.RandomRotation([30, 30], expand=False),),
    "extent": (T.RandomExtent((0.6, 0.6), (0.1, 0.1)),),
    "all": (
        T.RandomFlip(1.0),
        T.ResizeShortestEdge([50, 70], 100),
        T.RandomCrop("relative", (0.9, 0.9)),
    ),
}


@pytest.mark.parametrize("resize_filter", ["pillow", "opencv"])
@pytest.mark.parametrize("name", GEOMETRY)
def test_a_white_object_on_black_looks_like_its_matte_after_any_augmentation(
    tmp_path, name, resize_filter
):
    # Resizing the composite and composing with the resized matte are the same thing.
    for _ in range(3):
        output = mapper(*GEOMETRY[name], resize_filter=resize_filter)(
            record(tmp_path, [soft_disc()])
        )
        picture, matte = output["image"][0], output["instances"].gt_mattes[0]
        assert matte.shape == picture.shape
        assert (picture.int() - matte.int()).abs().max() <= 1


def test_composing_after_resizing_gives_the_resized_composite(tmp_path):
    rows, columns = np.mgrid[:HEIGHT, :WIDTH]
    front = np.dstack([columns * 3, rows * 4, 0 * rows]).astype(float)
    back = np.dstack([0 * rows, 255 - columns * 3, rows * 4]).astype(float)
    alpha = soft_disc()[..., None] / 255
    composite = np.rint(alpha * front + (1 - alpha) * back).astype(np.uint8)
    resize = T.Resize((90, 120))
    output = mapper(resize)(record(tmp_path, [soft_disc()], image=composite))
    transform = resize.get_transform(composite)
    large = output["instances"].gt_mattes[0].numpy()[..., None] / 255
    front, back = (transform.apply_image(np.rint(x).astype(np.uint8)) for x in (front, back))
    expected = large * front + (1 - large) * back
    # Products of two linear functions: the images change by 4 a pixel, alpha by 1/6.
    assert np.abs(output["image"].permute(1, 2, 0).numpy() - expected).max() <= 4


def test_mattes_of_overlapping_objects_keep_their_sum(tmp_path):
    top = soft_disc(50)
    below = np.rint(soft_disc(30) * (1 - top / 255.0)).astype(np.uint8)
    output = mapper(*GEOMETRY["all"])(record(tmp_path, [below, top]))
    assert output["instances"].gt_mattes.int().sum(0).max() <= 255 + 2  # rounding


@pytest.mark.parametrize(
    "augmentation",
    [T.RandomBrightness(0.3, 0.3), T.RandomContrast(0.3, 0.3), T.RandomLighting(300)],
)
def test_changes_of_colour_leave_the_matte_alone(tmp_path, augmentation):
    output = mapper(augmentation)(record(tmp_path, [soft_disc()]))
    np.testing.assert_array_equal(output["instances"].gt_mattes[0], soft_disc())
    assert not np.array_equal(output["image"][0], soft_disc())


def test_padding_is_transparent(tmp_path):
    # The image is padded with 128, and labels with 255 ("ignore").
    output = mapper(T.FixedSizeCrop((100, 120)))(record(tmp_path, [soft_disc()]))
    matte = output["instances"].gt_mattes[0]
    assert output["image"][0, 99, 119] == 128
    np.testing.assert_array_equal(matte[:HEIGHT, :WIDTH], soft_disc())
    assert matte[HEIGHT:].max() == matte[:, WIDTH:].max() == 0


def test_a_symmetric_matte_survives_the_check_for_changes_of_colour():
    opaque = np.full((8, 10), 255, np.uint8)
    flipped = transform_matte(opaque, T.TransformList([T.HFlipTransform(10)]))
    np.testing.assert_array_equal(flipped, opaque)
    larger = transform_matte(opaque, T.TransformList([T.ResizeTransform(8, 10, 16, 20)]))
    np.testing.assert_array_equal(larger, np.full((16, 20), 255))


def test_masks_are_where_the_matte_is_one_half_and_boxes_are_theirs(tmp_path):
    matte = np.zeros((HEIGHT, WIDTH), np.uint8)
    matte[10:20, 30:50] = 128
    matte[5:30, 20:60][matte[5:30, 20:60] == 0] = 127
    objects = mapper()(record(tmp_path, [matte]))["instances"]
    np.testing.assert_array_equal(objects.gt_masks.tensor[0], matte == 128)
    assert objects.gt_boxes.tensor.tolist() == [[30, 10, 50, 20]]


def test_an_annotation_without_alpha_has_its_mask_as_matte(tmp_path):
    sample = record(tmp_path, [soft_disc(), soft_disc(20)])
    for annotation in sample["annotations"]:
        del annotation["alpha"]
    polygon = [10.0, 10.0, 30.0, 10.0, 30.0, 20.0, 10.0, 20.0]
    sample["annotations"][1]["segmentation"] = [polygon]
    mattes = mapper()(sample)["instances"].gt_mattes
    np.testing.assert_array_equal(mattes[0], (soft_disc() >= 128) * 255)
    expected = np.zeros((HEIGHT, WIDTH))
    expected[10:20, 10:30] = 255
    np.testing.assert_array_equal(mattes[1], expected)
    large = mapper(T.Resize((90, 120)))(sample)["instances"].gt_mattes[1]
    assert ((large > 0) & (large < 255)).any()  # resampled as an image, not as labels


def test_a_crop_lies_at_its_offset(tmp_path):
    sample = record(tmp_path, [soft_disc()])
    Image.fromarray(soft_disc()[10:50, 20:70]).save(tmp_path / "crop.png")
    sample["annotations"][0]["alpha"] = {
        "file_name": str(tmp_path / "crop.png"),
        "offset": [20, 10],
    }
    np.testing.assert_array_equal(mapper()(sample)["instances"].gt_mattes[0], soft_disc())


def test_objects_that_vanish_are_dropped_from_all_fields(tmp_path):
    faint = soft_disc() // 3  # nowhere one half
    sample = record(tmp_path, [faint, soft_disc(15, 15, 10), soft_disc()], classes=[2, 0, 1])
    objects = mapper()(sample)["instances"]
    assert objects.gt_classes.tolist() == [0, 1]
    assert len(objects.gt_mattes) == len(objects.gt_masks) == len(objects.gt_boxes) == 2
    np.testing.assert_array_equal(objects.gt_mattes[1], soft_disc())


@pytest.mark.parametrize("crowd", [False, True])
def test_no_object_trains(tmp_path, crowd):
    sample = record(tmp_path, [soft_disc()] if crowd else [], iscrowd=1)
    output = mapper()(sample)
    assert len(output["instances"]) == 0
    assert output["instances"].gt_mattes.shape == (0, HEIGHT, WIDTH)
    losses = tiny_model(*SOFT)([output, mapper()(record(tmp_path, [soft_disc()]))])
    assert all(torch.isfinite(loss) for loss in losses.values())


def test_fifty_objects(tmp_path):
    sample = record(
        tmp_path, [soft_disc(5 + k, 20 + k % 7, 8) for k in range(50)], classes=[0] * 50
    )
    objects = mapper(T.Resize((30, 40)))(sample)["instances"]
    assert objects.gt_mattes.shape == (50, 30, 40)


def test_the_config_makes_the_same_mapper(tmp_path):
    cfg = tiny_config("INPUT.MIN_SIZE_TRAIN", (HEIGHT,), "INPUT.RANDOM_FLIP", "none")
    output = MattingDatasetMapper(cfg, is_train=True)(record(tmp_path, [soft_disc()]))
    np.testing.assert_array_equal(output["instances"].gt_mattes[0], soft_disc())


def test_bad_annotations_name_the_picture_or_the_matte(tmp_path):
    sample = record(tmp_path, [soft_disc()])
    annotation = sample["annotations"][0]
    Image.fromarray(soft_disc()[1:]).save(tmp_path / "small.png")
    annotation["alpha"] = {"file_name": str(tmp_path / "small.png")}
    with pytest.raises(ValueError, match=r"small\.png: the matte has 80x59 pixels.*80x60"):
        mapper()(sample)
    del annotation["alpha"]
    annotation["segmentation"] = np.ones((3, 4), bool)
    with pytest.raises(ValueError, match=r"a mask of .*picture\.png has 4x3 pixels"):
        mapper()(sample)
    del annotation["segmentation"]
    with pytest.raises(ValueError, match=r"picture\.png has neither 'alpha' nor 'segmentation'"):
        mapper()(sample)
