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
