"""Kinds of datasets that commands take. One entry in a table makes a format usable everywhere.

Reading what an entry needs is left to its functions, so that the tables cost nothing to import.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

__all__ = ["DATA_SOURCES", "JSON_FORMATS", "SPLITS", "DataSource", "register_folder"]

SPLITS = ("train", "val")

RegisterFolder = Callable[[str, Sequence[str]], Mapping[str, str]]


@dataclass(frozen=True)
class DataSource:
    """A kind of dataset that lies in one folder.

    Attributes:
        contents: What the folder is, for ``--help``.
        register: Called with the folder and the splits wanted, of "train" and "val". Registers
            each with Detectron2, with an ``evaluator_type`` in its metadata, and returns the
            registered names by split. Registering the same folder again must do nothing.
            Raises `ValueError` for a folder that it cannot use.
        panoptic: The same for panoptic models; None if the format has no stuff.
        flag: Give commands an option with the kind's name, ``--KIND DIR``; every kind can be
            named by ``--data KIND:DIR``.

    Example:
        >>> DATA_SOURCES["stamps"].contents
        'a stamps dataset of solo_d2.data.scenes'
    """

    contents: str
    register: RegisterFolder
    panoptic: RegisterFolder | None = None
    flag: bool = False


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


DATA_SOURCES: dict[str, DataSource] = {
    "stamps": DataSource(
        "a stamps dataset of solo_d2.data.scenes",
        _scenes("stamps", "stamps"),
        panoptic=_scenes("stamps", "stamps", panoptic=True),
        flag=True,
    ),
    "shapes": DataSource(
        "a shapes dataset of solo_d2.data.scenes", _scenes("shapes", "shapes"), flag=True
    ),
    "cityscapes": DataSource("folder with leftImg8bit and gtFine", _cityscapes, flag=True),
    "matting": DataSource(
        "an rgba or stamps dataset of solo_d2.data.scenes; evaluates mattes, too",
        _scenes("matting", "rgba"),
        flag=True,
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
