"""Evaluation of panoptic segmentation: PQ, and the IoU of the semantic branch."""

from __future__ import annotations

import logging
import math
from pathlib import Path
from typing import Any

import numpy as np
from detectron2.data import MetadataCatalog
from detectron2.evaluation import DatasetEvaluator

from ..io.json_file import JsonListWriter
from ..io.panoptic_png import semantic_labels, write_panoptic_png
from .panoptic_quality import PanopticQuality
from .panoptic_truth import own_names, read_panoptic_truth
from .predictions import ByImage, results_file, results_folder

__all__ = ["PanopticEvaluator", "SemanticEvaluator"]

_logger = logging.getLogger(__name__)


class PanopticEvaluator(DatasetEvaluator):
    """Measure PQ, SQ and RQ, for all categories, things (``_th``) and stuff (``_st``), in percent.

    The figures of Detectron2's `COCOPanopticEvaluator`, without the package panopticapi. Outputs
    without ``panoptic_seg``, of a model for instances, are left out.

    Args:
        dataset_name: a registered panoptic dataset.
        output_dir: where ``predictions.json`` and the folder ``predictions`` of PNGs are written,
            in COCO's format; None writes nothing.

    Raises:
        ValueError: the annotations cannot be read, or `output_dir` cannot be written to or holds
            the ground truth where predictions would go.

    Example:
        >>> from detectron2.data import DatasetCatalog, MetadataCatalog
        >>> DatasetCatalog.register("empty_panoptic", list)  # no image
        >>> _ = MetadataCatalog.get("empty_panoptic").set(
        ...     thing_dataset_id_to_contiguous_id={1: 0}, thing_classes=["cup"],
        ...     stuff_dataset_id_to_contiguous_id={2: 1}, stuff_classes=["things", "sky"],
        ... )
        >>> evaluator = PanopticEvaluator("empty_panoptic")
        >>> evaluator.evaluate()
        {}
    """

    def __init__(self, dataset_name: str, output_dir: str | None = None) -> None:
        self._truth = read_panoptic_truth(dataset_name)
        self._file = results_file(output_dir, "predictions.json", dataset_name)
        pngs = {image_id: image.png for image_id, image in self._truth.images.items()}
        folder = None if output_dir is None else Path(output_dir) / "predictions"
        self._folder = results_folder(folder, dataset_name, pngs.values())
        self._names = own_names(pngs)
        self._categories = [*self._truth.things, *self._truth.stuff]
        self._thing_ids = {label: k for k, label in self._truth.things.items()}
        self._stuff_ids = {label: k for k, label in self._truth.stuff.items()}
        self.reset()

    def reset(self) -> None:
        """Forget all predictions."""
        self._found = ByImage(self._truth.dataset_name, self._truth.images)

    def process(self, inputs: list[dict[str, Any]], outputs: list[dict[str, Any]]) -> None:
        """Compare predictions with the ground truth of their images.

        Args:
            inputs: of the model, with ``image_id``.
            outputs: of the model; not changed.

        Raises:
            ValueError: an image without ground truth, a result without ``segments_info``, or one
                that does not fit the dataset.
        """
        for image, output in zip(inputs, outputs, strict=True):
            image_id = image["image_id"]
            if "panoptic_seg" not in output or not self._found.wants(image_id):
                continue
            found, described = output["panoptic_seg"]
            if described is None:
                raise ValueError("PanopticEvaluator expects segments_info, got None")
            ids, name = np.asarray(found.cpu()), self._names[image_id]
            segments = [self._to_dataset(segment, name) for segment in described]
            quality = PanopticQuality(self._categories)
            truth = self._truth.images[image_id]
            quality.add(self._truth.ids(image_id), truth.segments, ids, segments, name)
            self._found.add(image_id, (quality.counts, segments))
            if self._folder is not None:
                target = self._folder / name
                if target.is_symlink():  # to who knows what
                    target.unlink()
                write_panoptic_png(target, ids)

    def _to_dataset(self, segment: dict[str, Any], name: str) -> dict[str, Any]:
        """The segment with the dataset's category id, which says whether it is a thing."""
        ids = self._thing_ids if segment["isthing"] else self._stuff_ids
        if segment["category_id"] not in ids:
            raise ValueError(
                f"{name}: the model found the {'thing' if segment['isthing'] else 'stuff'} class "
                f"{segment['category_id']}, the dataset has {sorted(ids)}; set "
                "MODEL.SOLO.NUM_CLASSES and MODEL.SEM_SEG_HEAD.NUM_CLASSES to its numbers"
            )
        kept = {key: value for key, value in segment.items() if key != "isthing"}
        if not math.isfinite(kept.get("score", 0)):  # COCO's format needs none
            del kept["score"]
        return {**kept, "category_id": ids[segment["category_id"]]}

    def evaluate(self) -> dict[str, dict[str, float]] | None:
        """Score the results of all processes, and write them.

        Returns:
            Figures under ``panoptic_seg``; nothing of a model that makes no panoptic results; None
            but on the main process.
        """
        gathered = self._found.gather(missing="their segments count as missed")
        if gathered is None:
            return None
        if not gathered:
            _logger.info("There are no panoptic results: this model makes none.")
            return {}
        quality = PanopticQuality(self._categories)
        for image_id, image in self._truth.images.items():
            if image_id in gathered:
                quality.counts += gathered[image_id][0]
            else:
                quality.miss(image.segments)
        figures: dict[str, float] = {}
        for suffix, categories in (
            ("", self._categories),
            ("_th", list(self._truth.things)),
            ("_st", list(self._truth.stuff)),
        ):
            for key, value in zip(("PQ", "SQ", "RQ"), quality.mean(categories), strict=True):
                figures[key + suffix] = 100 * value
        _logger.info("Panoptic quality: %s", _text(figures))
        if self._file is not None:
            self._write(self._file, gathered)
        return {"panoptic_seg": figures}

    def _write(self, path: Path, found: dict[Any, Any]) -> None:
        """Write COCO's json of the PNGs."""
        metadata = MetadataCatalog.get(self._truth.dataset_name)
        names = [metadata.thing_classes[label] for label in self._thing_ids]
        names += [metadata.stuff_classes[label] for label in self._stuff_ids]
        categories = [
            {"id": k, "name": name, "isthing": int(k in self._truth.things)}
            for k, name in zip(self._categories, names, strict=True)
        ]
        with JsonListWriter(path, head={"categories": categories}) as file:
            for image_id, (_, segments) in found.items():
                entry = {"image_id": image_id, "file_name": self._names[image_id]}
                file.extend([{**entry, "segments_info": segments}])
        _logger.info("Saved the results of %d images to %s", file.count, path)


class SemanticEvaluator(DatasetEvaluator):
    """Measure IoU and accuracy of ``sem_seg``, with all things as one class, in percent.

    The figures of Detectron2's `SemSegEvaluator`; the labels come from the panoptic PNGs, so that
    no prepared ones are needed. Outputs without ``sem_seg`` are left out.

    Args:
        dataset_name: a registered panoptic dataset.
        output_dir: not used; takes the place of other evaluators' argument.

    Example:
        >>> from detectron2.data import DatasetCatalog, MetadataCatalog
        >>> DatasetCatalog.register("empty_semantic", list)  # no image
        >>> _ = MetadataCatalog.get("empty_semantic").set(
        ...     thing_dataset_id_to_contiguous_id={1: 0}, thing_classes=["cup"],
        ...     stuff_dataset_id_to_contiguous_id={2: 1}, stuff_classes=["things", "sky"],
        ... )
        >>> evaluator = SemanticEvaluator("empty_semantic")
        >>> evaluator.evaluate()
        {}
    """

    def __init__(self, dataset_name: str, output_dir: str | None = None) -> None:  # noqa: ARG002
        self._truth = read_panoptic_truth(dataset_name)
        self._names = list(MetadataCatalog.get(dataset_name).stuff_classes)
        self.reset()

    def reset(self) -> None:
        """Forget all predictions."""
        self._found = ByImage(self._truth.dataset_name, self._truth.images)

    def process(self, inputs: list[dict[str, Any]], outputs: list[dict[str, Any]]) -> None:
        """Compare predictions with the ground truth of their images.

        Args:
            inputs: of the model, with ``image_id``.
            outputs: of the model: ``sem_seg`` has logits (C, H, W).

        Raises:
            ValueError: an image without ground truth, or logits of another shape.
        """
        classes = len(self._names)
        for image, output in zip(inputs, outputs, strict=True):
            image_id = image["image_id"]
            if "sem_seg" not in output or not self._found.wants(image_id):
                continue
            ids, entry = self._truth.ids(image_id), self._truth.images[image_id]
            if tuple(output["sem_seg"].shape) != (classes, *ids.shape):
                raise ValueError(
                    f"{entry.png}: sem_seg has the shape {tuple(output['sem_seg'].shape)}, "
                    f"expected {(classes, *ids.shape)} (classes, height, width)"
                )
            found = np.asarray(output["sem_seg"].argmax(dim=0).cpu())
            segments = [self._contiguous(segment) for segment in entry.segments]
            truth = semantic_labels(ids, segments, entry.png)
            known = truth < classes
            pairs = found[known].astype(np.int64) * classes + truth[known]
            counts = np.bincount(pairs, minlength=classes * classes)
            there = np.flatnonzero(counts)  # few of all pairs of classes
            self._found.add(image_id, (there, counts[there]))

    def _contiguous(self, segment: dict[str, Any]) -> dict[str, Any]:
        category = segment["category_id"]
        label = self._truth.stuff.get(category, 0)
        return {"id": segment["id"], "isthing": label == 0, "category_id": label}

    def evaluate(self) -> dict[str, dict[str, float]] | None:
        """Figures of all processes under ``sem_seg``; None but on the main process."""
        gathered = self._found.gather(missing="they are left out of the IoU")
        if gathered is None:
            return None
        classes = len(self._names)
        # Pixels by predicted and true label.
        pixels = np.zeros((classes, classes))
        for there, counts in gathered.values():
            pixels.flat[there] += counts
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
