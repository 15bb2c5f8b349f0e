"""Data sets in LVIS format: read, registered, and written from those in COCO format.

LVIS is federated: an image is annotated for some classes only. `neg_category_ids` are classes
that it is known to lack, and of `not_exhaustive_category_ids` it may show more than is annotated.
All others are unknown in it, so that a detection of them is neither right nor wrong.

    python -m solo_d2.data.datasets.lvis val.json val_lvis.json
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import sys
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pycocotools import mask as mask_util

from .catalog import CocoData, register_data
from .coco_json import is_lvis, parse_coco, read_json

__all__ = ["frequency_of", "load_lvis_json", "register_lvis_json", "write_lvis"]

RARE_MOST, COMMON_MOST = 10, 100
"""Most images in which a rare and a common class occurs; a frequent class occurs in more."""


def load_lvis_json(
    json_file: str | os.PathLike[str], image_root: str | os.PathLike[str]
) -> CocoData:
    """Reads and checks a data set in LVIS format, v0.5, v1, or one's own.

    Args:
        json_file: the annotations.
        image_root: folder of the pictures. One is looked for by the last two parts of its
            ``coco_url``, e.g. ``train2017/000000000009.jpg``, then by the last, and without a
            ``coco_url`` by its ``file_name``.

    Returns:
        The data set; its records tell which classes an image was annotated for.

    Raises:
        ValueError: If the file is in COCO format or damaged, or pictures are missing.
    """
    path, root = Path(json_file), Path(image_root)
    content = read_json(path)
    if not is_lvis(content):
        raise ValueError(
            f"{path} is not in LVIS format: its images have no 'neg_category_ids'. A COCO file is "
            "read without --data-format lvis, or made one of LVIS by "
            f"`python -m solo_d2.data.datasets.lvis {path.name} NEW.json`"
        )
    lacking = [x for x in content["annotations"] if not {"area", "bbox"} <= x.keys()]
    if lacking:
        raise ValueError(
            f"{path}: {len(lacking)} annotations lack 'area' or 'bbox', which LVIS's evaluation "
            f"needs, the first is {lacking[0].get('id')}"
        )
    images = [{**x, "file_name": _file_name(x, root)} for x in content["images"]]
    annotations = [{"iscrowd": 0, **x} for x in content["annotations"]]  # LVIS has no crowds
    data = parse_coco(path, {**content, "images": images, "annotations": annotations}, root)
    by_id = {image["id"]: image for image in images}
    for record in data.records:
        for key in ("neg_category_ids", "not_exhaustive_category_ids"):
            record[key] = by_id[record["image_id"]].get(key, [])
    categories = {category["id"]: category for category in content["categories"]}
    frequencies = tuple(_frequency(path, categories[i]) for i in data.category_ids)
    return dataclasses.replace(data, frequencies=frequencies)


def _frequency(path: Path, category: dict[str, Any]) -> str:
    """The group that a class is of, by the file or by its count of images."""
    if category.get("frequency") in ("r", "c", "f"):
        return category["frequency"]
    if isinstance(category.get("image_count"), int):
        return frequency_of(category["image_count"])
    raise ValueError(
        f"{path}: the category {category['id']} has neither 'frequency' (r, c or f) nor "
        "'image_count', which LVIS's evaluation needs"
    )


def _file_name(image: dict[str, Any], root: Path) -> str:
    """Path of a picture relative to `root`."""
    if not image.get("coco_url"):
        return image.get("file_name", "")
    parts = image["coco_url"].split("/")[-2:]
    return parts[-1] if (root / parts[-1]).is_file() else "/".join(parts)


def register_lvis_json(
    name: str, json_file: str | os.PathLike[str], image_root: str | os.PathLike[str]
) -> list[str]:
    """Checks a data set in LVIS format and registers it with Detectron2.

    Detectron2's own `register_lvis_instances` needs the package lvis and knows the classes of
    LVIS v0.5 and v1 only; here they are taken from the file.

    Args:
        name: of the data set, as in ``cfg.DATASETS``.
        json_file: the annotations.
        image_root: folder of the pictures (see `load_lvis_json`).

    Returns:
        The class names; their number is what ``MODEL.SOLO.NUM_CLASSES`` must be.

    Raises:
        ValueError: If the data set is not usable, or `name` stands for other files.
    """
    source = (str(Path(json_file).resolve()), str(Path(image_root).resolve()))

    def describe(data: CocoData) -> dict[str, Any]:
        return {"json_file": source[0], "class_frequencies": list(data.frequencies)}

    return register_data(name, source, lambda: load_lvis_json(*source), "lvis", describe)


def frequency_of(images: int) -> str:
    """Frequency group of a class that occurs in so many images: "r", "c" or "f"."""
    return "r" if images <= RARE_MOST else "c" if images <= COMMON_MOST else "f"


def write_lvis(
    coco_json: str | os.PathLike[str],
    lvis_json: str | os.PathLike[str],
    *,
    counts_from: str | os.PathLike[str] | None = None,
) -> None:
    """Writes a COCO file as a LVIS file.

    A COCO image is annotated for all classes, so that all those that it does not show become its
    `neg_category_ids`. Crowds, which LVIS has not, are dropped, and make their class one of the
    image's `not_exhaustive_category_ids`.

    Args:
        coco_json: the annotations to read.
        lvis_json: the file to write; an existing one is replaced.
        counts_from: COCO file in which the images of every class are counted for its frequency
            group, the training set in LVIS; by default `coco_json` itself.

    Raises:
        ValueError: If a file cannot be read, is in LVIS format already, or cannot be written.
    """
    path = Path(coco_json)
    content = read_json(path)
    if is_lvis(content):
        raise ValueError(f"{path} is in LVIS format already")
    shown, crowded = _classes_by_image(content)
    images_of: dict[Any, set] = defaultdict(set)
    for annotation in (read_json(Path(counts_from)) if counts_from else content)["annotations"]:
        images_of[annotation["category_id"]].add(annotation["image_id"])
    ids = [category["id"] for category in content["categories"]]
    sizes = {image["id"]: (image["height"], image["width"]) for image in content["images"]}
    written = {
        "info": content.get("info", {}),
        "licenses": content.get("licenses", []),
        "images": [
            {
                **image,
                "neg_category_ids": [
                    k for k in ids if k not in shown[image["id"]] | crowded[image["id"]]
                ],
                "not_exhaustive_category_ids": sorted(crowded[image["id"]]),
            }
            for image in content["images"]
        ],
        "annotations": [
            _measured(x, sizes[x["image_id"]])
            for x in content["annotations"]
            if not x.get("iscrowd")
        ],
        "categories": [
            {
                "synonyms": [category["name"]],
                "def": "",
                **category,
                "image_count": len(images_of[category["id"]]),
                "frequency": frequency_of(len(images_of[category["id"]])),
            }
            for category in content["categories"]
        ],
    }
    try:
        Path(lvis_json).write_text(json.dumps(written), encoding="utf-8")
    except OSError as error:
        raise ValueError(f"{lvis_json}: cannot be written ({error})") from error


def _classes_by_image(content: dict[str, Any]) -> tuple[dict[Any, set], dict[Any, set]]:
    """Classes of the objects and of the crowds of every image."""
    shown: dict[Any, set] = defaultdict(set)
    crowded: dict[Any, set] = defaultdict(set)
    for annotation in content["annotations"]:
        kind = crowded if annotation.get("iscrowd") else shown
        kind[annotation["image_id"]].add(annotation["category_id"])
    return shown, crowded


def _measured(annotation: dict[str, Any], size: tuple[int, int]) -> dict[str, Any]:
    """An annotation with its area and box, from the mask where the file has none."""
    annotation = {k: v for k, v in annotation.items() if k != "iscrowd"}
    if not {"area", "bbox"} <= annotation.keys():
        segmentation = annotation["segmentation"]
        if isinstance(segmentation, list) or isinstance(segmentation["counts"], list):
            segmentation = mask_util.frPyObjects(segmentation, *size)
        rle = mask_util.merge(segmentation) if isinstance(segmentation, list) else segmentation
        measured = {"area": float(mask_util.area(rle)), "bbox": mask_util.toBbox(rle).tolist()}
        annotation = {**measured, **annotation}
    return annotation


def main(argv: Sequence[str] | None = None) -> int:
    """Turn a COCO file into a LVIS file; returns the exit code."""
    parser = argparse.ArgumentParser(description="Turn a COCO file into a LVIS file.")
    parser.add_argument("coco_json", help="file to read")
    parser.add_argument("lvis_json", help="file to write")
    parser.add_argument(
        "--counts-from", metavar="FILE", help="COCO file for the classes' frequency (training set)"
    )
    args = parser.parse_args(argv)
    try:
        write_lvis(args.coco_json, args.lvis_json, counts_from=args.counts_from)
    except ValueError as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
