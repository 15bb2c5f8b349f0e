"""Datasets in LVIS format: read, registered, and written from those in COCO format.

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

from ...io.atomic import atomic_write
from ...io.errors import one_line, shown
from ...io.json_reader import collector_paused, is_utf8
from ...io.segmentation import check_segmentations
from .catalog import CocoData, register_data
from .coco_json import is_lvis, parse_coco
from .entries import Ids, class_names, index_entries, read_coco, stated_size, whole_number
from .problems import listed

__all__ = ["frequency_of", "load_lvis_json", "register_lvis_json", "write_lvis"]

RARE_MOST, COMMON_MOST = 10, 100
"""Most images in which a rare and a common class occurs; a frequent class occurs in more."""


def load_lvis_json(
    json_file: str | os.PathLike[str], image_root: str | os.PathLike[str]
) -> CocoData:
    """Read and check a dataset in LVIS format, v0.5, v1, or one's own.

    Args:
        json_file: the annotations.
        image_root: folder of the images. One is looked for by the last two parts of its
            ``coco_url``, e.g. ``train2017/000000000009.jpg``, then by the last, and without a
            ``coco_url`` by its ``file_name``.

    Returns:
        The dataset; its records tell which classes an image was annotated for.

    Raises:
        ValueError: the file is in COCO format or damaged, or images are missing.
    """
    data = _load(json_file, image_root)
    data.log()
    return data


def _load(json_file: str | os.PathLike[str], image_root: str | os.PathLike[str]) -> CocoData:
    path, root = Path(json_file), os.fspath(image_root)
    with collector_paused():
        content = read_coco(path)
        if content["annotations"] and not is_lvis(content):
            raise ValueError(
                f"{path} is not in LVIS format: its images have no 'neg_category_ids'. A COCO file "
                "is read without --data-format lvis, or made one of LVIS by "
                f"`python -m solo_d2.data.datasets.lvis {path.name} NEW.json`"
            )
        for entry in content["annotations"]:
            if isinstance(entry, dict):
                entry.setdefault("iscrowd", 0)  # LVIS has no crowds, nor the key
        data = parse_coco(path, content, Path(root), name_of=lambda image: _file_name(image, root))
    images = index_entries(path, "images", content["images"], ())
    categories = index_entries(path, "categories", content["categories"], ())
    ids = Ids(list(categories))
    for record in data.records:
        image = images[record["image_id"]]
        for key in ("neg_category_ids", "not_exhaustive_category_ids"):
            record[key] = _category_list(path, image, key, ids)
    frequencies = tuple(_frequency(path, categories[i]) for i in data.category_ids)
    return dataclasses.replace(data, frequencies=frequencies)


def _category_list(path: Path, image: dict[str, Any], key: str, ids: Ids) -> list[Any]:
    """A list of category ids of an image; empty where it has none."""
    values = image.get(key, [])
    found = [ids.find(value) for value in values] if isinstance(values, list) else [None]
    if None in found:
        raise ValueError(
            f"{path}: the image {shown(image['id'])} has {shown(values)} as '{key}'; expected a "
            "list of the file's category ids"
        )
    return found


def _frequency(path: Path, category: dict[str, Any]) -> str:
    """The group that a class is of, by the file or by its count of images."""
    if category.get("frequency") in ("r", "c", "f"):
        return category["frequency"]
    count = whole_number(category.get("image_count"))
    if count is not None:
        return frequency_of(count)
    raise ValueError(
        f"{path}: the category {shown(category['id'])} has neither 'frequency' (r, c or f) nor "
        "'image_count', which LVIS's evaluation needs"
    )


def _file_name(image: dict[str, Any], root: str) -> Any:
    """Name of an image relative to `root`."""
    url = image.get("coco_url")
    if not url or not isinstance(url, str):
        return image.get("file_name")
    parts = url.split("/")[-2:]
    inside = os.path.isfile(os.path.join(root, parts[-1]))
    return parts[-1] if inside else "/".join(parts)


def register_lvis_json(
    name: str, json_file: str | os.PathLike[str], image_root: str | os.PathLike[str]
) -> list[str]:
    """Check a dataset in LVIS format and register it with Detectron2.

    Detectron2's own `register_lvis_instances` needs the package lvis and knows the classes of
    LVIS v0.5 and v1 only; here they are taken from the file.

    Args:
        name: of the dataset, as in ``cfg.DATASETS``.
        json_file: the annotations.
        image_root: folder of the images (see `load_lvis_json`).

    Returns:
        The class names; their number is what ``MODEL.SOLO.NUM_CLASSES`` must be.

    Raises:
        ValueError: the dataset is not usable, or `name` stands for other files.
    """
    source = (str(Path(json_file).resolve()), str(Path(image_root).resolve()))

    def describe(data: CocoData) -> dict[str, Any]:
        file = {"json_file": source[0]} if data.standard and is_utf8(source[0]) else {}
        return {**file, "class_frequencies": list(data.frequencies)}

    return register_data(name, source, lambda: _load(*source), "lvis", describe)


def frequency_of(images: int) -> str:
    """Frequency group of a class that occurs in so many images: "r", "c" or "f"."""
    return "r" if images <= RARE_MOST else "c" if images <= COMMON_MOST else "f"


def write_lvis(
    coco_json: str | os.PathLike[str],
    lvis_json: str | os.PathLike[str],
    *,
    counts_from: str | os.PathLike[str] | None = None,
) -> None:
    """Write a COCO file as a LVIS file.

    A COCO image is annotated for all classes, so that all those that it does not show become its
    `neg_category_ids`. LVIS has no crowds: they are dropped, and their class becomes one of the
    image's `not_exhaustive_category_ids`.

    Args:
        coco_json: the annotations to read.
        lvis_json: the file to write; an existing one is replaced.
        counts_from: COCO file in which the images of every class are counted for its frequency
            group, the training set in LVIS; by default `coco_json` itself. Classes are matched by
            their names, since ids may differ between files.

    Raises:
        ValueError: a file cannot be read, is in LVIS format already, or cannot be written, or
            `counts_from` lacks a class.
    """
    path = Path(coco_json)
    content = read_coco(path)
    if is_lvis(content):
        raise ValueError(f"{path} is in LVIS format already")
    truth = _Indexed(path, content)
    images_of = _images_of_categories(truth, counts_from)
    written = {
        "info": content.get("info", {}),
        "licenses": content.get("licenses", []),
        "images": _lvis_images(truth),
        "annotations": truth.measured_objects(),
        "categories": [
            {
                "synonyms": [category["name"]],
                "def": "",
                **category,
                "image_count": len(images_of[key]),
                "frequency": frequency_of(len(images_of[key])),
            }
            for key, category in truth.categories.items()
        ],
    }
    try:
        with atomic_write(lvis_json) as file:
            file.write(json.dumps(written).encode())
    except OSError as error:
        raise ValueError(f"{lvis_json}: cannot be written ({one_line(error)})") from error


def _images_of_categories(
    truth: _Indexed, counts_from: str | os.PathLike[str] | None
) -> dict[Any, set[Any]]:
    """The images of every category of a file, of those that it or another file shows."""
    if counts_from is None:
        return truth.images_of_categories()
    path = Path(counts_from)
    counted = _Indexed(path, read_coco(path), all_images=False)
    ids = {name: key for key, name in counted.names().items()}
    names = truth.names()
    absent = [name for name in names.values() if name not in ids]
    if absent:
        raise ValueError(
            f"{path}: expected all categories of {truth.path}, by their names; it lacks "
            f"{listed(absent)}: count in a file that has them, or write one without them"
        )
    images_of = counted.images_of_categories()
    return {key: images_of[ids[name]] for key, name in names.items()}


def _lvis_images(truth: _Indexed) -> list[dict[str, Any]]:
    """The images, each with the categories that it lacks and those that its crowds hide."""
    shown_in = truth.categories_of_images(crowds=False)
    crowded = truth.categories_of_images(crowds=True)
    return [
        {
            **image,
            "neg_category_ids": [
                k for k in truth.categories if k not in shown_in[key] | crowded[key]
            ],
            "not_exhaustive_category_ids": sorted(crowded[key]),
        }
        for key, image in truth.images.items()
    ]


class _Indexed:
    """The entries of a COCO file by id, and what refers to what.

    Args:
        path: of the file.
        content: of the file.
        all_images: whether every image that is referred to must be listed.

    Raises:
        ValueError: an entry that cannot be used, or that refers to nothing.
    """

    def __init__(self, path: Path, content: dict[str, Any], *, all_images: bool = True) -> None:
        self.path = path
        self.categories = index_entries(path, "categories", content["categories"], ("name",))
        self.images = index_entries(path, "images", content["images"], ())
        keys = ("image_id", "category_id")
        self.annotations = index_entries(path, "annotations", content["annotations"], keys)
        named = [] if all_images else [entry["image_id"] for entry in self.annotations.values()]
        images = Ids([*self.images, *(x for x in named if isinstance(x, (int, float, str)))])
        categories = Ids(list(self.categories))
        self.references = {}
        for key, entry in self.annotations.items():
            found = images.find(entry["image_id"]), categories.find(entry["category_id"])
            if None in found:
                raise ValueError(
                    f"{path}: annotation {shown(key)} refers to the image "
                    f"{shown(entry['image_id'])} and the category {shown(entry['category_id'])}, "
                    "one of which is not listed"
                )
            self.references[key] = found

    def names(self) -> dict[Any, str]:
        """Return the name of every category; those that come twice have their id behind it."""
        return class_names(self.path, self.categories)[0]

    def images_of_categories(self) -> dict[Any, set[Any]]:
        """Return the images in which every category occurs."""
        images_of: dict[Any, set[Any]] = defaultdict(set)
        for image, category in self.references.values():
            images_of[category].add(image)
        return images_of

    def categories_of_images(self, *, crowds: bool) -> dict[Any, set[Any]]:
        """Return the categories of the crowds, or of the objects, of every image."""
        categories_of: dict[Any, set[Any]] = defaultdict(set)
        for key, (image, category) in self.references.items():
            if bool(self.annotations[key].get("iscrowd")) == crowds:
                categories_of[image].add(category)
        return categories_of

    def measured_objects(self) -> list[dict[str, Any]]:
        """Return the objects with area and box, those of the mask where the file has none."""
        objects = {k: x for k, x in self.annotations.items() if not x.get("iscrowd")}
        written = []
        for key, entry in objects.items():
            entry = {k: v for k, v in entry.items() if k != "iscrowd"}
            if not {"area", "bbox"} <= entry.keys():
                entry = {**self._measure(key, entry.get("segmentation")), **entry}
            written.append(entry)
        return written

    def _measure(self, key: Any, segmentation: Any) -> dict[str, Any]:
        image = self.references[key][0]
        size = stated_size(self.path, image, self.images[image])
        if size is None:
            raise ValueError(f"{self.path}: the image {shown(image)} has no height and width")
        checked = check_segmentations([segmentation], [size])
        if checked.problems:
            raise ValueError(
                f"{self.path}: annotation {shown(key)} cannot be used: {checked.problems[0].text}"
            )
        mask = checked.kept[0]
        rle = (
            mask_util.merge(mask_util.frPyObjects(mask, *size)) if isinstance(mask, list) else mask
        )
        return {"area": float(mask_util.area(rle)), "bbox": mask_util.toBbox(rle).tolist()}


def main(argv: Sequence[str] | None = None) -> int:
    """Turn a COCO file into a LVIS file; returns the exit code."""
    parser = argparse.ArgumentParser(description="Turn a COCO file into a LVIS file.")
    parser.add_argument("coco_json", help="file to read")
    parser.add_argument("lvis_json", help="file to write")
    parser.add_argument(
        "--counts-from",
        metavar="FILE",
        help="COCO file for the frequency of classes of the same names (training set)",
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
