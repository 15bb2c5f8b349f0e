"""What the commands share: finding images, trailing config overrides, names of outputs."""

from __future__ import annotations

from os import PathLike

from ..config import split_overrides
from .class_names import read_class_names
from .inputs import find_images
from .outputs import output_paths

__all__ = ["find_images", "load_class_names", "load_stuff_names", "output_paths", "split_overrides"]


def load_class_names(path: str | PathLike[str]) -> list[str]:
    """Return the names of things, see `read_class_names`."""
    return list(read_class_names(path).things)


def load_stuff_names(path: str | PathLike[str]) -> list[str] | None:
    """Return the names of stuff, from label 0 ("things") on, or None if the file has none."""
    return list(read_class_names(path).stuff) or None
