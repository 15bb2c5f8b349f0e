"""Convert a dataset from any format that can be read to any that can be written."""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from detectron2.data import DatasetCatalog, MetadataCatalog
from tqdm import tqdm

from ..io.alpha import annotation_matte
from ..io.errors import one_line
from ..io.paths import printable
from .checks import thing_classes
from .datasets.formats import WRITERS, has_outlines, make_writer
from .datasets.writing import DatasetWriter, LabelledImage, LabelledObject, check_folder
from .sources import SPLITS, recognise, register_folder, split_location

__all__ = ["convert_dataset", "registered"]

_LOST = {
    "segments_info": "stuff of panoptic annotations",
    "neg_category_ids": "for which classes LVIS's images are annotated",
}
"""What no format to write has, by the key of records that have it."""


def convert_dataset(
    location: str, output: str | os.PathLike[str], kind: str, *, tolerance: float = 0.0
) -> str:
    """Read a dataset and write it in another format, with copies of its images.

    The folder takes its place when it is whole.

    Args:
        location: Of the dataset, as ``--data`` takes it.
        output: Folder to write; it must not have files.
        kind: Format to write, of `WRITERS`.
        tolerance: Pixels by which outlines of masks may be simplified, where the format has any.

    Returns:
        What was written, in one line, and in others what the format could not hold.

    Raises:
        ValueError: The dataset cannot be read, or the folder not be written.
    """
    if tolerance and not has_outlines(kind):
        able = ", ".join(filter(has_outlines, WRITERS))
        raise ValueError(
            f"{kind} has no outlines that a tolerance of {tolerance:g} would simplify; leave it "
            f"out, or write {able}"
        )
    target = Path(os.path.abspath(output))
    check_folder(target)
    stage = target.with_name(f"{target.name}.partial-{uuid.uuid4().hex[:8]}")
    try:
        with registered(location) as names:
            writer = make_writer(kind, stage, _all_classes(names), list(names), tolerance)
            told = [_write_split(writer, split, name) for split, name in names.items()]
            lost = {_LOST[key] for name in names.values() for key in _LOST if _has(name, key)}
        writer.close()
        if target.is_dir():
            target.rmdir()  # empty
        os.rename(stage, target)
    except OSError as error:
        raise ValueError(f"{printable(target)}: cannot be written ({one_line(error)})") from error
    finally:
        shutil.rmtree(stage, ignore_errors=True)
    left_out = f"left out: {', '.join(sorted(lost))}" if lost else ""
    lines = [f"{printable(target)}: {', '.join(told)}", writer.message(), left_out]
    return "\n".join(filter(None, lines))


@contextmanager
def registered(location: str) -> Iterator[dict[str, str]]:
    """Register a dataset, and forget it in the end; yields the names by split."""
    before = set(DatasetCatalog.list())
    kind, path = split_location(location)
    try:
        yield register_folder(kind or recognise(path), path, SPLITS)
    finally:
        for name in set(DatasetCatalog.list()) - before:
            DatasetCatalog.remove(name)
            MetadataCatalog.remove(name)


def _has(name: str, key: str) -> bool:
    """Return whether an image of a registered dataset has something besides its objects."""
    return any(record.get(key) for record in DatasetCatalog.get(name))


def _all_classes(names: Mapping[str, str]) -> list[str]:
    """Names of the classes of registered datasets, each once."""
    return list(dict.fromkeys(x for name in names.values() for x in thing_classes(name) or ()))


def _write_split(writer: DatasetWriter, split: str, name: str) -> str:
    """Write one split; returns how much it is."""
    labels = [writer.classes.index(x) for x in thing_classes(name) or ()]
    records = DatasetCatalog.get(name)
    objects = 0
    for record in tqdm(records, split, unit="image", disable=None):
        image = _labelled(record, labels, mattes=writer.keeps_mattes)
        if not writer.keeps_mattes:  # not even read
            writer.lost["matte"] += sum("alpha" in x for x in record["annotations"])
        objects += len(image.objects)
        writer.add(image, split)
    return f"{split} {len(records)} images, {objects} objects"


def _labelled(record: dict[str, Any], labels: Sequence[int], *, mattes: bool) -> LabelledImage:
    """What a record of Detectron2 says."""
    file = Path(record.get("file_name", ""))
    if not file.is_file():
        raise ValueError(
            "scenes that are composed while training are no files; name their folder alone, for "
            "those that were built"
        )
    size = record["height"], record["width"]
    objects = []
    for annotation in record["annotations"]:
        soft = mattes and "alpha" in annotation
        thing = LabelledObject(
            labels[annotation["category_id"]],
            annotation["segmentation"],
            crowd=bool(annotation.get("iscrowd")),
            matte=annotation_matte(annotation, size, str(file)) if soft else None,
        )
        objects.append(thing)
    return LabelledImage(file, size, objects)
