"""``solo-d2 zoo``: list the published checkpoints, or fetch some."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

__all__ = ["main"]


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = argparse.ArgumentParser(
        prog="solo-d2 zoo",
        description="List the published checkpoints (the numbers are their authors'), or download "
        "and convert the named ones and print where they are.",
    )
    parser.add_argument(
        "names", nargs="*", metavar="NAME", help="e.g. mmdet/solov2_r50_fpn_3x_coco"
    )
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns 1 when a checkpoint cannot be had."""
    args = make_parser().parse_args(argv)
    from ..model_zoo.__main__ import run

    return run(args.names)
