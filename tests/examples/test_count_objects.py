"""The example that counts with supervision counts right."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest
import torch
from detectron2.structures import Boxes, Instances

from solo_d2.inference.prediction import Prediction
from solo_d2.io.image import write_image
from solo_d2.layers import masks_to_boxes

pytest.importorskip("supervision")
FILE = Path(__file__).parents[2] / "examples/count_objects.py"


def predictor(frame):
    """Two squares above, which cross the middle, and one below that stays."""
    number = int(frame[0, 0, 0])
    masks = torch.zeros(3, 120, 200, dtype=torch.bool)
    for mask, (top, left) in zip(
        masks, ((5, 60 + 4 * number), (30, 120 - 4 * number), (80, 20)), strict=True
    ):
        mask[top : top + 20, left : left + 20] = True
    found = Instances((120, 200), pred_masks=masks, pred_boxes=Boxes(masks_to_boxes(masks)))
    found.scores, found.pred_classes = torch.full((3,), 0.9), torch.zeros(3, dtype=torch.long)
    return Prediction({"instances": found}, frame, {"thing_classes": ["cup"]})


def test_crossings_and_visitors(tmp_path):
    spec = importlib.util.spec_from_file_location("count_objects", FILE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    for number in range(16):
        write_image(tmp_path / f"{number}.png", np.full((120, 200, 3), number, np.uint8))
    counts = module.count(str(tmp_path), predictor)
    assert sorted((counts.rightwards, counts.leftwards)) == [1, 1]
    assert counts.lower_half == 1
