"""All that is found about a dataset and a config, as plain numbers and texts."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from detectron2.config import CfgNode

from ..modeling.meta_arch import SOLO
from .claims import Claims, claim, network_frames
from .measure import Objects
from .proposal import Advice
from .suspects import SUSPECTS, close_pairs, find_suspects

__all__ = ["SIZES", "Split", "describe", "describe_advice", "finite", "inspect_split"]

SIZES = {"small": (0, 32**2), "medium": (32**2, 96**2), "large": (96**2, float("inf"))}
"""COCO's sizes by the area of the mask, in pixels of the image."""

_WORST = 12
_NAMED = 5


@dataclass(frozen=True)
class Split:
    """A split of a dataset, and what a config makes of it.

    Attributes:
        records: Detectron2's, one per image.
        classes: names of the classes.
        objects: of all images.
        claims: of the objects, at the size of tests.
        suspects: which objects (I,) are suspicious, by kind.
    """

    records: Sequence[Mapping[str, Any]]
    classes: Sequence[str]
    objects: Objects
    claims: Claims
    suspects: dict[str, np.ndarray]

    def worst(self) -> list[int]:
        """Return the images with most objects that are not learnt or suspicious, worst first."""
        doubtful = np.logical_or.reduce([self.claims.missed, *self.suspects.values()])
        counts = np.bincount(self.objects.images[doubtful], minlength=len(self.objects.sizes))
        order = np.argsort(-counts, kind="stable")[:_WORST]
        return [int(i) for i in order if counts[i]]


def inspect_split(
    cfg: CfgNode,
    network: SOLO,
    records: Sequence[Mapping[str, Any]],
    classes: Sequence[str],
    objects: Objects,
) -> Split:
    """Let the objects of a split claim the cells of a config, and look for suspects."""
    claims = _claims(network, objects, cfg.INPUT.MIN_SIZE_TEST, cfg.INPUT.MAX_SIZE_TEST)
    return Split(records, classes, objects, claims, find_suspects(objects))


def _claims(network: SOLO, objects: Objects, short: int, longest: int) -> Claims:
    frames = network_frames(objects.sizes, short, longest, network.size_divisibility)
    return claim(objects, frames, network.assigner)


def describe(
    cfg: CfgNode, network: SOLO, split: Split, ceiling: Mapping[str, float] | None
) -> dict[str, Any]:
    """Return what was found about a split.

    Args:
        cfg: of the network.
        network: of `network_of`.
        split: of `inspect_split`.
        ceiling: of `best_possible_ap`; None where it was not wanted.
    """
    objects, claims, total = split.objects, split.claims, len(split.objects)
    counts = objects.per_image
    limit = cfg.TEST.DETECTIONS_PER_IMAGE
    return {
        "images": len(counts),
        "images_without_objects": int((counts == 0).sum()),
        "objects": total,
        "crowds": objects.crowds,
        "objects_per_image": {"mean": _mean(counts), "most": int(counts.max(initial=0))},
        "images_over_the_limit": int((counts > limit).sum()),
        "cells": {
            "outside": int(claims.outside.sum()),
            "beaten": int(claims.beaten.sum()),
            "without": int(claims.lost.sum()),
            "positives_per_object": _mean(claims.cells),
            "tiny": int(claims.tiny.sum()),
            "too_small": int(claims.dropped.sum()),
            "without_by_training_size": _by_training_size(cfg, network, objects),
        },
        "by_size": _groups(split, _size_groups(objects), ceiling, _ap_of_size),
        "by_class": _groups(split, _class_groups(split), ceiling, "AP-{}".format),
        "best_possible": {k: finite(v) for k, v in (ceiling or {}).items()},
        "pairs": {k: finite(v) for k, v in close_pairs(objects).items()},
        "suspects": _suspects(split),
        "problems": {"count": len(objects.problems), "first": objects.problems[:_NAMED]},
        "levels": [int(x) for x in _per_level(network, claims)],
    }


def describe_advice(advice: Advice) -> dict[str, Any]:
    """Return a proposal as plain numbers and texts."""
    return asdict(advice)


def finite(value: float) -> float | None:
    """Return a number as JSON has it: None where it is none."""
    return value if math.isfinite(value) else None


def _mean(values: np.ndarray) -> float:
    return float(values.mean()) if len(values) else 0.0


def _by_training_size(cfg: CfgNode, network: SOLO, objects: Objects) -> dict[str, float]:
    """Percent of the objects without a cell at the smallest and the largest size of training."""
    sizes = sorted({min(cfg.INPUT.MIN_SIZE_TRAIN), max(cfg.INPUT.MIN_SIZE_TRAIN)})
    found = {}
    for short in sizes:
        claims = _claims(network, objects, short, cfg.INPUT.MAX_SIZE_TRAIN)
        found[str(short)] = 100 * _mean(claims.lost)
    return found


def _size_groups(objects: Objects) -> dict[str, np.ndarray]:
    return {k: (objects.areas >= a) & (objects.areas < b) for k, (a, b) in SIZES.items()}


def _class_groups(split: Split) -> dict[str, np.ndarray]:
    names, labels = list(split.classes), split.objects.classes
    keys = [x if names.count(x) == 1 else f"{x} (class {k})" for k, x in enumerate(names)]
    return {key: labels == label for label, key in enumerate(keys)}


def _ap_of_size(size: str) -> str:
    return f"AP{size[0]}"


def _groups(
    split: Split,
    groups: Mapping[str, np.ndarray],
    ceiling: Mapping[str, float] | None,
    key: Callable[[str], str],
) -> dict[str, dict[str, Any]]:
    """Objects, those without a cell, those that are too small and the best AP, by group."""
    claims = split.claims
    return {
        name: {
            "objects": int(chosen.sum()),
            "without_cell": int((claims.lost & chosen).sum()),
            "too_small": int((claims.dropped & chosen).sum()),
            "best_ap": finite((ceiling or {}).get(key(name), math.nan)),
        }
        for name, chosen in groups.items()
    }


def _suspects(split: Split) -> dict[str, dict[str, Any]]:
    found = {}
    for kind in SUSPECTS:
        chosen = split.suspects[kind]
        images = np.unique(split.objects.images[chosen])
        names = [str(split.records[i]["file_name"]) for i in images[:_NAMED].tolist()]
        found[kind] = {"count": int(chosen.sum()), "images": len(images), "first": names}
    return found


def _per_level(network: SOLO, claims: Claims) -> list[int]:
    """Objects within the range of every level."""
    ranges = network.assigner.grid.scale_ranges
    return [int(((claims.scales >= a) & (claims.scales <= b)).sum()) for a, b in ranges]
