"""The key "alpha" of annotations: finds and checks matte files when a dataset is read."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from ...io.errors import shown
from ...io.image import ImageError, open_image
from ...io.paths import printable
from .entries import whole_number
from .files import find_file

__all__ = ["resolve_alpha"]


def resolve_alpha(alpha: Any, json_file: Path, size: tuple[int, int]) -> dict[str, Any]:
    """Make an annotation's matte file absolute, and check that the file fits its image.

    Only the head of the file is read: its size is checked here, its pixels when it is used.

    Args:
        alpha: "file_name", relative to the folder above that of `json_file` or to that folder
            itself, and "offset" [x, y] in pixels of the image where the file holds a crop.
        json_file: the annotations.
        size: (height, width) of the image.

    Returns:
        The same with an absolute "file_name".

    Raises:
        ValueError: with the second half of a sentence about the annotation.
    """
    if not isinstance(alpha, dict) or not isinstance(alpha.get("file_name"), str):
        raise ValueError(f"its 'alpha' should be {{'file_name': ...}}, got {shown(alpha)}")
    file = _find(json_file.resolve().parent, alpha["file_name"])
    try:
        with open_image(file) as opened:
            width, height = opened.size
    except ImageError as error:
        raise ValueError(f"its matte {file} is not a readable image ({error.reason})") from error
    resolved = {**alpha, "file_name": file}
    if "offset" not in alpha:
        if (height, width) != size:
            raise ValueError(
                f"its matte {file} has {width}x{height} pixels, its image {size[1]}x{size[0]}; "
                "give the place of a crop as 'offset': [x, y]"
            )
        return resolved
    x, y = resolved["offset"] = _offset(alpha["offset"], file)
    if min(x, y) < 0 or x + width > size[1] or y + height > size[0]:
        raise ValueError(
            f"its matte {file} of {width}x{height} pixels at ({x}, {y}) does not lie inside of its "
            f"image of {size[1]}x{size[0]}"
        )
    return resolved


def _find(folder: Path, name: str) -> str:
    """A matte file by its name relative to the folder above that of the annotations, or to that."""
    top = str(folder.parent)
    try:
        candidates = [find_file(top, name), find_file(top, os.path.join(folder.name, name))]
    except ValueError as error:
        raise ValueError(f"its matte {error}") from error
    file = next((path for path in candidates if os.path.isfile(path)), None)
    if file is None:
        raise ValueError(
            f"its matte {printable(candidates[0][:400])} does not exist; file names are taken "
            "relative to the folder above that of the annotations, or to that folder"
        )
    return file


def _offset(offset: Any, file: str) -> tuple[int, int]:
    numbers = [whole_number(value) for value in offset] if isinstance(offset, list) else []
    if len(numbers) != 2 or numbers[0] is None or numbers[1] is None:
        raise ValueError(f"the offset of its matte {file} should be [x, y], got {shown(offset)}")
    return numbers[0], numbers[1]
