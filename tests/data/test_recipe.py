"""Large scale jitter and copy-paste: what happens to images, masks, mattes and labels."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import training_runs as runs
from builders import SOFT, tiny_config
from detectron2.data import transforms as T

from solo_d2.config import validate_config
from solo_d2.data.build import build_train_loader
from solo_d2.data.copy_paste import CopyPaste
from solo_d2.data.dataset_mapper import PanopticDatasetMapper, SOLODatasetMapper
from solo_d2.data.matting_mapper import MattingDatasetMapper
from solo_d2.io.image import write_image

LSJ = ("INPUT.LSJ.ENABLED", True, "INPUT.LSJ.SIZE", 64)
PASTE = ("INPUT.COPY_PASTE.ENABLED", True)
PLAIN = {"is_train": True, "augmentations": [], "image_format": "BGR",
         "use_instance_mask": True, "instance_mask_format": "bitmask"}  # fmt: skip


def boxed(height, width, *box):
    mask = np.zeros((height, width), bool)
    mask[box[1] : box[3], box[0] : box[2]] = True
    return mask


def in_memory(value, *masks, size=(40, 60), category=0):
    """What `read` returns: a plain image with objects of twice its brightness."""
    image = np.full((*size, 3), value, np.uint8)
    for mask in masks:
        image[mask] = 2 * value
    annotations = [{"category_id": category, "segmentation": mask} for mask in masks]
    return {"file_name": "memory", "image": image, "height": size[0], "width": size[1],
            "annotations": annotations, "sem_seg": np.full(size, 3, np.uint8)}  # fmt: skip


def jittered(kind, *overrides):
    """A bright rectangle through the augmentations of a config."""
    cfg = tiny_config(*LSJ, "INPUT.RANDOM_FLIP", "none", *overrides)
    record = in_memory(100, boxed(40, 60, 15, 10, 45, 30))
    return kind(cfg, is_train=True).augment(record)


@pytest.mark.parametrize("mask_format", ["bitmask", "polygon"])
def test_half_a_scale_is_half_the_square_and_padding_is_no_object(mask_format):
    """By hand: 60 x 40 fits into 32 x 32 at 32 / 60, and is 32 x 21; the object is 16 x 11."""
    half = ("INPUT.LSJ.MIN_SCALE", 0.5, "INPUT.LSJ.MAX_SCALE", 0.5)
    found = jittered(PanopticDatasetMapper, *half, "INPUT.MASK_FORMAT", mask_format)
    assert found["image"].shape == (3, 64, 64)
    assert (found["image"][:, 21:] == 128).all()
    assert (found["image"][:, :, 32:] == 128).all()
    masks = found["instances"].gt_masks.tensor[0]
    assert found["instances"].gt_boxes.tensor.tolist() == [[8, 5, 24, 16]]
    assert masks.sum() == 16 * 11
    assert (found["sem_seg"][:21, :32] == 3).all()
    assert (found["sem_seg"][21:] == 255).all()
    mattes = jittered(MattingDatasetMapper, *half, *SOFT)["instances"].gt_mattes[0]
    assert (mattes[21:].sum(), mattes[:, 32:].sum()) == (0, 0)
    assert mattes.sum() / 255 == pytest.approx(30 * 20 * (32 / 60) * (21 / 40), rel=0.02)


def test_twice_the_scale_is_cropped_where_the_image_is():
    np.random.seed(0)  # noqa: NPY002 - the generator of augmentations
    double = ("INPUT.LSJ.MIN_SCALE", 2.0, "INPUT.LSJ.MAX_SCALE", 2.0)
    found = jittered(SOLODatasetMapper, *double)
    bright = (found["image"] == 200).all(0)
    assert found["image"].shape == (3, 64, 64)
    mask = found["instances"].gt_masks.tensor[0]
    assert 0 < mask.sum() < 64 * 43  # a part of it, 64 x 43 in full
    assert (mask ^ bright).sum() <= 2 * (64 + 43)  # but for the blurred edge


def test_detectron2s_augmentations_without_the_key():
    plain = SOLODatasetMapper(tiny_config(), is_train=True)
    assert isinstance(plain.augmentations.augs[0], T.ResizeShortestEdge)
    test = SOLODatasetMapper(tiny_config(*LSJ), is_train=False)
    assert len(test.augmentations.augs) == 1
    assert isinstance(test.augmentations.augs[0], T.ResizeShortestEdge)


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        ((*LSJ, "INPUT.CROP.ENABLED", True), "INPUT.LSJ and INPUT.CROP both crop"),
        (("INPUT.LSJ.MIN_SCALE", 3.0), "INPUT.LSJ.MIN_SCALE and MAX_SCALE must be"),
        (("INPUT.COPY_PASTE.NUM_OBJECTS", [3, 2]), "INPUT.COPY_PASTE.NUM_OBJECTS must be"),
        (("INPUT.COPY_PASTE.SCALES", [0.0, 2.0]), "INPUT.COPY_PASTE.SCALES must be"),
        (("INPUT.COPY_PASTE.PROB", 1.5), "INPUT.COPY_PASTE.PROB must be"),
    ],
)
def test_what_cannot_work_is_one_line(overrides, said):
    with pytest.raises(ValueError, match=said) as error:
        validate_config(tiny_config(*overrides))
    assert "\n" not in str(error.value)


def paste(image, other, seed=0, **options):
    options = {"count": (1, 1), "scales": (1.0, 1.0), **options}
    mapper = CopyPaste(SOLODatasetMapper(**PLAIN), [], **options)
    mapper.paste(image, other, np.random.default_rng(seed))
    return image


def test_a_pasted_object_has_its_pixels_its_mask_and_its_label():
    """Bright pixels of the other image are where the new mask is, and nothing else has changed."""
    other = in_memory(90, boxed(40, 60, 20, 10, 40, 30), category=2)
    image = first_pasted(other, min_visible=1.0)
    found = image["annotations"]
    assert [x["category_id"] for x in found] == [2]
    mask = found[0]["segmentation"]
    assert 0.9 * 400 <= mask.sum() <= 400
    assert (image["image"][~boxed(40, 60, *outer(mask))] == 10).all()
    matte = np.zeros((40, 60))
    (x, y), pixels = found[0]["alpha"]["offset"], found[0]["alpha"]["pixels"]
    matte[y : y + pixels.shape[0], x : x + pixels.shape[1]] = pixels / 255
    mixed = 10 * (1 - matte) + 180 * matte  # of the object and what is below, not of its background
    assert np.abs(image["image"][..., 0] - mixed).max() < 2
    assert np.array_equal(image["sem_seg"] == 0, mask)


def first_pasted(other, **options):
    """A dark image with an object at the first random place where enough of it is visible."""
    images = (paste(in_memory(10), other, seed, **options) for seed in range(20))
    return next(image for image in images if image["annotations"])


def outer(mask):
    """The box of a mask and two pixels around it."""
    y, x = np.nonzero(mask)
    return max(0, x.min() - 2), max(0, y.min() - 2), x.max() + 3, y.max() + 3


@pytest.mark.parametrize("min_visible", [0.0, 0.5, 1.0])
def test_objects_keep_what_is_visible_of_them(min_visible):
    below = boxed(40, 60, 10, 10, 50, 30)
    for seed in range(30):
        image = in_memory(50, below)
        other = in_memory(90, boxed(40, 60, 20, 10, 40, 30), category=1)
        found = paste(image, other, seed, min_visible=min_visible)["annotations"]
        hidden, *pasted = (x["segmentation"] for x in found)
        assert not any((hidden & x).any() for x in pasted)
        assert (hidden | np.any([below & x for x in pasted], axis=0) == below).all()
        assert hidden.sum() >= min_visible * 0.95 * below.sum()
        if min_visible == 1:
            assert np.array_equal(hidden, below)


def test_soft_mattes_are_pasted_as_they_are():
    other = in_memory(90, boxed(40, 60, 20, 10, 40, 30))
    pixels = np.full((20, 20), 204, np.uint8)
    other["annotations"][0]["alpha"] = {"pixels": pixels, "offset": [20, 10]}
    image = first_pasted(other, min_visible=0.9)
    found = image["annotations"][0]
    assert np.median(found["alpha"]["pixels"]) == 204
    assert np.median(image["image"][found["segmentation"]]) == 10 * 0.2 + 180 * 0.8


def test_nothing_to_paste_changes_nothing():
    crowd = in_memory(90, boxed(40, 60, 20, 10, 40, 30))
    crowd["annotations"][0]["iscrowd"] = 1
    image = in_memory(10, boxed(40, 60, 1, 1, 9, 9))
    before = image["image"].copy(), list(image["annotations"])
    paste(image, crowd)
    paste(image, in_memory(90))
    assert np.array_equal(image["image"], before[0])
    assert image["annotations"] == before[1]


@pytest.fixture
def data_set(tmp_path):
    runs.register(tmp_path)
    yield tmp_path
    runs.forget(runs.NAME)


def test_the_loader_pastes_and_repeats(data_set):
    """One object in every image; the seed decides what comes with it."""
    cfg = runs.config(data_set / "out", *PASTE)
    mapper = SOLODatasetMapper(cfg, is_train=True)
    first, second = (build_train_loader(cfg, mapper) for _ in range(2))
    counts = []
    for _ in range(8):
        for a, b in zip(next(first), next(second), strict=True):
            assert torch.equal(a["image"], b["image"])
            counts.append(len(a["instances"]))
    assert set(counts) == {1, 2}
    plain = build_train_loader(runs.config(data_set / "out"), mapper)
    assert all(len(x["instances"]) == 1 for _ in range(8) for x in next(plain))


def test_other_mappers_are_refused(data_set):
    with pytest.raises(ValueError, match="needs a mapper derived from SOLODatasetMapper"):
        build_train_loader(runs.config(data_set / "out", *PASTE), lambda record: record)


def test_labels_from_a_file_are_not_changed(tmp_path):
    """Pillow's arrays cannot be written to."""
    write_image(tmp_path / "a.png", np.full((40, 60, 3), 90, np.uint8))
    write_image(tmp_path / "labels.png", np.full((40, 60), 2, np.uint8))
    record = {
        **{"file_name": str(tmp_path / "a.png"), "height": 40, "width": 60},
        "sem_seg_file_name": str(tmp_path / "labels.png"),
        "annotations": [{"category_id": 0, "segmentation": [[5, 5, 40, 5, 40, 30]]}],
    }
    mapper = PanopticDatasetMapper(ignore_value=255, **PLAIN)
    mapper = CopyPaste(mapper, [record], probability=1.0, min_visible=0.0)
    np.random.seed(1)  # noqa: NPY002 - seeded by the loader otherwise
    assert set(mapper(record)["sem_seg"].unique().tolist()) == {0, 2}
