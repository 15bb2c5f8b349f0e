"""Registers checked datasets with Detectron2, whatever format they were read from."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from detectron2.data import DatasetCatalog, MetadataCatalog

__all__ = ["CheckedData", "CocoData", "register_data"]

logger = logging.getLogger(__name__)


class CheckedData(Protocol):
    """What can be registered."""

    @property
    def records(self) -> list[dict[str, Any]]:
        """Detectron2's dicts, one per image."""

    @property
    def classes(self) -> Sequence[str]:
        """Names of the classes of things."""

    @property
    def category_ids(self) -> Sequence[Any]:
        """The file's category id of each."""

    def log(self) -> None:
        """Log what was found in reading."""


@dataclass(frozen=True)
class CocoData:
    """A checked dataset.

    Attributes:
        records: Detectron2's dicts, one per image, in the order of the image ids. Annotations
            have "area" where the file has a usable one.
        classes: class names, in the order of the category ids.
        category_ids: the file's category id of each class.
        stuff: names of the background labels, empty where the file has none.
        repaired: number of annotations dropped or completed.
        frequencies: LVIS's "r", "c" or "f" of every class; empty for other formats.
        standard: whether other programs read the file to the same records.
        annotated: whether the file has annotations; that of a test set has none.
        notes: one line of what there is to say about the file; often empty.
    """

    records: list[dict[str, Any]]
    classes: list[str]
    category_ids: list[Any]
    stuff: list[str]
    repaired: int
    frequencies: tuple[str, ...] = ()
    standard: bool = True
    annotated: bool = True
    notes: str = ""

    def log(self) -> None:
        """Log the notes."""
        log_notes(self.notes)


def log_notes(notes: str) -> None:
    """Log what was found in reading, if there is anything."""
    if notes:
        logger.warning("%s", notes)


Data = TypeVar("Data", bound=CheckedData)


def register_data(
    name: str,
    source: tuple[str, ...],
    read: Callable[[], Data],
    evaluator_type: str,
    describe: Callable[[Data], dict[str, Any]],
) -> list[str]:
    """Read and register a dataset; the same source under the same name does nothing.

    What there is to say is logged now, and not when the files are read again.

    Args:
        name: of the dataset, as in ``cfg.DATASETS``.
        source: absolute paths of the annotations and of the images.
        read: reads and checks the dataset, and logs nothing.
        evaluator_type: which evaluator fits (see `solo_d2.evaluation.build_evaluator`).
        describe: further metadata.

    Returns:
        The class names.

    Raises:
        ValueError: `read` does, or `name` stands for another source.
    """
    if name in DatasetCatalog.list():
        metadata = MetadataCatalog.get(name)
        if metadata.get("source") != source or metadata.evaluator_type != evaluator_type:
            raise ValueError(
                f"the dataset name '{name}' is taken by "
                f"{metadata.get('source', 'another dataset')}; register {source[0]} under another "
                "name"
            )
        if not metadata.get("aligned"):
            return list(metadata.thing_classes)
        for catalog in (DatasetCatalog, MetadataCatalog):
            catalog.remove(name)
    data = read()
    data.log()
    first = [data.records]  # the copy at hand serves the first use, later ones read again

    def load() -> list[dict[str, Any]]:
        return first.pop() if first else read().records

    DatasetCatalog.register(name, load)
    MetadataCatalog.get(name).set(
        **{
            "source": source,
            "image_root": source[1],
            "evaluator_type": evaluator_type,
            "thing_classes": list(data.classes),
            "thing_dataset_id_to_contiguous_id": {c: k for k, c in enumerate(data.category_ids)},
            **describe(data),
        }
    )
    return list(data.classes)
