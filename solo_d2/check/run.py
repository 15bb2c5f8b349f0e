"""Check registered datasets against a config: all of ``solo-d2 check`` but its options."""

from __future__ import annotations

import itertools
import math
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from detectron2.config import CfgNode
from detectron2.data import MetadataCatalog
from tqdm import tqdm

from ..data.checks import shown_name
from ..data.records import training_records
from ..io.json_reader import collector_paused
from ..modeling.meta_arch import SOLO
from .ceiling import best_possible_ap
from .claims import network_of
from .measure import measure_objects
from .proposal import propose, with_settings
from .report import Split, describe, describe_advice, finite, inspect_split
from .suspects import shared_files

__all__ = ["Checked", "check_datasets"]

_SCORED = 500
"""Images, drawn at random, whose perfect predictions are scored."""


@dataclass(frozen=True)
class Checked:
    """What `check_datasets` found.

    Attributes:
        report: all figures, as JSON has them.
        splits: what they were counted from, by "train" and "val".
    """

    report: dict[str, Any]
    splits: dict[str, Split]


def check_datasets(cfg: CfgNode, names: Mapping[str, str]) -> Checked:
    """Check what a config would learn of datasets; progress goes to the standard error.

    Args:
        cfg: with the number of classes of the datasets.
        names: of registered datasets, by "train" and "val".

    Raises:
        ValueError: a dataset without objects, or one that cannot be measured.
    """
    network = network_of(cfg)
    splits, parts = {}, {}
    for key, name in names.items():
        splits[key] = _inspect(cfg, network, name)
        ceiling = _ceiling(cfg, network, splits[key], f"{key}: best possible AP")
        parts[key] = describe(cfg, network, splits[key], ceiling)
    report: dict[str, Any] = {"splits": parts}
    if len(splits) == 2:
        files = [[str(x["file_name"]) for x in split.records] for split in splits.values()]
        with _progress("files of both splits", None, "file") as bar:
            report["in_both_splits"] = [list(pair) for pair in shared_files(files, bar.update)]
    first = next(iter(splits.values()))
    with _progress("proposal", None, ""):
        advice = propose(cfg, network, first.objects)
    report["proposal"] = describe_advice(advice)
    if advice.change is not None:
        changed = with_settings(cfg, advice.change.settings)
        ceiling = _ceiling(changed, network_of(changed), first, "proposal: best possible AP")
        report["proposal"]["change"]["best_ap"] = finite(ceiling.get("AP", math.nan))
    return Checked(report, splits)


def _ceiling(cfg: CfgNode, network: SOLO, split: Split, what: str) -> dict[str, float]:
    """The best possible AP of some images of a split; nothing without a usable one."""
    chosen = _scored_images(split)
    if not chosen:
        return {}
    with _progress(what, len(chosen), "image") as bar:
        return best_possible_ap(cfg, network, chosen, split.classes, bar.update)


def _inspect(cfg: CfgNode, network: SOLO, name: str) -> Split:
    with collector_paused():
        records = training_records(name, cfg.MODEL.SOLO.NUM_CLASSES, filter_empty=False)
    if not isinstance(records, list | tuple):
        raise ValueError(
            f"the images of {shown_name(name)} are made while training and cannot be checked; "
            "check the dataset that they are made of"
        )
    classes = MetadataCatalog.get(name).get("thing_classes")
    if classes is None:
        classes = [str(label) for label in range(cfg.MODEL.SOLO.NUM_CLASSES)]
    with _progress(f"{shown_name(name)}: objects", len(records), "image") as bar:
        objects = measure_objects(records, step=bar.update)
    if not len(objects):
        raise ValueError(
            f"{shown_name(name)}: none of {len(objects.problems)} annotations has a usable mask; "
            f"the first, {objects.problems[0]}"
        )
    return inspect_split(cfg, network, records, list(classes), objects)


def _scored_images(split: Split) -> Sequence[Mapping[str, Any]]:
    """Some of the images whose annotations can all be used."""
    has = np.flatnonzero(split.objects.per_image)
    order = np.random.default_rng(0).permutation(has)
    usable = (split.records[i] for i in order.tolist() if _is_usable(split, i))
    return list(itertools.islice(usable, _SCORED))


def _is_usable(split: Split, image: int) -> bool:
    record = split.records[image]
    annotations = record.get("annotations") or ()
    return record.get("image_id") is not None and all(
        x.get("segmentation") is not None for x in annotations
    )


@contextmanager
def _progress(what: str, total: int | None, unit: str) -> Iterator[Any]:
    """A bar on a terminal, and elsewhere a line."""
    with tqdm(total=total, desc=what, unit=unit, leave=False, disable=None) as bar:
        if bar.disable:
            sys.stderr.write(f"{what} ...\n")
        yield bar
