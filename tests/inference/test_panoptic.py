"""Panoptic output drawn, collected and written, from a model whose answers are known."""

from __future__ import annotations

import json

import cv2
import numpy as np
import pycocotools.mask as mask_util
import pytest
import torch
from detectron2.config import get_cfg
from test_runner import picture
from threshold_model import ThresholdModel

from solo_d2.config import add_solo_config
from solo_d2.inference.cli import load_class_names, load_stuff_names
from solo_d2.inference.colors import instance_colors, stuff_colors
from solo_d2.inference.drawing import draw_panoptic
from solo_d2.inference.predictor import SOLOPredictor
from solo_d2.inference.runner import InferenceRun
from solo_d2.io.results import panoptic_things, panoptic_to_json, save_json
from solo_d2.io.video import VideoReader, VideoWriter

THINGS, STUFF = ["blue", "green", "red"], ["things", "sky", "sea"]


class PanopticThresholdModel(ThresholdModel):
    """Adds sky in the upper half and sea below, with what the base finds above both."""

    def forward(self, batched_inputs):
        results = super().forward(batched_inputs)
        for result in results:
            found = result["instances"]
            height, width = found.image_size
            ids = torch.full((height, width), 101, dtype=torch.int32)
            ids[height // 2 :] = 102
            described = []
            for k in range(len(found)):
                ids[found.pred_masks[k]] = k + 1
                entry = {"id": k + 1, "isthing": True, "score": float(found.scores[k])}
                described.append({**entry, "category_id": int(found.pred_classes[k])})
            for number, label in ((101, 1), (102, 2)):
                described.append({"id": number, "isthing": False, "category_id": label})
            result["panoptic_seg"] = ids, described
        return results


@pytest.fixture
def predictor():
    cfg = get_cfg()
    add_solo_config(cfg)
    cfg.MODEL.SOLO.NUM_CLASSES = 3
    cfg.DATASETS.TEST = ()
    cfg.INPUT.MIN_SIZE_TEST = 0
    model = PanopticThresholdModel()
    return SOLOPredictor(cfg, device="cpu", model=model, class_names=THINGS, stuff_names=STUFF)


def two_regions():
    """A thing of class 2 on stuff 1, 40x60 pixels, with a strip of nothing on the right."""
    ids = torch.full((40, 60), 7, dtype=torch.int32)
    ids[10:30, 10:30] = 3
    ids[:, 50:] = 0
    described = [
        {"id": 3, "isthing": True, "category_id": 2, "score": 0.75},
        {"id": 7, "isthing": False, "category_id": 1, "area": 40 * 50 - 400},
    ]
    return ids, described


def test_things_and_stuff_are_blended_with_their_colours():
    image = np.full((400, 600, 3), 100, np.uint8)
    before = image.copy()
    color = np.array([[200, 0, 50]], np.uint8)
    ids, described = two_regions()
    large = ids.repeat_interleave(10, 0).repeat_interleave(10, 1), described
    drawn = draw_panoptic(image, large, THINGS, STUFF, color, alpha=0.5)
    assert np.array_equal(image, before)
    sky = stuff_colors([1])[0].astype(float)
    # Far from the labels, which stand in the middle of the segments.
    assert np.abs(drawn[370, 50] - (50 + sky / 2)).max() <= 1
    assert np.abs(drawn[120, 120] - (50 + color[0] / 2)).max() <= 1
    assert (drawn[:, 510:] == 100).all()
    assert not np.array_equal(drawn[200, 200], drawn[120, 120])  # a label


def test_colours_of_stuff_are_pale_and_unlike_one_another():
    colors = stuff_colors(range(20)).astype(int)
    assert len(np.unique(colors, axis=0)) == 20
    assert (np.ptp(colors, axis=1) <= 85).all()
    assert (np.ptp(instance_colors(range(20)).astype(int), axis=1) > 100).all()


def test_things_are_instances_that_do_not_overlap():
    ids, described = two_regions()
    things = panoptic_things(ids, described)
    assert (len(things), things.pred_classes.tolist(), things.scores.tolist()) == (1, [2], [0.75])
    assert torch.equal(things.pred_masks[0], ids == 3)
    nothing = panoptic_things(torch.zeros(4, 5, dtype=torch.int32), [])
    assert nothing.pred_masks.shape == (0, 4, 5)


def test_segments_are_json_with_the_ids_of_the_data(tmp_path):
    ids, described = two_regions()
    entry = panoptic_to_json(
        (ids, described), 5, file_name="a.png", thing_ids=[10, 20, 30], stuff_ids=[0, 40, 50],
        thing_names=THINGS, stuff_names=STUFF,
    )  # fmt: skip
    save_json(tmp_path / "a.json", entry)
    read = json.loads((tmp_path / "a.json").read_text())
    assert (read["image_id"], read["file_name"]) == (5, "a.png")
    thing, stuff = read["segments_info"]
    assert (thing["id"], thing["category_id"], thing["category_name"]) == (3, 30, "red")
    assert (thing["isthing"], thing["score"], thing["area"]) == (True, 0.75, 400)
    assert (stuff["category_id"], stuff["category_name"], stuff["area"]) == (40, "sky", 1600)
    assert np.array_equal(mask_util.decode(stuff["segmentation"]), ids.numpy() == 7)


def test_without_names_and_ids_labels_stand_for_themselves():
    entry = panoptic_to_json(two_regions(), 1, file_name="a")
    assert [s["category_id"] for s in entry["segments_info"]] == [2, 1]
    assert "category_name" not in entry["segments_info"][0]


def test_pictures_are_drawn_and_collected(tmp_path, predictor):
    files = [picture(tmp_path / "a.png", 1), picture(tmp_path / "b.png", 2)]
    targets = [tmp_path / "out" / file.name for file in files]
    run = InferenceRun(predictor)
    run.images(files, targets)
    assert [entry["file_name"] for entry in run.panoptic] == [str(file) for file in files]
    names = [s["category_name"] for s in run.panoptic[0]["segments_info"]]
    assert names == ["green", "sky", "sea"]
    sky = cv2.imread(str(targets[0]))[2, 2]  # black below, no label near
    assert np.abs(sky - 0.45 * stuff_colors([1])[0]).max() <= 1


def test_frames_of_a_video_are_drawn(tmp_path, predictor):
    frame = cv2.imread(str(picture(tmp_path / "a.png", 1)))
    with VideoWriter(tmp_path / "in.mp4", 10) as writer:
        for _ in range(2):
            writer.write(frame)
    run = InferenceRun(predictor)
    run.video(tmp_path / "in.mp4", tmp_path / "out.mp4")
    assert [entry["image_id"] for entry in run.panoptic] == [0, 1]
    with VideoReader(tmp_path / "out.mp4") as reader:
        (first, _) = list(reader)
    assert np.abs(first[4, 4].astype(int) - 0.45 * stuff_colors([1])[0]).max() < 25


def test_names_of_stuff_come_from_a_panoptic_file(tmp_path):
    categories = [
        {"id": 8, "name": "sea", "isthing": 0},
        {"id": 1, "name": "cat", "isthing": 1},
        {"id": 3, "name": "sky", "isthing": 0},
    ]
    (tmp_path / "a.json").write_text(json.dumps({"categories": categories}))
    assert load_class_names(tmp_path / "a.json") == ["cat"]
    assert load_stuff_names(tmp_path / "a.json") == ["things", "sky", "sea"]
    (tmp_path / "b.json").write_text(json.dumps({"categories": [{"id": 1, "name": "cat"}]}))
    assert load_stuff_names(tmp_path / "b.json") is None
    (tmp_path / "c.txt").write_text("cat\n")
    assert load_stuff_names(tmp_path / "c.txt") is None
