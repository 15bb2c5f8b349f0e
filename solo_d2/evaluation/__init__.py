"""Evaluators."""

from .build import EVALUATORS, build_evaluator
from .cityscapes import CityscapesInstanceEvaluator
from .coco import COCOInstanceEvaluator
from .lvis import LVISInstanceEvaluator
from .matting import MattingEvaluator, SOFIEvaluator
from .panoptic import PanopticEvaluator, SemanticEvaluator

__all__ = [
    "EVALUATORS",
    "COCOInstanceEvaluator",
    "CityscapesInstanceEvaluator",
    "LVISInstanceEvaluator",
    "MattingEvaluator",
    "PanopticEvaluator",
    "SOFIEvaluator",
    "SemanticEvaluator",
    "build_evaluator",
]
