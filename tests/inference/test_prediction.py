"""`Prediction`: two rectangles on a grey image of 40 x 60."""

import json
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch
from detectron2.structures import Boxes, Instances
from PIL import Image
from pycocotools import mask as mask_util

from solo_d2.inference.prediction import Prediction


class Metadata(SimpleNamespace):
    def get(self, key, default=None):
        return getattr(self, key, default)


def make(labels=(0, 1), metadata=None, file_name="photo.jpg"):
    masks = torch.zeros(len(labels), 40, 60, dtype=torch.bool)
    for k in range(len(labels)):
        masks[k, 5:15, 10 + 20 * k : 20 + 20 * k] = True
    instances = Instances((40, 60))
    instances.pred_masks = masks
    instances.pred_boxes = Boxes(
        torch.tensor([[10.0 + 20 * k, 5, 20 + 20 * k, 15] for k in range(len(labels))]).reshape(
            -1, 4
        )
    )
    instances.scores = torch.linspace(0.9, 0.8, max(len(labels), 1))[: len(labels)]
    instances.pred_classes = torch.tensor(labels, dtype=torch.int64)
    names = Metadata(thing_classes=["cup", "fork"], thing_dataset_id_to_contiguous_id={17: 1, 3: 0})
    image = np.full((40, 60, 3), 128, np.uint8)
    return Prediction({"instances": instances}, image, metadata or names, file_name)


def test_it_is_detectron2s_dict():
    prediction = make()
    assert isinstance(prediction, dict) and list(prediction) == ["instances"]
    assert prediction["instances"] is prediction.instances


def test_names_are_those_of_the_metadata_or_numbers():
    assert make().names == ["cup", "fork"]
    assert make(labels=(1, 5)).names == ["fork", "class 5"]
    assert make(metadata=Metadata()).names == ["class 0", "class 1"]


@pytest.mark.parametrize(
    ("labels", "file_name", "text"),
    [
        ((0, 1), "photo.jpg", "2 instances in photo.jpg (40 x 60): cup 90%, fork 80%"),
        ((0,), None, "1 instance in 40 x 60: cup 90%"),
        ((), None, "0 instances in 40 x 60"),
        ((0,) * 6, None, "6 instances in 40 x 60: cup 90%, cup 88%, cup 86%, cup 84%, ..."),
    ],
)
def test_text_is_one_line(labels, file_name, text):
    assert repr(make(labels, file_name=file_name)) == text


def test_polygons_follow_the_masks():
    first, second = make().polygons()
    assert first[0].tolist() == [[10, 5], [10, 15], [20, 15], [20, 5]]
    assert second[0][:, 0].min() == 30


def test_coco_results_have_the_datasets_ids():
    first, second = make().to_coco(image_id=42)
    assert (first["image_id"], first["category_id"], second["category_id"]) == (42, 3, 17)
    assert (first["category_name"], first["file_name"]) == ("cup", "photo.jpg")
    assert first["bbox"] == [10, 5, 10, 10]
    assert mask_util.area(first["segmentation"]) == 100
    assert [x["category_id"] for x in make(metadata=Metadata()).to_coco()] == [0, 1]


def test_supervision_gets_masks_and_names():
    supervision = pytest.importorskip("supervision")
    detections = make().to_supervision()
    assert isinstance(detections, supervision.Detections)
    assert detections.mask.sum() == 200
    assert detections.data["class_name"].tolist() == ["cup", "fork"]
    assert len(make(labels=()).to_supervision()) == 0


def test_a_drawing_changes_the_masks_and_not_the_image():
    prediction = make()
    drawn = prediction.draw()
    assert (drawn[5:15, 10:20] != 128).any() and (prediction.image == 128).all()
    assert (drawn[25:, :] == 128).all()


def test_saving_writes_the_drawing_or_the_results(tmp_path):
    prediction = make()
    prediction.save(tmp_path / "out.png")
    np.testing.assert_array_equal(cv2.imread(str(tmp_path / "out.png")), prediction.draw())
    prediction.save(tmp_path / "out.json")
    assert json.loads((tmp_path / "out.json").read_text()) == prediction.to_coco()


@pytest.mark.parametrize("name", ["out", "out.xyz"])
def test_an_unknown_format_is_refused_and_nothing_is_left(tmp_path, name):
    with pytest.raises(ValueError, match=r"out.*: cannot be written: no known image format"):
        make().save(tmp_path / name)
    assert list(tmp_path.iterdir()) == []


def test_a_notebook_shows_the_drawing():
    import io

    shown = np.asarray(Image.open(io.BytesIO(make()._repr_png_())))
    np.testing.assert_array_equal(shown[:, :, ::-1], make().draw())
