"""Records of registered datasets, as evaluators read them: anew, by image id."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from detectron2.data import DatasetCatalog

__all__ = ["image_size", "in_order", "records_by_id", "records_of", "shared_records"]

_shared: dict[str, list[dict[str, Any]]] | None = None


@contextmanager
def shared_records() -> Iterator[None]:
    """Let the evaluators that are made in the block read a dataset once for all of them."""
    global _shared
    _shared = {}
    try:
        yield
    finally:
        _shared = None


def records_of(dataset_name: str) -> list[dict[str, Any]]:
    """Read the records of a registered dataset anew, or take those that were just read."""
    if _shared is None:
        return DatasetCatalog.get(dataset_name)
    if dataset_name not in _shared:
        _shared[dataset_name] = DatasetCatalog.get(dataset_name)
    return _shared[dataset_name]


def records_by_id(dataset_name: str, records: list[dict[str, Any]]) -> dict[Any, dict[str, Any]]:
    """Index records by image id.

    Raises:
        ValueError: a record has no id, or the one of another.
    """
    found: dict[Any, dict[str, Any]] = {}
    for record in records:
        if record.get("image_id") is None:
            raise ValueError(
                f"the dataset {dataset_name}: the record of {record.get('file_name')} lacks "
                "'image_id', without which results cannot be told apart"
            )
        if record["image_id"] in found:
            raise ValueError(
                f"the dataset {dataset_name} has two images with the id {record['image_id']}; "
                "make ids unique"
            )
        found[record["image_id"]] = record
    return found


def in_order(dataset_name: str, records: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return records in the order of image ids, which decides between equal scores.

    Raises:
        ValueError: see `records_by_id`.
    """
    found = records_by_id(dataset_name, records)
    try:
        return [found[image_id] for image_id in sorted(found)]
    except TypeError:  # numbers and texts
        return [found[image_id] for image_id in sorted(found, key=str)]


def image_size(dataset_name: str, record: Mapping[str, Any]) -> tuple[int, int]:
    """Return (height, width) of a record.

    Raises:
        ValueError: it has none.
    """
    try:
        return int(record["height"]), int(record["width"])
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"the dataset {dataset_name}, image {record['image_id']}: masks need 'height' and "
            "'width' of their image"
        ) from error
