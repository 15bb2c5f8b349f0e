"""What the commands share: finding pictures, trailing config overrides, names of outputs."""

from __future__ import annotations

import json
from os import PathLike
from pathlib import Path

from ..config import split_overrides
from .inputs import find_images
from .outputs import output_paths

__all__ = ["find_images", "load_class_names", "load_stuff_names", "output_paths", "split_overrides"]


def load_class_names(path: str | PathLike[str]) -> list[str]:
    """Read class names in the order of the labels.

    Args:
        path: A COCO JSON file (its `categories` by id, as Detectron2 orders them, and those of
            things alone in a panoptic file), or a text file with one name per line.

    Raises:
        ValueError: The file cannot be read, or has no names.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
        if Path(path).suffix.lower() == ".json":
            categories = sorted(json.loads(text)["categories"], key=lambda entry: entry["id"])
            names = [str(entry["name"]) for entry in categories if entry.get("isthing", 1)]
        else:
            names = [line.strip() for line in text.splitlines() if line.strip()]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"{path}: no class names can be read ({type(error).__name__}: {error}). Expected a "
            "COCO JSON file with categories, or a text file with one name per line."
        ) from error
    if not names:
        raise ValueError(f"{path}: has no class names.")
    return names


def load_stuff_names(path: str | PathLike[str]) -> list[str] | None:
    """Read the names of stuff, from label 0 ("things") on.

    Args:
        path: As for `load_class_names`, which has read it without an error.

    Returns:
        The names, or None if it is no COCO-panoptic file.
    """
    if Path(path).suffix.lower() != ".json":
        return None
    categories = json.loads(Path(path).read_text(encoding="utf-8"))["categories"]
    stuff = [entry for entry in categories if not entry.get("isthing", 1)]
    if not stuff:
        return None
    return ["things", *(str(x["name"]) for x in sorted(stuff, key=lambda entry: entry["id"]))]
