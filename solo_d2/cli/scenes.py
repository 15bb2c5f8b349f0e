"""``solo-d2 scenes``: build a dataset of generated scenes, cut-outs for one, or films."""

from __future__ import annotations

import sys
from collections.abc import Sequence

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    argv = sys.argv[1:] if argv is None else argv
    if argv[:1] == ["cutouts"]:
        from .cutouts import main as cut

        return cut(argv[1:])
    if argv[:1] == ["film"]:
        from ..data.scenes.film_writer import main as film

        return film(argv[1:])
    from ..data.scenes.__main__ import main as build

    return build(argv, prog="solo-d2 scenes")
