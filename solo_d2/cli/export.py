"""Export a model for ONNX Runtime, OpenVINO or plain torch, and check that it finds the same.

    solo-d2 export --config-file CONFIG --weights FILE --output model.onnx
    solo-d2 predict --config-file model.onnx --input photo.jpg

Everything that is needed to run the file is in it: solo-d2 predict and eval take it as a model.

Exit code: 0 done; 1 a file cannot be written; 2 a wrong argument, config or weights file, a
missing package, or results that differ from the model's (nothing is written then).
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, cast

from ..engine.arguments import command_parser, parse_arguments
from .accuracy import limit_of_drop

if TYPE_CHECKING:
    from torch import Tensor

    from ..export import ExportReport
    from ..inference.predictor import SOLOPredictor
    from ..modeling import SOLO

__all__ = ["main", "make_parser"]

FORMATS = ("onnx", "openvino", "pt2", "torchscript")


def make_parser(prog: str = "solo-d2 export") -> argparse.ArgumentParser:
    """Return the parser of the command line, which leaves config overrides to others."""
    example = "MODEL.SOLO.SCORE_THRESH_TEST 0.2"
    parser = command_parser(prog, __doc__, "[options]", example)
    add = parser.add_argument
    add("--config-file", required=True, metavar="CONFIG", help="YAML file or model zoo name")
    add(
        "--output",
        required=True,
        type=Path,
        metavar="FILE",
        help=".onnx, .xml (with .bin beside it), .pt2 or .torchscript",
    )
    add("--format", choices=FORMATS, help="default: what the suffix of --output says")
    add(
        "--kind",
        choices=("full", "raw"),
        default="full",
        help="instances come out (default), or the network's raw output",
    )
    add("--size", metavar="HxW", help="size of the input (default: any multiple of the divisor)")
    add("--batch", default="1", metavar="N", help='images at once, or "any" (default: 1)')
    add(
        "--max-candidates",
        type=int,
        default=200,
        metavar="K",
        help="(cell, class) pairs looked at, the best by category score (default: %(default)s)",
    )
    add("--precision", help="f32 (default); of OpenVINO also bf16, f16, and int8 with --calibrate")
    add("--calibrate", metavar="DIR", help="folder of images for int8, of which 64 are looked at")
    add(
        "--max-drop",
        type=float,
        metavar="AP",
        help="of int8: leave layers in f32 until at most this much mask AP is lost on --data",
    )
    add("--data", metavar="DIR", help="a dataset as of solo-d2 eval, of which 100 images are used")
    add("--no-check", action="store_true", help="do not compare the file's results")
    return parser


def export(args: argparse.Namespace) -> ExportReport:
    """Do what the arguments ask for."""
    from ..export import export_model
    from ..export.formats import format_of

    size, batch = read_size(args.size), read_batch(args.batch)
    if args.calibrate is not None and size is not None:
        raise ValueError("--calibrate takes images of any size; leave --size out")
    if (args.max_drop is None) != (args.data is None):
        raise ValueError("--max-drop and --data go together; one is missing")
    format_of(args.output, args.format)  # before the model is built
    predictor = make_predictor(args)
    limit = None if args.data is None else limit_of_drop(predictor, args.data, args.max_drop)
    time = "about half a minute" if limit is None else "minutes, more if AP is lost"
    print(f"writing {args.output}, which takes {time}", file=sys.stderr)
    return export_model(
        predictor,
        args.output,
        format=args.format,
        kind=args.kind,
        size=size,
        batch=batch,
        max_candidates=args.max_candidates,
        precision=args.precision,
        check=not args.no_check,
        calibration=() if args.calibrate is None else read_images(predictor, args.calibrate),
        limit=limit,
    )


def make_predictor(args: argparse.Namespace) -> SOLOPredictor:
    """Return the model that the arguments name, with its config."""
    from ..inference.predictor import SOLOPredictor
    from ..inference.trained import load_trained
    from ..io.plugins import import_plugins

    import_plugins(args.imports)
    cfg, weights = load_trained(args.config_file, args.opts, args.weights)
    return SOLOPredictor(cfg, weights=weights, device="cpu")


def read_images(predictor: SOLOPredictor, folder: str, most: int = 64) -> list[Tensor]:
    """Read images of a folder as the network gets them, (3, H, W), padded with the mean colour."""
    import torch
    import torch.nn.functional as F

    from ..inference.inputs import find_images
    from ..io.image import read_image
    from ..layers.images import resize_image, resized_shape

    files, problems = find_images([folder])
    if not files:
        raise ValueError(" ".join(problems))
    node, model = predictor.cfg.INPUT, cast("SOLO", predictor.model)
    divisor, mean = model.size_divisibility, model.pixel_mean.cpu()
    images = []
    for file in files[:: -(-len(files) // most)]:
        image = read_image(file, node.FORMAT, max_value=predictor.max_value)
        shape = resized_shape(image.shape[:2], node.MIN_SIZE_TEST, node.MAX_SIZE_TEST)
        pixels = torch.tensor(resize_image(image, shape, node.RESIZE_FILTER)).permute(2, 0, 1)
        bottom, right = (-side % divisor for side in pixels.shape[1:])
        images.append(F.pad(pixels - mean, (0, right, 0, bottom)) + mean)
    return images


def read_size(text: str | None) -> tuple[int, int] | None:
    """Read ``480x640`` (height, width)."""
    if text is None:
        return None
    sides = text.lower().split("x")
    if len(sides) != 2 or not all(side.isdecimal() for side in sides):
        raise ValueError(f"--size expects HEIGHTxWIDTH in pixels, such as 480x640, got {text!r}")
    return int(sides[0]), int(sides[1])


def read_batch(text: str) -> int | None:
    """Read a number, or "any"."""
    if text == "any":
        return None
    if not text.isdecimal():
        raise ValueError(f'--batch expects a number of images or "any", got {text!r}')
    return int(text)


def main(argv: Sequence[str] | None = None, *, prog: str = "solo-d2 export") -> int:
    """Run the command line; returns the exit code."""
    parser = make_parser(prog)
    try:
        print(export(parse_arguments(argv, parser)))
    except (ValueError, OSError) as error:
        print(f"{parser.prog}: {' '.join(str(error).split())}", file=sys.stderr)
        return 1 if isinstance(error, OSError) else 2
    return 0
