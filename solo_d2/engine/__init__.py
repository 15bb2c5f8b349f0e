"""Training: Detectron2's `DefaultTrainer` with this package's parts, and how processes start."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .arguments import argument_parser, parse_arguments
    from .classes import name_classes
    from .prepare import setup, use_data
    from .processes import launch
    from .schedule import plan_schedule
    from .trainer import SOLOTrainer, check_data

__all__ = [
    "SOLOTrainer",
    "argument_parser",
    "check_data",
    "launch",
    "name_classes",
    "parse_arguments",
    "plan_schedule",
    "setup",
    "use_data",
]

_MODULES = {
    "SOLOTrainer": "trainer",
    "argument_parser": "arguments",
    "check_data": "trainer",
    "launch": "processes",
    "name_classes": "classes",
    "parse_arguments": "arguments",
    "plan_schedule": "schedule",
    "setup": "prepare",
    "use_data": "prepare",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f".{_MODULES[name]}", __name__), name)
