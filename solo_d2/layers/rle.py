"""Run-length encoding of masks in COCO's compressed form, bit for bit as pycocotools does it."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import pycocotools.mask as mask_util
import torch
from torch import Tensor

from .checks import check_tensors

# COCO writes a count in digits of five bits, lowest first, as text: another bit says that more
# digits follow, and the offset makes them printable.
_DIGIT_BITS, _MORE, _OFFSET = 5, 0x20, 48


def encode_masks(masks: Tensor) -> list[dict[str, Any]]:
    """Encode boolean masks.

    Runs go down the columns, so that the cost of an encoder is the transposition of the image.
    Here only the columns that an object reaches are transposed and encoded; all that the columns
    beside them change is the first count and the last.

    Args:
        masks: boolean (K, H, W), on any device.

    Returns:
        K dicts with ``size`` [H, W] and ``counts``, text, ready for JSON and for pycocotools.

    Raises:
        ValueError: masks of another type or shape.

    Example:
        >>> import torch
        >>> masks = torch.zeros(1, 3, 4, dtype=torch.bool)
        >>> masks[0, 1, 1:3] = True  # two pixels of the middle row
        >>> encode_masks(masks)
        [{'size': [3, 4], 'counts': '41202'}]
    """
    if isinstance(masks, Tensor) and masks.dtype in (torch.uint8, torch.int8):
        masks = masks.bool()  # as pycocotools has them
    check_tensors("encode_masks", ("masks", masks, "boolean", "K H W"))
    count, height, width = masks.shape
    pixels = masks.cpu().numpy().view(np.uint8)
    used = pixels.max(1, initial=0) > 0  # (K, W)
    first, last = used.argmax(1), width - used[:, ::-1].argmax(1)
    encoded = []
    for i in range(count):
        if used[i].any():
            counts = _encode(pixels[i], int(first[i]), int(last[i]))
        else:
            counts = _number(height * width)
        encoded.append({"size": [height, width], "counts": counts.decode("ascii")})
    return encoded


def encode_crop(crop: np.ndarray, corner: tuple[int, int], size: tuple[int, int]) -> str:
    """Encode a mask of which only a window is known, without an image of its size.

    Args:
        crop: boolean (h, w), which holds all of the mask.
        corner: (x, y) of the crop's top left pixel in the image.
        size: (H, W) of the image.

    Returns:
        The counts, as of `encode_masks`.

    Example:
        >>> import numpy as np
        >>> encode_crop(np.array([[True, True]]), (1, 1), (3, 4))  # two pixels of the middle row
        '41202'
    """
    height, width = size
    # Down the columns, each with a blank pixel at its ends: where runs begin and where they end.
    steps = np.diff(np.pad(crop.T, ((0, 0), (1, 1))).astype(np.int8), axis=1)
    begins, ends = (
        (corner[0] + columns) * height + corner[1] + rows
        for columns, rows in (np.nonzero(steps == step) for step in (1, -1))
    )
    # A run to the foot of the image goes on at the head of the next column.
    first, last = np.ones((2, len(begins)), bool)
    first[1:] = last[:-1] = begins[1:] != ends[:-1]
    changes = np.stack([begins[first], ends[last]], axis=1).ravel()
    runs = np.diff(changes, prepend=0, append=height * width)
    runs = runs[: len(runs) - (runs[-1] == 0)]
    rle = mask_util.frPyObjects({"size": [height, width], "counts": runs.tolist()}, height, width)
    return str(rle["counts"].decode("ascii"))


def decode_crop(counts: str, box: tuple[int, int, int, int], size: tuple[int, int]) -> np.ndarray:
    """Decode the window of a mask that its box holds, without an image of its size.

    Args:
        counts: as of `encode_masks`.
        box: (x0, y0, x1, y1), which holds all of the mask; right and bottom edge exclusive.
        size: (H, W) of the image.

    Returns:
        Boolean (y1 - y0, x1 - x0).

    Example:
        >>> decode_crop("41202", (1, 1, 3, 2), (3, 4))
        array([[ True,  True]])
    """
    (x0, y0, x1, y1), (height, width) = box, size
    text = _add_to_first(counts.encode("ascii"), -x0 * height)
    if x1 < width:
        text = _add_to_last(text, (x1 - width) * height)
    columns = mask_util.decode({"size": [height, x1 - x0], "counts": text})
    return columns[y0:y1].view(np.bool_)


def _encode(mask: np.ndarray, first: int, last: int) -> bytes:
    """Counts of a mask (H, W) from its columns [first, last), which hold all of the object."""
    height, width = mask.shape
    # With a blank column behind the object the last run is always one of background, to which
    # the columns that follow can be added.
    more = min(last + 1, width)
    columns = cv2.transpose(mask[:, first:more])
    counts = mask_util.encode(columns.T[..., None])[0]["counts"]
    if first:
        counts = _add_to_first(counts, first * height)
    if more < width:
        counts = _add_to_last(counts, (width - more) * height)
    return counts


def _add_to_first(counts: bytes, pixels: int) -> bytes:
    end = 1
    while counts[end - 1] - _OFFSET & _MORE:
        end += 1
    return _number(_value(counts[:end]) + pixels) + counts[end:]


def _add_to_last(counts: bytes, pixels: int) -> bytes:
    # From the third on COCO stores differences to the count before the last one, so that adding
    # to the last count adds to its difference and changes no other.
    start = len(counts) - 1
    while start and counts[start - 1] - _OFFSET & _MORE:
        start -= 1
    return counts[:start] + _number(_value(counts[start:]) + pixels)


def _value(digits: bytes) -> int:
    value = 0
    for place, digit in enumerate(digits):
        value |= (digit - _OFFSET & (_MORE - 1)) << _DIGIT_BITS * place
    negative = digits[-1] - _OFFSET & _MORE >> 1
    return value - (1 << _DIGIT_BITS * len(digits)) if negative else value


def _number(value: int) -> bytes:
    digits = bytearray()
    while True:
        digit, value = value & (_MORE - 1), value >> _DIGIT_BITS
        # The highest bit of the last digit is the sign.
        if value == (-1 if digit & _MORE >> 1 else 0):
            digits.append(digit + _OFFSET)
            return bytes(digits)
        digits.append((digit | _MORE) + _OFFSET)
