"""What the commands share: finding pictures, trailing config overrides, names of outputs."""

from __future__ import annotations

import glob
import json
from collections.abc import Iterable, Sequence
from os import PathLike
from pathlib import Path

from ..config import split_overrides
from ..io.image import IMAGE_EXTENSIONS

__all__ = ["find_images", "load_class_names", "load_stuff_names", "output_paths", "split_overrides"]


def find_images(patterns: Iterable[str]) -> tuple[list[Path], list[str]]:
    """Expand files, folders and globs to files.

    A folder stands for the pictures directly in it (by file name extension), a glob for the files
    that match it ("**" for all depths), both sorted. A file is taken whatever its name.

    Args:
        patterns: Paths or globs.

    Returns:
        The files, each once, in the order of the patterns; and one line for every pattern that
        stands for nothing.
    """
    found: dict[Path, None] = {}
    problems = []
    for pattern in patterns:
        path = Path(pattern)
        if path.is_file():  # first: a file name may contain the special characters of globs
            files = [path]
        elif path.is_dir():
            files = sorted(p for p in path.iterdir() if p.suffix.lower() in IMAGE_EXTENSIONS)
            if not files:
                problems.append(f"{pattern}: no picture in this folder ({_extensions()}).")
        else:
            files = sorted(map(Path, glob.glob(pattern, recursive=True)))
            files = [file for file in files if file.is_file()]
            if not files:
                problems.append(f"{pattern}: no such file, and no file matches it.")
        found.update(dict.fromkeys(files))
    return list(found), problems


def _extensions() -> str:
    return " ".join(extension[1:] for extension in IMAGE_EXTENSIONS)


def output_paths(images: Sequence[Path], output: Path) -> list[Path]:
    """Files to draw on, one for each picture, none twice.

    Args:
        images: The pictures.
        output: A folder; or, for one picture, a file (a name with a picture's extension that is
            no existing folder).

    Returns:
        `output/NAME.EXT` for each picture: its own name, as .jpg or .png. Equal names get a number.

    Raises:
        ValueError: A picture would be drawn over an input.
    """
    paths = _names(images, output)
    inputs = {image.resolve() for image in images}
    for path in paths:
        if path.resolve() in inputs:
            raise ValueError(f"{path}: is an input, drawing would replace it. Name another output.")
    return paths


def _names(images: Sequence[Path], output: Path) -> list[Path]:
    if len(images) == 1 and output.suffix.lower() in IMAGE_EXTENSIONS and not output.is_dir():
        return [output]
    taken: set[str] = set()
    paths = []
    for image in images:
        extension = ".jpg" if image.suffix.lower() in (".jpg", ".jpeg") else ".png"
        name, number = f"{image.stem}{extension}", 2
        while name.lower() in taken:
            name, number = f"{image.stem}_{number}{extension}", number + 1
        taken.add(name.lower())
        paths.append(output / name)
    return paths


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
