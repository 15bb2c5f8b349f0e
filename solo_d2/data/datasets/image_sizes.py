"""Compares the sizes in an annotation file with those of the images themselves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ...io.errors import shown
from ...io.image import ImageError, read_image, read_size

__all__ = ["check_sizes", "size_mismatch"]

_SAMPLE = 100
"""Headers that are read of every file, and as many again of images of whose size there is doubt:
a header costs as much as a hundred annotations, and a wrong exporter is wrong everywhere. The
size of every image is checked when it is used."""


def check_sizes(
    path: Path, records: Mapping[Any, dict[str, Any]], suspicious: Sequence[Any]
) -> None:
    """Compare the sizes of some images with the file's.

    Args:
        path: of the annotation file.
        records: Detectron2's, by image id.
        suspicious: ids of images to look at besides a sample of all.

    Raises:
        ValueError: another size; with the image and how many are like it.
    """
    step = -(-len(records) // _SAMPLE)
    chosen = dict.fromkeys([*suspicious[:_SAMPLE], *list(records)[:: max(step, 1)]])
    wrong = [key for key in chosen if _differs(records[key])]
    if wrong:
        record = records[wrong[0]]
        raise ValueError(
            f"{path}: the image {shown(wrong[0])}: {size_mismatch(record)} ({len(wrong)} of "
            f"{len(chosen)} images that were looked at)"
        )


def _differs(record: Mapping[str, Any]) -> bool:
    """Return whether an image has another size; one that cannot be read is told when it is used."""
    stated = (record["height"], record["width"])
    try:
        if read_size(record["file_name"]) == stated:
            return False
        # Of some files the header alone does not tell whether the image is to be turned.
        return read_image(record["file_name"]).shape[:2] != stated
    except ImageError:
        return False


def size_mismatch(record: Mapping[str, Any], size: tuple[int, int] | None = None) -> str:
    """Return a sentence about an image that has not the size that its record says.

    Args:
        record: Detectron2's.
        size: (height, width) of the image; by default that of its header.
    """
    height, width = size or read_size(record["file_name"])
    stated = f"{record['width']}x{record['height']}"
    hint = "correct the annotation file"
    if (width, height) == (record["height"], record["width"]):
        hint = (
            "width and height are exchanged, or the annotations are of the image before its EXIF "
            "orientation turns it"
        )
    return (
        f"{record['file_name']} has {width}x{height} pixels, its annotations say {stated}; {hint}"
    )
