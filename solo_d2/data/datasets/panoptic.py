"""Reads, checks and registers datasets in COCO's panoptic format.

Unlike Detectron2's `register_coco_panoptic_separated` it takes images of any file type, needs
no prepared label PNGs (`SOLODatasetMapper` makes the labels of the panoptic PNGs), and can do
without a file of instances: these are then the segments of things.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...io.errors import shown
from ...io.json_reader import collector_paused
from ...io.panoptic_png import IGNORE_LABEL
from .catalog import CocoData, log_notes, register_data
from .coco_json import read_coco_json
from .entries import Ids, class_names, image_records, index_entries, read_coco
from .image_sizes import check_sizes
from .panoptic_segments import add_segments, instances_of

__all__ = ["PanopticData", "load_coco_panoptic", "register_coco_panoptic"]


@dataclass(frozen=True)
class PanopticData:
    """A checked dataset.

    Attributes:
        records: Detectron2's dicts, one per annotated image: ``annotations`` of things,
            ``pan_seg_file_name``, and ``segments_info`` with contiguous category ids: things from
            0, stuff from 1, as the semantic branch numbers them.
        things: names by category id of the file.
        stuff: likewise.
        standard: whether other programs read the instance file to the same annotations.
        notes: one line of what there is to say; often empty.
    """

    records: list[dict[str, Any]]
    things: dict[Any, str]
    stuff: dict[Any, str]
    standard: bool
    notes: str

    @property
    def classes(self) -> Sequence[str]:
        """Names of the things."""
        return list(self.things.values())

    @property
    def category_ids(self) -> Sequence[Any]:
        """Category ids of the things."""
        return list(self.things)

    def log(self) -> None:
        """Log the notes."""
        log_notes(self.notes)


def load_coco_panoptic(
    panoptic_json: str | os.PathLike[str],
    panoptic_root: str | os.PathLike[str],
    image_root: str | os.PathLike[str],
    instances_json: str | os.PathLike[str] | None = None,
) -> PanopticData:
    """Read and check a dataset in COCO's panoptic format.

    Args:
        panoptic_json: the annotations.
        panoptic_root: folder of the panoptic PNGs.
        image_root: folder of the images. Of images without a "file_name" it is the PNG's with
            .jpg.
        instances_json: instances of the same images in COCO format, which may overlap; without
            it they are taken from the PNGs, all of which are then read (about 10 ms each).

    Raises:
        ValueError: a file or folder is missing or not what it should be; the message names it,
            what is wrong and the remedy.
    """
    data = _load(panoptic_json, panoptic_root, image_root, instances_json)
    data.log()
    return data


def _load(
    panoptic_json: str | os.PathLike[str],
    panoptic_root: str | os.PathLike[str],
    image_root: str | os.PathLike[str],
    instances_json: str | os.PathLike[str] | None = None,
) -> PanopticData:
    path, folder, images_folder = Path(panoptic_json), Path(panoptic_root), Path(image_root)
    with collector_paused():
        content = read_coco(path)
    if not folder.is_dir():
        raise ValueError(f"{folder}: no such folder; it should hold the panoptic PNGs of {path}")
    things, stuff, notes = _categories(path, content)
    records = _records(path, content, images_folder)
    add_segments(path, content["annotations"], folder, records, things, stuff)
    annotated = [record for record in records.values() if "segments_info" in record]
    if len(annotated) < len(records):
        notes.append(f"{len(records) - len(annotated)} of {len(records)} images have no annotation")
    instances = None
    if instances_json is None:
        notes += _add_segments_of_things(annotated)
    else:
        instances = read_coco_json(instances_json, images_folder)
        _add_instances(annotated, path, list(things), instances, instances_json)
        notes += [instances.notes] * bool(instances.notes)
    return PanopticData(
        annotated,
        things,
        stuff,
        standard=instances is not None and instances.standard,
        notes=f"{path}: {'; '.join(notes)}" if notes else "",
    )


def _add_segments_of_things(records: list[dict[str, Any]]) -> list[str]:
    """Fill in the ``annotations`` of all records from their PNGs; what there is to say about it."""
    absent = []
    for record in records:
        record["annotations"], ids = instances_of(record)
        absent += [(number, record["image_id"]) for number in ids]
    if not absent:
        return []
    number, image_id = absent[0]
    return [
        f"{len(absent)} segments have no pixel in their PNG, such as {number} of the image "
        f"{shown(image_id)}: nothing is learned of them, and they count as missed in an evaluation"
    ]


def _categories(
    path: Path, content: dict[str, Any]
) -> tuple[dict[Any, str], dict[Any, str], list[str]]:
    """Names of things and of stuff by category id, and what there is to say about them."""
    for entry in content["categories"]:
        if not isinstance(entry, dict) or not {"id", "name", "isthing"} <= entry.keys():
            raise ValueError(
                f"{path}: a category needs 'id', 'name' and 'isthing', got {shown(entry)}; is this "
                "a panoptic file, or one of instances?"
            )
        if entry["isthing"] not in (0, 1):
            raise ValueError(
                f"{path}: the category {shown(entry['id'])} has {shown(entry['isthing'])} as "
                "'isthing'; expected 0 or 1"
            )
    entries = index_entries(path, "categories", content["categories"], ())
    names, note = class_names(path, entries)
    things = {key: name for key, name in names.items() if entries[key]["isthing"]}
    stuff = {key: name for key, name in names.items() if not entries[key]["isthing"]}
    for kind, found, remedy in (
        ("thing", things, "nothing is left for SOLO to find"),
        ("stuff", stuff, "use MODEL.META_ARCHITECTURE SOLO and an instance file"),
    ):
        if not found:
            raise ValueError(f"{path} has no {kind} category ('isthing'); {remedy}")
    if len(stuff) >= IGNORE_LABEL:
        raise ValueError(f"{path} has {len(stuff)} stuff categories; at most 254 fit a label")
    return things, stuff, [note] * bool(note)


def _records(path: Path, content: dict[str, Any], root: Path) -> dict[Any, dict[str, Any]]:
    """Records of all images by id, without annotations; only those with sizes are looked at."""
    for annotation in content["annotations"]:
        wanted = {"image_id", "file_name", "segments_info"}
        if not isinstance(annotation, dict) or not wanted <= annotation.keys():
            raise ValueError(
                f"{path}: an annotation needs 'image_id', 'file_name' and 'segments_info', got "
                f"{shown(annotation)}; is this a panoptic file, or one of instances?"
            )
    if not content["annotations"]:
        raise ValueError(f"{path} lists no annotations")
    images = index_entries(path, "images", content["images"], ())
    ids = Ids(list(images))
    png_of = {ids.find(x["image_id"]): x["file_name"] for x in content["annotations"]}

    def name_of(key: Any) -> Any:
        png = png_of.get(key)
        if "file_name" in images[key] or not isinstance(png, str):
            return images[key].get("file_name")
        return str(Path(png).with_suffix(".jpg"))

    names = {id(image): name_of(key) for key, image in images.items()}
    records = image_records(path, images, root, lambda image: names[id(image)])
    check_sizes(path, records, [])
    return records


def _add_instances(
    records: list[dict[str, Any]],
    path: Path,
    things: list[Any],
    instances: CocoData,
    instances_json: str | os.PathLike[str],
) -> None:
    """Fill in the ``annotations`` of all records from a file of instances."""
    if instances.category_ids != things:
        raise ValueError(
            f"{instances_json} has the category ids {instances.category_ids}, the things of {path} "
            f"are {things}; they must be the same"
        )
    annotations = {record["image_id"]: record["annotations"] for record in instances.records}
    for record in records:
        if record["image_id"] not in annotations:
            raise ValueError(f"{instances_json} lacks the image {record['image_id']} of {path}")
        record["annotations"] = annotations[record["image_id"]]


def register_coco_panoptic(
    name: str,
    panoptic_json: str | os.PathLike[str],
    panoptic_root: str | os.PathLike[str],
    image_root: str | os.PathLike[str],
    instances_json: str | os.PathLike[str] | None = None,
) -> None:
    """Check a dataset in COCO's panoptic format and register it with Detectron2.

    ``MODEL.SOLO.NUM_CLASSES`` must be the number of its things, and
    ``MODEL.SEM_SEG_HEAD.NUM_CLASSES`` one more than the number of its stuff classes. Registering
    the same files again under the same name does nothing.

    Args:
        name: of the dataset, as in ``cfg.DATASETS``.
        panoptic_json: see `load_coco_panoptic`, as the other arguments.
        panoptic_root: folder of the panoptic PNGs.
        image_root: folder of the images.
        instances_json: instances of the same images.

    Raises:
        ValueError: the dataset is not usable, or `name` stands for other files.
    """
    files = (panoptic_json, panoptic_root, image_root, instances_json)
    source = tuple(str(Path(file).resolve()) for file in files if file is not None)

    def describe(data: PanopticData) -> dict[str, Any]:
        used = [*data.things, *data.stuff]
        numbers = [x for x in used if isinstance(x, int)]
        # The label 0 of all things has an id that no category has, in COCO 0 as in Detectron2.
        unused = max(numbers) + 1 if 0 in used else 0
        described = {
            "image_root": source[2],
            "panoptic_root": source[1],
            "panoptic_json": source[0],
            "ignore_label": IGNORE_LABEL,
            "stuff_classes": ["things", *data.stuff.values()],
            "stuff_dataset_id_to_contiguous_id": {
                unused: 0,
                **{c: k for k, c in enumerate(data.stuff, 1)},
            },
        }
        # Without it Detectron2's COCOEvaluator makes a file of its own of the checked records.
        return {**described, "json_file": source[3]} if data.standard else described

    register_data(name, source, lambda: _load(*files), "coco_panoptic_seg", describe)
