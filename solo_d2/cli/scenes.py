"""``solo-d2 scenes``: build a dataset of generated scenes."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    from ..data.scenes.__main__ import main as build

    return build(argv, prog="solo-d2 scenes")
