"""Checks the segmentations of many annotations at once: what each means, or why it means nothing.

No C code sees a value that was not checked here: pycocotools crashes, hangs, or makes up pixels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from pycocotools import mask as mask_util

from .forms import are_plain_polygons, read_form
from .polygons import FAR, LONGEST, Outlines, covers_pixels, measure
from .reasons import Problem, Reason
from .runs import check_rles, size_problem

__all__ = ["Segmentations", "check_segmentations", "decode_mask", "mask_box"]

_FEWEST_NUMBERS = 6  # three points


@dataclass
class Segmentations:
    """The segmentations of N annotations.

    Attributes:
        kept: for Detectron2: polygons (lists of numbers) or a compressed RLE that decodes to its
            image; None where there is a problem. What needed no change is the list or dict that
            came in.
        problems: by index, what is wrong.
        changed: indices of those that were brought to another form, or lost a part.
        extents: float (N, 4), smallest and largest x and y (XYXY) of polygons; NaN for an RLE.
    """

    kept: list[Any]
    problems: dict[int, Problem] = field(default_factory=dict)
    changed: set[int] = field(default_factory=set)
    extents: np.ndarray = field(default_factory=lambda: np.zeros((0, 4)))


def check_segmentations(
    segmentations: Sequence[Any], sizes: Sequence[tuple[int, int]]
) -> Segmentations:
    """Check segmentations as they are found in annotations.

    Args:
        segmentations: in any form that `read_form` knows.
        sizes: (height, width) of their images.

    Returns:
        What can be used, and what is wrong with the rest.
    """
    result = Segmentations([None] * len(segmentations))
    result.extents = np.full((len(segmentations), 4), np.nan)
    polygons, rles = _by_form(result, segmentations)
    _check_rles(result, rles, sizes)
    _check_polygons(result, polygons, sizes)
    return result


def mask_box(segmentation: Any, size: tuple[int, int]) -> list[float]:
    """Box XYWH of a checked segmentation: the extent of its polygons in the image, or of an RLE."""
    if isinstance(segmentation, dict):
        return [float(v) for v in mask_util.toBbox(segmentation)]
    outlines = measure(segmentation)
    low = np.clip(outlines.low.min(0), 0, size[::-1])
    high = np.clip(outlines.high.max(0), 0, size[::-1])
    return [*low.tolist(), *(high - low).tolist()]


def decode_mask(mask: Any, size: tuple[int, int]) -> np.ndarray:
    """Return a checked segmentation, or an array, as booleans (H, W); of polygons in `size`."""
    if isinstance(mask, list):
        mask = mask_util.merge(mask_util.frPyObjects(mask, *size)) if mask else np.zeros(size)
    return (mask_util.decode(mask) if isinstance(mask, Mapping) else np.asarray(mask)) != 0


def _by_form(
    result: Segmentations, segmentations: Sequence[Any]
) -> tuple[dict[int, list[Any]], dict[int, list[Any]]]:
    """Polygons and RLEs by index, in order; other forms are brought to these."""
    lists = [i for i, value in enumerate(segmentations) if type(value) is list]
    if not are_plain_polygons([segmentations[i] for i in lists]):
        lists = [i for i in lists if are_plain_polygons([segmentations[i]])]
    polygons = {i: segmentations[i] for i in lists}
    rles = {
        i: [value]
        for i, value in enumerate(segmentations)
        if type(value) is dict and "size" in value and "counts" in value
    }
    for i in sorted(set(range(len(segmentations))) - polygons.keys() - rles.keys()):
        if segmentations[i] is None:
            text = "it has no 'segmentation'; SOLO learns from masks, not from boxes"
            result.problems[i] = Problem(Reason.BARE, text)
            continue
        try:
            parts: list[Any] = read_form(segmentations[i])
        except ValueError as error:
            result.problems[i] = Problem(Reason.FORM, str(error))
            continue
        result.changed.add(i)
        (rles if parts and isinstance(parts[0], dict) else polygons)[i] = parts
    return dict(sorted(polygons.items())), rles


def _check_rles(
    result: Segmentations,
    rles: dict[int, list[dict[str, Any]]],
    sizes: Sequence[tuple[int, int]],
) -> None:
    owners = [i for i, parts in rles.items() for _ in parts]
    given = [part for parts in rles.values() for part in parts]
    usable: dict[int, list[dict[str, Any]]] = {i: [] for i in rles}
    checked = check_rles(given, [sizes[i] for i in owners])
    for i, before, after in zip(owners, given, checked, strict=True):
        if isinstance(after, str):
            reason = Reason.SIZE if size_problem(before["size"], sizes[i]) else Reason.RLE
            result.problems.setdefault(i, Problem(reason, after))
        elif after is not None:
            usable[i].append(after)
            if after is not before:
                result.changed.add(i)
    for i, parts in usable.items():
        if i in result.problems:
            continue
        if not parts:
            result.problems[i] = Problem(Reason.NOTHING, "its RLE has no pixel")
        else:
            result.kept[i] = parts[0] if len(parts) == 1 else mask_util.merge(parts)


def _check_polygons(
    result: Segmentations, polygons: dict[int, list[Any]], sizes: Sequence[tuple[int, int]]
) -> None:
    """Fill in what becomes of polygons; `polygons` are those of annotation i."""
    owners, parts = _usable_parts(result, polygons)
    outlines = measure(parts)
    owner = np.array(owners, np.int64)
    bad = _impossible(result, outlines, owner, sizes)
    empty = ~outlines.finite | (outlines.area == 0)
    for k in np.flatnonzero(empty & outlines.finite & ~bad).tolist():
        empty[k] = not covers_pixels(parts[k], sizes[owners[k]])
    result.changed.update(owner[empty].tolist())
    used = ~empty & ~bad
    kept: dict[int, list[Any]] = {i: [] for i in polygons}
    for k in np.flatnonzero(used).tolist():
        kept[owners[k]].append(parts[k])
    _place(result, outlines, owner, used)
    misplaced = _misplaced(result.extents, np.array(sizes, np.float64).reshape(-1, 2)).tolist()
    for i, own in kept.items():
        if i in result.problems:
            continue
        if not own:
            result.problems[i] = Problem(Reason.NOTHING, "its segmentation covers nothing")
        elif misplaced[i]:
            result.problems[i] = _why_misplaced(result.extents[i], sizes[i])
        else:
            result.kept[i] = polygons[i] if len(own) == len(polygons[i]) else own


def _usable_parts(
    result: Segmentations, polygons: dict[int, list[Any]]
) -> tuple[list[int], list[list[float]]]:
    """Polygons of three points and more, and the annotation of each."""
    owners, parts = [], []
    for i, own in polygons.items():
        for part in own:
            if len(part) < _FEWEST_NUMBERS:
                result.changed.add(i)
            elif len(part) % 2:
                text = f"its polygon has {len(part)} coordinates, an odd number"
                result.problems.setdefault(i, Problem(Reason.ODD, text))
            else:
                owners.append(i)
                parts.append(part)
    return owners, parts


def _impossible(
    result: Segmentations,
    outlines: Outlines,
    owner: np.ndarray,
    sizes: Sequence[tuple[int, int]],
) -> np.ndarray:
    """Which polygons must not be drawn; notes the problem of their annotations."""
    longer_sides = np.array([max(size) for size in sizes], np.float64)
    side = longer_sides[owner][:, None]
    far = ((outlines.low < -FAR * side) | (outlines.high > (FAR + 1) * side)).any(1)
    long = outlines.length > LONGEST
    bad = outlines.finite & (far | long)
    for k in np.flatnonzero(bad).tolist():
        low, high = outlines.low[k].tolist(), outlines.high[k].tolist()
        height, width = sizes[owner[k]]
        text = (
            f"its polygon spans x {low[0]:g} to {high[0]:g} and y {low[1]:g} to {high[1]:g}, far "
            f"outside of its image of {width}x{height} pixels"
            if far[k]
            else f"its polygon has an outline of {outlines.length[k]:g} pixels"
        )
        result.problems.setdefault(int(owner[k]), Problem(Reason.FAR, text))
    return bad


def _place(result: Segmentations, outlines: Outlines, owner: np.ndarray, used: np.ndarray) -> None:
    """Fill in the extents of annotations from those of their polygons."""
    owner, low, high = owner[used], outlines.low[used], outlines.high[used]
    if owner.size:
        first = np.flatnonzero(np.diff(owner, prepend=-1))
        result.extents[owner[first], :2] = np.minimum.reduceat(low, first, axis=0)
        result.extents[owner[first], 2:] = np.maximum.reduceat(high, first, axis=0)


def _misplaced(extents: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """Which extents lie outside of their image, or are shares of its size."""
    x0, y0, x1, y1 = extents.T
    height, width = sizes.T
    outside = (x1 <= 0) | (y1 <= 0) | (x0 >= width) | (y0 >= height)
    shares = (np.maximum(x1, y1) <= 1) & (np.minimum(x0, y0) >= 0) & (height * width > 1)
    return outside | shares


def _why_misplaced(extent: np.ndarray, size: tuple[int, int]) -> Problem:
    x0, y0, x1, y1 = extent.tolist()
    height, width = size
    span = f"x {x0:g} to {x1:g}, y {y0:g} to {y1:g}"
    if max(x1, y1) <= 1 and min(x0, y0) >= 0:
        text = f"its coordinates ({span}) are shares of the image's size where COCO has pixels"
        return Problem(Reason.SHARES, text)
    turned = 0 < x1 <= height and 0 < y1 <= width
    hint = "; are x and y, or height and width, exchanged?" if turned else ""
    text = f"its polygons ({span}) lie outside of its image of {width}x{height} pixels{hint}"
    return Problem(Reason.OUTSIDE, text)
