"""What a report is made of: the dataset that was evaluated, and files of results."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..evaluation.records import records_of, shared_records
from ..evaluation.result_files import read_entries
from ..evaluation.truth import Truth, read_truth
from ..io.json_reader import read_json

__all__ = ["Dataset", "read_dataset", "read_results"]

Entry = dict[str, Any]

RESULTS = "results"
"""Key of a report's JSON that names the file of its results."""


@dataclass(frozen=True)
class Dataset:
    """A dataset that was evaluated.

    Attributes:
        truth: as scorers have it.
        ids: the dataset's image id by number, the id of scorers.
        files: the image file by number.
        sizes: (height, width) by number.
        max_value: of the image files, see `read_image`.
    """

    truth: Truth
    ids: dict[int, Any]
    files: dict[int, str]
    sizes: dict[int, tuple[int, int]]
    max_value: float = 0

    @property
    def classes(self) -> list[str]:
        """Names of the classes; of number k + 1 for scorers is the k-th."""
        return [x["name"] for x in self.truth.content["categories"]]


def read_dataset(name: str, max_value: float = 0) -> Dataset:
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
    return Dataset(truth, ids, files, sizes, max_value)


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
    return read_entries(path, dataset.truth)
