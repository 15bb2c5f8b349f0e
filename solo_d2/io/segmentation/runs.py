"""Run lengths of masks: checked before any C code sees them, for many masks at once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from pycocotools import mask as mask_util

from ..errors import shown

__all__ = ["check_rles", "encode_runs", "read_runs", "size_problem"]

# COCO writes a run in digits of five bits, lowest first, as text: another bit says that more
# digits follow, and the offset makes them printable.
_DIGIT_BITS, _MORE, _SIGN, _OFFSET = 5, 0x20, 0x10, 48
_DECODED_TOGETHER = 1 << 16
"""Bytes of text whose digits are in memory at once, as a dozen arrays of eight bytes each."""

_MOST_DIGITS = 6  # 30 bits: more than an image has pixels, and what C code can shift by


def check_rles(
    rles: Sequence[dict[str, Any]], sizes: Sequence[tuple[int, int]]
) -> list[dict[str, Any] | str | None]:
    """Check that run-length encodings are masks of their images.

    Args:
        rles: with "size" and "counts", compressed (text or bytes) or as a list of runs.
        sizes: (height, width) of the images.

    Returns:
        Of each a compressed RLE that decodes to its image (the dict itself where it is one), None
        where no pixel is set, or a text: what is wrong, as the second half of a sentence.
    """
    results: list[dict[str, Any] | str | None] = list(rles)
    packed: list[int] = []
    texts: list[bytes] = []
    for i, (rle, size) in enumerate(zip(rles, sizes, strict=True)):
        counts, problem = rle["counts"], size_problem(rle["size"], size)
        if problem:
            results[i] = problem
        elif isinstance(counts, (str, bytes)):
            packed.append(i)
            texts.append(counts.encode("utf-8", "replace") if isinstance(counts, str) else counts)
        elif type(counts) is list:
            results[i] = _pack(counts, size)
        else:
            results[i] = f"its RLE has the counts {shown(counts)}, which are no runs"
    told = _check_texts(texts, [sizes[i][0] * sizes[i][1] for i in packed])
    for i, problem, empty, gaps in zip(packed, *told, strict=True):
        if problem or empty:
            results[i] = problem or None
        elif gaps:
            plain = {"size": list(sizes[i]), "counts": rles[i]["counts"]}
            results[i] = mask_util.encode(mask_util.decode(plain))
        elif len(rles[i]) > 2 or not _is_plain(rles[i]["size"]):
            results[i] = {"size": list(sizes[i]), "counts": rles[i]["counts"]}
    return results


def encode_runs(runs: np.ndarray, size: tuple[int, int]) -> dict[str, Any]:
    """Encode runs that add up to the pixels of `size`, none of them negative."""
    rle = mask_util.frPyObjects({"size": list(size), "counts": runs.tolist()}, *size)
    # pycocotools stops merging and comparing masks at a run of no pixels behind the first run.
    return mask_util.encode(mask_util.decode(rle)) if (runs[1:] == 0).any() else rle


def read_runs(texts: Sequence[bytes]) -> tuple[np.ndarray, np.ndarray]:
    """Read the runs of compressed RLEs that have been checked.

    Args:
        texts: at least one, none of them empty.

    Returns:
        The runs of all, int64, and where those of each text begin, (M,).
    """
    digits = np.frombuffer(b"".join(texts), np.uint8) - np.uint8(_OFFSET)
    last = np.cumsum([len(text) for text in texts])
    first = np.concatenate([[0], last[:-1]])
    values, begin, _ = _numbers(digits, np.flatnonzero(digits & _MORE == 0), first)
    return _undo_differences(values, begin)[0], begin


def size_problem(stated: Any, size: tuple[int, int]) -> str:
    """Return what is wrong with the size of an RLE; nothing where it is its image's."""
    if type(stated) is list and stated == [*size]:
        return ""
    if isinstance(stated, tuple) and stated == size:
        return ""
    hint = ""
    if isinstance(stated, (list, tuple)) and tuple(stated) == size[::-1]:
        hint = " (height and width are exchanged in one of them)"
    return f"its RLE has the size {shown(stated)}, but its image has {list(size)}{hint}"


def _is_plain(size: Any) -> bool:
    return type(size) is list and type(size[0]) is int and type(size[1]) is int


def _pack(counts: list[Any], size: tuple[int, int]) -> dict[str, Any] | str | None:
    """`check_rles` of one list of runs."""
    kinds = set(map(type, counts))
    if not kinds <= {int, float}:
        wrong = next(x for x in counts if type(x) not in (int, float))
        return f"its RLE has {shown(wrong)} among the runs, which is no number"
    if any(not 0 <= x <= size[0] * size[1] or x != int(x) for x in counts):
        wrong = next(x for x in counts if not 0 <= x <= size[0] * size[1] or x != int(x))
        return f"its RLE has a run of {shown(wrong)} pixels"
    if sum(counts) != size[0] * size[1]:
        return f"its RLE counts {sum(counts)} pixels, its image has {size[0] * size[1]}"
    runs = np.array(counts, np.int64)
    return encode_runs(runs, size) if runs[1::2].any() else None


def _check_texts(texts: list[bytes], pixels: list[int]) -> tuple[list[str], list[bool], list[bool]]:
    """Of each compressed RLE: what is wrong with it, whether it is empty, and has empty runs."""
    problems = ["" if text else "its RLE is empty" for text in texts]
    empty, gaps = [True] * len(texts), [False] * len(texts)
    used = [i for i, text in enumerate(texts) if text]
    start = 0
    while start < len(used):
        stop, total = start, 0
        while stop < len(used) and total < _DECODED_TOGETHER:
            total += len(texts[used[stop]])
            stop += 1
        some = used[start:stop]
        lengths = np.array([len(texts[i]) for i in some], np.int64)
        told = _decode(
            b"".join(texts[i] for i in some), lengths, np.array([pixels[i] for i in some], np.int64)
        )
        for i, problem, has_none, has_gaps in zip(some, *told, strict=True):
            problems[i], empty[i], gaps[i] = problem, has_none, has_gaps
        start = stop
    return problems, empty, gaps


def _decode(
    text: bytes, lengths: np.ndarray, pixels: np.ndarray
) -> tuple[list[str], list[bool], list[bool]]:
    """`_check_texts` of M joined texts of these lengths, none of them empty."""
    last = np.cumsum(lengths) - 1
    first = last - lengths + 1
    digits = np.frombuffer(text, np.uint8) - np.uint8(_OFFSET)
    strange = np.maximum.reduceat(digits, first) > 63
    ends = digits & _MORE == 0
    cut = ~ends[last]
    ends[last] = True  # so that a cut text does not run into the next one
    values, begin, long = _numbers(digits, np.flatnonzero(ends), first)
    runs, order = _undo_differences(values, begin)
    largest, smallest = np.maximum.reduceat(runs, begin), np.minimum.reduceat(runs, begin)
    impossible = long | (largest > pixels) | (smallest < 0)
    total = np.add.reduceat(runs, begin)
    objects = np.add.reduceat(np.where(order & 1, runs, 0), begin)
    gaps = np.logical_or.reduceat((runs == 0) & (order > 0), begin)
    problems = [""] * len(lengths)
    for i in np.flatnonzero(strange | cut | impossible | (total != pixels)).tolist():
        if strange[i]:
            problems[i] = "its RLE has characters that no RLE has"
        elif cut[i]:
            problems[i] = "its RLE ends in the middle of a run; it is cut off"
        elif impossible[i]:
            problems[i] = "its RLE has runs that no mask has; it is damaged, or no RLE"
        else:
            problems[i] = f"its RLE counts {total[i]} pixels, its image has {pixels[i]}"
    return problems, (objects == 0).tolist(), gaps.tolist()


def _numbers(
    digits: np.ndarray, stops: np.ndarray, first: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Put the digits of numbers together.

    Args:
        digits: of all texts, uint8.
        stops: places of the last digits of numbers, at least one in each text.
        first: place of the first digit of every text, (M,).

    Returns:
        The numbers, which of them is the first of each text, (M,), and which texts have numbers
        of more than `_MOST_DIGITS`, (M,).
    """
    starts = np.concatenate([[0], stops[:-1] + 1])
    more = stops - starts
    begin = np.searchsorted(stops, first)
    values = (digits[starts] & (_MORE - 1)).astype(np.int64)
    for place in range(1, min(int(more.max()), _MOST_DIGITS - 1) + 1):
        chosen = np.flatnonzero(more >= place)
        high = (digits[starts[chosen] + place] & (_MORE - 1)).astype(np.int64)
        values[chosen] |= high << _DIGIT_BITS * place
    negative = np.flatnonzero(digits[stops] & _SIGN)
    values[negative] -= 1 << _DIGIT_BITS * (np.minimum(more[negative], _MOST_DIGITS - 1) + 1)
    return values, begin, np.maximum.reduceat(more, begin) >= _MOST_DIGITS


def _undo_differences(values: np.ndarray, begin: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Runs of the numbers of texts that begin there, and the place of each run in its text.

    From the fourth on a number is a difference to the run before the last one, so that the runs at
    odd places are one running sum and those at even places, but for the first, another.
    """
    counts = np.diff(begin, append=len(values))
    order = np.arange(len(values)) - np.repeat(begin, counts)
    runs = values.copy()
    for members, length in (
        (np.flatnonzero(order & 1), counts // 2),
        (np.flatnonzero((order & 1 == 0) & (order > 0)), (counts - 1) // 2),
    ):
        sums = np.cumsum(values[members])
        ends = np.cumsum(length)
        before = np.concatenate([[0], sums])[ends - length]
        runs[members] = sums - np.repeat(before, length)
    return runs, order
