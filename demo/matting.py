"""Cut out what was found, blur what is behind it, or put it over another background.

    python demo/matting.py --config-file CONFIG --weights FILE --input PATHS... --output DIR
    python demo/matting.py ... --blur                            # around the best instance
    python demo/matting.py ... --blur 3 --class mammal --instance 1
    python demo/matting.py ... --background beach.jpg --video-input in.mp4 --output out.mp4

Made for Soft SOLO, whose instances have mattes; of any other model the binary masks are taken.
Without --blur and --background every instance becomes a PNG with an alpha channel,
NAME_00_CLASS.png by descending score, of a video a folder of them. Other options and exit codes as
in demo/demo.py; a picture without the chosen instance is an input that cannot be used, a frame
stays as it is.
"""

from __future__ import annotations

import argparse
import itertools
import logging
import re
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from detectron2.structures import Instances

import demo
from solo_d2.inference.effects import (
    Effect,
    blur_background,
    cut_out,
    drop_faint_parts,
    estimate_foreground,
    fill_frame,
    load_pymatting,
    parse_color,
    replace_background,
    set_levels,
    union_matte,
)
from solo_d2.inference.predictor import SOLOPredictor
from solo_d2.inference.runner import InferenceRun
from solo_d2.io.image import read_image
from solo_d2.io.video import VideoReader
from solo_d2.model_zoo.model_zoo import load_config

_logger = logging.getLogger(__name__)


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
        "--background", metavar="FILE|COLOR", help="put another picture or a colour behind"
    )
    add = group.add_argument
    add("--instance", type=int, metavar="N", help="only this one, from 0 by descending score")
    add("--class", dest="class_name", metavar="NAME", help="only instances of this class")
    add(
        "--no-foreground",
        action="store_true",
        help="keep the picture's colours; do not estimate those of the foreground with pymatting",
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


class MattingRun(InferenceRun):
    """An `InferenceRun` that shows an effect instead of a drawing.

    Args:
        predictor: gives the instances.
        draw: whether pictures are written.
        effect: makes a picture; None cuts out.
        instance: only this one of those of `class_name`, by descending score.
        class_name: only instances of this class; a number where the model has no names.
        foreground: estimate the colours of the foreground.
        levels: see `set_levels`.

    Raises:
        ValueError: a class that the model does not know, or bad levels.
    """

    def __init__(
        self,
        predictor: SOLOPredictor,
        *,
        draw: bool,
        effect: Effect | None,
        instance: int | None,
        class_name: str | None,
        foreground: bool,
        levels: tuple[float, float],
    ) -> None:
        super().__init__(predictor, draw=draw)
        self.effect = effect
        self.instance = instance
        self.label = None if class_name is None else self._label(class_name)
        self.foreground = foreground
        self.levels = levels
        self._warned = False

    def _label(self, name: str) -> int:
        names = list(self._names or map(str, range(self.predictor.cfg.MODEL.SOLO.NUM_CLASSES)))
        if name not in names:
            raise ValueError(f"--class {name}: the model knows {', '.join(names)}")
        return names.index(name)

    def choose(self, found: Instances) -> Instances:
        """Instances that were asked for; by default all to cut out, else the best one."""
        if self.label is not None:
            found = found[found.pred_classes == self.label]
        only = self.instance
        if only is None and self.label is None and self.effect is not None:
            only = 0
        return found if only is None else found[only : only + 1]

    def mattes(self, found: Instances) -> np.ndarray:
        """Mattes (K, H, W) float32 of instances, or masks, with one warning."""
        if found.has("pred_mattes"):
            mattes = set_levels(found.pred_mattes.numpy(), *self.levels)
            firm = float(set_levels(np.array(0.5, np.float32), *self.levels))
            for matte in mattes:
                matte[:] = drop_faint_parts(matte, firm)
            return mattes
        if not self._warned:
            self._warned = True
            _logger.warning("this model has no mattes, only masks: edges are hard")
        return found.pred_masks.numpy().astype(np.float32)

    def _colors(self, image: np.ndarray, matte: np.ndarray) -> np.ndarray | None:
        return estimate_foreground(image, matte) if self.foreground else None

    def _draw(self, image: np.ndarray, prediction: dict[str, Any], colors: Any = None) -> Any:
        """The effect's picture, or cut-outs by name; None for a picture without an instance."""
        found = self.choose(prediction["instances"].to("cpu"))
        if self.effect is None:
            return self.cut_outs(image, found)
        if not len(found):
            # Colours are asked for in a video.
            return None if colors is None else image
        matte = union_matte(self.mattes(found))
        return self.effect(image, matte, self._colors(image, matte))

    def cut_outs(self, image: np.ndarray, found: Instances) -> dict[str, np.ndarray] | None:
        """BGRA cut-outs; the keys are ends of file names."""
        pieces = {}
        for index in range(len(found)):
            label = int(found.pred_classes[index])
            name = self._names[label] if self._names else f"class{label}"
            matte = self.mattes(found[index])[0]
            if matte.max() < 0.5 / 255:  # everything is below --levels
                continue
            name = re.sub(r"[^\w-]+", "-", name)
            pieces[f"{index:02d}_{name}"] = cut_out(image, matte, self._colors(image, matte))
        return pieces or None

    def _write(self, target: Path, drawing: Any) -> None:
        if drawing is None:
            self.fail(f"{target.stem}: no instance as asked for was found")
        elif isinstance(drawing, dict):
            for end, piece in drawing.items():
                super()._write(target.with_name(f"{target.stem}_{end}.png"), piece)
        else:
            super()._write(target, drawing)

    def video(self, source: Any, output: Any = None, **kwargs: Any) -> None:
        """As `InferenceRun.video`; cut-outs are written to a folder of the output's name."""
        if self.effect is not None or not self.draw:
            super().video(source, output, **kwargs)
            return
        if output is None:
            raise ValueError("cut-outs of a camera need --output, a folder")
        folder, numbers = Path(output).with_suffix(""), itertools.count()

        def write(pieces: dict[str, np.ndarray] | None) -> bool:
            number = next(numbers)  # also of frames without an instance
            if pieces is not None:
                self._write(folder / f"{number:06d}.png", pieces)
            return True

        with VideoReader(source) as reader:
            self._frames(reader, write)


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
                f"--background {args.background}: neither a picture's file nor a colour such as "
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
    """Replace the background by a colour (3,) or a picture of any size."""
    if background.ndim == 3:
        background = fill_frame(background, (image.shape[0], image.shape[1]))
    return replace_background(image, matte, background, foreground)


def make_run(args: argparse.Namespace, overrides: Sequence[str]) -> MattingRun:
    """The predictor and the options of the run; what can be wrong is found before the model."""
    set_levels(np.zeros((1, 1), np.float32), *args.levels)
    if args.instance is not None and args.instance < 0:
        raise ValueError(f"--instance counts from 0, got {args.instance}")
    effect = make_effect(args)
    if not (args.no_foreground or args.no_draw):
        load_pymatting("foreground")
    # So that no mattes, which are large, are made of instances that the threshold drops.
    least = load_config(args.config_file, overrides).MODEL.SOLO.FINAL_SCORE_THRESH_TEST
    least = max(least, min(args.confidence_threshold, 0.99))
    overrides = [*overrides, "MODEL.SOLO.FINAL_SCORE_THRESH_TEST", str(least)]
    return MattingRun(
        demo.make_predictor(args, overrides),
        draw=not args.no_draw,
        effect=effect,
        instance=args.instance,
        class_name=args.class_name,
        foreground=not args.no_foreground,
        levels=tuple(args.levels),
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    return demo.main(argv, make_parser, make_run)


if __name__ == "__main__":
    sys.exit(main())
