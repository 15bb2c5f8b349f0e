"""Errors of other code as part of one line of ours."""

from __future__ import annotations


def one_line(error: BaseException) -> str:
    """Return the text of an error in one line without a full stop; its type where it has none."""
    return " ".join(str(error).split()).rstrip(".") or type(error).__name__
