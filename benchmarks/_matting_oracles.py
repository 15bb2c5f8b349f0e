"""What SOFI errors consist of: mattes, false predictions, missed objects."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from detectron2.structures import Instances

from solo_d2.evaluation.matting import SOFIEvaluator, predicted_mattes, target_matte
from solo_d2.evaluation.matting_metrics import unknown_region

MATCH = 0.5
"""IoU, of mattes above 1/2, from which on a prediction is one of an object of its class."""

ORACLES = ("as found", "true edges", "true mattes", "no false predictions", "both")


class OracleMeter:
    """SOFI errors of predictions, and of what better models would have predicted.

    - "true edges": predictions that match an object have its matte in its unknown region.
    - "true mattes": they have it everywhere.
    - "no false predictions": those that match none are left out.
    - "both": the objects that are missed are all that is left.

    Args:
        dataset: name of the dataset.
        score_thresh: predictions below do not count.
        radius: of the unknown region, see `unknown_region`.
    """

    def __init__(self, dataset: str, score_thresh: float, radius: int) -> None:
        self.evaluators = {
            name: SOFIEvaluator(dataset, score_thresh=score_thresh) for name in ORACLES
        }
        self.score_thresh = score_thresh
        self.radius = radius
        self.false = self.missed = 0

    def process(self, record: dict[str, Any], found: Instances) -> None:
        """Measure one image."""
        found = found[found.scores >= self.score_thresh]
        objects = [x for x in record["annotations"] if not x.get("iscrowd", 0)]
        targets = np.array([target_matte(x, found.image_size) for x in objects])
        mattes = np.array(predicted_mattes(found)).reshape(-1, *found.image_size)
        match, missed = _match(mattes, found, targets, objects)
        self.false += int((match < 0).sum())
        self.missed += missed
        matched = np.flatnonzero(match >= 0)
        true, edges = mattes.copy(), mattes.copy()
        for i in matched:
            true[i] = targets[match[i]]
            edges[i] = np.where(unknown_region(true[i], self.radius), true[i], mattes[i])
        every = np.arange(len(match))
        values = (mattes, edges, true, mattes, true)
        for name, kept, chosen in zip(ORACLES, values, 3 * [every] + 2 * [matched], strict=True):
            instances = Instances(found.image_size)
            instances.scores = found.scores[chosen]
            instances.pred_classes = found.pred_classes[chosen]
            instances.pred_mattes = torch.from_numpy(kept[chosen])
            self.evaluators[name].process([record], [{"instances": instances}])

    def read(self) -> Iterator[tuple[str, dict[str, float]]]:
        """Yield the name of each oracle and its SOFI errors."""
        for name, evaluator in self.evaluators.items():
            yield name, evaluator.evaluate()[evaluator.name]


def _match(
    mattes: np.ndarray, found: Instances, targets: np.ndarray, objects: list[dict[str, Any]]
) -> tuple[np.ndarray, int]:
    """Find the object of each prediction, -1 for none, and how many objects have none."""
    if not len(mattes) or not len(targets):
        return np.full(len(mattes), -1), len(targets)
    one, other = (x.reshape(len(x), -1) > 0.5 for x in (mattes, targets))
    common = one.astype(np.float32) @ other.T.astype(np.float32)
    union = one.sum(1)[:, None] + other.sum(1) - common
    labels = np.array([x["category_id"] for x in objects])
    alike = found.pred_classes.numpy()[:, None] == labels
    iou = np.where(alike, common / np.maximum(union, 1), 0)
    match = np.where(iou.max(1) >= MATCH, iou.argmax(1), -1)
    return match, int((iou.max(0) < MATCH).sum())
