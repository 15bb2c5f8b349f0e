"""``solo-d2 eval``: evaluate a model; as ``solo-d2 train --eval-only``, with ``--weights``."""

from __future__ import annotations

from collections.abc import Sequence

from . import train

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    return train.main(argv, evaluate=True)
