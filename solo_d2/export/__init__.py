"""Models as files of other runtimes: writing, checking and running them."""

from .exporter import ExportReport, export_model
from .formats import FORMATS, is_exported
from .model import ExportedModel, load_exported
from .quantize import Accuracy, DropLimit
from .reading import exported_config, open_exported

__all__ = [
    "FORMATS",
    "Accuracy",
    "DropLimit",
    "ExportReport",
    "ExportedModel",
    "export_model",
    "exported_config",
    "is_exported",
    "load_exported",
    "open_exported",
]
