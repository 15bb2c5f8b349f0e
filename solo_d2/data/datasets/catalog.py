"""Registers checked data sets with Detectron2, whatever format they were read from."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from detectron2.data import DatasetCatalog, MetadataCatalog

__all__ = ["CocoData", "register_data"]


@dataclass(frozen=True)
class CocoData:
    """A checked data set.

    Attributes:
        records: Detectron2's dicts, one per image, in the order of the image ids.
        classes: class names, in the order of the category ids.
        category_ids: the file's category id of each class.
        stuff: names of the background labels, empty where the file has none.
        repaired: number of annotations dropped or completed; COCO's evaluation code fails on
            the file as it is where this is not 0.
        frequencies: LVIS's "r", "c" or "f" of every class; empty for other formats.
    """

    records: list[dict[str, Any]]
    classes: list[str]
    category_ids: list[int]
    stuff: list[str]
    repaired: int
    frequencies: tuple[str, ...] = ()


def register_data(
    name: str,
    source: tuple[str, str],
    read: Callable[[], CocoData],
    evaluator_type: str,
    describe: Callable[[CocoData], dict[str, Any]],
) -> list[str]:
    """Reads and registers a data set; the same source under the same name does nothing.

    Args:
        name: of the data set, as in ``cfg.DATASETS``.
        source: absolute paths of the annotations and of the images.
        read: reads and checks the data set.
        evaluator_type: which evaluator fits (see `solo_d2.evaluation.build_evaluator`).
        describe: further metadata.

    Returns:
        The class names.

    Raises:
        ValueError: If `read` does, or `name` stands for another source.
    """
    if name in DatasetCatalog.list():
        metadata = MetadataCatalog.get(name)
        if metadata.get("source") == source and metadata.evaluator_type == evaluator_type:
            return list(metadata.thing_classes)
        raise ValueError(
            f"the data set name '{name}' is taken by {metadata.get('source', 'another data set')};"
            f" register {source[0]} under another name"
        )
    data = read()
    first = [data.records]  # the copy at hand serves the first use, later ones read again

    def load() -> list[dict[str, Any]]:
        return first.pop() if first else read().records

    DatasetCatalog.register(name, load)
    MetadataCatalog.get(name).set(
        source=source,
        image_root=source[1],
        evaluator_type=evaluator_type,
        thing_classes=data.classes,
        thing_dataset_id_to_contiguous_id={c: k for k, c in enumerate(data.category_ids)},
        **describe(data),
    )
    return data.classes
