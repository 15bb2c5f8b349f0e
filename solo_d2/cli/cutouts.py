"""``solo-d2 scenes cutouts FOLDER``: cut the objects out of photographs of your own.

Writes an image with an alpha channel (PNG) for each object that stands out, in the folders of the
photographs, which are the classes of ``solo-d2 scenes rgba --cutouts``. Exit code 2: an argument
that cannot be used; 1: a photograph that cannot be read, or none with an object.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
from tqdm import tqdm

from ..data.scenes.rgba_folders import list_images
from ..inference.effects import cut_out, estimate_foreground, load_pymatting
from ..inference.saliency import SaliencyModel, packaged_model, split_parts
from ..io.image import read_image, write_image
from ..io.paths import printable

__all__ = ["main"]


def make_parser() -> argparse.ArgumentParser:
    """Make the parser of the command."""
    parser = argparse.ArgumentParser(
        prog="solo-d2 scenes cutouts",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("folder", type=Path, metavar="FOLDER", help="photographs, each of one object or a few")
    add("--output", type=Path, required=True, metavar="DIR", help="folder of the cut-outs")
    add("--model", type=Path, metavar="FILE", help="network in ONNX format (U²-Netp of PyPI)")
    add("--size", type=int, default=640, metavar="N", help="longest side in pixels (%(default)s)")
    add("--no-foreground", action="store_true", help="keep the photograph's colours at the edges")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    args = make_parser().parse_args(argv)
    try:
        photographs = list_images(args.folder, "photographs")
        _check(args, photographs)
        model = SaliencyModel(args.model or packaged_model())
    except ValueError as error:
        print(f"solo-d2 scenes cutouts: {error}", file=sys.stderr)
        return 2
    return _cut_all(photographs, model, args)


def _check(args: argparse.Namespace, photographs: Sequence[Path]) -> None:
    if args.size < 32:
        raise ValueError(f"--size must be at least 32 pixels, got {args.size}")
    source, target = args.folder.resolve(), args.output.resolve()
    if target == source or source in target.parents:
        raise ValueError(
            f"--output {args.output} lies in {args.folder}, whose images are all photographs; name "
            "a folder elsewhere"
        )
    for one, other in pairwise(photographs):
        if one.with_suffix("") == other.with_suffix(""):
            raise ValueError(
                f"{one.name} and {other.name} would be cut into files of one name; rename one"
            )
    if not args.no_foreground:
        load_pymatting("foreground")


def _cut_all(photographs: Sequence[Path], model: SaliencyModel, args: argparse.Namespace) -> int:
    """Cut, and tell what became of every photograph without a cut-out."""
    made, problems = 0, []
    for path in tqdm(photographs, unit="photograph", disable=None):
        try:
            pieces = cut(read_image(path, "RGB"), model, args.size, not args.no_foreground)
            for number, piece in enumerate(pieces):
                name = path.relative_to(args.folder).with_suffix("")
                write_image(args.output / f"{name}_{number:02d}.png", piece)
        except ValueError as error:
            problems.append(str(error))
            continue
        made += len(pieces)
        if not pieces:
            print(f"{printable(path)}: nothing stands out; left out", file=sys.stderr)
    for problem in problems:
        print(f"solo-d2 scenes cutouts: {problem}", file=sys.stderr)
    print(f"{made} cut-outs of {len(photographs)} photographs are in {args.output}")
    return 1 if problems or not made else 0


def cut(
    image: np.ndarray, model: SaliencyModel, size: int, foreground: bool = True
) -> list[np.ndarray]:
    """Cut out the objects that stand out.

    Args:
        image: uint8 RGB (H, W, 3).
        model: Says what stands out.
        size: Longest side of the photograph in pixels; a larger one is reduced first, because the
            network's edges are those of its small input.
        foreground: Estimate the object's own colours at soft edges, with pymatting.

    Returns:
        Images uint8 BGRA (h, w, 4), largest object first.
    """
    saliency = model(image)
    factor = size / max(image.shape)
    if factor < 1:
        shape = [max(1, round(side * factor)) for side in image.shape[1::-1]]
        image, saliency = (
            cv2.resize(x, shape, interpolation=cv2.INTER_AREA) for x in (image, saliency)
        )
    image = np.ascontiguousarray(image[..., ::-1])
    pieces = []
    for matte in split_parts(saliency):
        colors = estimate_foreground(image, matte) if foreground else None
        pieces.append(cut_out(image, matte, colors))
    return pieces
