"""Options of training and evaluation. Nothing heavy is imported, so that ``--help`` is quick."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence

from ..data.arguments import add_data_arguments

__all__ = ["add_import_argument", "argument_parser", "command_parser", "parse_arguments"]


def argument_parser(prog: str | None = None) -> argparse.ArgumentParser:
    """Return the parser of ``train_net.py`` and ``solo-d2 train``: Detectron2's options, and data.

    Args:
        prog: Name of the command.

    Example:
        >>> argument_parser().parse_args(["--resume"]).resume
        True
    """
    parser = argparse.ArgumentParser(
        prog=prog,
        description="Train or evaluate a model of the SOLO family.",
        usage="%(prog)s [options] [KEY VALUE ...]",
        epilog="KEY VALUE pairs override the config and may stand anywhere, such as "
        "SOLVER.IMS_PER_BATCH 4",
    )
    add = parser.add_argument
    add("--config-file", default="", metavar="CONFIG", help="YAML file or model zoo name")
    add(
        "--weights",
        metavar="FILE",
        help='checkpoint instead of MODEL.WEIGHTS; "published": those that were published for '
        'the config (default of solo-d2 train --data), "backbone": those of the config',
    )
    _add_checkpoint_arguments(parser)
    add(
        "--allow-partial",
        action="store_true",
        help="load what fits of MODEL.WEIGHTS, and log what is left random",
    )
    add(
        "--verbose",
        action="store_true",
        help="show on the console, too, what goes to log.txt (train_net.py always does)",
    )
    _add_report_arguments(parser)
    _add_launch_arguments(parser)
    add_import_argument(parser)
    add("opts", nargs="*", default=[], help=argparse.SUPPRESS)
    add_schedule_arguments(parser)
    add_data_arguments(parser, more=True)
    return parser


def _add_checkpoint_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what decides between a new training, one that goes on, and an evaluation."""
    add = parser.add_argument
    add(
        "--resume",
        action="store_true",
        help="go on with the last checkpoint of OUTPUT_DIR, or evaluate it",
    )
    add(
        "--eval-only",
        action="store_true",
        help="evaluate MODEL.WEIGHTS, or with --resume the last checkpoint; train nothing",
    )


def _add_report_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what an evaluation tells besides its figures."""
    add = parser.add_argument
    add(
        "--diagnose",
        action="store_true",
        help="find out where AP is lost: diagnosis.md beside the results (TEST.DIAGNOSE True)",
    )
    add(
        "--results",
        nargs="+",
        metavar="PATH",
        help="of an evaluation: score these files or folders of COCO results, one after the other, "
        "instead of a model",
    )
    add(
        "--report",
        metavar="DIR",
        help="of an evaluation: one page with all figures, curves and the worst images",
    )
    add(
        "--report-against",
        metavar="FILE",
        help="compare with these COCO results, or with another report.json, in the report",
    )


def _add_launch_arguments(parser: argparse.ArgumentParser) -> None:
    """Add Detectron2's options of several devices and machines."""
    add = parser.add_argument
    add("--num-gpus", type=int, default=1, metavar="N", help="per machine (default: 1)")
    add("--num-machines", type=int, default=1, metavar="N", help="default: 1")
    add("--machine-rank", type=int, default=0, metavar="N", help="of this machine, from 0 on")
    # As Detectron2's: a port that two users of one machine hardly share.
    port = 2**15 + 2**14 + hash(os.getuid() if sys.platform != "win32" else 1) % 2**14
    add("--dist-url", default=f"tcp://127.0.0.1:{port}", metavar="URL", help="of the first machine")


def command_parser(prog: str, doc: str | None, usage: str, epilog: str) -> argparse.ArgumentParser:
    """Return a parser for a model, with `--weights`, whose config `KEY VALUE` pairs override.

    Args:
        prog: Name of the command.
        doc: Its description, with line breaks.
        usage: What stands between its name and the pairs.
        epilog: An example of a pair.
    """
    parser = argparse.ArgumentParser(
        prog=prog,
        description=doc,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        usage=f"%(prog)s {usage} [KEY VALUE ...]",
        epilog=f"KEY VALUE ... at the end override the config, such as {epilog}",
    )
    parser.add_argument(
        "--weights",
        metavar="FILE",
        help="checkpoint instead of the config's MODEL.WEIGHTS, or of a training's config.yaml "
        "instead of model_best.pth or model_final.pth beside it",
    )
    add_import_argument(parser)
    return parser


def add_import_argument(parser: argparse.ArgumentParser) -> None:
    """Add the option that imports a user's own code, see `solo_d2.io.plugins`."""
    parser.add_argument(
        "--import",
        dest="imports",
        action="append",
        default=[],
        metavar="MODULE",
        help="module or .py file with a head, NMS, loss or data source of your own",
    )


def add_schedule_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options from which the schedule follows."""
    group = parser.add_argument_group(
        "schedule", "instead of the config's SOLVER keys, from the size of the dataset"
    )
    group.add_argument("--epochs", type=float, metavar="N", help="how often every image is seen")
    group.add_argument(
        "--batch-size", type=int, metavar="N", help="images per iteration, over all processes"
    )


def parse_arguments(
    argv: Sequence[str] | None = None, parser: argparse.ArgumentParser | None = None
) -> argparse.Namespace:
    """Parse a command line in which KEY VALUE pairs may stand between and behind options.

    Args:
        argv: The command line without the program; by default that of this process.
        parser: By default `argument_parser`.

    Returns:
        The arguments; `opts` has all pairs.

    Raises:
        ValueError: A key has no value.

    Example:
        >>> args = parse_arguments(["--config-file", "mine.yaml", "SEED", "1"])
        >>> args.config_file, args.opts
        ('mine.yaml', ['SEED', '1'])
    """
    argv = sys.argv[1:] if argv is None else list(argv)
    parser = argument_parser() if parser is None else parser
    if {"-h", "--help"} & set(argv):
        parser.print_help()
        raise SystemExit(0)
    from ..config import split_overrides  # takes a second, which --help does not need

    arguments, overrides = split_overrides(argv)
    args = parser.parse_args(arguments)
    args.opts = [*getattr(args, "opts", []), *overrides]
    if getattr(args, "diagnose", False):
        args.opts += ["TEST.DIAGNOSE", "True"]
    return args
