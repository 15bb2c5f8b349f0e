"""Set images aside for validation where a dataset has no validation set."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Sequence
from typing import Any

from detectron2.data import DatasetCatalog, MetadataCatalog

from .records import has_objects, nothing_to_learn

__all__ = ["hold_out"]

_logger = logging.getLogger(__name__)

SHARE = 0.1
"""Share of the images that are set aside."""


def hold_out(name: str) -> tuple[str, str]:
    """Split a registered dataset into images to train on and images to evaluate on.

    A tenth is set aside of the images with objects, at least one, and of those without. Which ones
    follows from the names of all images: an evaluation, or a resumed training, has those of the
    training. More images may set other ones aside.

    Args:
        name: Of a registered dataset.

    Returns:
        Names of the two parts, registered with the metadata of the whole.

    Raises:
        ValueError: Less than two of its images have objects.
    """
    records = DatasetCatalog.get(name)
    chosen = _choose(name, records)
    parts = {
        f"{name}_rest": [record for record in records if id(record) not in chosen],
        f"{name}_held_out": [record for record in records if id(record) in chosen],
    }
    metadata = {
        key: value for key, value in MetadataCatalog.get(name).as_dict().items() if key != "name"
    }
    metadata.pop("json_file", None)  # of all images
    for part, members in parts.items():
        if part not in DatasetCatalog.list():
            DatasetCatalog.register(part, lambda members=members: members)
            MetadataCatalog.get(part).set(**metadata)
    _logger.info(
        "%d of %d images of %s are set aside for validation (--no-hold-out: none)",
        len(chosen),
        len(records),
        name,
    )
    rest, held_out = parts
    return rest, held_out


def _choose(name: str, records: Sequence[dict[str, Any]]) -> set[int]:
    """The ids, as of `id`, of the records that are set aside."""
    kinds: dict[bool, list[dict[str, Any]]] = {True: [], False: []}
    for record in sorted(records, key=_rank):
        kinds[has_objects(record)].append(record)
    if not kinds[True]:
        raise ValueError(
            f"{nothing_to_learn(name, records)}; or predict without metrics: eval --no-hold-out"
        )
    if len(kinds[True]) < 2:
        raise ValueError(
            f"{MetadataCatalog.get(name).get('source', [name])[0]}: 1 image with objects is not "
            "enough to train and to evaluate; --no-hold-out trains, or evaluates, on all images"
        )
    return {
        id(record)
        for has, kind in kinds.items()
        for record in kind[: max(int(has), round(SHARE * len(kind)))]
    }


def _rank(record: dict[str, Any]) -> bytes:
    name = record["file_name"].replace("\\", "/").rpartition("/")[2]
    return hashlib.sha256(name.encode(errors="surrogatepass")).digest()
