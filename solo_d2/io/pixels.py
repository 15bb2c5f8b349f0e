"""Values of more than 8 bits to 8 bits: which value is white, and doubts about it in the log."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np

from .paths import printable

__all__ = ["ScaleError", "to_uint8"]

_FULL = 65535
_LOW_BITS = 2**14  # 16-bit values below it may well have 10, 12 or 14 bits
_logger = logging.getLogger(__name__)
_said: set[tuple[str, str, int]] = set()


class ScaleError(ValueError):
    """Values that have no defined scale to 8 bits."""


def to_uint8(values: np.ndarray, name: str, *, white: float = 0, declared: int = 0) -> np.ndarray:
    """Scale whole numbers or floats so that white becomes 255.

    White is `white` if given, else `declared`, else 65535 for whole numbers and 1 for floats.
    Doubts are logged once for each folder and kind of file: whole numbers without a known range
    that use the lowest bits alone, and values above `white`, which become 255.

    Args:
        values: of any shape, 0 or more; uint8 comes back as it is.
        name: of the file, for messages.
        white: the value that becomes 255 (`INPUT.MAX_VALUE`); 0 is not known.
        declared: the largest possible value by the file's own header; 0 is not known.

    Returns:
        uint8 of the same shape.

    Raises:
        ScaleError: there are negative or infinite values or NaN, or larger ones than white by
            default.
    """
    if values.dtype == np.uint8 or not values.size:
        return values.astype(np.uint8)
    whole = values.dtype.kind in "ui"
    low, high = (float(values.min()), float(values.max()))
    limit = float(white or (declared if 0 < high <= declared else _FULL) if whole else white or 1)
    if not (low >= 0 and high < np.inf and (white or high <= limit)):  # also true for NaN
        kind, expected = ("integer", f"16 bits: [0, {_FULL}]") if whole else ("float", "[0, 1]")
        raise ScaleError(f"{kind} values in [{low:g}, {high:g}], expected {expected}")
    if high > limit:
        _say(name, 0, "values up to %g are above INPUT.MAX_VALUE %g and become white", high, limit)
    elif whole and limit == _FULL and not white and 0 < high < _LOW_BITS:
        bits = next(n for n in (8, 10, 12, 14) if high < 2**n)
        _say(
            name,
            bits,
            "a 16-bit image whose values end at %g, as %d-bit data would; scaled by 65535 it is "
            "almost black. For %d bits set INPUT.MAX_VALUE %d",
            high,
            bits,
            bits,
            2**bits - 1,
        )
    return _scale(values, limit, high)


def _scale(values: np.ndarray, limit: float, high: float) -> np.ndarray:
    if values.dtype.kind in "ui" and high <= _FULL:
        # A table: no floats of the image's size.
        table = np.minimum(np.round(np.arange(int(high) + 1) / (limit / 255)), 255)
        return table.astype(np.uint8)[values]
    return np.minimum(np.round(values * (255 / limit)), 255).astype(np.uint8)


def _say(name: str, kind: int, text: str, *values: object) -> None:
    """Warn once of a kind of doubt about files of one folder and extension."""
    path = Path(name)
    key = (str(path.parent), path.suffix.lower(), kind)
    if key in _said:
        return
    if len(_said) < 1000:  # a program that runs for months forgets nothing and fills no memory
        _said.add(key)
    _logger.warning(f"%s: {text}", printable(name), *values)
