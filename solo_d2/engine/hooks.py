"""Hooks of the training loop: the best checkpoint, and images of what is learnt."""

from __future__ import annotations

import copy
import logging
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog
from detectron2.data.detection_utils import convert_image_to_rgb
from detectron2.engine import HookBase
from detectron2.structures import Instances, PolygonMasks
from detectron2.structures.masks import polygons_to_bitmask
from detectron2.utils.events import get_event_storage
from detectron2.utils.visualizer import Visualizer
from torch import nn

from ..checkpoint import load_checkpoint
from ..data.loader import TrainLoader
from .checkpointer import BestCheckpointer

_logger = logging.getLogger(__name__)

BEST = "model_best"
"""Name of the best checkpoint, without its ending."""


class BestCheckpoint(HookBase):
    """Keeps the checkpoint of the best evaluation so far, also over resumes.

    Args:
        period: of the evaluations, in iterations; it comes behind their hook.
        checkpointer: saves it.
        metric: of the evaluation, the larger the better.

    Attributes:
        iteration: of the evaluation whose checkpoint this run saved last; None before.
    """

    def __init__(self, period: int, checkpointer: BestCheckpointer, metric: str) -> None:
        self._period = period
        self._checkpointer = checkpointer
        self._metric = metric
        self._best = -math.inf
        self.iteration: int | None = None

    def before_train(self) -> None:
        """Read, in a resumed training, how good the best checkpoint is."""
        file = Path(self._checkpointer.save_dir, f"{BEST}.pth")
        if not self.trainer.start_iter or not file.is_file():
            return
        try:
            self._best = float(load_checkpoint(file, mmap=True)["best"][self._metric])
        except (ValueError, KeyError, TypeError):
            _logger.warning("%s does not say how good it is, and will be replaced", file)

    def after_step(self) -> None:
        """Compare, behind an evaluation."""
        done = self.trainer.iter + 1
        if done % self._period == 0 and done != self.trainer.max_iter:
            self._compare()

    def after_train(self) -> None:
        """Compare, behind the last evaluation."""
        if self.trainer.iter + 1 >= self.trainer.max_iter:
            self._compare()

    def _compare(self) -> None:
        found = self.trainer.storage.latest().get(self._metric)
        if found is None:
            _logger.warning("The evaluation has no %s, by which the best is chosen", self._metric)
            return
        value, iteration = found
        if not math.isfinite(value) or value <= self._best:
            return
        best = {self._metric: float(value)}
        self._checkpointer.save(BEST, iteration=int(iteration), best=best)
        self._best, self.iteration = value, int(iteration)
        _logger.info("%s.pth is of iteration %d: %s %.4f", BEST, iteration, self._metric, value)


class DrawnImages(HookBase):
    """Shows what the model finds in an image of the batch, beside its ground truth, in TensorBoard.

    Args:
        period: in iterations (``VIS_PERIOD``).
        model: is put into eval mode for that time.
        loader: has the image.
        image_format: of the image, as the model gets it.
    """

    def __init__(
        self, period: int, model: nn.Module, loader: TrainLoader, image_format: str
    ) -> None:
        self._period = period
        self._model = model
        self._loader = loader
        self._format = image_format

    def after_step(self) -> None:
        """Draw and hand over."""
        sample = self._loader.first_sample
        if sample is None or (self.trainer.iter + 1) % self._period:
            return
        found = _find(self._model, sample["image"])
        rgb = convert_image_to_rgb(sample["image"].permute(1, 2, 0), self._format)
        names = getattr(self._model, "class_names", ())
        drawn = np.hstack([_draw(rgb, x.to("cpu"), names) for x in (found, _labelled(sample))])
        self.trainer.storage.put_image("found | labelled", drawn.transpose(2, 0, 1))


def draw_evaluation(
    model: nn.Module, mapper: Callable[[dict[str, Any]], dict[str, Any]], cfg: CfgNode
) -> None:
    """Put `TEST.DRAWN_IMAGES` images of the first test set, with what is found, into the storage.

    Args:
        model: with the weights that are evaluated.
        mapper: of the test set's records.
        cfg: of the training.
    """
    names = getattr(model, "class_names", ())
    for record in DatasetCatalog.get(cfg.DATASETS.TEST[0])[: cfg.TEST.DRAWN_IMAGES]:
        image = mapper(copy.deepcopy(record))["image"]
        rgb = convert_image_to_rgb(image.permute(1, 2, 0), cfg.INPUT.FORMAT)
        drawn = _draw(rgb, _find(model, image).to("cpu"), names)
        title = f"test/{Path(record['file_name']).stem}"
        get_event_storage().put_image(title, drawn.transpose(2, 0, 1))


def _find(model: nn.Module, image: torch.Tensor) -> Instances:
    """What a model finds in an image (3, H, W) of the network's size; it stays in its mode."""
    height, width = image.shape[1:]
    training = model.training
    model.eval()
    try:
        with torch.no_grad():
            given = {"image": image, "height": height, "width": width}
            found: Instances = model([given])[0]["instances"]
    finally:
        model.train(training)
    return found


def _draw(rgb: np.ndarray, instances: Instances, names: Sequence[str]) -> np.ndarray:
    """Draw masks with their classes and scores; uint8 RGB (H, W, 3)."""
    scores = instances.scores.tolist() if instances.has("scores") else [None] * len(instances)
    labels = []
    for label, score in zip(instances.pred_classes.tolist(), scores, strict=True):
        name = names[label] if label < len(names) else str(label)
        labels.append(name if score is None else f"{name} {score:.0%}")
    canvas = Visualizer(rgb)
    return canvas.overlay_instances(masks=instances.pred_masks.numpy(), labels=labels).get_image()


def _labelled(sample: dict[str, Any]) -> Instances:
    """Ground truth in the form of predictions."""
    truth = sample["instances"]
    drawn = Instances(truth.image_size)
    masks = torch.zeros((len(truth), *truth.image_size), dtype=torch.bool)
    if truth.has("gt_masks") and isinstance(truth.gt_masks, PolygonMasks):
        for mask, polygons in zip(masks, truth.gt_masks.polygons, strict=True):
            mask |= torch.from_numpy(polygons_to_bitmask(polygons, *truth.image_size))
    elif truth.has("gt_masks"):
        masks = truth.gt_masks.tensor
    drawn.pred_masks = masks
    drawn.pred_classes = truth.gt_classes
    return drawn
