"""Facts about Cityscapes' folders: what is read is what its evaluation scores."""

from __future__ import annotations

import numpy as np
import pycocotools.mask as mask_util
import pytest
from cityscapes_folder import ids_of, write_folder
from detectron2.data import DatasetCatalog, MetadataCatalog
from PIL import Image

from solo_d2.data.datasets.cityscapes import CLASSES, load_cityscapes, register_cityscapes


@pytest.fixture
def root(tmp_path):
    write_folder(tmp_path)
    yield tmp_path
    for split in ("train", "val"):
        if f"cityscapes_{split}" in DatasetCatalog.list():
            DatasetCatalog.remove(f"cityscapes_{split}")
            MetadataCatalog.pop(f"cityscapes_{split}")


def picture_of_ids(root, split="val", city="aachen", number=0):
    folder = root / "gtFine" / split / city
    return folder / f"{city}_{number:06d}_000019_gtFine_instanceIds.png"


def test_classes_are_the_evaluated_ones():
    labels = pytest.importorskip("cityscapesscripts.helpers.labels").labels
    evaluated = {x.id: x.name for x in labels if x.hasInstances and not x.ignoreInEval}
    assert evaluated == CLASSES


def test_objects_are_the_ids_and_groups_are_crowds(root):
    data = load_cityscapes(root, "val")
    assert data.classes == list(CLASSES.values())
    record = data.records[0]
    ids = ids_of("val", 0)
    found = []
    for annotation in record["annotations"]:
        mask = mask_util.decode(annotation["segmentation"]).astype(bool)
        (value,) = set(ids[mask].tolist())
        assert np.array_equal(mask, ids == value)
        rows, columns = mask.nonzero()
        assert annotation["bbox"] == [
            columns.min(), rows.min(), columns.max() + 1, rows.max() + 1
        ]  # fmt: skip
        assert annotation["iscrowd"] == (value < 1000)
        label = value // 1000 or value
        assert data.classes[annotation["category_id"]] == CLASSES[label]
        found.append(value)
    # Road, sky and the caravan, which is not evaluated, are no objects.
    assert found == [26, 24000, 26000, 26001]


def test_every_picture_has_a_record(root):
    names = [x["image_id"] for x in load_cityscapes(root, "train").records]
    assert names == [f"{city}_{n:06d}_000019" for city in ("aachen", "bremen") for n in (0, 1)]


def test_registered_names_and_metadata(root):
    assert register_cityscapes(root) == ("cityscapes_train", "cityscapes_val")
    assert register_cityscapes(root, ("val",)) == ("cityscapes_val",)  # the same again
    metadata = MetadataCatalog.get("cityscapes_val")
    assert metadata.evaluator_type == "cityscapes_instance"
    assert metadata.gt_dir == str(root / "gtFine" / "val")
    assert len(DatasetCatalog.get("cityscapes_val")) == 4


def test_missing_folders_are_named_with_the_archive(root):
    with pytest.raises(ValueError, match=r"leftImg8bit/test.*leftImg8bit_trainvaltest\.zip"):
        load_cityscapes(root, "test")
    (root / "leftImg8bit" / "test" / "bonn").mkdir(parents=True)
    with pytest.raises(ValueError, match=r"gtFine/test.*gtFine_trainvaltest\.zip"):
        load_cityscapes(root, "test")
    (root / "gtFine" / "test").mkdir()
    with pytest.raises(ValueError, match="leftImg8bit/test holds no images"):
        load_cityscapes(root, "test")


def test_missing_ground_truth_is_named(root):
    picture_of_ids(root).unlink()
    with pytest.raises(ValueError, match=r"aachen_000000_000019_gtFine_instanceIds\.png.*unpack"):
        load_cityscapes(root, "val")


def test_misnamed_pictures_are_named(root):
    folder = root / "leftImg8bit" / "val" / "aachen"
    Image.new("RGB", (96, 64)).save(folder / "holiday.png")
    with pytest.raises(ValueError, match=r"holiday\.png: expected a name CITY_SEQUENCE_FRAME_left"):
        load_cityscapes(root, "val")


def test_damaged_and_wrong_sized_ground_truth_is_named(root):
    file = picture_of_ids(root)
    Image.new("I;16", (10, 10)).save(file)
    with pytest.raises(ValueError, match=r"instanceIds\.png is an image of shape \(10, 10\)"):
        load_cityscapes(root, "val")
    Image.new("RGB", (96, 64)).save(file)
    with pytest.raises(ValueError, match=r"shape \(64, 96, 3\).*one channel"):
        load_cityscapes(root, "val")
    file.write_bytes(b"no picture")
    with pytest.raises(ValueError, match=r"instanceIds\.png or .*cannot be read"):
        load_cityscapes(root, "val")
