"""The forms in which tools write a segmentation, brought to the two that COCO has."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from typing import Any

import numpy as np

from ..errors import shown

__all__ = ["are_plain_polygons", "read_form"]

_NUMBERS = {int, float}
_DEEPEST = 4
"""Lists within lists that are looked through; COCO has two."""


def are_plain_polygons(segmentations: Sequence[list[Any]]) -> bool:
    """Return whether all are lists of lists of numbers, none of them a point, as COCO has them."""
    parts = list(chain.from_iterable(segmentations))
    if not set(map(type, parts)) <= {list} or {2, 3} & set(map(len, parts)):
        return False
    return set(map(type, chain.from_iterable(parts))) <= _NUMBERS


def read_form(segmentation: Any) -> list[list[float]] | list[dict[str, Any]]:
    """Return the polygons or the run-length encodings that a segmentation stands for.

    Read are, besides COCO's forms: one flat list of coordinates, points as pairs or as objects
    with "x" and "y", levels of lists too many, encodings in a list, and arrays.

    Args:
        segmentation: of an annotation.

    Returns:
        Flat polygons x, y, x, y, ..., or dicts with "size" and "counts", whose union is meant.

    Raises:
        ValueError: with the second half of a sentence: a form without one meaning.
    """
    parts = _parts(segmentation, _DEEPEST)
    kinds = set(map(type, parts))
    if len(kinds) > 1:
        raise ValueError(f"its segmentation mixes polygons and RLE: {shown(segmentation)}")
    return parts


def _parts(value: Any, depth: int) -> list[Any]:
    if isinstance(value, np.ndarray):
        value = value.tolist()
    if isinstance(value, dict):
        if not {"size", "counts"} <= value.keys():
            raise ValueError(
                f"its segmentation cannot be read: {shown(value)}; an RLE has 'size' and 'counts'"
            )
        return [value]
    if not isinstance(value, (list, tuple)):
        raise ValueError(f"its segmentation is a {type(value).__name__}: {shown(value)}")
    if all(_is_number(x) for x in value):
        return [list(value)] if len(value) else []
    points = [_point(x) for x in value]
    if all(points):
        return [list(chain.from_iterable(points))]  # type: ignore[arg-type]
    if len(value) > 2 and all(isinstance(x, (list, tuple)) and len(x) == 3 for x in value):
        raise ValueError(f"its segmentation has points of three numbers: {shown(value)}")
    wrong = [x for x in value if not isinstance(x, (list, tuple, dict, np.ndarray))]
    if wrong:
        raise ValueError(
            f"its segmentation has {shown(wrong[0])} where a polygon is expected: {shown(value)}"
        )
    if not depth:
        raise ValueError(f"its segmentation has lists too deep within lists: {shown(value)}")
    return list(chain.from_iterable(_parts(x, depth - 1) for x in value))


def _point(value: Any) -> tuple[float, float] | None:
    """(x, y) of a pair or an object; None for anything else."""
    if isinstance(value, dict) and value.keys() == {"x", "y"}:
        value = [value["x"], value["y"]]
    if not isinstance(value, (list, tuple, np.ndarray)) or len(value) != 2:
        return None
    x, y = value
    return (x, y) if _is_number(x) and _is_number(y) else None


def _is_number(value: Any) -> bool:
    return type(value) in _NUMBERS or isinstance(value, (np.integer, np.floating))
