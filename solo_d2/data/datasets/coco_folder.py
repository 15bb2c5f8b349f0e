"""Find annotations and images in a folder that is laid out as COCO's datasets usually are."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from ...io.json_reader import read_json_object
from .folders import HEAD, SPLIT_NAMES, json_keys

__all__ = ["find_coco", "recognise"]


def recognise(location: Path) -> str | None:
    """Tell whether a path is such a dataset or one file of annotations, see `DataSource`."""
    if location.is_file():
        return "" if location.suffix.lower() == ".json" else None
    files = [*_json_files(location), *location.glob("*/_annotations.coco.json")]
    return "" if any(map(_is_coco, files)) else None


def find_coco(location: str | os.PathLike[str]) -> dict[str, tuple[Path, Path]]:
    """Find the annotation files of a dataset and the folders of their images.

    Known are ``annotations/instances_train2017.json`` with ``train2017/`` (COCO) or
    ``images/`` (CVAT), ``annotations/train.json`` with ``train/`` or ``images/``,
    ``train/_annotations.coco.json`` (Roboflow), ``train.json`` beside the images, and one file
    alone (Label Studio's ``result.json``).

    Args:
        location: The dataset's folder, or one annotation file.

    Returns:
        File and image folder of "train", and of "val" if there is one.

    Raises:
        ValueError: No annotations, several that could be meant, or no images that belong to them.
    """
    location = Path(location)
    if location.is_file():
        return {"train": (location, _image_folder(location, location.parent))}
    if not location.is_dir():
        raise ValueError(f"{location}: no such file or folder; name a COCO json or its folder")
    found = {}
    for split, names in SPLIT_NAMES.items():
        file = _annotations(location, names)
        if file is not None:
            found[split] = (file, _image_folder(file, location))
    if "train" not in found:
        files = sorted(filter(_is_coco, _json_files(location)))
        if len(files) != 1:
            some = ", ".join(str(file.relative_to(location)) for file in files[:5]) or "none"
            raise ValueError(
                f"{location}: expected annotations called train.json, annotations/train.json, "
                f"annotations/instances_train*.json or train/_annotations.coco.json; json files "
                f"here: {some}. Name them with --train-json and --train-images"
            )
        found["train"] = (files[0], _image_folder(files[0], location))
    return found


def _json_files(root: Path) -> Iterator[Path]:
    for folder in (root, root / "annotations"):
        yield from (file for file in sorted(folder.glob("*.json")) if file.is_file())


def _is_coco(file: Path) -> bool:
    keys = json_keys(file)
    # The categories may be long, and those alone are no dataset.
    return bool(keys & {"images", "annotations"}) or (
        "categories" in keys and file.stat().st_size > HEAD
    )


def _annotations(root: Path, names: tuple[str, ...]) -> Path | None:
    known = [*sorted(root.glob("*/_annotations.coco.json")), *_json_files(root)]
    for name in names:
        files = [file for file in known if _is_of_split(file, name)]
        if len(files) > 1:
            shown = " or ".join(str(file.relative_to(root)) for file in files)
            raise ValueError(f"{root}: {shown}? Name one with --{names[0]}-json")
        if files:
            return files[0]
    return None


def _is_of_split(file: Path, name: str) -> bool:
    """Return whether a file has the name of a split; CVAT's begin with a capital letter."""
    if file.name == "_annotations.coco.json":
        return file.parent.name.lower() == name
    stem = file.stem.lower()
    return stem == name or (
        file.parent.name == "annotations" and stem.startswith(f"instances_{name}")
    )


def _image_folder(file: Path, root: Path) -> Path:
    """Return the folder in which the first images that a file names are."""
    images = read_json_object(file).get("images")
    names = [
        entry["file_name"]
        for entry in (images if isinstance(images, list) else [])[:20]
        if isinstance(entry, dict) and isinstance(entry.get("file_name"), str)
    ]
    stem = file.stem.removeprefix("instances_")
    candidates = [
        *(root / stem, root / "images" / stem, root / stem / "images", root / "images"),
        *(file.parent, file.parent / "images", root, root.parent / stem),
    ]
    for folder in candidates:
        if names and all((folder / name.replace("\\", "/")).is_file() for name in names):
            return folder
    raise ValueError(
        f"{file}: the images that it names ({', '.join(names[:2]) or 'none'}, ...) are not beside "
        "it; name their folder with --train-json FILE --train-images DIR"
    )
