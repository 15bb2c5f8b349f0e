"""Evaluators of soft instance segmentation and of matting (paper §A.2 and §A.4.2)."""

from __future__ import annotations

import logging
import math
from collections import OrderedDict
from collections.abc import Collection, Iterator
from typing import Any

import numpy as np
from detectron2.data import MetadataCatalog
from detectron2.evaluation import DatasetEvaluator
from detectron2.structures import Instances

from ..io.alpha import annotation_matte
from ..io.json_file import save_json
from ..layers import dense_masks
from .matting_metrics import METRICS, matting_errors, sofi_errors, unknown_region
from .predictions import ByImage, check_instances, results_file
from .records import image_size, records_by_id, records_of

_logger = logging.getLogger(__name__)

REGIONS = ("image", "unknown")

SCORE_THRESH = 0.3
"""Instances below this score are not counted, unless asked for: unlike AP, which ranks, the errors
weigh a wrong guess as much as a missed object."""


class _MatteEvaluator(DatasetEvaluator):
    """Compare mattes image by image, and gather what all processes found.

    Predictions are the ``pred_mattes`` of an image's instances, or, of a model that has none, the
    binary ``pred_masks``: so the baselines of the paper's Table S1 are measured. Ground truth is
    the matte that an annotation names, or its mask.

    Args:
        dataset_name: a registered dataset; its records have "annotations".
        output_dir: where the figures of every image are written; None writes nothing.
        score_thresh: instances below this score are left out.
    """

    name: str

    def __init__(
        self,
        dataset_name: str,
        output_dir: str | None = None,
        *,
        score_thresh: float = SCORE_THRESH,
    ) -> None:
        if not 0 <= score_thresh <= 1:
            raise ValueError(f"score_thresh must lie in [0, 1], got {score_thresh}")
        records = records_of(dataset_name)
        self.dataset_name = dataset_name
        self.records = records_by_id(dataset_name, records)
        self.classes = list(MetadataCatalog.get(dataset_name).thing_classes)
        self.file = results_file(output_dir, f"{self.name}.json", dataset_name)
        self.score_thresh = score_thresh
        self.reset()

    def reset(self) -> None:
        """Forget all images."""
        self._measured = ByImage(self.dataset_name, self.records)

    @property
    def rows(self) -> list[dict[str, Any]]:
        """Figures of this process so far."""
        return [row for part in self._measured.values() for row in part]

    def process(self, inputs: list[dict[str, Any]], outputs: list[dict[str, Any]]) -> None:
        """Measure the mattes of some images.

        Raises:
            ValueError: an image or a class that the dataset has not, mattes of another size, or a
                matte of the ground truth that cannot be read.
        """
        for given, output in zip(inputs, outputs, strict=True):
            image_id = given["image_id"]
            if "instances" not in output or not self._measured.wants(image_id):
                continue
            record = self.records[image_id]
            size = image_size(self.dataset_name, record)
            found = check_instances(output["instances"], record, size, len(self.classes))
            found = self._measured.finite(image_id, found)
            found = found[found.scores >= self.score_thresh].to("cpu")
            rows = [{"image_id": image_id, **row} for row in self.measure(record, found)]
            self._measured.add(image_id, rows)

    def measure(self, record: dict[str, Any], found: Instances) -> Iterator[dict[str, Any]]:
        """Figures of one image, in any number of rows of plain values."""
        raise NotImplementedError

    def summarize(self, rows: list[dict[str, Any]], image_ids: Collection[Any]) -> dict[str, float]:
        """Figures of all these images."""
        raise NotImplementedError

    def evaluate(self) -> OrderedDict[str, dict[str, float]] | None:
        """Figures of all images that all processes saw.

        Returns:
            Them under the evaluator's name; nothing for a dataset without annotations; None but on
            the main process.
        """
        measured = self._measured.gather(missing="they are left out of the means")
        if measured is None:
            return None
        if not any(record.get("annotations") for record in self.records.values()):
            _logger.info("%s has no annotations, and no %s errors", self.dataset_name, self.name)
            return OrderedDict()
        rows = [row for part in measured.values() for row in part]
        results = self.summarize(rows, measured)
        _logger.info("%s: %s", self.name, ", ".join(f"{k} {v:.3f}" for k, v in results.items()))
        if self.file is not None:
            save_json(self.file, {"results": results, "rows": rows}, indent=1)
        return OrderedDict({self.name: results})


class SOFIEvaluator(_MatteEvaluator):
    """SOFI error of instances and their classes (paper Eq. 10).

    Of every image and class, the mean over the objects of the error of the best prediction, plus
    the mean over the predictions of the error of the best object; a missing side is the all-zero
    matte, and where both are missing the error is 0. It is averaged over the classes that occur
    in the ground truth of the images, and over the images. So the size of the vocabulary does not
    matter; predictions of any other class are false alarms, whose errors are added.
    False positives count as much as missed objects: the score threshold matters.

    Example:
        >>> from solo_d2.testing import tiny_dataset, tiny_results
        >>> evaluator = SOFIEvaluator(tiny_dataset())
        >>> evaluator.process([{"image_id": 1}], [{"instances": tiny_results()}])
        >>> evaluator.evaluate()["sofi"]["SOFI_SAD"]
        0.0
    """

    name = "sofi"

    def measure(self, record: dict[str, Any], found: Instances) -> Iterator[dict[str, Any]]:
        """Return one row per class that is there or was found."""
        size = (record["height"], record["width"])
        objects = _objects(record)
        wanted = [x["category_id"] for x in objects]
        labels = found.pred_classes.tolist()
        for category in sorted({*wanted, *labels}):
            targets = [target_matte(x, size) for x in objects if x["category_id"] == category]
            mattes = predicted_mattes(found[found.pred_classes == category])
            yield {"class": category, **sofi_errors(mattes, targets, size)}

    def summarize(self, rows: list[dict[str, Any]], image_ids: Collection[Any]) -> dict[str, float]:
        """SOFI_MSE in 1e-3 and SOFI_SAD in thousands, as in the paper's Table S1.

        ``SOFI_classes`` is the number of classes that the sums are divided by.
        """
        there = {x["category_id"] for i in image_ids for x in _objects(self.records[i])}
        others = sum(row["class"] not in there for row in rows)
        _logger.info(
            "SOFI: mean over %d of %d classes, those of the ground truth (%s), and %d images; "
            "%d false alarms of other classes are added",
            len(there), len(self.classes), ", ".join(self.classes[k] for k in sorted(there)[:8]),
            len(image_ids), others,
        )  # fmt: skip
        # A class that is neither there nor found has no row, and is no error.
        count = max(len(there) * len(image_ids), 1)
        return {
            "SOFI_MSE": 1e3 * math.fsum(row["MSE"] for row in rows) / count,
            "SOFI_SAD": math.fsum(row["SAD"] for row in rows) / count,
            "SOFI_classes": float(len(there)),
        }


class MattingEvaluator(_MatteEvaluator):
    """MSE, SAD, gradient and connectivity error of every object's matte (paper Tables S2 and S3).

    An object is compared with the predicted matte of least absolute difference, whatever its class
    and score; without any prediction, with the all-zero matte.

    Args:
        dataset_name: a registered dataset.
        output_dir: where the figures of every object are written; None writes nothing.
        score_thresh: instances below this score are left out.
        region: measure over the whole "image", or over the "unknown" part of the trimap that
            `unknown_region` makes of the true matte.
        radius: of that trimap, in pixels.

    Raises:
        ValueError: unknown region.

    Example:
        >>> from solo_d2.testing import tiny_dataset, tiny_results
        >>> evaluator = MattingEvaluator(tiny_dataset())
        >>> evaluator.process([{"image_id": 1}], [{"instances": tiny_results()}])
        >>> evaluator.evaluate()["matting"]["SAD"]
        0.0
    """

    name = "matting"

    def __init__(
        self,
        dataset_name: str,
        output_dir: str | None = None,
        *,
        score_thresh: float = SCORE_THRESH,
        region: str = "image",
        radius: int = 10,
    ) -> None:
        if region not in REGIONS:
            raise ValueError(f"region must be one of {REGIONS}, got {region!r}")
        super().__init__(dataset_name, output_dir, score_thresh=score_thresh)
        self.region, self.radius = region, radius

    def measure(self, record: dict[str, Any], found: Instances) -> Iterator[dict[str, Any]]:
        """Return one row per object."""
        size = (record["height"], record["width"])
        mattes = predicted_mattes(found) or [np.zeros(size, dtype=np.float32)]
        for index, annotation in enumerate(record.get("annotations") or ()):
            if annotation.get("iscrowd", 0):
                continue
            target = target_matte(annotation, size)
            errors = [float(np.abs(matte - target).sum()) for matte in mattes]
            best = mattes[int(np.argmin(errors))]
            region = unknown_region(target, self.radius) if self.region == "unknown" else None
            yield {"object": index, **matting_errors(best, target, region)}

    def summarize(
        self,
        rows: list[dict[str, Any]],
        image_ids: Collection[Any],  # noqa: ARG002 - objects count, not images
    ) -> dict[str, float]:
        """Means over the objects: MSE in 1e-3, the others in thousands."""
        scale = {"MSE": 1e3}
        count = max(len(rows), 1)
        return {
            key: scale.get(key, 1.0) * math.fsum(row[key] for row in rows) / count
            for key in METRICS
        }


def _objects(record: dict[str, Any]) -> list[dict[str, Any]]:
    return [x for x in record.get("annotations") or () if not x.get("iscrowd", 0)]


def predicted_mattes(found: Instances) -> list[np.ndarray]:
    """Mattes (H, W) float32 of instances: soft ones, or else the binary masks."""
    field = "pred_mattes" if found.has("pred_mattes") else "pred_masks"
    return list(dense_masks(found.get(field)).float().numpy())


def target_matte(annotation: dict[str, Any], size: tuple[int, int]) -> np.ndarray:
    """Matte (H, W) float32 in [0, 1] of an annotation: its "alpha", or else its mask."""
    return annotation_matte(annotation, size, "the dataset").astype(np.float32) / 255
