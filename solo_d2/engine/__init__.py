"""Training: Detectron2's `DefaultTrainer` with this package's parts, and how processes start."""

from .classes import name_classes
from .launch import launch
from .setup import argument_parser, parse_arguments, setup, use_data
from .trainer import SOLOTrainer, check_data

__all__ = [
    "SOLOTrainer",
    "argument_parser",
    "check_data",
    "launch",
    "name_classes",
    "parse_arguments",
    "setup",
    "use_data",
]
