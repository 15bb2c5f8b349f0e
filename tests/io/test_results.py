"""Facts about COCO results: they are JSON, and give masks and boxes back."""

from __future__ import annotations

import json

import numpy as np
import pycocotools.mask as mask_util
import pytest
import torch
from detectron2.structures import BitMasks, Instances
from hypothesis import given
from hypothesis import strategies as st

from solo_d2.io.results import coco_category_ids, instances_to_coco_results, save_json


def instances_of(masks, classes, scores):
    masks = torch.as_tensor(masks, dtype=torch.bool)
    return Instances(
        tuple(masks.shape[1:]),
        pred_masks=masks,
        pred_boxes=BitMasks(masks).get_bounding_boxes(),
        pred_classes=torch.tensor(classes, dtype=torch.long),
        scores=torch.tensor(scores),
    )


def test_one_instance_in_every_detail():
    mask = np.zeros((1, 6, 8), dtype=bool)
    mask[0, 1:3, 2:7] = True
    (result,) = instances_to_coco_results(
        instances_of(mask, [1], [0.75]),
        42,
        file_name="a.jpg",
        category_ids=[10, 20],
        class_names=["cat", "dog"],
    )
    rle = result.pop("segmentation")
    assert result == {
        "image_id": 42,
        "file_name": "a.jpg",
        "category_id": 20,
        "category_name": "dog",
        "bbox": [2, 1, 5, 2],
        "score": 0.75,
    }
    assert rle["size"] == [6, 8]
    assert mask_util.area(rle) == 10


def test_without_names_the_label_is_the_category():
    results = instances_to_coco_results(instances_of(np.ones((2, 3, 3)), [5, 0], [0.5, 0.25]), 1)
    assert [entry["category_id"] for entry in results] == [5, 0]
    assert set(results[0]) == {"image_id", "category_id", "bbox", "score", "segmentation"}


def test_no_instances_give_no_entries():
    assert instances_to_coco_results(instances_of(np.zeros((0, 3, 4)), [], []), 1) == []


@given(
    st.integers(0, 4).flatmap(
        lambda k: st.lists(
            st.lists(st.booleans(), min_size=35, max_size=35), min_size=k, max_size=k
        )
    )
)
def test_masks_survive_the_way_through_json(rows):
    masks = np.array(rows, dtype=bool).reshape(len(rows), 5, 7)
    found = instances_of(masks, [0] * len(rows), [0.5] * len(rows))
    results = json.loads(json.dumps(instances_to_coco_results(found, 3)))
    decoded = [mask_util.decode(entry["segmentation"]).astype(bool) for entry in results]
    assert np.array_equal(np.array(decoded).reshape(masks.shape), masks)


def test_category_ids_invert_the_mapping_of_detectron2():
    assert coco_category_ids({90: 2, 1: 0, 7: 1}) == [1, 7, 90]
    assert coco_category_ids({}) is None
    assert coco_category_ids(None) is None


def test_json_file_is_written_with_its_folder_and_replaced(tmp_path):
    path = tmp_path / "new" / "r.json"
    save_json(path, [1, 2, 3])
    save_json(path, [])
    assert json.loads(path.read_text()) == []


def test_unwritable_json_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match=r"r\.json: cannot be written"):
        save_json(tmp_path / "file" / "r.json", [])
