"""Evaluation of panoptic segmentation: PQ, and the IoU of the semantic branch."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
from detectron2.data import MetadataCatalog
from detectron2.evaluation import DatasetEvaluator
from detectron2.utils import comm

from ..io.panoptic_png import read_panoptic_png, semantic_labels, write_panoptic_png
from .panoptic_quality import PanopticQuality

__all__ = ["PanopticEvaluator", "SemanticEvaluator"]

_logger = logging.getLogger(__name__)


class _Truth:
    """Panoptic annotations of a registered data set, by image id."""

    def __init__(self, dataset_name: str) -> None:
        self.metadata = MetadataCatalog.get(dataset_name)
        path = Path(self.metadata.panoptic_json)
        if not path.is_file():
            raise ValueError(f"{path}: no such file; it has the panoptic annotations")
        self.content = json.loads(path.read_text(encoding="utf-8"))
        self.annotations = {entry["image_id"]: entry for entry in self.content["annotations"]}
        things = self.metadata.thing_dataset_id_to_contiguous_id
        stuff = self.metadata.stuff_dataset_id_to_contiguous_id
        self.things, self.stuff = things, {k: label for k, label in stuff.items() if label}

    def __call__(self, image_id: Any) -> tuple[dict[str, Any], np.ndarray]:
        """Annotation and segment ids (H, W) of an image."""
        if image_id not in self.annotations:
            raise ValueError(f"{self.metadata.panoptic_json} has no annotation of image {image_id}")
        annotation = self.annotations[image_id]
        return annotation, read_panoptic_png(
            Path(self.metadata.panoptic_root) / annotation["file_name"]
        )


class PanopticEvaluator(DatasetEvaluator):
    """PQ, SQ and RQ, for all categories, things (``_th``) and stuff (``_st``), in percent.

    The figures of Detectron2's `COCOPanopticEvaluator`, without the package panopticapi. Outputs
    without ``panoptic_seg``, of a model for instances, are left out.

    Args:
        dataset_name: a registered data set with ``panoptic_json`` and ``panoptic_root``.
        output_dir: where ``predictions.json`` and the folder ``predictions`` of PNGs are written,
            in COCO's format; None writes nothing.
    """

    def __init__(self, dataset_name: str, output_dir: str | None = None) -> None:
        self._truth = _Truth(dataset_name)
        self._output_dir = None if output_dir is None else Path(output_dir)
        if self._output_dir is not None:
            (self._output_dir / "predictions").mkdir(parents=True, exist_ok=True)
        self._thing_ids = {label: k for k, label in self._truth.things.items()}
        self._stuff_ids = {label: k for k, label in self._truth.stuff.items()}
        self.reset()

    def reset(self) -> None:
        """Forget all predictions."""
        self._quality = PanopticQuality([*self._truth.things, *self._truth.stuff])
        self._predictions: list[dict[str, Any]] = []

    def process(self, inputs: list[dict[str, Any]], outputs: list[dict[str, Any]]) -> None:
        """Compare predictions with the ground truth of their images.

        Args:
            inputs: of the model, with ``image_id``.
            outputs: of the model; not changed.

        Raises:
            ValueError: an image without ground truth, or without ``segments_info``.
        """
        for image, output in zip(inputs, outputs, strict=True):
            if "panoptic_seg" not in output:
                continue
            found, described = output["panoptic_seg"]
            if described is None:
                raise ValueError("PanopticEvaluator expects segments_info, got None")
            ids = np.asarray(found.cpu())
            segments = [self._to_dataset(segment) for segment in described]
            annotation, truth = self._truth(image["image_id"])
            name = str(annotation["file_name"])
            self._quality.add(truth, annotation["segments_info"], ids, segments, name)
            self._predictions.append(
                {"image_id": image["image_id"], "file_name": name, "segments_info": segments}
            )
            if self._output_dir is not None:
                write_panoptic_png(self._output_dir / "predictions" / name, ids)

    def _to_dataset(self, segment: dict[str, Any]) -> dict[str, Any]:
        ids = self._thing_ids if segment["isthing"] else self._stuff_ids
        changed = {**segment, "category_id": ids[segment["category_id"]]}
        del changed["isthing"]  # the category says so
        return changed

    def evaluate(self) -> dict[str, dict[str, float]] | None:
        """Figures of all processes under ``panoptic_seg``; None but on the main process.

        Raises:
            ValueError: there is a ground truth without a prediction.
        """
        comm.synchronize()
        gathered = comm.gather((self._quality.counts, self._predictions))
        if not comm.is_main_process():
            return None
        self._quality.counts = sum(counts for counts, _ in gathered)
        self._predictions = [entry for _, entries in gathered for entry in entries]
        if not self._predictions:
            _logger.info("There are no panoptic results: this model makes none.")
            return {}
        missing = self._truth.annotations.keys() - {x["image_id"] for x in self._predictions}
        if missing:
            raise ValueError(
                f"{len(missing)} images of {self._truth.metadata.panoptic_json} have no "
                f"prediction, such as {min(missing)}; run the model on the whole data set"
            )
        if self._output_dir is not None:
            content = {**self._truth.content, "annotations": self._predictions}
            (self._output_dir / "predictions.json").write_text(json.dumps(content))
        figures: dict[str, float] = {}
        for suffix, categories in (
            ("", list(self._quality.categories)),
            ("_th", list(self._truth.things)),
            ("_st", list(self._truth.stuff)),
        ):
            for key, value in zip(("PQ", "SQ", "RQ"), self._quality.mean(categories), strict=True):
                figures[key + suffix] = 100 * value
        _logger.info("Panoptic quality: %s", _text(figures))
        return {"panoptic_seg": figures}


class SemanticEvaluator(DatasetEvaluator):
    """IoU and accuracy of ``sem_seg``, with all things as one class, in percent.

    The figures of Detectron2's `SemSegEvaluator`; the labels come from the panoptic PNGs, so that
    no prepared ones are needed. Outputs without ``sem_seg`` are left out.

    Args:
        dataset_name: a registered data set with ``panoptic_json`` and ``panoptic_root``.
        output_dir: not used; takes the place of other evaluators' argument.
    """

    def __init__(self, dataset_name: str, output_dir: str | None = None) -> None:  # noqa: ARG002
        self._truth = _Truth(dataset_name)
        self._names = list(self._truth.metadata.stuff_classes)
        self.reset()

    def reset(self) -> None:
        """Forget all predictions."""
        classes = len(self._names)
        # Pixels by predicted and true label.
        self._pixels = np.zeros((classes, classes), np.int64)

    def process(self, inputs: list[dict[str, Any]], outputs: list[dict[str, Any]]) -> None:
        """Compare predictions with the ground truth of their images.

        Args:
            inputs: of the model, with ``image_id``.
            outputs: of the model: ``sem_seg`` has logits (C, H, W).
        """
        for image, output in zip(inputs, outputs, strict=True):
            if "sem_seg" not in output:
                continue
            found = np.asarray(output["sem_seg"].argmax(dim=0).cpu())
            annotation, ids = self._truth(image["image_id"])
            segments = [self._contiguous(segment) for segment in annotation["segments_info"]]
            truth = semantic_labels(ids, segments, annotation["file_name"])
            known = truth < len(self._names)
            pairs = found[known].astype(np.int64) * len(self._names) + truth[known]
            self._pixels += np.bincount(pairs, minlength=self._pixels.size).reshape(
                self._pixels.shape
            )

    def _contiguous(self, segment: dict[str, Any]) -> dict[str, Any]:
        category = segment["category_id"]
        label = self._truth.stuff.get(category, 0)
        return {"id": segment["id"], "isthing": label == 0, "category_id": label}

    def evaluate(self) -> dict[str, dict[str, float]] | None:
        """Figures of all processes under ``sem_seg``; None but on the main process."""
        comm.synchronize()
        gathered = comm.gather(self._pixels)
        if not comm.is_main_process():
            return None
        pixels = np.sum(gathered, axis=0).astype(float)
        if not pixels.any():
            return {}
        right, truth, found = pixels.diagonal(), pixels.sum(axis=0), pixels.sum(axis=1)
        there = truth > 0
        union = truth + found - right
        with np.errstate(invalid="ignore", divide="ignore"):
            iou = np.where(there, right / union, np.nan)
            accuracy = np.where(there, right / truth, np.nan)
        figures = {
            # A class that is found but never annotated counts as 0, as in Detectron2.
            "mIoU": 100 * np.nansum(iou) / np.count_nonzero(union),
            "fwIoU": 100 * np.nansum(iou * truth) / truth.sum(),
            "mACC": 100 * np.nanmean(accuracy),
            "pACC": 100 * right.sum() / truth.sum(),
        }
        _logger.info("Semantic segmentation: %s", _text(figures))
        for name, value in zip(self._names, iou, strict=True):
            figures[f"IoU-{name}"] = 100 * value
        return {"sem_seg": {key: float(value) for key, value in figures.items()}}


def _text(figures: dict[str, Any]) -> str:
    return ", ".join(f"{key} {value:.2f}" for key, value in figures.items())
