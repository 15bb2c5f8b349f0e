"""Evaluators of soft instance segmentation and of matting (paper §A.2 and §A.4.2)."""

from __future__ import annotations

import json
import logging
import math
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.evaluation import DatasetEvaluator
from detectron2.structures import Instances
from detectron2.utils import comm
from pycocotools import mask as mask_util

from ..io.alpha import read_matte
from .matting_metrics import METRICS, matting_errors, sofi_errors, unknown_region

_logger = logging.getLogger(__name__)

REGIONS = ("image", "unknown")

SCORE_THRESH = 0.3
"""Instances below this score are not counted, unless asked for: unlike AP, which ranks, the errors
weigh a wrong guess as much as a missed object."""


class _MatteEvaluator(DatasetEvaluator):
    """Compares mattes image by image, and gathers what all processes found.

    Predictions are the ``pred_mattes`` of an image's instances, or, of a model that has none, the
    binary ``pred_masks``: so the baselines of the paper's Table S1 are measured. Ground truth is
    the matte that an annotation names, or its mask.

    Args:
        dataset_name: a registered data set; its records have "annotations".
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
        records = DatasetCatalog.get(dataset_name)
        self.records = {record["image_id"]: record for record in records}
        self.num_classes = len(MetadataCatalog.get(dataset_name).thing_classes)
        self.output_dir = output_dir
        self.score_thresh = score_thresh
        self.reset()

    def reset(self) -> None:
        """Forget all images."""
        self.rows: list[dict[str, Any]] = []
        self.num_images = 0

    def process(self, inputs: list[dict[str, Any]], outputs: list[dict[str, Any]]) -> None:
        """Measure the mattes of some images."""
        for given, output in zip(inputs, outputs, strict=True):
            record = self.records[given["image_id"]]
            found = output["instances"].to("cpu")
            found = found[found.scores >= self.score_thresh]
            size = (record["height"], record["width"])
            if found.image_size != size:
                raise ValueError(
                    f"{record['file_name']}: predictions of {found.image_size}, expected {size}; "
                    'the input\'s "height" and "width" decide'
                )
            self.num_images += 1
            self.rows.extend(
                {"image_id": record["image_id"], **row} for row in self.measure(record, found)
            )

    def measure(self, record: dict[str, Any], found: Instances) -> Iterator[dict[str, Any]]:
        """Figures of one image, in any number of rows of plain values."""
        raise NotImplementedError

    def summarize(self, rows: list[dict[str, Any]], num_images: int) -> dict[str, float]:
        """Figures of all images."""
        raise NotImplementedError

    def evaluate(self) -> OrderedDict[str, dict[str, float]] | None:
        """Figures of all images that all processes saw; None but on the main process."""
        gathered = comm.gather((self.rows, self.num_images), dst=0)
        if not comm.is_main_process():
            return None
        rows = [row for part, _ in gathered for row in part]
        results = self.summarize(rows, sum(count for _, count in gathered))
        _logger.info("%s: %s", self.name, ", ".join(f"{k} {v:.3f}" for k, v in results.items()))
        if self.output_dir:
            folder = Path(self.output_dir)
            folder.mkdir(parents=True, exist_ok=True)
            content = {"results": results, "rows": rows}
            (folder / f"{self.name}.json").write_text(json.dumps(content, indent=1))
        return OrderedDict({self.name: results})


class SOFIEvaluator(_MatteEvaluator):
    """SOFI error of instances and their classes (paper Eq. 10).

    Of every image and class, the mean over the objects of the error of the best prediction, plus
    the mean over the predictions of the error of the best object; then the mean over all classes
    and images. A missing side is the all-zero matte; a class of which there is neither counts 0.
    False positives count as much as missed objects: the score threshold matters.
    """

    name = "sofi"

    def measure(self, record: dict[str, Any], found: Instances) -> Iterator[dict[str, Any]]:
        """One row per class that is there or was found."""
        size = (record["height"], record["width"])
        objects = [x for x in record["annotations"] if not x.get("iscrowd", 0)]
        wanted = [x["category_id"] for x in objects]
        labels = found.pred_classes.tolist()
        for category in sorted({*wanted, *labels}):
            targets = [target_matte(x, size) for x in objects if x["category_id"] == category]
            mattes = predicted_mattes(found[found.pred_classes == category])
            yield {"class": category, **sofi_errors(mattes, targets, size)}

    def summarize(self, rows: list[dict[str, Any]], num_images: int) -> dict[str, float]:
        """SOFI_MSE in 1e-3 and SOFI_SAD in thousands, as in the paper's Table S1."""
        # A class that is neither there nor found has no row, and is no error.
        count = max(self.num_classes * num_images, 1)
        return {
            "SOFI_MSE": 1e3 * math.fsum(row["MSE"] for row in rows) / count,
            "SOFI_SAD": math.fsum(row["SAD"] for row in rows) / count,
        }


class MattingEvaluator(_MatteEvaluator):
    """MSE, SAD, gradient and connectivity error of every object's matte (paper Tables S2 and S3).

    An object is compared with the predicted matte of least absolute difference, whatever its class
    and score; without any prediction, with the all-zero matte.

    Args:
        dataset_name: a registered data set.
        output_dir: where the figures of every object are written; None writes nothing.
        score_thresh: instances below this score are left out.
        region: measure over the whole "image", or over the "unknown" part of the trimap that
            `unknown_region` makes of the true matte.
        radius: of that trimap, in pixels.

    Raises:
        ValueError: unknown region.
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
        """One row per object."""
        size = (record["height"], record["width"])
        mattes = predicted_mattes(found) or [np.zeros(size, dtype=np.float32)]
        for index, annotation in enumerate(record["annotations"]):
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
        num_images: int,  # noqa: ARG002 - objects count, not images
    ) -> dict[str, float]:
        """Means over the objects: MSE in 1e-3, the others in thousands."""
        scale = {"MSE": 1e3}
        count = max(len(rows), 1)
        return {
            key: scale.get(key, 1.0) * math.fsum(row[key] for row in rows) / count
            for key in METRICS
        }


def predicted_mattes(found: Instances) -> list[np.ndarray]:
    """Mattes (H, W) float32 of instances: soft ones, or else the binary masks."""
    field = "pred_mattes" if found.has("pred_mattes") else "pred_masks"
    return list(found.get(field).float().numpy())


def target_matte(annotation: dict[str, Any], size: tuple[int, int]) -> np.ndarray:
    """Matte (H, W) float32 in [0, 1] of an annotation: its "alpha", or else its mask."""
    if "alpha" in annotation:
        return read_matte(annotation["alpha"], size).astype(np.float32) / 255
    mask = annotation["segmentation"]
    if isinstance(mask, list):
        mask = mask_util.merge(mask_util.frPyObjects(mask, *size))
    elif isinstance(mask["counts"], list):
        mask = mask_util.frPyObjects(mask, *size)
    return mask_util.decode(mask).astype(np.float32)
