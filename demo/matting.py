"""Cut out what was found, blur what is behind it, or put it over another background.

    python demo/matting.py --config-file CONFIG --weights FILE --input PATHS... --output DIR
    python demo/matting.py ... --blur                            # around the best instance
    python demo/matting.py ... --blur 3 --class mammal --instance 1
    python demo/matting.py ... --background beach.jpg --video-input in.mp4 --output out.mp4

Made for Soft SOLO, whose instances have mattes; of any other model the binary masks are taken.
Without --blur and --background every instance becomes a PNG with an alpha channel,
NAME_00_CLASS.png by descending score, of a video a folder of them. Other options and exit codes as
in demo/demo.py; an image without the chosen instance is an input that cannot be used, a frame
stays as it is.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np

import demo
from solo_d2.cli.films import make_tracker
from solo_d2.export import is_exported
from solo_d2.inference.effects import (
    Effect,
    blur_background,
    fill_frame,
    load_pymatting,
    parse_color,
    replace_background,
    set_levels,
)
from solo_d2.inference.predictor import SOLOPredictor
from solo_d2.inference.renderers import CutOutRenderer, EffectRenderer, MatteChoice, Renderer
from solo_d2.inference.runner import InferenceRun
from solo_d2.io.image import read_image
from solo_d2.model_zoo.model_zoo import load_config


def make_parser() -> argparse.ArgumentParser:
    """The options of demo/demo.py, and those of this command."""
    parser = demo.make_parser()
    parser.description = __doc__
    group = parser.add_argument_group("mattes")
    effect = group.add_mutually_exclusive_group()
    effect.add_argument(
        "--blur",
        nargs="?",
        type=float,
        const=2.0,
        metavar="PERCENT",
        help="blur the background, with a disc of this radius in percent of the longer side (2)",
    )
    effect.add_argument(
        "--background", metavar="FILE|COLOR", help="put another image or a colour behind"
    )
    add = group.add_argument
    add("--instance", type=int, metavar="N", help="only this one, from 0 by descending score")
    add("--class", dest="class_name", metavar="NAME", help="only instances of this class")
    add(
        "--no-foreground",
        action="store_true",
        help="keep the image's colours; do not estimate those of the foreground with pymatting",
    )
    add(
        "--levels",
        nargs=2,
        type=float,
        default=(0.1, 0.95),
        metavar=("LOW", "HIGH"),
        help="mattes up to LOW are transparent, from HIGH on opaque (default: 0.1 0.95)",
    )
    return parser


def label_of(predictor: SOLOPredictor, name: str | None) -> int | None:
    """The label of a class; a number counts where the model has no names."""
    if name is None:
        return None
    known = predictor.metadata.get("thing_classes", None)
    names = list(known or map(str, range(predictor.cfg.MODEL.SOLO.NUM_CLASSES)))
    if name not in names:
        raise ValueError(f"--class {name}: the model knows {', '.join(names)}")
    return names.index(name)


def make_renderer(
    args: argparse.Namespace, predictor: SOLOPredictor, effect: Effect | None
) -> Renderer:
    """What is shown of the instances that were asked for: by default all, of an effect the best."""
    only = args.instance
    if only is None and args.class_name is None and effect is not None:
        only = 0
    choice = MatteChoice(
        label=label_of(predictor, args.class_name),
        instance=only,
        levels=tuple(args.levels),
        foreground=not args.no_foreground,
    )
    if effect is not None:
        return EffectRenderer(effect, choice)
    return CutOutRenderer(predictor.metadata.get("thing_classes", None), choice)


def make_effect(args: argparse.Namespace) -> Effect | None:
    """What the options ask for; None is to cut out."""
    if args.blur is not None:
        if not 0 <= args.blur <= 20:
            raise ValueError(f"--blur must lie in [0, 20] percent, got {args.blur:g}")
        return partial(blur_by_percent, percent=args.blur)
    if args.background is None:
        return None
    if not Path(args.background).is_file():
        try:
            return partial(put_over, background=parse_color(args.background))
        except ValueError as error:
            raise ValueError(
                f"--background {args.background}: neither an image's file nor a colour such as "
                'white or "#20c040"'
            ) from error
    return partial(put_over, background=read_image(args.background, "BGR"))


def blur_by_percent(
    image: np.ndarray, matte: np.ndarray, foreground: np.ndarray | None, *, percent: float
) -> np.ndarray:
    """Blur with a radius in percent of the longer side."""
    return blur_background(image, matte, max(image.shape) * percent / 100, foreground)


def put_over(
    image: np.ndarray, matte: np.ndarray, foreground: np.ndarray | None, *, background: np.ndarray
) -> np.ndarray:
    """Replace the background by a colour (3,) or an image of any size."""
    if background.ndim == 3:
        background = fill_frame(background, (image.shape[0], image.shape[1]))
    return replace_background(image, matte, background, foreground)


def make_run(args: argparse.Namespace, overrides: Sequence[str]) -> InferenceRun:
    """The predictor and the options of the run; what can be wrong is found before the model."""
    set_levels(np.zeros((1, 1), np.float32), *args.levels)
    if args.style is not None:
        raise ValueError("--style is of demo.py: choose from --blur and --background here")
    if args.instance is not None and args.instance < 0:
        raise ValueError(f"--instance counts from 0, got {args.instance}")
    effect = make_effect(args)
    if effect is None and args.webcam is not None and args.output is None and not args.no_draw:
        raise ValueError("cut-outs of a camera need --output, a folder")
    if not (args.no_foreground or args.no_draw):
        load_pymatting("foreground")
    if not is_exported(args.config_file):  # of which everything is decided
        # So that no mattes, which are large, are made of instances that the threshold drops.
        least = load_config(args.config_file, overrides).MODEL.SOLO.FINAL_SCORE_THRESH_TEST
        least = max(least, min(args.confidence_threshold, 0.99))
        overrides = [*overrides, "MODEL.SOLO.FINAL_SCORE_THRESH_TEST", str(least)]
    predictor = demo.make_predictor(args, overrides)
    renderer = make_renderer(args, predictor, effect)
    tracker = make_tracker(args, predictor.cfg)
    return InferenceRun(predictor, draw=not args.no_draw, renderer=renderer, tracker=tracker)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    return demo.main(argv, make_parser, make_run)


if __name__ == "__main__":
    sys.exit(main())
