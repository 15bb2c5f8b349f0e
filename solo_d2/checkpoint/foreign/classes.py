"""Names and category ids of the classes of other projects' models."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from detectron2.data.datasets.builtin_meta import COCO_CATEGORIES

_THINGS = [category for category in COCO_CATEGORIES if category["isthing"]]
COCO_NAMES = tuple(str(category["name"]) for category in _THINGS)
COCO_IDS = tuple(int(category["id"]) for category in _THINGS)


def find_classes(
    checkpoint: Mapping[Any, Any], count: int
) -> tuple[tuple[str, ...], tuple[int, ...]]:
    """Find the classes of a model of another project.

    Args:
        checkpoint: as its project saves it; mmdetection puts the names into "meta".
        count: of classes that the model has. Without names, 80 are COCO's, which is what all
            published models have.

    Returns:
        Names and COCO's category ids, in the order of the labels; () for what is not known.
    """
    names = _stated_names(checkpoint.get("meta"))
    if len(names) != count:
        names = COCO_NAMES if count == len(COCO_NAMES) else ()
    return names, COCO_IDS if names == COCO_NAMES else ()


def _stated_names(meta: Any) -> tuple[str, ...]:
    """Names in the "meta" of mmdetection 3.x or 2.x."""
    for place in (meta.get("dataset_meta"), meta) if isinstance(meta, Mapping) else ():
        for key in ("classes", "CLASSES"):
            names = place.get(key) if isinstance(place, Mapping) else None
            if isinstance(names, list | tuple) and all(isinstance(x, str) for x in names):
                return tuple(names)
    return ()
