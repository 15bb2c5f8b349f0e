"""The figure of the same objects with the masks of several models."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from pycocotools import mask as coco_mask

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tools"))

import compare_masks
from _drawing import CAPTION, GAP

SIZE = 64
OBJECTS = {1: (8, 8, 32, 32), 2: (48, 8, 8, 8)}  # by category: x, y, width, height


def result(category, box, score=0.9):
    mask = np.zeros((SIZE, SIZE), np.uint8, order="F")
    x, y, w, h = box
    mask[y : y + h, x : x + w] = 1
    code = coco_mask.encode(mask)
    return {"image_id": 1, "category_id": category, "score": score, "bbox": list(box),
            "segmentation": {"size": code["size"], "counts": code["counts"].decode()}}  # fmt: skip


@pytest.fixture
def files(tmp_path):
    """An image with a large and a small square; model B has half of the large one."""
    cv2.imwrite(str(tmp_path / "a.png"), np.full((SIZE, SIZE, 3), 255, np.uint8))
    annotations = [
        {"id": k, "image_id": 1, "category_id": k, "bbox": box, "area": box[2] * box[3],
         "iscrowd": 0, "segmentation": [[x, y, x + w, y, x + w, y + h, x, y + h]]}
        for k, box in OBJECTS.items() for x, y, w, h in [box]
    ]  # fmt: skip
    content = {
        "images": [{"id": 1, "file_name": "a.png", "height": SIZE, "width": SIZE}],
        "annotations": annotations,
        "categories": [{"id": 1, "name": "square"}, {"id": 2, "name": "spot"}],
    }
    (tmp_path / "val.json").write_text(json.dumps(content))
    for name, large in (("A", (8, 8, 32, 32)), ("B", (8, 8, 16, 32))):
        other = result(2, large, 0.99)  # of another class: of no use for the large one
        (tmp_path / f"{name}.json").write_text(
            json.dumps([other, result(1, large), result(2, OBJECTS[2])])
        )
    return tmp_path


def call(files, *more):
    line = f"--annotations {files}/val.json --images {files} --output {files}/out.png"
    line += f" --results A={files}/A.json B={files}/B.json --height 80"
    return compare_masks.main([*line.split(), *map(str, more)])


def tinted(crop):
    return float((crop[..., 2] < 230).mean())  # the image is white, the tint is blue


def test_a_row_has_the_annotation_and_the_mask_of_every_model(files, capsys):
    assert call(files) == 0
    drawn = cv2.imread(str(files / "out.png"))
    assert drawn.shape == (80 + CAPTION + 2 * GAP, 3 * (80 + GAP) + GAP, 3)
    assert f"{drawn.shape[1]}x{drawn.shape[0]}" in capsys.readouterr().out
    cells = [drawn[GAP + CAPTION :, GAP + k * (80 + GAP) :][:80, :80] for k in range(3)]
    shares = [tinted(cell) for cell in cells]
    assert shares[0] == shares[1] == pytest.approx((80 / 1.2 + 2) ** 2 / 80**2, abs=0.06)
    assert shares[2] == pytest.approx((80 / 1.2 + 2) * (40 / 1.2 + 2) / 80**2, abs=0.06)


def test_the_largest_object_that_all_have_found(files):
    truth, results = compare_masks.read(
        compare_masks.make_parser().parse_args(
            f"--annotations {files}/val.json --images . --output x.png "
            f"--results A={files}/A.json B={files}/B.json".split()
        )
    )
    for limit, area, ious in ((0.5, 32 * 32, [1.0, 0.5]), (0.51, 8 * 8, [1.0, 1.0])):
        [(annotation, matches)] = compare_masks.choose(truth, results, 6, limit)
        assert annotation["area"] == area
        assert [iou for iou, _ in matches] == ious


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (("--min-iou", 1.01), "no object that all models found"),
        (("--results", "A.json"), "expected NAME=FILE"),
        (("--results", "A=none.json"), "none.json"),
        (("--count", 0), "--count must be at least 1"),
    ],
)
def test_what_cannot_be_drawn_is_said_in_a_line(files, capsys, more, said):
    assert call(files, *more) == 2
    told = capsys.readouterr().err
    assert said in told and told.count("\n") == 1
