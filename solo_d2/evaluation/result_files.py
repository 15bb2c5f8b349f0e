"""Files of results in COCO's format, checked against the dataset that they are of."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..io.json_reader import read_json
from ..io.paths import not_a_file, printable
from ..io.segmentation import Reason, check_segmentations
from .truth import Truth, empty_mask, is_finite

__all__ = ["find_result_files", "read_entries"]

Entry = dict[str, Any]

_KEYS = ("image_id", "category_id", "score", "segmentation")


def find_result_files(paths: Iterable[str | Path]) -> list[Path]:
    """Return the JSON files of folders, in order, and other paths as they are.

    The folder of ``solo-d2 predict --shards`` stands for its results.

    Raises:
        ValueError: A path is neither, or a folder has no JSON file.
    """
    files: list[Path] = []
    for path in map(Path, paths):
        if not path.is_dir():
            problem = not_a_file(path)
            if problem is not None:
                raise ValueError(f"{printable(path)}: {problem}; name files or folders of results")
            files.append(path)
            continue
        folder = path / "results" if (path / "plan.json").is_file() else path
        found = sorted(folder.glob("*.json"))
        if not found:
            raise ValueError(f"{printable(folder)}: has no .json file of results")
        files += found
    return files


def read_entries(path: Path, truth: Truth) -> list[Entry]:
    """Read a list of results in COCO's format, as scorers take them.

    A mask of the right size without a pixel is a wrong detection, as in COCO's own code.

    Args:
        path: a list of results with masks.
        truth: of the dataset to which they belong.

    Returns:
        Entries with image number, class number, score and mask, and the box where there is one.

    Raises:
        ValueError: The file cannot be read, or holds other than results of this dataset.
    """
    content = read_json(path)
    if not isinstance(content, list):
        raise ValueError(
            f"{printable(path)}: expected a list of COCO results, or a report.json; got a json "
            f"{type(content).__name__}"
        )
    labels = {x: k + 1 for k, x in enumerate(truth.category_ids)}
    entries = [_entry(path, k, x, truth, labels) for k, x in enumerate(content)]
    sizes = [truth.sizes[x["image_id"]] for x in content]
    checked = check_segmentations([x["segmentation"] for x in entries], sizes)
    masks = checked.kept
    for k, problem in checked.problems.items():
        if problem.reason is not Reason.NOTHING or not is_finite(entries[k]["segmentation"]):
            raise ValueError(f"{printable(path)}, entry {k}: {problem.text}")
        masks[k] = empty_mask(sizes[k])
    return [{**x, "segmentation": mask} for x, mask in zip(entries, masks, strict=True)]


def _entry(path: Path, k: int, x: Any, truth: Truth, labels: Mapping[Any, int]) -> Entry:
    where = f"{printable(path)}, entry {k}"
    missing = [key for key in _KEYS if key not in x] if isinstance(x, dict) else list(_KEYS)
    if missing:
        raise ValueError(f"{where}: a result needs {', '.join(_KEYS)}; missing: {missing[0]}")
    name = truth.dataset_name
    number = _look_up(truth.numbers, x["image_id"])
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
