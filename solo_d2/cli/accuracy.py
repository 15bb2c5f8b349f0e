"""A model's config with a dataset, and its AP on some images of that."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from ..engine.arguments import argument_parser

if TYPE_CHECKING:
    from detectron2.config import CfgNode
    from torch import nn

    from ..export.quantize import Accuracy, DropLimit
    from ..inference.predictor import SOLOPredictor

__all__ = ["config_with_data", "limit_of_drop"]


def config_with_data(predictor: SOLOPredictor, folder: str) -> CfgNode:
    """Return the model's config with a dataset to evaluate on, as of ``solo-d2 eval --data``."""
    from ..data.arguments import register_named_data
    from ..engine.prepare import use_data
    from ..modeling.meta_arch.panoptic_solo import is_panoptic

    cfg = predictor.cfg.clone()
    cfg.defrost()
    named = argument_parser().parse_args(["--eval-only", "--data", folder])
    use_data(cfg, register_named_data(named, panoptic=is_panoptic(cfg)), fixed=True)
    return cfg


def limit_of_drop(
    predictor: SOLOPredictor, folder: str, max_drop: float, most: int = 100
) -> DropLimit:
    """Return a limit of the drop of mask AP, in percent, on images of a dataset."""
    from ..engine.trainer import SOLOTrainer
    from ..evaluation import COCOInstanceEvaluator
    from ..export.quantize import Accuracy, DropLimit

    cfg = config_with_data(predictor, folder)
    cfg.DATALOADER.NUM_WORKERS = 0  # images are read once
    name = cfg.DATASETS.TEST[0]
    evaluator = COCOInstanceEvaluator(name, distributed=False)
    inputs = [x for batch in SOLOTrainer.build_test_loader(cfg, name) for x in batch]
    inputs = inputs[:: -(-len(inputs) // most)]

    def average_precision(image_ids: list[object]) -> float:
        value = float(evaluator.evaluate(image_ids)["segm"]["AP"])
        return 0.0 if math.isnan(value) else value  # no object, or nothing found

    def measure(model: nn.Module, numbers: Sequence[int]) -> Accuracy:
        evaluator.reset()
        chosen = [inputs[number] for number in numbers]
        for one in chosen:
            evaluator.process([one], model([one]))
        ids = [one["image_id"] for one in chosen]
        return Accuracy(average_precision(ids), [average_precision([x]) for x in ids])

    return DropLimit(measure, len(inputs), max_drop)
