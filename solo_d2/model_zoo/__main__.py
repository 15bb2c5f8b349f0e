"""``python -m solo_d2.model_zoo``: list the published checkpoints, or fetch some."""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence

from .checkpoints import markdown_table
from .weights import local_weights


def run(names: Sequence[str]) -> int:
    """Print the table without names, else fetch the named checkpoints and print their files.

    Returns:
        0, or 1 when a checkpoint cannot be had.
    """
    if not names:
        sys.stdout.write(markdown_table() + "\n")
        return 0
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    for name in names:
        try:
            sys.stdout.write(f"{local_weights(name)}\n")
        except ValueError as error:
            sys.stderr.write(f"error: {error}\n")
            return 1
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code of `run`."""
    parser = argparse.ArgumentParser(
        prog="python -m solo_d2.model_zoo",
        description="List the published checkpoints (the numbers are their authors'), or download "
        "and convert the named ones and print where they are.",
    )
    parser.add_argument(
        "names", nargs="*", metavar="NAME", help="e.g. mmdet/solov2_r50_fpn_3x_coco"
    )
    return run(parser.parse_args(argv).names)


if __name__ == "__main__":
    sys.exit(main())
