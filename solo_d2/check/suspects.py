"""What looks wrong among the labels, and images that two splits share."""

from __future__ import annotations

import hashlib
import os
from collections import defaultdict
from collections.abc import Callable, Sequence

import numpy as np

from .measure import Objects

__all__ = ["SUSPECTS", "close_pairs", "find_suspects", "shared_files"]

SUSPECTS = {
    "identical": "the mask of another object of the image",
    "sliver": "a mask thinner than 2 pixels on average and 10 long",
    "outside": "a mask that reaches out of its box",
    "empty": "a mask without a pixel",
}
"""Kinds of suspicious objects."""

_CLOSE = 30.0
"""Distance of centres, in pixels, that the paper counts pairs below (§1)."""

_RATIO = 1.5
_TOLERANCE = 0.1  # of the mean side of the mask, and 2 pixels, as the reader of COCO files has it


def find_suspects(objects: Objects) -> dict[str, np.ndarray]:
    """Return which objects (I,) are suspicious, by kind as in `SUSPECTS`."""
    sides = objects.boxes[:, 2:] - objects.boxes[:, :2]
    longer = sides.max(1, initial=0)
    beyond = np.concatenate(
        [
            objects.stated[:, :2] - objects.boxes[:, :2],
            objects.boxes[:, 2:] - objects.stated[:, 2:],
        ],
        axis=1,
    )
    allowed = 2 + _TOLERANCE * sides.mean(1) if len(sides) else np.zeros(0)
    present = objects.areas > 0
    return {
        "identical": _identical(objects) & present,
        "sliver": present & (longer >= 10) & (objects.areas < 2 * longer),
        # Comparisons with a box that is not there are false.
        "outside": present & (beyond > allowed[:, None]).any(1),
        "empty": ~present,
    }


def _identical(objects: Objects) -> np.ndarray:
    """Which objects have the mask of one before them in their image."""
    keys = np.stack([objects.images, objects.digests, objects.areas], 1)
    _, first = np.unique(keys, axis=0, return_index=True)
    repeated = np.ones(len(objects), bool)
    repeated[first] = False
    return repeated


def close_pairs(objects: Objects) -> dict[str, float]:
    """Count pairs of objects of an image as §1 of the paper does; lengths in the images' pixels.

    Returns:
        ``pairs``; ``far``, the share in percent whose centres lie more than 30 pixels apart; and
        ``differ``, the share of all others whose sizes sqrt(w · h) differ by more than 1.5 times.
        Shares of nothing are NaN.
    """
    sizes = np.sqrt((objects.boxes[:, 2:] - objects.boxes[:, :2]).prod(1))
    pairs = close = differ = 0
    left, distance = np.arange(len(objects)), 0
    while True:
        distance += 1  # places between the objects of a pair: no table of all pairs is made
        left = left[left + distance < len(objects)]
        left = left[objects.images[left + distance] == objects.images[left]]
        if not left.size:
            break
        right = left + distance
        pairs += left.size
        gaps = np.linalg.norm(objects.centers[left] - objects.centers[right], axis=1)
        near = gaps <= _CLOSE
        close += int(near.sum())
        small, large = np.sort([sizes[left[near]], sizes[right[near]]], axis=0)
        differ += int((large > _RATIO * small).sum())
    return {
        "pairs": pairs,
        "far": 100 * (pairs - close) / pairs if pairs else float("nan"),
        "differ": 100 * differ / close if close else float("nan"),
    }


def shared_files(
    splits: Sequence[Sequence[str]], step: Callable[[], None] = lambda: None
) -> list[tuple[str, str]]:
    """Find equal files of two splits; only files of equal size are read.

    Args:
        splits: two lists of image files. What is missing is passed over.
        step: called for every file that is read.

    Returns:
        Pairs of a file of the first split and one of the second, in the order of the second.
    """
    by_size = [_by_size(files) for files in splits]
    common = by_size[0].keys() & by_size[1].keys()
    known: dict[bytes, str] = {}
    for size in common:
        for file in by_size[0][size]:
            known.setdefault(_digest(file), file)
            step()
    found = []
    for file in (file for size, files in by_size[1].items() if size in common for file in files):
        step()
        if _digest(file) in known:
            found.append((known[_digest(file)], file))
    return found


def _by_size(files: Sequence[str]) -> dict[int, list[str]]:
    sizes = defaultdict(list)
    for file in files:
        try:
            sizes[os.stat(file).st_size].append(file)
        except OSError:  # told by training; nothing that is not there can be shared
            continue
    return sizes


def _digest(file: str) -> bytes:
    digest = hashlib.blake2b()
    with open(file, "rb") as content:
        while block := content.read(1 << 20):
            digest.update(block)
    return digest.digest()
