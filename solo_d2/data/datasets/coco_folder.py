"""Find annotations and images in a folder that is laid out as COCO's datasets usually are."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from ...io.json_reader import read_json_object
from .folders import HEAD, SPLIT_NAMES, choose_splits, json_keys

__all__ = ["find_coco", "recognise"]


def recognise(location: Path) -> str | None:
    """Tell whether a path is such a dataset or one file of annotations, see `DataSource`."""
    if location.is_file():
        return "" if location.suffix.lower() == ".json" else None
    files = [*_json_files(location), *location.glob("*/_annotations.coco.json")]
    return "" if any(map(_is_coco, files)) else None


def find_coco(
    location: str | os.PathLike[str], splits: Sequence[str] = ("train", "val")
) -> dict[str, tuple[Path, Path]]:
    """Find the annotation files of a dataset and the folders of their images.

    Known are ``annotations/instances_train2017.json`` with ``train2017/`` (COCO) or
    ``images/`` (CVAT), ``annotations/train.json`` with ``train/`` or ``images/``,
    ``train/_annotations.coco.json`` (Roboflow), ``train.json`` beside the images, and one file
    alone (Label Studio's ``result.json``).

    Args:
        location: The dataset's folder, or one annotation file.
        splits: Wanted; what belongs to others may be missing.

    Returns:
        File and image folder of those of `splits` that there are, see `choose_splits`.

    Raises:
        ValueError: No annotations, several that could be meant, or no images that belong to them.
    """
    location = Path(location)
    if location.is_file():
        files, root = {"train": location}, location.parent
    elif location.is_dir():
        known = {split: _annotations(location, names) for split, names in SPLIT_NAMES.items()}
        files, root = {split: file for split, file in known.items() if file}, location
        if "train" not in files and ("train" in splits or not files):
            files |= _only_file(location, files)
    else:
        raise ValueError(f"{location}: no such file or folder; name a COCO json or its folder")
    chosen = choose_splits(splits, files)
    return {split: (file, _image_folder(file, root)) for split, file in chosen.items()}


def _only_file(root: Path, known: Mapping[str, Path]) -> dict[str, Path]:
    """The only file of annotations as "train", unless it is that of a known split."""
    files = sorted(filter(_is_coco, _json_files(root)))
    if known and set(files) <= set(known.values()):
        return {}
    if len(files) != 1:
        some = ", ".join(str(file.relative_to(root)) for file in files[:5]) or "none"
        raise ValueError(
            f"{root}: expected annotations called train.json, annotations/train.json, "
            f"annotations/instances_train*.json or train/_annotations.coco.json; json files "
            f"here: {some}. Name them with --train-json and --train-images"
        )
    return {"train": files[0]}


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
