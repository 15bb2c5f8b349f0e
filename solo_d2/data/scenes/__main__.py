"""Build a dataset of generated scenes: ``python -m solo_d2.data.scenes KIND --output DIR``."""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence

from .kinds import KINDS

__all__ = ["main"]


def main(argv: Sequence[str] | None = None, prog: str = "python -m solo_d2.data.scenes") -> int:
    """Run the command.

    Returns:
        Exit status: 2 for options that cannot be used, 1 for images that cannot be had or files
        that cannot be read or written.
    """
    args = _parser(prog).parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    from .build import build
    from .debian import StampsUnavailableError

    try:
        build(
            KINDS[args.kind].make_source(args),
            args.output,
            train=args.train,
            val=args.val,
            seed=args.seed,
            workers=args.workers,
        )
    except (OSError, ValueError, StampsUnavailableError) as error:
        sys.stderr.write(f"error: {error}\n")
        return 2 if isinstance(error, ValueError) else 1
    return 0


def _parser(prog: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=prog,
        description="Build a dataset of generated scenes.",
        epilog="`solo-d2 scenes cutouts FOLDER` makes cut-outs for rgba of photographs, "
        "`solo-d2 scenes film` films with known identities.",
    )
    kinds = parser.add_subparsers(dest="kind", required=True, metavar="KIND")
    for kind, found in KINDS.items():
        sub = kinds.add_parser(kind, help=found.summary, description=f"Scenes: {found.summary}.")
        add = sub.add_argument
        train, val, size = found.defaults
        add("--output", required=True, metavar="DIR", help="folder of the dataset")
        add("--train", type=int, default=train, help="training scenes (%(default)s)")
        add("--val", type=int, default=val, help="validation scenes (%(default)s)")
        shown = f"HxW pixels ({size[0]}x{size[1]})"
        add("--size", type=_parse_size, default=size, metavar="HxW", help=shown)
        add("--seed", type=int, default=0, help="seed of the scenes (%(default)s)")
        add("--workers", type=int, help="processes (number of CPUs)")
        found.add_arguments(sub)
    return parser


def _parse_size(text: str) -> tuple[int, int]:
    """Parse "HEIGHTxWIDTH", such as "320x416"."""
    height, _, width = text.lower().partition("x")
    if not (height.isdigit() and width.isdigit() and min(int(height), int(width)) >= 64):
        raise argparse.ArgumentTypeError(f"expected HEIGHTxWIDTH, each at least 64, got '{text}'")
    return int(height), int(width)


if __name__ == "__main__":
    sys.exit(main())
