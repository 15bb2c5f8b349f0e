"""List the published checkpoints (the numbers are their authors'), or fetch, save, push models.

    solo-d2 zoo                      list the published checkpoints
    solo-d2 zoo NAME ...             download and convert some, and print where they are
    solo-d2 zoo save MODEL FOLDER    write a model as one folder: config, safetensors, card
    solo-d2 zoo push FOLDER ID       push such a folder to the Hugging Face Hub

Exit code: 0 done; 1 a checkpoint cannot be had, or a file not be written; 2 a wrong argument or
model, or the Hub refuses.
"""

from __future__ import annotations

import argparse
import contextlib
import logging
import math
import sys
from collections.abc import Sequence

from .quiet import foreign_warnings_aside

__all__ = ["main"]


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of listing and fetching."""
    parser = _parser("zoo", __doc__ or "")
    parser.add_argument(
        "names", nargs="*", metavar="NAME", help="e.g. mmdet/solov2_r50_fpn_3x_coco"
    )
    return parser


def make_save_parser() -> argparse.ArgumentParser:
    """Return the parser of ``solo-d2 zoo save``."""
    parser = _parser("zoo save", "Write a model as a folder: config, safetensors weights, card.")
    add = parser.add_argument
    add("model", metavar="MODEL", help="folder of a training, config or model zoo name")
    add("folder", metavar="FOLDER", help="new folder, or a model folder to replace")
    add("--weights", metavar="FILE", help="checkpoint other than the model's own")
    add("--name", help="of the model on its card (default: that of the folder)")
    add("--license", metavar="ID", help="of the weights, on the card, e.g. apache-2.0")
    add("--dataset", metavar="NAME", help="that it was trained and measured on, on the card")
    add(
        "--metric",
        nargs="+",
        action="extend",
        type=_metric,
        default=[],
        metavar="NAME=VALUE",
        help="results on the card, e.g. segm/AP=37.5",
    )
    return parser


def make_push_parser() -> argparse.ArgumentParser:
    """Return the parser of ``solo-d2 zoo push``."""
    parser = _parser(
        "zoo push",
        "Push a folder of `solo-d2 zoo save` to the Hugging Face Hub: its config, its weights and "
        "its card. Log in with `hf auth login`, or set HF_TOKEN.",
    )
    add = parser.add_argument
    add("folder", metavar="FOLDER", help="model folder")
    add("repository", metavar="ID", help="OWNER/NAME, made where there is none yet")
    add("--public", action="store_true", help="let everybody see a new repository")
    add("--revision", metavar="BRANCH", help="branch to push to (default: the main one)")
    add("--message", metavar="TEXT", default="Upload a model of solo_d2", help="of the commit")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    argv = sys.argv[1:] if argv is None else argv
    action = {"save": save, "push": push}.get(argv[0]) if argv else None
    if action is None:
        args = make_parser().parse_args(argv)
        from ..model_zoo.__main__ import run

        return run(args.names)
    parser = make_save_parser() if action is save else make_push_parser()
    args = parser.parse_args(argv[1:])
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    try:
        with foreign_warnings_aside():
            action(args)
    except ValueError as error:
        print(f"{parser.prog}: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        print(f"{parser.prog}: {error}", file=sys.stderr)
        return 1
    return 0


def save(args: argparse.Namespace) -> None:
    """Write the model folder that the arguments ask for."""
    from ..inference import ModelCard, SOLOPredictor

    metrics = dict(args.metric)
    if len(metrics) < len(args.metric):
        raise ValueError(f"--metric names one of {', '.join(metrics)} twice: leave one out")
    card = ModelCard(args.name, args.license, args.dataset, metrics)
    predictor = SOLOPredictor(args.model, weights=args.weights, device="cpu")
    predictor.save_pretrained(args.folder, card)
    print(args.folder)


def push(args: argparse.Namespace) -> None:
    """Push the model folder that the arguments name."""
    from ..model_zoo import push_folder

    options = {"public": args.public, "revision": args.revision, "message": args.message}
    print(push_folder(args.folder, args.repository, **options))


def _parser(verb: str, text: str) -> argparse.ArgumentParser:
    return argparse.ArgumentParser(
        prog=f"solo-d2 {verb}",
        description=text,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )


def _metric(word: str) -> tuple[str, float]:
    name, _, value = word.partition("=")
    with contextlib.suppress(ValueError):
        if name and math.isfinite(number := float(value)):
            return name, number
    raise argparse.ArgumentTypeError(f"expected NAME=VALUE with a finite number, got {word!r}")
