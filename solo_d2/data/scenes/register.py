"""Register datasets of generated scenes with Detectron2."""

from __future__ import annotations

import os
import shlex
from pathlib import Path

from detectron2.utils import comm

from ..datasets.coco_json import register_coco_json
from ..datasets.panoptic import register_coco_panoptic
from .build import SPLITS
from .panoptic_writer import write_panoptic

__all__ = ["register_built", "register_built_panoptic"]


def register_built(
    root: str | os.PathLike[str], prefix: str, *, kind: str, matting: bool = False
) -> tuple[str, str]:
    """Register both splits of a built dataset. Registering the same folder again does nothing.

    Args:
        root: Folder of the dataset.
        prefix: The datasets are called "<prefix>_train" and "<prefix>_val".
        kind: KIND of ``python -m solo_d2.data.scenes``, for the hint.
        matting: Let the evaluation measure mattes, too; see `register_coco_json`.

    Returns:
        The two names, training first.

    Raises:
        ValueError: The dataset has not been built, or a name stands for another folder.
    """
    train, val = (register_split(root, prefix, x, kind=kind, matting=matting) for x in SPLITS)
    return train, val


def register_split(
    root: str | os.PathLike[str], prefix: str, split: str, *, kind: str, matting: bool = False
) -> str:
    """Register one split of a built dataset, as `register_built` does; returns its name."""
    root = _built(root, kind)
    name = f"{prefix}_{split}"
    file = root / "annotations" / f"{split}.json"
    register_coco_json(name, file, root / split, matting=matting)
    return name


def register_built_panoptic(
    root: str | os.PathLike[str], prefix: str, *, kind: str
) -> tuple[str, str]:
    """Register both splits of a built dataset for panoptic segmentation.

    Missing panoptic annotations are written first, in about ten seconds for 1000 images.

    Args:
        root: Folder of the dataset.
        prefix: The datasets are called "<prefix>_train_panoptic" and "<prefix>_val_panoptic".
        kind: KIND of ``python -m solo_d2.data.scenes``, for the hint.

    Returns:
        The two names, training first.

    Raises:
        ValueError: The dataset has not been built or has no stuff, or a name stands for another
            folder.
    """
    train, val = (register_panoptic_split(root, prefix, x, kind=kind) for x in SPLITS)
    return train, val


def register_panoptic_split(
    root: str | os.PathLike[str], prefix: str, split: str, *, kind: str
) -> str:
    """Register one split of a built dataset, as `register_built_panoptic` does."""
    root = _built(root, kind)
    file = root / "annotations" / f"panoptic_{split}.json"
    if comm.get_local_rank() == 0 and not file.is_file():
        write_panoptic(root, split)
    comm.synchronize()
    name = f"{prefix}_{split}_panoptic"
    instances = root / "annotations" / f"{split}.json"
    register_coco_panoptic(name, file, root / "panoptic" / split, root / split, instances)
    return name


def _built(root: str | os.PathLike[str], kind: str) -> Path:
    if not Path(root, "manifest.json").is_file():
        raise ValueError(
            f"there is no {kind} dataset in {os.fspath(root)}; build it with "
            f"`python -m solo_d2.data.scenes {kind} --output {shlex.quote(os.fspath(root))}`"
        )
    return Path(root)
