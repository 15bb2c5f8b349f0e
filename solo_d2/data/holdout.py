"""Set images aside for validation where a dataset has no validation set."""

from __future__ import annotations

import hashlib
import logging
from typing import Any

from detectron2.data import DatasetCatalog, MetadataCatalog

__all__ = ["hold_out"]

_logger = logging.getLogger(__name__)

SHARE = 0.1
"""Share of the images that are set aside."""


def hold_out(name: str) -> tuple[str, str]:
    """Split a registered dataset into images to train on and images to evaluate on.

    Which images are set aside follows from their names alone: a dataset that grows keeps its
    validation images, and a resumed training has the same ones.

    Args:
        name: Of a registered dataset with at least two images.

    Returns:
        Names of the two parts, registered with the metadata of the whole.

    Raises:
        ValueError: The dataset has less than two images.
    """
    records = DatasetCatalog.get(name)
    if len(records) < 2:
        raise ValueError(
            f"{MetadataCatalog.get(name).get('source', [name])[0]}: {len(records)} image is not "
            "enough to train and to evaluate; name a validation set with --val-json, --val-images"
        )
    count = max(1, round(SHARE * len(records)))
    ranked = sorted(records, key=_rank)
    chosen = {id(record) for record in ranked[:count]}
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
        "%d of %d images of %s are set aside for validation; --val-json names other ones",
        count,
        len(records),
        name,
    )
    rest, held_out = parts
    return rest, held_out


def _rank(record: dict[str, Any]) -> bytes:
    name = record["file_name"].replace("\\", "/").rpartition("/")[2]
    return hashlib.sha256(name.encode(errors="surrogatepass")).digest()
