"""Reads, checks and registers datasets in COCO format.

Everything that would fail later, deep inside training or evaluation, fails here instead, with
the file and the remedy in the message. Read is whatever has one meaning (see
`docs/datasets.md`); a few annotations that have none are left out and counted.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from operator import itemgetter
from pathlib import Path
from typing import Any

from ...io.errors import shown
from ...io.json_reader import collector_paused, is_utf8
from ...io.segmentation import Problem, Reason
from .annotations import AnnotationReader
from .catalog import CocoData, register_data
from .entries import class_names, image_records, index_entries, read_coco, repeated_files
from .image_sizes import check_sizes
from .problems import Findings, listed

__all__ = ["CocoData", "load_coco_json", "parse_coco", "read_coco", "register_coco_json"]

_CHUNK = 4096
"""Annotations that are checked together."""


def load_coco_json(
    json_file: str | os.PathLike[str], image_root: str | os.PathLike[str]
) -> CocoData:
    """Read and check a dataset in COCO format, and log once what was dropped or completed.

    A file without annotations, as of a test set, can be predicted and not trained on.

    Args:
        json_file: the annotations.
        image_root: folder to which the file names of the images are relative.

    Returns:
        The dataset, images without objects included.

    Raises:
        ValueError: the file or folder is missing or not what it should be; the message names
            the file, what is wrong and the remedy.
    """
    data = read_coco_json(json_file, image_root)
    data.log()
    return data


def read_coco_json(
    json_file: str | os.PathLike[str], image_root: str | os.PathLike[str]
) -> CocoData:
    """Read as `load_coco_json` does, and log nothing: the notes say what there is to say."""
    path = Path(json_file)
    with collector_paused():
        content = read_coco(path)
        if is_lvis(content):
            raise ValueError(
                f"{path} is in LVIS format: read it as such, with --data-format lvis (or "
                "register_lvis_json)"
            )
        return parse_coco(path, content, Path(image_root))


def is_lvis(content: dict[str, Any]) -> bool:
    """Return whether the content of a file says, as LVIS does, which classes an image lacks."""
    images = content["images"][:1]
    return bool(images) and isinstance(images[0], dict) and "neg_category_ids" in images[0]


def parse_coco(
    path: Path,
    content: dict[str, Any],
    root: Path,
    *,
    name_of: Callable[[dict[str, Any]], Any] | None = None,
    findings: Findings | None = None,
) -> CocoData:
    """Check `content`, read from `path`, as `load_coco_json` does.

    Nothing is logged; the notes of the result say what there is to say.

    Args:
        path: of the file, for messages.
        content: of the file.
        root: folder of the images.
        name_of: gives the file name of an entry of "images" where it is not its "file_name".
        findings: with what there is to say already; by default those of a COCO file.
    """
    categories = index_entries(path, "categories", content["categories"], ("name",))
    images = index_entries(path, "images", content["images"], () if name_of else ("file_name",))
    if findings is None:
        findings = Findings(path, len(content["annotations"]))
    annotations = index_entries(
        path,
        "annotations",
        content["annotations"],
        ("image_id", "category_id"),
        lambda entry, text: findings.drop(_id_of(entry), Problem(Reason.ENTRY, text)),
    )
    records = image_records(path, images, root, name_of or itemgetter("file_name"))
    group = _project(categories, annotations.values())
    names, note = class_names(path, {k: x for k, x in categories.items() if k not in group})
    notes = [f"{shown(x)} is Roboflow's name of the project, no class" for x in group.values()]
    findings.notes += [*notes, *filter(None, [note])]
    findings.standard = (
        all(x.get("height") and x.get("width") for x in images.values()) and not findings.notes
    )
    _add_annotations(path, records, annotations, names, findings)
    findings.notes += filter(None, [repeated_files(path, list(records.values()))])
    return CocoData(
        records=list(records.values()),
        classes=list(names.values()),
        category_ids=list(names),
        stuff=_stuff_names(path, content.get("stuff_categories")),
        repaired=findings.repaired,
        standard=findings.standard and not findings.repaired,
        annotated=bool(content["annotations"]),
        notes=findings.message(),
    )


def _add_annotations(
    path: Path,
    records: dict[Any, dict[str, Any]],
    annotations: dict[Any, dict[str, Any]],
    names: dict[Any, str],
    findings: Findings,
) -> None:
    """Check annotations and add them to the records of their images, all by id."""
    reader = AnnotationReader(path, records, {k: i for i, k in enumerate(names)}, findings)
    ids, entries = list(annotations), list(annotations.values())
    for start in range(0, len(ids), _CHUNK):
        reader.add(ids[start : start + _CHUNK], entries[start : start + _CHUNK])
    check_sizes(path, records, list(reader.suspicious))
    findings.check()
    reader.finish()
    if annotations and not reader.objects.all():
        absent = [name for name, n in zip(names.values(), reader.objects, strict=True) if not n]
        findings.notes.append(f"classes without objects: {listed(absent)}")


def _project(
    categories: dict[Any, dict[str, Any]], annotations: Iterable[dict[str, Any]]
) -> dict[Any, str]:
    """Name by id of the category that Roboflow puts above all others, and that has no object."""
    above = {k: x["name"] for k, x in categories.items() if x.get("supercategory") == "none"}
    others = [x for k, x in categories.items() if k not in above]
    if len(above) != 1 or not others:
        return {}
    (key, name), *_ = above.items()
    if any(x.get("supercategory") != name for x in others):
        return {}
    return {} if any(x["category_id"] == key for x in annotations) else above


def _id_of(entry: Any) -> Any:
    return entry.get("id") if isinstance(entry, dict) else None


def _stuff_names(path: Path, entries: Any) -> list[str]:
    """Names of the background labels."""
    if entries is None:
        return []
    if not isinstance(entries, list):
        raise ValueError(f"{path}: 'stuff_categories' is {shown(entries)}; expected a list")
    return list(
        class_names(path, index_entries(path, "stuff_categories", entries, ("name",)))[0].values()
    )


def register_coco_json(
    name: str,
    json_file: str | os.PathLike[str],
    image_root: str | os.PathLike[str],
    *,
    matting: bool = False,
) -> list[str]:
    """Check a dataset in COCO format and register it with Detectron2.

    Registering the same files again under the same name does nothing.

    Args:
        name: of the dataset, as in ``cfg.DATASETS``.
        json_file: the annotations.
        image_root: folder to which the file names of the images are relative.
        matting: evaluate mattes, too; otherwise annotations with mattes count as masks there.

    Returns:
        The class names; their number is what ``MODEL.SOLO.NUM_CLASSES`` must be.

    Raises:
        ValueError: the dataset is not usable (see `load_coco_json`), or `name` stands for other
            files.
    """
    source = (str(Path(json_file).resolve()), str(Path(image_root).resolve()))

    def describe(data: CocoData) -> dict[str, Any]:
        stuff = {"stuff_classes": data.stuff} if data.stuff else {}
        # Without it Detectron2's COCOEvaluator makes a file of its own of the checked records.
        file = {"json_file": source[0]} if data.standard and is_utf8(source[0]) else {}
        return {**stuff, **file}

    kind = "coco_matting" if matting else "coco"
    return register_data(name, source, lambda: read_coco_json(*source), kind, describe)
