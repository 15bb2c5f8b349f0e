"""The panoptic ground truth of a registered dataset, and names for files of predictions."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from detectron2.data import MetadataCatalog

from ..io.json_reader import read_json_object
from ..io.panoptic_png import read_panoptic_png
from .records import records_by_id, records_of

__all__ = ["PanopticImage", "PanopticTruth", "own_names", "read_panoptic_truth"]


class PanopticImage(NamedTuple):
    """Ground truth of an image.

    Attributes:
        png: the panoptic PNG.
        segments: ``id``, ``category_id`` of the dataset, and ``iscrowd``.
    """

    png: str
    segments: list[dict[str, Any]]


@dataclass(frozen=True)
class PanopticTruth:
    """Ground truth of all images.

    Attributes:
        dataset_name: as registered.
        things: label by the dataset's category id.
        stuff: likewise, from 1 on: 0 stands for all things.
        images: by the dataset's image id.
    """

    dataset_name: str
    things: dict[int, int]
    stuff: dict[int, int]
    images: dict[Any, PanopticImage]

    def ids(self, image_id: Any) -> np.ndarray:
        """Read the segment ids (H, W) of an image.

        Raises:
            ValueError: there is no such PNG, or it is damaged.
        """
        return read_panoptic_png(self.images[image_id].png)


def read_panoptic_truth(dataset_name: str) -> PanopticTruth:
    """Read the panoptic annotations of a registered dataset, always anew.

    Args:
        dataset_name: a dataset of ours, or of Detectron2's; of those whose records have no
            segments, the ``panoptic_json`` in the metadata is read.

    Raises:
        ValueError: there is no such file, or images without ids.
    """
    metadata = MetadataCatalog.get(dataset_name)
    things = dict(metadata.thing_dataset_id_to_contiguous_id)
    stuff = {k: v for k, v in metadata.stuff_dataset_id_to_contiguous_id.items() if v}
    records = records_by_id(dataset_name, records_of(dataset_name))
    if all({"pan_seg_file_name", "segments_info"} <= r.keys() for r in records.values()):
        back = ({v: k for k, v in stuff.items()}, {v: k for k, v in things.items()})
        images = {
            image_id: PanopticImage(
                str(record["pan_seg_file_name"]),
                [
                    {**x, "category_id": back[bool(x["isthing"])][x["category_id"]]}
                    for x in record["segments_info"]
                ],
            )
            for image_id, record in records.items()
        }
    else:
        images = _read_file(metadata.panoptic_json, metadata.panoptic_root)
    return PanopticTruth(dataset_name, things, stuff, images)


def _read_file(panoptic_json: str, panoptic_root: str) -> dict[Any, PanopticImage]:
    content = read_json_object(panoptic_json)
    return {
        x["image_id"]: PanopticImage(str(Path(panoptic_root, x["file_name"])), x["segments_info"])
        for x in content["annotations"]
    }


def own_names(files: Mapping[Any, str]) -> dict[Any, str]:
    """Choose a file name for the PNG of every image: that of its ground truth, made harmless.

    What a dataset says decides where nothing is written: folders, "..", and odd characters are
    left out, and no two images share a name, also where large and small letters are the same.

    Args:
        files: of the ground truth, by image id.

    Returns:
        Names without folders, by image id.
    """
    names: dict[Any, str] = {}
    taken: set[str] = set()
    for number, (image_id, file) in enumerate(files.items(), 1):
        stem = Path(re.split(r"[/\\]", file)[-1]).stem
        stem = re.sub(r"[^\w .()+=@-]", "_", stem).lstrip(" .")[:60] or "image"
        if f"{stem}.png".casefold() in taken:
            stem = f"{stem}-{number}"
        while f"{stem}.png".casefold() in taken:
            stem += "_"
        names[image_id] = f"{stem}.png"
        taken.add(names[image_id].casefold())
    return names
