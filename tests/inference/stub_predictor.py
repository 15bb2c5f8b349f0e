"""A predictor that finds rectangles in every image, and demo.py with it instead of a model."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path

import cv2
import numpy as np
import torch
from detectron2.structures import BitMasks, Instances
from PIL import Image

DEMO = Path(__file__).parents[2] / "demo" / "demo.py"


class StubPredictor:
    """Finds `count` rectangles.

    Args:
        count: of rectangles.
        names: of classes; all rectangles are of the first one.
        before: called with the number of the image before it is predicted; may raise.
        panoptic: also return segments.
    """

    def __init__(self, count=3, names=("cup", "fork"), before=None, panoptic=False):
        self.count, self.before, self.panoptic, self.seen = count, before, panoptic, 0
        self.metadata = {"thing_classes": list(names)}

    def __call__(self, images):
        if isinstance(images, list):
            return [self(image) for image in images]
        self.seen += 1
        if self.before is not None:
            self.before(self.seen)
        size, n = images.shape[:2], self.count
        masks = torch.zeros(n, *size, dtype=torch.bool)
        for k in range(n):
            masks[k, 3 + 2 * k : 20 + 2 * k, 4 + 3 * k : 30 + 3 * k] = True
        found = Instances(
            size,
            pred_masks=masks,
            pred_boxes=BitMasks(masks).get_bounding_boxes(),
            scores=torch.full((n,), 0.8),
            pred_classes=torch.zeros(n, dtype=torch.int64),
        )
        if not self.panoptic:
            return {"instances": found}
        segment = {"id": 1, "isthing": True, "category_id": 0, "score": 0.8, "instance_id": 0}
        ids = masks.any(0).int()
        return {"instances": found, "panoptic_seg": (ids, [segment] if n else [])}


def load_demo(predictor=None):
    """The module demo.py, whose model is `predictor` if there is one."""
    spec = importlib.util.spec_from_file_location("stub_demo", DEMO)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    if predictor is not None:
        module.make_predictor = lambda args, overrides: predictor
    return module


def demo(predictor, *arguments):
    """Exit code of demo.py."""
    return load_demo(predictor).main(["--config-file", "unused", *map(str, arguments)])


def picture(path, size=(50, 70), seed=0):
    """Write noise."""
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(seed).integers(0, 255, (*size, 3), np.uint8)
    Image.fromarray(noise).save(path, format=None if path.suffix else "PNG")
    return path


def film(path, frames=10, size=(48, 64)):
    """Write a video of frames that get brighter, with OpenCV."""
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), 25, size[::-1])
    for k in range(frames):
        writer.write(np.full((*size, 3), 5 * k % 255, np.uint8))
    writer.release()
    return path


def playable(path):
    """Number of frames that can be read."""
    capture, count = cv2.VideoCapture(str(path)), 0
    while capture.isOpened() and capture.read()[0]:
        count += 1
    return count


def in_a_child(function):
    """Exit code of a call in a process of its own; minus the signal that ended it."""
    child = os.fork()
    if not child:
        try:
            os._exit(function())
        finally:
            os._exit(99)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
