r"""A data format in one file: images beside PNGs whose pixel values number the instances.

    my_data/train/images/0001.jpg    my_data/train/instances/0001.png
    my_data/val/images/...           my_data/val/instances/...
    my_data/classes.txt              one name per line

A pixel's value is 1000 * class + number of the instance, with classes from 1; 0 is background
(16-bit PNG). Use it as

    solo-d2 train --import examples/instance_png.py --data instance_png:my_data --epochs 50
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.structures import BoxMode
from pycocotools import mask as mask_util

from solo_d2.data import DATA_SOURCES, DataSource
from solo_d2.io.image import open_image


def register_instance_png(folder: str, splits: Sequence[str]) -> dict[str, str]:
    """Register the splits of a folder; returns their names."""
    root = Path(folder).resolve()
    file = root / "classes.txt"
    if not file.is_file():
        raise ValueError(f"{file}: no such file; it should have one class name per line")
    classes = file.read_text(encoding="utf-8").split("\n")
    classes = [name.strip() for name in classes if name.strip()]
    names = {split: f"instance_png_{root.name}_{split}" for split in splits}
    for split, name in names.items():
        if name not in DatasetCatalog.list():
            records = read_split(root / split, len(classes))
            DatasetCatalog.register(name, lambda records=records: records)
            MetadataCatalog.get(name).set(
                thing_classes=classes,
                thing_dataset_id_to_contiguous_id={k + 1: k for k in range(len(classes))},
                evaluator_type="coco",
            )
    return names


def read_split(folder: Path, num_classes: int) -> list[dict[str, Any]]:
    """Read one split into Detectron2's records."""
    images = sorted((folder / "images").glob("*.jpg"))
    if not images:
        raise ValueError(f"{folder / 'images'}: no .jpg files")
    records = []
    for number, image in enumerate(images, start=1):
        with open_image(folder / "instances" / f"{image.stem}.png") as picture:
            labels = np.asarray(picture)
        records.append(
            {
                "file_name": str(image),
                "image_id": number,
                "height": labels.shape[0],
                "width": labels.shape[1],
                "annotations": [
                    annotation(labels == value, int(value) // 1000 - 1, num_classes, image)
                    for value in np.unique(labels[labels > 0])
                ],
            }
        )
    return records


def annotation(mask: np.ndarray, label: int, num_classes: int, image: Path) -> dict[str, Any]:
    """Return Detectron2's annotation of one instance."""
    if not 0 <= label < num_classes:
        raise ValueError(
            f"{image}: an instance has the class {label + 1}, expected 1 to {num_classes}"
        )
    rle = mask_util.encode(np.asfortranarray(mask, dtype=np.uint8))
    return {
        "segmentation": rle,
        "bbox": mask_util.toBbox(rle).tolist(),
        "bbox_mode": BoxMode.XYWH_ABS,
        "category_id": label,
        "iscrowd": 0,
    }


DATA_SOURCES["instance_png"] = DataSource(
    contents="images with PNGs of instance numbers", register=register_instance_png
)
