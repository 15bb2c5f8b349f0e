"""A small dataset and trainings on it that tests stop, resume and compare."""

from __future__ import annotations

import json
import os
import signal

import numpy as np
import torch
from builders import tiny_config
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.engine import HookBase
from PIL import Image

from solo_d2.data.datasets.coco_json import register_coco_json
from solo_d2.engine import SOLOTrainer

NAME = "faults_training"


def write_images(folder, count=7, name="train.json", size=(64, 96)):
    """Images of noise, every third one upright, with one object each; returns the file."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    images, annotations = [], []
    for i in range(count):
        height, width = size if i % 3 else size[::-1]
        pixels = rng.integers(0, 255, (height, width, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{i}.png")
        images.append({"id": i + 1, "file_name": f"{i}.png", "height": height, "width": width})
        x, y = 4 + 4 * i % 24, 8
        annotations.append(
            {"id": i + 1, "image_id": i + 1, "category_id": i % 3 + 1, "iscrowd": 0, "area": 720,
             "bbox": [x, y, 30, 24], "segmentation": [[x, y, x + 30, y, x + 30, y + 24, x, y + 24]]}
        )  # fmt: skip
    categories = [{"id": k + 1, "name": name} for k, name in enumerate("abc")]
    content = {"images": images, "annotations": annotations, "categories": categories}
    (folder / name).write_text(json.dumps(content))
    return folder / name


def register(folder, name=NAME, file="train.json", **keywords):
    """Register a dataset of `write_images`."""
    register_coco_json(name, str(write_images(folder, name=file, **keywords)), str(folder))
    return name


def forget(*names):
    for name in names:
        for catalog in (DatasetCatalog, MetadataCatalog):
            if name in catalog.list():
                catalog.remove(name)


RESNET = (
    *("MODEL.BACKBONE.NAME", "build_resnet_fpn_backbone"),
    *("MODEL.TIMM.NAME", "tf_efficientnet_lite0"),  # the default, of no use then
)
"""Overrides of `config` for a backbone of Detectron2."""


def config(output, *overrides):
    """Ten iterations of a very small model with a warm-up and two drops of the rate."""
    return tiny_config(
        "MODEL.BACKBONE.NAME", "build_timm_fpn_backbone", "MODEL.TIMM.NAME", "test_resnet",
        "MODEL.FPN.OUT_CHANNELS", 16,
        "OUTPUT_DIR", str(output), "DATASETS.TRAIN", (NAME,), "DATASETS.TEST", (), "SEED", 7,
        "DATALOADER.NUM_WORKERS", 0, "INPUT.MIN_SIZE_TRAIN", (48, 64), "INPUT.MIN_SIZE_TEST", 64,
        "SOLVER.IMS_PER_BATCH", 2, "SOLVER.MAX_ITER", 10, "SOLVER.BASE_LR", 0.002,
        "SOLVER.WARMUP_ITERS", 3, "SOLVER.STEPS", (4, 8), *overrides,
    )  # fmt: skip


class At(HookBase):
    """Does something before, or behind, one iteration."""

    def __init__(self, iteration, action, after=False):
        self.iteration, self.action, self.after = iteration, action, after

    def before_step(self):
        if not self.after and self.trainer.iter == self.iteration:
            self.action()

    def after_step(self):
        if self.after and self.trainer.iter == self.iteration:
            self.action()


class Trace(HookBase):
    """Remembers loss, learning rate and number of every iteration."""

    def __init__(self):
        self.steps = []

    def before_step(self):
        self.rate = self.trainer.optimizer.param_groups[0]["lr"]

    def after_step(self):
        loss = self.trainer.storage.latest()["total_loss"][0]
        self.steps.append((self.trainer.iter, float(loss), self.rate))


def send(number):
    """Send a signal to this process."""
    return lambda: os.kill(os.getpid(), number)


def train(cfg, *, resume=False, stop=None, extra=()):
    """Train, with SIGTERM before the iteration `stop`.

    Returns:
        The trainer, what `Trace` saw, and the exit code of the signal.
    """
    torch.manual_seed(0)
    trainer, trace, code = SOLOTrainer(cfg), Trace(), 0
    stopping = [] if stop is None else [At(stop, send(signal.SIGTERM))]
    trainer.register_hooks([trace, *stopping, *extra])
    trainer.resume_or_load(resume=resume)
    try:
        trainer.train()
    except SystemExit as error:
        code = error.code
    return trainer, trace.steps, code


def weights(trainer):
    return {key: value.clone() for key, value in trainer.checkpointer.model.state_dict().items()}
