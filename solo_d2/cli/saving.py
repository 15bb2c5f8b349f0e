"""Options of ``solo-d2 predict`` that save what was found as datasets."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from ..data.datasets.formats import WRITERS, has_outlines

if TYPE_CHECKING:
    from ..inference.runner import InferenceRun

__all__ = ["add_save_arguments", "check_save_arguments", "saving"]

TOLERANCE = 1.0
"""Pixels by which outlines are simplified where nothing is said."""


def add_save_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    add = parser.add_argument
    add(
        "--save",
        nargs="+",
        type=_format_and_folder,
        default=[],
        metavar="FORMAT[:DIR]",
        help="save images and what was found in them as datasets, to correct and to train on: "
        f"{', '.join(WRITERS)}; DIR is a new folder (default: OUTPUT/FORMAT)",
    )
    add(
        "--tolerance",
        type=float,
        metavar="PX",
        help="of --save: simplify outlines by so many pixels at most "
        f"(default: {TOLERANCE:g}; 0 is exact)",
    )


def _format_and_folder(word: str) -> str:
    if word.partition(":")[0] not in WRITERS:
        raise argparse.ArgumentTypeError(f"{word!r} is none of {', '.join(WRITERS)}")
    return word


def check_save_arguments(args: argparse.Namespace, output: str) -> dict[str, Path]:
    """Return the folders to write by format.

    Raises:
        ValueError: They cannot be written, or there is nothing that can be saved so.
    """
    from ..inference.saving import save_folders

    if args.save and not args.input:
        raise ValueError(
            "--save goes with --input: a dataset of a film would be thousands of images that are "
            "nearly alike; choose some (ffmpeg -i FILM -vf fps=1 frames/%06d.png), and give those"
        )
    kinds = [word.partition(":")[0] for word in args.save]
    if args.tolerance is not None and not any(map(has_outlines, kinds)):
        raise ValueError(
            "--tolerance is of formats with outlines, such as labelme and yolo, and --save names "
            "none: leave it out"
        )
    if args.tolerance is not None and not args.tolerance >= 0:
        raise ValueError(f"--tolerance must be 0 or more pixels, got {args.tolerance}")
    beside = [args.save_json] if args.save_json else []
    return save_folders(args.save, output, beside if args.no_draw else [output, *beside])


@contextmanager
def saving(run: InferenceRun, folders: dict[str, Path], tolerance: float | None) -> Iterator[None]:
    """Save what a run finds, and say where it is, whatever ends the run."""
    from ..inference.saving import DatasetSaver

    if not folders:
        yield
        return
    saver = DatasetSaver(folders, run.class_names, TOLERANCE if tolerance is None else tolerance)
    run.on_image = saver
    try:
        yield
    finally:
        for line in saver.close():
            print(line, file=sys.stderr if "left out" in line else sys.stdout)
