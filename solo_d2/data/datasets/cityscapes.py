"""Datasets in Cityscapes' folders, read from the images of instance ids that it is scored by.

ROOT/leftImg8bit/SPLIT/CITY/CITY_SEQUENCE_FRAME_leftImg8bit.png
ROOT/gtFine/SPLIT/CITY/CITY_SEQUENCE_FRAME_gtFine_instanceIds.png
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from detectron2.structures import BoxMode

from ...io.image import ImageError, open_image, read_size
from ...layers import encode_masks, masks_to_boxes
from .catalog import CocoData, register_data

__all__ = ["CLASSES", "load_cityscapes", "recognise", "register_cityscapes"]

CLASSES = {
    24: "person",
    25: "rider",
    26: "car",
    27: "truck",
    28: "bus",
    31: "train",
    32: "motorcycle",
    33: "bicycle",
}
"""Names of the classes with instances, by Cityscapes' label id."""

_IMAGE_END, _TRUTH_END = "_leftImg8bit.png", "_gtFine_instanceIds.png"
# Pixels of an object have 1000 x its label id + its number; those of a group that could not be
# told apart, and of background, have the label id itself.
_IDS_PER_CLASS = 1000


def recognise(location: Path) -> str | None:
    """Tell whether a folder is laid out so, see `DataSource`."""
    missing = [part for part in ("leftImg8bit", "gtFine") if not (location / part).is_dir()]
    if len(missing) == 2:
        return None
    return f"has no folder {missing[0]}; unpack both archives there" if missing else ""


def load_cityscapes(root: str | os.PathLike[str], split: str) -> CocoData:
    """Read one split.

    Args:
        root: the folder with ``leftImg8bit`` and ``gtFine``.
        split: "train" or "val", or any other folder in these.

    Returns:
        The dataset; groups of objects are marked as crowds.

    Raises:
        ValueError: folders or files are missing, misnamed or damaged; the message names them.
    """
    pairs = _pairs(Path(root), split)
    # Reading PNG files is most of the work, and done outside of Python's lock.
    with ThreadPoolExecutor() as pool:
        records = list(pool.map(lambda pair: _record(*pair), pairs))
    return CocoData(
        records=records,
        classes=list(CLASSES.values()),
        category_ids=list(CLASSES),
        stuff=[],
        repaired=0,
    )


def _pairs(root: Path, split: str) -> list[tuple[Path, Path]]:
    """Images and their instance ids."""
    images, truth = root / "leftImg8bit" / split, root / "gtFine" / split
    for folder, archive in (
        (images, "leftImg8bit_trainvaltest.zip"),
        (truth, "gtFine_trainvaltest.zip"),
    ):
        if not folder.is_dir():
            raise ValueError(
                f"{folder}: no such folder; unpack Cityscapes' {archive} in {root} (or link it "
                "there)"
            )
    files = sorted(images.glob("*/*.png"))
    if not files:
        raise ValueError(f"{images} holds no images CITY/*{_IMAGE_END}")
    pairs = []
    for file in files:
        stem = file.name.removesuffix(_IMAGE_END)
        # The official evaluation finds files by the three parts of their names.
        if stem == file.name or len(stem.split("_")) != 3:
            raise ValueError(f"{file}: expected a name CITY_SEQUENCE_FRAME{_IMAGE_END}")
        ids = truth / file.parent.name / (stem + _TRUTH_END)
        if not ids.is_file():
            raise ValueError(
                f"{ids}, the ground truth of {file}, does not exist; unpack Cityscapes' "
                "gtFine_trainvaltest.zip, or remove the image"
            )
        pairs.append((file, ids))
    return pairs


def _record(image: Path, truth: Path) -> dict[str, Any]:
    try:
        with open_image(truth) as opened:
            ids = np.asarray(opened).astype(np.int64)
        size = read_size(image)
    except ImageError as error:
        raise ValueError(f"{truth} or {image} cannot be read ({error}); unpack it again") from error
    if ids.shape != size:
        raise ValueError(
            f"{truth} is an image of shape {ids.shape}, {image} has {size}; the ground truth must "
            "have one channel and the size of its image"
        )
    if ids.min() < 0 or ids.max() >= _IDS_PER_CLASS * _IDS_PER_CLASS:
        raise ValueError(
            f"{truth} has the values {ids.min()} to {ids.max()}, which are no instance ids; unpack "
            "it again"
        )
    return {
        "file_name": str(image),
        "image_id": image.name.removesuffix(_IMAGE_END),
        "height": size[0],
        "width": size[1],
        "annotations": _annotations(ids.astype(np.int32)),
    }


def _annotations(ids: np.ndarray) -> list[dict[str, Any]]:
    labels = list(CLASSES)
    # Ids are small: counting them takes a tenth of the time that np.unique's sorting takes.
    found = np.flatnonzero(np.bincount(ids.ravel())).tolist()
    annotations = []
    for i in found:
        if _label(i) not in CLASSES:
            continue
        # One at a time: hundreds of masks of a large image would not fit into memory.
        mask = torch.from_numpy(ids == i)[None]
        annotations.append(
            {
                "bbox": masks_to_boxes(mask)[0].tolist(),
                "bbox_mode": BoxMode.XYXY_ABS,
                "category_id": labels.index(_label(i)),
                "segmentation": encode_masks(mask)[0],
                "iscrowd": int(i < _IDS_PER_CLASS),
            }
        )
    return annotations


def _label(instance_id: int) -> int:
    return instance_id // _IDS_PER_CLASS if instance_id >= _IDS_PER_CLASS else instance_id


def register_cityscapes(
    root: str | os.PathLike[str], splits: Sequence[str] = ("train", "val")
) -> tuple[str, ...]:
    """Read the splits of a Cityscapes folder and register them with Detectron2.

    Detectron2's own ``cityscapes_fine_instance_seg_train`` needs cityscapesscripts and shapely,
    and reads polygons, which do not give the masks back that are evaluated.

    Args:
        root: the folder with ``leftImg8bit`` and ``gtFine``.
        splits: to register.

    Returns:
        Names of the datasets, ``cityscapes_<split>``.

    Raises:
        ValueError: the folder is incomplete (see `load_cityscapes`), or a name stands for
            another one.
    """
    names = []
    for split in splits:
        folders = [Path(root).resolve() / part / split for part in ("gtFine", "leftImg8bit")]
        truth, images = map(str, folders)
        register_data(
            f"cityscapes_{split}",
            (truth, images),
            lambda split=split: load_cityscapes(root, split),  # type: ignore[misc]
            "cityscapes_instance",
            lambda _, truth=truth, images=images: {"gt_dir": truth, "image_dir": images},  # type: ignore[misc]
        )
        names.append(f"cityscapes_{split}")
    return tuple(names)
