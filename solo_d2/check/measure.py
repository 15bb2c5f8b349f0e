"""Measure all objects of a dataset by their annotations; no image is opened."""

from __future__ import annotations

import multiprocessing
import os
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from ..io.paths import printable
from ..io.segmentation import check_segmentations, encode_mask, measure_masks, to_rle

__all__ = ["Objects", "measure_objects", "sizes_of"]

_CHUNK = 500
"""Images that a process measures at a time."""

_BOX_MODES = (0, 1)
"""Detectron2's `BoxMode` XYXY_ABS and XYWH_ABS; other boxes are not compared."""


@dataclass(frozen=True)
class Objects:
    """The I objects of N images as they are stored; lengths in pixels of the images.

    Attributes:
        sizes: (height, width) of the images (N, 2).
        images: index of each object's image (I,), ascending.
        classes: (I,).
        areas: (I,).
        boxes: XYXY of the masks, right and bottom edge exclusive (I, 4).
        centers: centre of mass x, y, pixels counted from 0 (I, 2).
        stated: XYXY boxes of the annotations (I, 4), NaN where there is none.
        digests: equal for equal masks (I,).
        crowds: number of annotations that are crowds; they are no objects.
        problems: what is wrong with each annotation that has no usable mask.
    """

    sizes: np.ndarray
    images: np.ndarray
    classes: np.ndarray
    areas: np.ndarray
    boxes: np.ndarray
    centers: np.ndarray
    stated: np.ndarray
    digests: np.ndarray
    crowds: int
    problems: list[str]

    def __len__(self) -> int:
        return len(self.images)

    @property
    def per_image(self) -> np.ndarray:
        """Number of objects of every image (N,)."""
        return np.bincount(self.images, minlength=len(self.sizes))

    def of_images(self, chosen: np.ndarray) -> Objects:
        """Return the objects of some images (M,), ascending, which are counted anew."""
        place = np.full(len(self.sizes), -1)
        place[chosen] = np.arange(len(chosen))
        kept = place[self.images] >= 0
        arrays = {name: getattr(self, name)[kept] for name in _ARRAYS}
        arrays["images"] = place[arrays["images"]]
        return Objects(self.sizes[chosen], **arrays, crowds=self.crowds, problems=self.problems)


_ARRAYS = [x.name for x in fields(Objects) if x.name not in ("sizes", "crowds", "problems")]


def sizes_of(records: Sequence[Mapping[str, Any]]) -> np.ndarray:
    """Return (height, width) of the images of records (N, 2).

    Raises:
        ValueError: one has none.
    """
    try:
        sizes = [(int(x["height"]), int(x["width"])) for x in records]
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError("a record of the dataset lacks 'height' or 'width' in pixels") from error
    return np.array(sizes, np.int64).reshape(-1, 2)


def measure_objects(
    records: Sequence[Mapping[str, Any]],
    *,
    workers: int | None = None,
    step: Callable[[int], None] = lambda _: None,
) -> Objects:
    """Measure the objects of Detectron2's records.

    Args:
        records: of a registered dataset, one per image; not changed.
        workers: processes; by default one per CPU where there are many images.
        step: called with the number of images that were measured since its last call.

    Raises:
        ValueError: a record without the size of its image.
    """
    sizes = sizes_of(records)
    chunks = (
        _Chunk(start, sizes[start : start + _CHUNK], records[start : start + _CHUNK])
        for start in range(0, len(records), _CHUNK)
    )
    if workers is None:
        workers = min(os.cpu_count() or 1, len(records) // (4 * _CHUNK))
    parts = []
    for part in _in_processes(map(_lean, chunks), workers):
        parts.append(part)
        step(min(_CHUNK, len(records) - (len(parts) - 1) * _CHUNK))
    parts = parts or [_measure([])]
    arrays = {name: np.concatenate([getattr(part, name) for part in parts]) for name in _ARRAYS}
    return Objects(
        sizes=sizes,
        **arrays,
        crowds=sum(part.crowds for part in parts),
        problems=[text for part in parts for text in part.problems],
    )


@dataclass(frozen=True)
class _Chunk:
    start: int
    sizes: np.ndarray
    records: Sequence[Mapping[str, Any]]


_Lean = tuple[int, tuple[int, int], str, list[tuple[Any, Any, Any, Any]], int]
"""Image index, its size, its name, (segmentation, class, box, box mode) of objects, crowds."""


def _lean(chunk: _Chunk) -> list[_Lean]:
    """What measuring needs, and no more: it is sent to a process."""
    found = []
    for i, (size, record) in enumerate(zip(chunk.sizes.tolist(), chunk.records, strict=True)):
        annotations = record.get("annotations") or []
        objects = [
            (x.get("segmentation"), x.get("category_id"), x.get("bbox"), x.get("bbox_mode"))
            for x in annotations
            if x.get("iscrowd") in (None, 0, "0", "")
        ]
        name = str(record.get("file_name"))
        crowds = len(annotations) - len(objects)
        found.append((chunk.start + i, (size[0], size[1]), name, objects, crowds))
    return found


def _in_processes(chunks: Iterable[list[_Lean]], workers: int) -> Iterator[Objects]:
    if workers < 2:
        yield from map(_measure, chunks)
        return
    # Forked processes do not import anything again, and send the results in order.
    method = "fork" if "fork" in multiprocessing.get_all_start_methods() else "spawn"
    with multiprocessing.get_context(method).Pool(workers) as pool:
        yield from pool.imap(_measure, chunks)


def _measure(images: list[_Lean]) -> Objects:
    """Measure some images; the sizes are left to the caller."""
    rows = [(i, size, name, x) for i, size, name, objects, _ in images for x in objects]
    sizes = [size for _, size, _, _ in rows]
    checked = check_segmentations([_as_rle(x[0]) for _, _, _, x in rows], sizes)
    masks, kept = [], []
    for k, (mask, size) in enumerate(zip(checked.kept, sizes, strict=True)):
        if mask is not None:
            masks.append(to_rle(mask, size))
            kept.append(k)
    measures = measure_masks(masks)
    used = [rows[k] for k in kept]
    return Objects(
        sizes=np.zeros((0, 2), np.int64),
        images=np.array([i for i, *_ in used], np.int64),
        classes=np.array([x[1] for *_, x in used], np.int64),
        areas=measures.areas,
        boxes=measures.boxes,
        centers=measures.centers,
        stated=_boxes([(x[2], x[3]) for *_, x in used]),
        digests=np.array([zlib.crc32(mask["counts"].encode()) for mask in masks], np.int64),
        crowds=sum(crowds for *_, crowds in images),
        problems=[
            f"{printable(os.path.basename(rows[k][2]))}: {problem.text}"
            for k, problem in checked.problems.items()
        ],
    )


def _as_rle(mask: Any) -> Any:
    return encode_mask(mask != 0) if isinstance(mask, np.ndarray) and mask.ndim == 2 else mask


def _boxes(given: list[tuple[Any, Any]]) -> np.ndarray:
    """Boxes of annotations as XYXY (I, 4); NaN for what is no box."""
    boxes = np.full((len(given), 4), np.nan)
    modes = np.array([-1 if mode is None else int(mode) for _, mode in given], np.int64)
    for i, (box, mode) in enumerate(given):
        if mode in _BOX_MODES and box is not None and len(box) == 4:
            boxes[i] = box
    boxes[modes == 1, 2:] += boxes[modes == 1, :2]
    return boxes
