"""Kinds of datasets that commands take. One entry in a table makes a format usable everywhere.

Reading what an entry needs is left to its functions, so that the tables cost nothing to import.
"""

from __future__ import annotations

import difflib
import importlib
import os
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..io.paths import printable

__all__ = [
    "DATA_SOURCES",
    "JSON_FORMATS",
    "SPLITS",
    "DataSource",
    "recognise",
    "register_folder",
    "split_location",
]

SPLITS = ("train", "val")

RegisterFolder = Callable[[str, Sequence[str]], Mapping[str, str]]


@dataclass(frozen=True)
class DataSource:
    """A kind of dataset that lies in one folder.

    Attributes:
        contents: What the folder is, for ``--help``.
        register: Called with the folder and the splits wanted, of "train" and "val". Registers
            each with Detectron2, with an ``evaluator_type`` in its metadata, and returns the
            registered names by split; one may be missing where there is none. Registering the
            same folder again must do nothing. Raises `ValueError` for a folder that it cannot use.
        panoptic: The same for panoptic models; None if the format has no stuff.
        flag: Give commands an option with the kind's name, ``--KIND DIR``; every kind can be
            named by ``--data KIND:DIR``.
        recognise: Called with an existing path, at which it takes a quick look. Returns None if
            nothing speaks for this kind, "" for such a dataset, and for half of one what is
            missing, as the second half of a sentence. None for a kind that has to be named.

    Example:
        >>> DATA_SOURCES["stamps"].contents
        'a stamps dataset of solo_d2.data.scenes'
    """

    contents: str
    register: RegisterFolder
    panoptic: RegisterFolder | None = None
    flag: bool = False
    recognise: Callable[[Path], str | None] | None = None


def _scenes(prefix: str, kind: str, *, panoptic: bool = False) -> RegisterFolder:
    """Return the registration of scenes that `solo_d2.data.scenes` has built."""

    def register(folder: str, splits: Sequence[str]) -> dict[str, str]:
        from .scenes.register import register_built, register_built_panoptic

        if panoptic:
            names = register_built_panoptic(folder, prefix, kind=kind)
        else:
            names = register_built(folder, prefix, kind=kind, matting=prefix == "matting")
        return {split: name for split, name in zip(SPLITS, names, strict=True) if split in splits}

    return register


def _composed(*, panoptic: bool = False, matting: bool = False) -> RegisterFolder:
    """Return the registration of scenes that are composed in training."""

    def register(folder: str, splits: Sequence[str]) -> dict[str, str]:
        from .scenes.register_composed import register_composed

        return register_composed(folder, splits, panoptic=panoptic, matting=matting)

    return register


def _cityscapes(folder: str, splits: Sequence[str]) -> dict[str, str]:
    from .datasets.cityscapes import register_cityscapes

    return dict(zip(splits, register_cityscapes(folder, tuple(splits)), strict=True))


def _coco_folder(folder: str, splits: Sequence[str]) -> dict[str, str]:
    from .datasets.coco_folder import find_coco

    names = {}
    for split, files in find_coco(folder, splits).items():
        names[split] = f"own_{split}"
        _coco(names[split], *map(str, files))
    return names


def _named(function: str) -> RegisterFolder:
    """Return a function of `datasets.named`, which is imported when it is called."""
    return lambda folder, splits: getattr(_datasets("named"), function)(folder, splits)


def _look(module: str) -> Callable[[Path], str | None]:
    """Return a function that calls `recognise` of a module, which it imports then."""
    return lambda path: _datasets(module).recognise(path)


def _datasets(module: str) -> Any:
    return importlib.import_module(f".datasets.{module}", __package__)


def _format(kind: str, contents: str) -> DataSource:
    """Return a kind whose module in `datasets` has the functions `find` and `recognise`."""

    def register(folder: str, splits: Sequence[str]) -> dict[str, str]:
        root = Path(os.path.abspath(folder))
        if not root.exists():
            raise ValueError(f"{root}: no such folder; it should be {contents}")
        readers = _datasets(kind).find(root)
        names: dict[str, str] = _datasets("folders").register_splits(kind, root, splits, readers)
        return names

    return DataSource(contents, register, recognise=_look(kind))


DATA_SOURCES: dict[str, DataSource] = {
    "coco": DataSource(
        "COCO json, or a folder with such files and images",
        _coco_folder,
        recognise=_look("coco_folder"),
    ),
    "labelme": _format("labelme", "a folder with a json file of LabelMe for each image"),
    "yolo": _format("yolo", "data.yaml of YOLO, or a folder with it and files of polygons"),
    "voc": _format("voc", "a folder with VOC's JPEGImages, SegmentationObject, SegmentationClass"),
    "masks": _format("masks", "a folder with images and with masks whose values number objects"),
    "lvis": DataSource(
        "a folder with lvis_v1_train.json, lvis_v1_val.json and COCO's images",
        _named("register_lvis_folder"),
    ),
    "panoptic": DataSource(
        "a folder with annotations/panoptic_train2017.json, its PNGs and images",
        _named("register_panoptic_folder"),
        panoptic=_named("register_panoptic_folder"),
    ),
    "stamps": DataSource(
        "a stamps dataset of solo_d2.data.scenes",
        _scenes("stamps", "stamps"),
        panoptic=_scenes("stamps", "stamps", panoptic=True),
        flag=True,
    ),
    "shapes": DataSource(
        "a shapes dataset of solo_d2.data.scenes", _scenes("shapes", "shapes"), flag=True
    ),
    "cityscapes": DataSource(
        "folder with leftImg8bit and gtFine",
        _cityscapes,
        flag=True,
        recognise=_look("cityscapes"),
    ),
    "matting": DataSource(
        "an rgba or stamps dataset of solo_d2.data.scenes; evaluates mattes, too",
        _scenes("matting", "rgba"),
        flag=True,
        recognise=lambda path: _datasets("folders").recognise_cutouts(path),
    ),
    "composed": DataSource(
        "a dataset of solo_d2.data.scenes; training images are composed anew in every epoch",
        _composed(),
        panoptic=_composed(panoptic=True),
        flag=True,
    ),
    "composed_matting": DataSource("the same; evaluates mattes, too", _composed(matting=True)),
}
"""Datasets in one folder, by kind. Other code adds its own."""


def _coco(name: str, annotations: str, images: str) -> None:
    from .datasets.coco_json import register_coco_json

    register_coco_json(name, annotations, images)


def _lvis(name: str, annotations: str, images: str) -> None:
    from .datasets.lvis import register_lvis_json

    register_lvis_json(name, annotations, images)


def _matting(name: str, annotations: str, images: str) -> None:
    from .datasets.coco_json import register_coco_json

    register_coco_json(name, annotations, images, matting=True)


JSON_FORMATS: dict[str, Callable[[str, str, str], None]] = {
    "coco": _coco,
    "lvis": _lvis,
    "matting": _matting,
}
"""Formats of ``--train-json`` and ``--val-json``: register a name, a file and an image folder."""


def split_location(location: str) -> tuple[str, str]:
    """Return the kind, "" for one that is not said, and the path of "KIND:PATH" or "PATH"."""
    kind, colon, path = location.partition(":")
    return (kind, path) if colon and not os.path.exists(location) else ("", location)


def recognise(location: str | os.PathLike[str]) -> str:
    """Return the kind of the dataset at a path, from what is there.

    Raises:
        ValueError: Nothing is there, no known dataset, half of one, or one of several kinds.
    """
    path = Path(location)
    if not path.exists():
        raise ValueError(f"{path}: no such file or folder; name a dataset's folder or a COCO json")
    looks = {kind: x.recognise(path) for kind, x in DATA_SOURCES.items() if x.recognise}
    whole = [kind for kind, missing in looks.items() if missing == ""]
    if len(whole) == 1:
        return whole[0]
    if whole:
        raise ValueError(
            f"{path} can be read as {' and as '.join(whole)}; say which: --data "
            f"{shlex.quote(f'{whole[0]}:{path}')}"
        )
    for kind, missing in looks.items():
        if missing:
            raise ValueError(f"{path} looks like {kind} data, but {missing}")
    known = ", ".join(kind for kind, x in DATA_SOURCES.items() if x.recognise)
    inside = sorted(x.name for x in path.iterdir()) if path.is_dir() else []
    some = ", ".join(inside[:5]) + ", ..." * (len(inside) > 5) or "nothing"
    raise ValueError(
        f"{path}: a dataset of no format that is known ({known}; see docs/datasets.md); here are: "
        f"{printable(some)}"
    )


def register_folder(
    kind: str, folder: str | os.PathLike[str], splits: Sequence[str], *, panoptic: bool = False
) -> dict[str, str]:
    """Register the dataset in a folder.

    Args:
        kind: In `DATA_SOURCES`.
        folder: Of the dataset.
        splits: Wanted, of "train" and "val".
        panoptic: For a panoptic model.

    Returns:
        Registered names by split.

    Raises:
        ValueError: An unknown kind, one without panoptic annotations, or an unusable folder.
    """
    if kind not in DATA_SOURCES:
        close = difflib.get_close_matches(kind, DATA_SOURCES, n=1)
        hint = f"; did you mean {close[0]}?" if close else ""
        raise ValueError(f"unknown kind of data {kind!r}, known: {', '.join(DATA_SOURCES)}{hint}")
    source = DATA_SOURCES[kind]
    register = source.panoptic if panoptic else source.register
    if register is None:
        able = ", ".join(name for name, other in DATA_SOURCES.items() if other.panoptic)
        raise ValueError(
            f"{kind} data have no panoptic annotations here; use {able}, --train-panoptic-json, or "
            "a config with MODEL.META_ARCHITECTURE SOLO"
        )
    return dict(register(os.fspath(folder), splits))
