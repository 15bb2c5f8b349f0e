"""Evaluators."""

from .build import build_evaluator
from .cityscapes import CityscapesInstanceEvaluator
from .coco import COCOInstanceEvaluator
from .lvis import LVISInstanceEvaluator

__all__ = [
    "COCOInstanceEvaluator",
    "CityscapesInstanceEvaluator",
    "LVISInstanceEvaluator",
    "build_evaluator",
]
