"""Find the files of datasets that have to be named: LVIS, and COCO's panoptic format."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

__all__ = ["register_lvis_folder", "register_panoptic_folder"]


def register_lvis_folder(folder: str, splits: Sequence[str]) -> dict[str, str]:
    """Register ``lvis*_train*.json`` and ``lvis*_val*.json`` beside ``train2017`` and ``val2017``.

    Raises:
        ValueError: There are no such files, or they are not usable.
    """
    from .lvis import register_lvis_json

    names = {}
    for split, file in _annotations(Path(folder), "lvis", splits).items():
        names[split] = f"own_{split}"
        register_lvis_json(names[split], file, folder)
    return names


def register_panoptic_folder(folder: str, splits: Sequence[str]) -> dict[str, str]:
    """Register ``panoptic_train2017.json`` and the like, with PNGs and images in folders.

    The PNGs lie beside the file in a folder of its name, the images in ``train2017`` (or
    ``images``) of the dataset's folder; ``instances_train2017.json`` is used where it is there.

    Raises:
        ValueError: There are no such files, or they are not usable.
    """
    from .panoptic import register_coco_panoptic

    root, names = Path(folder), {}
    for split, file in _annotations(root, "panoptic", splits).items():
        names[split] = f"own_{split}"
        part = file.stem.removeprefix("panoptic_")
        masks = _first([file.with_suffix(""), root / file.stem], "the panoptic PNGs")
        images = _first([root / part, root / "images" / part, root / "images"], "the images")
        instances = file.with_name(f"instances_{part}.json")
        given = instances if instances.is_file() else None
        register_coco_panoptic(names[split], file, masks, images, given)
    return names


def _annotations(root: Path, prefix: str, splits: Sequence[str]) -> dict[str, Path]:
    """Files of annotations by split; to train on there is that of "val", where it is alone."""
    if not root.is_dir():
        raise ValueError(f"{root}: no such folder")
    found: dict[str, Path] = {}
    for split in ("train", "val"):
        files = [*root.glob(f"{prefix}*_{split}*.json")]
        files += (root / "annotations").glob(f"{prefix}*_{split}*.json")
        if len(files) > 1:
            some = " or ".join(sorted(str(file.relative_to(root)) for file in files))
            raise ValueError(f"{root}: {some}? Leave one of them there")
        if files:
            found[split] = files[0]
    if not found:
        raise ValueError(
            f"{root}: expected {prefix}*_train*.json or {prefix}*_val*.json there or in annotations"
        )
    if "train" in splits and "train" not in found:
        return {"train": found["val"]}
    return {split: file for split, file in found.items() if split in splits}


def _first(folders: Sequence[Path], what: str) -> Path:
    for folder in folders:
        if folder.is_dir():
            return folder
    raise ValueError(f"{folders[0]}: no such folder; it should hold {what}")
