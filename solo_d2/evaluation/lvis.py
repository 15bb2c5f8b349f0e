"""LVIS's AP, which counts only what an image was annotated for, and AP by frequency."""

from __future__ import annotations

import logging
from typing import Any

from detectron2.utils.logger import create_small_table

from ._numpy import numpy_name
from .coco import COCOInstanceEvaluator, Found, entries_of
from .scoring import hotcoco

__all__ = ["LVISInstanceEvaluator"]

_logger = logging.getLogger(__name__)

_METRICS = ("AP", "AP50", "AP75", "APs", "APm", "APl", "APr", "APc", "APf")


class LVISInstanceEvaluator(COCOInstanceEvaluator):
    """Mask AP and box AP by LVIS's rules, with APr, APc and APf of rare to frequent classes.

    Detectron2's `LVISEvaluator` needs the package lvis, whose last release fails on NumPy 1.24 and
    later. Here hotcoco scores, which gives the same numbers, or lvis with a repair.

    Args:
        dataset_name: a dataset of `register_lvis_json`, or one of Detectron2's own.
        output_dir: where results are written; None writes nothing.
        distributed: collect from all processes.
        max_dets_per_image: instances per image that count, over all classes; 300 in LVIS.
        fast: use hotcoco; by default, if it is installed.

    Raises:
        ValueError: neither hotcoco nor lvis is installed, or see `COCOInstanceEvaluator`.

    Example:
        >>> import contextlib, io
        >>> from solo_d2.testing import tiny_dataset, tiny_results
        >>> evaluator = LVISInstanceEvaluator(tiny_dataset())
        >>> evaluator.reset()
        >>> evaluator.process([{"image_id": 1}], [{"instances": tiny_results()}])
        >>> with contextlib.redirect_stdout(io.StringIO()):  # LVIS prints a table
        ...     results = evaluator.evaluate()
        >>> round(results["segm"]["AP"])
        100
    """

    default_max_dets = 300
    results_file = "lvis_instances_results.json"
    federated = True

    def __init__(self, dataset_name: str, output_dir: str | None = None, **options: Any) -> None:
        for option, key in (("boundary", "BOUNDARY_AP"), ("diagnosis", "DIAGNOSE")):
            if options.get(option):
                raise ValueError(
                    f"TEST.{key} follows COCO's rules, which do not hold for LVIS; set it to False"
                )
        super().__init__(dataset_name, output_dir, **options)
        if not self._fast:
            try:
                import lvis  # noqa: F401
            except ImportError as error:
                raise ValueError(
                    "evaluation on LVIS needs hotcoco; install it: pip install hotcoco"
                ) from error

    def _score(self, found: Found, task: str, chosen: list[int] | None) -> dict[str, float]:
        if not found:
            _logger.warning("The model found no instance.")
            return dict.fromkeys(_METRICS, float("nan"))
        score = self._results_of_hotcoco if self._fast else self._results_of_lvis
        results = score(found, task, chosen)
        # Both packages say -1 where no object belongs to a metric.
        values = {k: 100 * results[k] if results[k] > -1 else float("nan") for k in _METRICS}
        _logger.info("Evaluation results for %s:\n%s", task, create_small_table(values))
        return values

    def _results_of_hotcoco(
        self, found: Found, task: str, chosen: list[int] | None
    ) -> dict[str, float]:
        self._index = self._index or hotcoco.LVIS(self._truth.content)
        results = hotcoco.LVISResults(self._index, entries_of(found, task), max_dets=self._limit)
        scorer = hotcoco.LVISeval(self._index, results, task)
        if chosen is not None:
            scorer.params.img_ids = chosen
        scorer.run()
        return scorer.get_results()

    def _results_of_lvis(
        self, found: Found, task: str, chosen: list[int] | None
    ) -> dict[str, float]:
        import lvis

        truth = lvis.LVIS.__new__(lvis.LVIS)  # its constructor reads a file
        truth.logger, truth.dataset = _logger, self._truth.content
        truth._create_index()
        results = lvis.LVISResults(truth, entries_of(found, task), max_dets=self._limit)
        scorer = lvis.LVISEval(truth, results, task)
        if chosen is not None:
            scorer.params.img_ids = chosen
        with numpy_name("float", float):
            scorer.run()
        return scorer.get_results()

    def _warn_of_limit(self, found: Any) -> None:
        """LVIS counts the best of all classes together; more than that is its rule, not news."""
