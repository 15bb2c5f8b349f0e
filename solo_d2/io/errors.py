"""Errors and values of others as part of one line of ours."""

from __future__ import annotations

import reprlib
from typing import Any

_LENGTH = 500


def one_line(error: BaseException) -> str:
    """Return the text of an error in one line without a full stop; its type where it has none."""
    text = str(error)
    if "in DataLoader worker process" in text:  # behind the other process's traceback
        last = text.strip().splitlines()[-1]
        text = last.partition(": ")[2] or last
    return printable(" ".join(text.split()).rstrip(".")) or type(error).__name__


def printable(text: str, length: int = _LENGTH) -> str:
    """Return text from elsewhere so that it fits into a line: no control characters, not long."""
    short = text if len(text) <= length else text[: length - 1] + "…"
    return "".join(letter if letter.isprintable() else "?" for letter in short)


def shown(value: Any) -> str:
    """Return a value as Python writes it, texts in quotes, shortened and safe to print."""
    shortener = reprlib.Repr()
    shortener.maxstring = shortener.maxother = shortener.maxlong = 60
    return printable(" ".join(shortener.repr(value).split()))
