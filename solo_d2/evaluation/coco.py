"""COCO's mask and box AP, scored by the fastest exact implementation that is installed."""

from __future__ import annotations

import contextlib
import io
import itertools
import json
import logging
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from detectron2.evaluation import COCOEvaluator
from pycocotools.cocoeval import COCOeval

from ..io.results import coco_category_ids, instances_to_coco_results

try:
    import hotcoco
except ImportError:
    hotcoco = None  # type: ignore[assignment]

__all__ = ["COCOInstanceEvaluator"]

_logger = logging.getLogger(__name__)

_SCORED_BY = {"segm": "segmentation", "bbox": "bbox"}


class COCOInstanceEvaluator(COCOEvaluator):
    """Detectron2's `COCOEvaluator` for instance masks, faster and with the same numbers.

    Masks are encoded with `encode_masks`. AP comes from hotcoco (extra "eval"), which gives the
    same numbers as pycocotools, or from pycocotools where hotcoco is missing. Both mask AP and box
    AP are reported, boxes as the model gives them. Several processes are supported as in
    Detectron2: all collect, the first one evaluates.

    Args:
        dataset_name: a registered data set. Without a ``json_file`` in its metadata one is written
            to `output_dir`.
        output_dir: where results are written; None writes nothing.
        distributed: collect from all processes.
        max_dets_per_image: instances per image that count; 100 in COCO.
        fast: use hotcoco; by default, if it is installed.

    Raises:
        ValueError: `fast` without hotcoco.
    """

    default_max_dets = 100
    results_file = "coco_instances_results.json"

    def __init__(
        self,
        dataset_name: str,
        output_dir: str | None = None,
        *,
        distributed: bool = True,
        max_dets_per_image: int | None = None,
        fast: bool | None = None,
    ) -> None:
        if fast and hotcoco is None:
            raise ValueError("fast evaluation needs hotcoco; install it: pip install hotcoco")
        limit = self.default_max_dets if max_dets_per_image is None else max_dets_per_image
        super().__init__(
            dataset_name,
            tasks=tuple(_SCORED_BY),
            distributed=distributed,
            output_dir=output_dir,
            max_dets_per_image=limit,
        )
        self._limit = limit
        # COCO allows any id; hotcoco only integers.
        integers = all(isinstance(i, int) for i in (*self._coco_api.imgs, *self._coco_api.cats))
        self._fast = (hotcoco is not None if fast is None else fast) and integers
        self._truth: Any = None

    def process(self, inputs: list[dict[str, Any]], outputs: list[dict[str, Any]]) -> None:
        """Encode the instances of a batch.

        Args:
            inputs: the model's, with ``image_id``.
            outputs: the model's, with ``instances``.
        """
        for image, output in zip(inputs, outputs, strict=True):
            found = instances_to_coco_results(output["instances"], image["image_id"])
            self._predictions.append({"image_id": image["image_id"], "instances": found})

    def _eval_predictions(self, predictions: list[dict], img_ids: list[int] | None = None) -> None:
        results = list(itertools.chain.from_iterable(x["instances"] for x in predictions))
        self._unmap_categories(results)
        if self._output_dir:
            file = Path(self._output_dir) / self.results_file
            file.write_text(json.dumps(results), encoding="utf-8")
            _logger.info("Saved %d instances to %s", len(results), file)
        if not self._do_evaluation:
            _logger.info("There are no annotations to evaluate with.")
            return
        for task in self._tasks:
            key = _SCORED_BY[task]
            # With a box in it, COCO's code would take the box's area for the mask's.
            bare = [{k: x[k] for k in ("image_id", "category_id", "score", key)} for x in results]
            self._results[task] = self._score(bare, task, img_ids)

    def _unmap_categories(self, results: list[dict[str, Any]]) -> None:
        """Replace labels by the category ids of the data set, in place."""
        ids = coco_category_ids(self._metadata.get("thing_dataset_id_to_contiguous_id"))
        if ids is None:
            return
        for result in results:
            if result["category_id"] >= len(ids):
                raise ValueError(
                    f"the model found class {result['category_id']}, the data set has {len(ids)} "
                    f"classes; set MODEL.SOLO.NUM_CLASSES {len(ids)}"
                )
            result["category_id"] = ids[result["category_id"]]

    def _score(self, results: list[dict], task: str, img_ids: list[int] | None) -> dict[str, float]:
        """AP and its kin, and AP by class, in percent; NaN for all of them without a result."""
        names = self._metadata.get("thing_classes")
        if not results:
            return self._derive_coco_results(None, task, class_names=names)
        precision = self._precision(results, task, img_ids)
        scores = SimpleNamespace(stats=_summary(precision), eval={"precision": precision})
        return self._derive_coco_results(scores, task, class_names=names)

    def _precision(self, results: list[dict], task: str, img_ids: list[int] | None) -> np.ndarray:
        """Precision by IoU, recall, category, area range, and limit of detections."""
        if self._fast:
            self._truth = self._truth or self._read_truth()
            scorer = hotcoco.COCOeval(self._truth, self._truth.load_res(results), task)
            scorer.params.max_dets = [self._limit]
            if img_ids is not None:
                scorer.params.img_ids = list(img_ids)
            scorer.evaluate()
            scorer.accumulate()
            return np.asarray((scorer.eval or {})["precision"])
        with contextlib.redirect_stdout(io.StringIO()):
            scorer = COCOeval(self._coco_api, self._coco_api.loadRes(results), task)
            scorer.params.maxDets = [self._limit]
            if img_ids is not None:
                scorer.params.imgIds = list(img_ids)
            scorer.evaluate()
            scorer.accumulate()
        return scorer.eval["precision"]

    def _read_truth(self) -> Any:
        """The ground truth for hotcoco, which does not read the nulls that Detectron2 writes."""
        content = self._coco_api.dataset
        if None not in content.values():
            return hotcoco.COCO(self._metadata.json_file)
        return hotcoco.COCO({key: value for key, value in content.items() if value is not None})


def _summary(precision: np.ndarray) -> list[float]:
    """AP, AP50, AP75, APs, APm, APl, in [0, 1], -1 for what no object belongs to.

    Args:
        precision: (10 IoU thresholds from 0.5 on, recalls, categories, 4 area ranges, limits).
    """
    chosen = [precision[:, :, :, 0, -1], precision[0, :, :, 0, -1], precision[5, :, :, 0, -1]]
    chosen += [precision[:, :, :, area, -1] for area in (1, 2, 3)]
    return [float(x[x > -1].mean()) if (x > -1).any() else -1.0 for x in chosen]
