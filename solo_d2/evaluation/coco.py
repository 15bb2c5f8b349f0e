"""COCO's mask and box AP, scored by the fastest exact implementation that is installed."""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from detectron2.evaluation import DatasetEvaluator
from detectron2.utils.logger import create_small_table
from tabulate import tabulate

from ..io.atomic import atomic_write
from ..io.results import EncodedInstances, JsonListWriter
from .diagnosis import diagnose
from .predictions import ByImage, check_instances, remove_old, results_file
from .scoring import (
    BOUNDARY,
    METRICS,
    TASKS,
    Scorer,
    figures_by_class,
    figures_of,
    hotcoco,
    images_over,
    warn_of_limit,
    within_limit,
)
from .truth import read_truth

__all__ = ["COCOInstanceEvaluator"]

_logger = logging.getLogger(__name__)

DIAGNOSIS = "diagnosis.md"

Found = Mapping[int, EncodedInstances]
"""Instances by the scorer's image id."""


class COCOInstanceEvaluator(DatasetEvaluator):
    """Mask AP and box AP as Detectron2's `COCOEvaluator` has them, faster and never of old labels.

    The ground truth is made of the dataset's records, not of a file (see `read_truth`), so that
    whatever can be trained on can be scored. Masks are encoded with `encode_masks`. AP comes from
    hotcoco (extra "eval"), which gives the same numbers as pycocotools, or from pycocotools where
    hotcoco is missing. Several processes are supported as in Detectron2: all collect, the first
    one evaluates.

    A dataset without annotations, such as COCO's test-dev, has no metrics: results are written.

    Args:
        dataset_name: a registered dataset.
        output_dir: where results are written; None writes nothing.
        distributed: collect from all processes.
        max_dets_per_image: instances per image and class that count. COCO counts 100; with more,
            the figures are those of the same rules without this cut.
        fast: use hotcoco; by default, if it is installed.
        boundary: measure Boundary AP, too (see `BoundaryCOCOeval`). It takes longer: pycocotools
            scores it.
        diagnosis: write "diagnosis.md" to `output_dir`, too (see `diagnose`). An evaluation that
            writes none removes an older one.

    Raises:
        ValueError: `fast` or `diagnosis` without hotcoco, `diagnosis` without `output_dir`,
            annotations that cannot be scored, or an `output_dir` that cannot be written to.

    Example:
        >>> from solo_d2.testing import tiny_dataset, tiny_results
        >>> evaluator = COCOInstanceEvaluator(tiny_dataset())
        >>> evaluator.reset()
        >>> evaluator.process([{"image_id": 1}], [{"instances": tiny_results()}])
        >>> round(evaluator.evaluate()["segm"]["AP"])
        100
    """

    default_max_dets = 100
    results_file = "coco_instances_results.json"
    federated = False

    @classmethod
    def limit_for(cls, detections_per_image: int | None) -> int:
        """Return how many instances count: all that the model gives, or more by the rules."""
        return max(cls.default_max_dets, detections_per_image or 0)

    def __init__(
        self,
        dataset_name: str,
        output_dir: str | None = None,
        *,
        distributed: bool = True,
        max_dets_per_image: int | None = None,
        fast: bool | None = None,
        boundary: bool = False,
        diagnosis: bool = False,
    ) -> None:
        if (fast or diagnosis) and hotcoco is None:
            what = "a diagnosis" if diagnosis else "fast evaluation"
            raise ValueError(f"{what} needs hotcoco; install it: pip install hotcoco")
        self._fast = hotcoco is not None if fast is None else fast
        self._limit = self.default_max_dets if max_dets_per_image is None else max_dets_per_image
        self._distributed = distributed
        self._file = results_file(output_dir, self.results_file, dataset_name)
        self._truth = read_truth(dataset_name, federated=self.federated)
        self._tasks = (*TASKS, BOUNDARY) if boundary else TASKS
        if diagnosis and output_dir is None:
            raise ValueError("diagnosis.md needs an output_dir, got None")
        folder = output_dir if diagnosis else None
        self._diagnosis = results_file(folder, DIAGNOSIS, dataset_name)
        self._diagnosed = False
        self._scorer = Scorer(self._truth, self._limit, fast=self._fast)
        self._index: Any = None  # the truth as the scorer of LVIS has it
        self.reset()

    def reset(self) -> None:
        """Forget all instances."""
        self._found = ByImage(self._truth.dataset_name, self._truth.numbers)

    def process(self, inputs: list[dict[str, Any]], outputs: list[dict[str, Any]]) -> None:
        """Encode the instances of a batch.

        Args:
            inputs: the model's, with ``image_id``.
            outputs: the model's, with ``instances``; others are left out.

        Raises:
            ValueError: an image or a class that the dataset has not, or masks of another size.
        """
        truth = self._truth
        for image, output in zip(inputs, outputs, strict=True):
            image_id = image["image_id"]
            if "instances" in output and self._found.wants(image_id):
                size = truth.sizes.get(image_id)
                found = check_instances(output["instances"], image, size, len(truth.category_ids))
                found = self._found.finite(image_id, found)
                self._found.add(image_id, EncodedInstances.of(found))

    def evaluate(self, img_ids: Iterable[Any] | None = None) -> dict[str, dict[str, float]]:
        """Write the results and score them.

        Args:
            img_ids: score these images of the dataset alone.

        Returns:
            Metrics in percent under "segm" and "bbox", and "boundary" if asked for; empty but on
            the main process, without annotations, or where no image was processed.

        Raises:
            ValueError: the results cannot be written; the metrics are in the log then.
        """
        missing = "their objects count as missed" if img_ids is None else ""
        gathered = self._found.gather(distributed=self._distributed, missing=missing)
        if gathered is None:
            return {}
        if not gathered:
            _logger.warning("No image of %s was processed.", self._truth.dataset_name)
            return {}
        try:
            return self._score_all(gathered, img_ids)
        finally:  # metrics are logged even if the disk is full by now
            self._write(gathered)

    def _score_all(
        self, gathered: Mapping[Any, EncodedInstances], img_ids: Iterable[Any] | None
    ) -> dict[str, dict[str, float]]:
        self._diagnosed = False
        numbers = self._truth.numbers
        found = {numbers[image_id]: x for image_id, x in gathered.items() if len(x)}
        if self._diagnosis is not None and not (found and self._truth.annotated):
            _logger.warning(
                "%s: there is no diagnosis without annotations and detections; "
                "MODEL.SOLO.SCORE_THRESH_TEST decides on these", self._truth.dataset_name,
            )  # fmt: skip
        if not self._truth.annotated:
            return {}
        chosen = None if img_ids is None else [numbers[image_id] for image_id in img_ids]
        self._warn_of_limit(found)
        metrics = OrderedDict((task, self._score(found, task, chosen)) for task in self._tasks)
        if self._diagnosis is not None and found:
            self._diagnose(found, gathered, self._diagnosis)
        return metrics

    def _diagnose(self, found: Found, image_ids: Iterable[Any], file: Path) -> None:
        """Write where AP is lost among the images that were processed."""
        names = {self._truth.numbers[image_id]: image_id for image_id in image_ids}
        content = {
            **self._truth.content,
            "images": [x for x in self._truth.content["images"] if x["id"] in names],
            "annotations": [
                x for x in self._truth.content["annotations"] if x["image_id"] in names
            ],
        }
        counted = within_limit(entries_of(found, "segm"), self._limit)
        text = diagnose(content, counted, names).to_markdown()
        with atomic_write(file) as output:
            output.write(text.encode())
        self._diagnosed = True
        _logger.info("Saved where AP is lost to %s", file)

    def _write(self, found: Mapping[Any, EncodedInstances]) -> None:
        """Write the results under the dataset's own ids, and say so."""
        name, where = self._truth.dataset_name, "nowhere: there is no output folder"
        if self._file is not None:
            with JsonListWriter(self._file) as file:
                for image_id, instances in found.items():
                    ids = self._truth.category_ids
                    file.extend(instances.entries(image_id, category_ids=ids))
            _logger.info("Saved %d instances to %s", file.count, self._file)
            where = f"in {self._file}"
            if not self._diagnosed:
                remove_old(self._file.with_name(DIAGNOSIS))
        if not self._truth.annotated:
            _logger.info(
                "%s has no annotations: results for the evaluation server are %s", name, where
            )

    def _warn_of_limit(self, found: Found) -> None:
        """Say where the best instances of a class are not all that the model found."""
        many = {number: x for number, x in found.items() if len(x) > self._limit}
        labels = ((number, label) for number, x in many.items() for label in x.labels.tolist())
        name = self._truth.dataset_name
        warn_of_limit(name, self._limit, images_over(self._limit, labels))

    def _score(self, found: Found, task: str, chosen: list[int] | None) -> dict[str, float]:
        """AP and its kin, and AP by class, in percent; NaN for all of them without a result."""
        if not found:
            _logger.warning("The model found no instance.")
            return dict.fromkeys(METRICS, float("nan"))
        precision = self._scorer.precision(entries_of(found, task), task, chosen)
        results = figures_of(precision)
        _logger.info("Evaluation results for %s:\n%s", task, create_small_table(results))
        by_class = figures_by_class(precision, self._truth)
        if by_class:
            _logger.info("%s AP by class:\n%s", task, columns(by_class))
        return {**results, **{f"AP-{name}": value for name, value in by_class.items()}}


def entries_of(found: Found, task: str) -> list[dict[str, Any]]:
    """Return instances as scorers take them: with masks or boxes alone.

    With a box beside a mask they would take the box's area for the mask's.
    """
    key = "bbox" if task == "bbox" else "segmentation"
    kept = ("image_id", "category_id", "score", key)
    entries = []
    for number, instances in found.items():
        ids = range(1, 1 + int(instances.labels.max(initial=0)) + 1)
        entries += [{k: x[k] for k in kept} for x in instances.entries(number, category_ids=ids)]
    return entries


def columns(values: Mapping[str, float], pairs: int = 3) -> str:
    """Return a table of names and values side by side, `pairs` of them in a line."""
    cells = [cell for item in values.items() for cell in item]
    rows = [cells[i : i + 2 * pairs] for i in range(0, len(cells), 2 * pairs)]
    headers = ["category", "AP"] * min(pairs, len(values))
    return tabulate(rows, headers=headers, tablefmt="pipe", floatfmt=".3f")
