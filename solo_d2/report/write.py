"""Write the report of an evaluation: ``index.html`` for people, ``report.json`` for programs."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path

from detectron2.config import CfgNode
from detectron2.data import MetadataCatalog

from ..evaluation.build import EVALUATORS, detections_per_image
from ..evaluation.coco import COCOInstanceEvaluator
from ..evaluation.predictions import remove_old
from ..evaluation.scoring import hotcoco, images_over, warn_of_limit
from ..io.growing import check_output
from ..io.json_file import save_json
from ..io.paths import not_a_file, printable
from .measure import Measures, measure, to_json
from .pages import make_page
from .runs import Dataset, read_dataset, read_results
from .unlearnable import find_unlearnable

__all__ = ["ReportPlan", "plan_report"]

_logger = logging.getLogger(__name__)

PAGE, FIGURES = "index.html", "report.json"


@dataclass(frozen=True)
class ReportPlan:
    """A report that can be written when the evaluation is done.

    Attributes:
        folders: where it goes, by dataset.
        against: results to compare with, if any.
        cfg: of the evaluation.
    """

    folders: dict[str, Path]
    against: Path | None
    cfg: CfgNode

    def write(self) -> None:
        """Write the report of every dataset, of the results in `OUTPUT_DIR`.

        Where there can be none, an older one is removed.

        Raises:
            ValueError: There are no detections, or the results to compare with are of another
                dataset.
            OSError: It cannot be written.
        """
        for name, folder in self.folders.items():
            file = Path(self.cfg.OUTPUT_DIR, "inference", name, COCOInstanceEvaluator.results_file)
            dataset = read_dataset(name, self.cfg.INPUT.MAX_VALUE)
            try:
                runs = self._measure(dataset, file)
            except ValueError:
                for page in (PAGE, FIGURES):
                    remove_old(folder / page)
                raise
            folder.mkdir(parents=True, exist_ok=True)
            save_json(folder / FIGURES, to_json(runs[0], dataset))
            make_page(dataset, runs, self.cfg.MODEL.SOLO.SCORE_TEMPERATURE).save(folder / PAGE)
            _logger.info("Saved the report to %s", folder / PAGE)

    def _measure(self, dataset: Dataset, file: Path) -> list[Measures]:
        """Measure the run, and the one that it is compared with."""
        limit = COCOInstanceEvaluator.limit_for(detections_per_image(self.cfg))
        reasons = find_unlearnable(self.cfg, dataset)
        found = read_results(file, dataset)
        runs = [measure(dataset, found, "this run", file, limit, reasons)]
        if self.against is not None:
            other = read_results(self.against, dataset)
            pairs = ((x["image_id"], x["category_id"]) for x in other)
            warn_of_limit(str(self.against), limit, images_over(limit, pairs))
            runs.append(measure(dataset, other, "the other run", self.against, limit))
        return runs


def plan_report(cfg: CfgNode, folder: str, against: str | None) -> ReportPlan:
    """Check, before an evaluation, that its report can be made.

    Args:
        cfg: of the evaluation; of several datasets each has a folder.
        folder: of the report.
        against: results in COCO's format, or the JSON of another report.

    Raises:
        ValueError: hotcoco is missing, a dataset is not scored by COCO's rules, there is no such
            file, or nothing can be written to the folder.
    """
    if hotcoco is None:
        raise ValueError("--report needs hotcoco; install it: pip install hotcoco")
    names = cfg.DATASETS.TEST
    for name in names:
        kind = MetadataCatalog.get(name).get("evaluator_type")
        if COCOInstanceEvaluator not in EVALUATORS.get(kind, ()):
            raise ValueError(
                f"--report follows COCO's rules, and the dataset {name} is scored by those of "
                f"{kind!r}; leave it out"
            )
    if against is not None and not_a_file(against) is not None:
        raise ValueError(
            f"--report-against {printable(against)}: {not_a_file(against)}; name a file of COCO "
            "results or a report.json"
        )
    root = Path(folder)
    folders = {name: root / name if len(names) > 1 else root for name in names}
    for place in folders.values():
        check_output(place / PAGE)
    return ReportPlan(folders, None if against is None else Path(against), cfg)
