"""Formats that datasets can be written in. Nothing heavy is imported: ``--help`` is quick."""

from __future__ import annotations

import importlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .writing import DatasetWriter

__all__ = ["WRITERS", "has_outlines", "make_writer"]

WRITERS = {
    "coco": "write_coco.CocoWriter",
    "polygons": "write_coco.PolygonsWriter",
    "labelme": "write_labelme.LabelMeWriter",
    "yolo": "write_yolo.YoloWriter",
    "voc": "write_masks.VocWriter",
    "masks": "write_masks.MasksWriter",
    "rgba": "write_pieces.CutOutWriter",
    "csv": "write_pieces.TableWriter",
}
"""MODULE.CLASS, in this package, of what writes a format."""


def make_writer(
    kind: str,
    root: str | os.PathLike[str],
    classes: Sequence[str],
    splits: Sequence[str] = ("train",),
    tolerance: float = 0.0,
) -> DatasetWriter:
    """Return what writes a format of `WRITERS`, see `DatasetWriter`."""
    return _writer(kind)(Path(os.path.abspath(root)), classes, splits, tolerance)


def has_outlines(kind: str) -> bool:
    """Return whether a format of `WRITERS` has outlines, which can be simplified."""
    return _writer(kind).has_outlines


def _writer(kind: str) -> type[DatasetWriter]:
    module, name = WRITERS[kind].split(".")
    writer: type[DatasetWriter] = getattr(importlib.import_module(f".{module}", __package__), name)
    return writer
