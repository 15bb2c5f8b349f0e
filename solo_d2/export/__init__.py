"""Models as files of other runtimes: writing, checking and running them.

"""

from .exporter import ExportReport, export_model
from .formats import FORMATS, is_exported
from .model import ExportedModel, load_exported

__all__ = [
    "FORMATS",
    "ExportReport",
    "ExportedModel",
    "export_model",
    "is_exported",
    "load_exported",
]
