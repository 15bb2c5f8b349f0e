"""What a report is made of: the dataset that was evaluated, and files of results."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..evaluation.records import records_of, shared_records
from ..evaluation.truth import Truth, read_truth
from ..io.json_reader import read_json
from ..io.paths import printable
from ..io.segmentation import check_segmentations

__all__ = ["Dataset", "read_dataset", "read_results"]

Entry = dict[str, Any]

RESULTS = "results"
"""Key of a report's JSON that names the file of its results."""

_KEYS = ("image_id", "category_id", "score", "segmentation")


@dataclass(frozen=True)
class Dataset:
    """A dataset that was evaluated.

    Attributes:
        truth: as scorers have it.
        ids: the dataset's image id by number, the id of scorers.
        files: the image file by number.
        sizes: (height, width) by number.
    """

    truth: Truth
    ids: dict[int, Any]
    files: dict[int, str]
    sizes: dict[int, tuple[int, int]]

    @property
    def classes(self) -> list[str]:
        """Names of the classes; of number k + 1 for scorers is the k-th."""
        return [x["name"] for x in self.truth.content["categories"]]


def read_dataset(name: str) -> Dataset:
    """Read a registered dataset.

    Raises:
        ValueError: It cannot be scored, or has no annotations.
    """
    with shared_records():
        truth = read_truth(name)
        if not truth.annotated:
            raise ValueError(f"the dataset {name} has no annotations: there is nothing to report")
        files = {truth.numbers[x["image_id"]]: str(x["file_name"]) for x in records_of(name)}
    ids = {number: image_id for image_id, number in truth.numbers.items()}
    sizes = {number: truth.sizes[image_id] for number, image_id in ids.items()}
    return Dataset(truth, ids, files, sizes)


def read_results(path: Path, dataset: Dataset) -> list[Entry]:
    """Read results in COCO's format, as scorers take them.

    Args:
        path: a list of results with masks, or the JSON of a report, which names one.
        dataset: to which they belong.

    Returns:
        Entries with image number, class number, score and mask, and the box where there is one.

    Raises:
        ValueError: The file cannot be read, or holds other than results of this dataset.
    """
    content = read_json(path)
    if isinstance(content, dict) and isinstance(content.get(RESULTS), str):
        path = path.parent / content[RESULTS]
        content = read_json(path)
    if not isinstance(content, list):
        raise ValueError(
            f"{printable(path)}: expected a list of COCO results, or a report.json; got a json "
            f"{type(content).__name__}"
        )
    labels = {x: k + 1 for k, x in enumerate(dataset.truth.category_ids)}
    entries = [_entry(path, k, x, dataset, labels) for k, x in enumerate(content)]
    sizes = [dataset.sizes[x["image_id"]] for x in entries]
    checked = check_segmentations([x["segmentation"] for x in entries], sizes)
    for k, problem in checked.problems.items():
        raise ValueError(f"{printable(path)}, entry {k}: {problem.text}")
    return [{**x, "segmentation": mask} for x, mask in zip(entries, checked.kept, strict=True)]


def _entry(path: Path, k: int, x: Any, dataset: Dataset, labels: Mapping[Any, int]) -> Entry:
    where = f"{printable(path)}, entry {k}"
    missing = [key for key in _KEYS if key not in x] if isinstance(x, dict) else list(_KEYS)
    if missing:
        raise ValueError(f"{where}: a result needs {', '.join(_KEYS)}; missing: {missing[0]}")
    name = dataset.truth.dataset_name
    number = _look_up(dataset.truth.numbers, x["image_id"])
    label = _look_up(labels, x["category_id"])
    if number is None or label is None:
        key = "image_id" if number is None else "category_id"
        raise ValueError(
            f"{where}: the dataset {name} has no {key} {x[key]!r}; are these results of another?"
        )
    score = x["score"]
    if not isinstance(score, (int, float)) or not (math.isfinite(score) and 0 <= score <= 1):
        raise ValueError(f"{where}: the score must be a number in [0, 1], got {score!r}")
    entry = {
        "image_id": number,
        "category_id": label,
        "score": float(score),
        "segmentation": x["segmentation"],
    }
    return entry | ({"bbox": x["bbox"]} if _is_box(x.get("bbox")) else {})


def _look_up(known: Mapping[Any, int], key: Any) -> int | None:
    return known.get(key) if isinstance(key, (int, str)) else None


def _is_box(box: Any) -> bool:
    return (
        isinstance(box, Sequence)
        and len(box) == 4
        and all(isinstance(v, (int, float)) and math.isfinite(v) for v in box)
    )
