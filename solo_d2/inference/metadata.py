"""Class names and category ids of a predictor: from its caller, its dataset, or its weights."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

from detectron2.config import CfgNode
from detectron2.data import MetadataCatalog
from torch import nn

__all__ = ["known_metadata", "own_metadata"]

_logger = logging.getLogger(__name__)


def known_metadata(
    cfg: CfgNode,
    class_names: Sequence[str] | None,
    stuff_names: Sequence[str] | None,
    ids: dict[str, Sequence[Any] | None],
) -> Any:
    """Metadata of the test set, or names alone; never names that cannot be the model's."""
    classes = cfg.MODEL.SOLO.NUM_CLASSES if "SOLO" in cfg.MODEL else None
    if class_names is not None:
        if classes not in (None, len(class_names)):
            raise ValueError(
                f"{len(class_names)} class names given, MODEL.SOLO.NUM_CLASSES is {classes}."
            )
        # Not an entry of the catalog: that would share the names between predictors.
        metadata = _Names()
        for kind, names in (("thing", class_names), ("stuff", stuff_names)):
            if names is not None:
                metadata.tell(kind, names, ids[kind])
        return metadata
    if not len(cfg.DATASETS.TEST):
        return _Names()
    metadata = MetadataCatalog.get(cfg.DATASETS.TEST[0])
    known = len(metadata.get("thing_classes", []))
    if known and classes not in (None, known):
        _logger.warning(
            "Class names left out: %s has %d classes, MODEL.SOLO.NUM_CLASSES is %d",
            cfg.DATASETS.TEST[0],
            known,
            classes,
        )
        return _Names()
    return metadata


def own_metadata(model: nn.Module, known: Any, *, named: bool) -> Any:
    """`known`, unless the model says more: names, which `named` ones replace, and category ids."""
    metadata, complete = _Names(), True
    for kind, own, ids in (
        ("thing", getattr(model, "class_names", ()), getattr(model, "category_ids", ())),
        ("stuff", getattr(model, "stuff_names", ()), getattr(model, "stuff_category_ids", ())),
    ):
        have = known.get(f"{kind}_classes") or ()
        names = list(have if named and have else own)
        mapping = f"{kind}_dataset_id_to_contiguous_id"
        given = known.get(mapping) if named else None
        if names:
            metadata.tell(kind, names, list(given) if given else ids)
        told = hasattr(metadata, mapping) and not known.get(mapping)
        complete = complete and (not names or list(have) == names) and not told
    return known if complete else metadata


class _Names(SimpleNamespace):
    """What drawing needs of Detectron2's `Metadata`, without an entry in the catalog."""

    def tell(self, kind: str, names: Sequence[str], ids: Sequence[Any] | None) -> None:
        """Set the names of things or stuff, and their category ids where each has one."""
        setattr(self, f"{kind}_classes", list(names))
        if ids and len(ids) == len(names):
            contiguous = {category: label for label, category in enumerate(ids)}
            setattr(self, f"{kind}_dataset_id_to_contiguous_id", contiguous)

    def get(self, key: str, default: Any = None) -> Any:
        return getattr(self, key, default)
