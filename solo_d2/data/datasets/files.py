"""Files that an annotation file names: below their folder, and nowhere else."""

from __future__ import annotations

import os
from typing import Any

from ...io.errors import shown

__all__ = ["find_file", "missing_files"]


def find_file(root: str, name: Any) -> str:
    """Return the path of a file that an annotation file names, relative to a folder.

    A name may be absolute if it lies in the folder, and may have backslashes for slashes. A link
    inside of the folder may lead anywhere; it is the user's own.

    Args:
        root: the folder.
        name: as in the annotation file.

    Returns:
        The path; whether there is such a file is not looked at (see `missing_files`).

    Raises:
        ValueError: with the second half of a sentence: no name, or one that leads out of `root`.
    """
    if not isinstance(name, str) or not name or "\0" in name:
        raise ValueError(f"has the file name {shown(name)}, which is none")
    path = os.path.join(root, name)
    if "\\" in name and not os.path.isfile(path):
        name = name.replace("\\", "/")
        path = os.path.join(root, name)
    if os.path.isabs(name) or ".." in name.split("/"):
        inside = os.path.join(os.path.abspath(root), "")
        if not os.path.abspath(path).startswith(inside):
            raise ValueError(
                f"has the file name {shown(name)}, which leads out of the folder {root}; give it "
                "relative to that folder"
            )
    return path


def missing_files(paths: list[str]) -> list[str]:
    """Return the paths at which there is no regular file."""
    return [path for path in paths if not os.path.isfile(path)]
