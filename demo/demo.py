"""Instance masks of images, a video or a camera; ``solo-d2 predict`` does the same.

    python demo/demo.py --config-file NAME_OR_YAML --weights FILE --input PATHS... --output DIR
    python demo/demo.py --config-file NAME_OR_YAML --video-input in.mp4 --output out.mp4
    python demo/demo.py --config-file NAME_OR_YAML --webcam

``--save-json`` with ``--ids FILE`` (``--image-ids``) writes the ids of a COCO file; see ``--help``.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence

from solo_d2.cli import predict
from solo_d2.cli.predict import RunMaker
from solo_d2.inference.predictor import SOLOPredictor
from solo_d2.inference.runner import InferenceRun


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    return predict.make_parser("demo.py")


def make_predictor(args: argparse.Namespace, overrides: Sequence[str]) -> SOLOPredictor:
    """Return the predictor that the arguments ask for."""
    return predict.make_predictor(args, overrides)


def make_run(args: argparse.Namespace, overrides: Sequence[str]) -> InferenceRun:
    """Return the run that the arguments ask for."""
    return predict.make_run(args, overrides, make_predictor)


def main(
    argv: Sequence[str] | None = None,
    make_parser: Callable[[], argparse.ArgumentParser] = make_parser,
    make_run: RunMaker = make_run,
) -> int:
    """Run the command line; returns the exit code. See `solo_d2.cli.predict.main`."""
    return predict.main(argv, make_parser, make_run)


if __name__ == "__main__":
    sys.exit(main())
