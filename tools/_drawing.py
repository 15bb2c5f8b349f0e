"""What the visualisation tools share: arguments, looking into a model, and tiled images."""

from __future__ import annotations

import argparse
import logging
import math
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import torch
from detectron2.structures import Instances
from torch import nn

from solo_d2 import SOLOPredictor
from solo_d2.inference.cli import load_class_names, split_overrides
from solo_d2.inference.drawing import drawable
from solo_d2.inference.failures import describe
from solo_d2.inference.trained import load_trained
from solo_d2.io.image import write_image
from solo_d2.io.paths import refuse_overwriting

GAP = 4  # pixels between tiles
CAPTION = 18  # pixels of a line of text above a tile


class Pass(NamedTuple):
    """One pass of an image through a model.

    Attributes:
        image_size: (height, width) of the network's input, without padding.
        canvas: (H, W) of the padded input, which grid and feature maps cover.
        predictions: of the head.
        instances: the result.
        maps: what the module that was looked at returned; None without one.
    """

    image_size: tuple[int, int]
    canvas: tuple[int, int]
    predictions: Any
    instances: Instances
    maps: Any


def model_parser(description: str | None) -> argparse.ArgumentParser:
    """Arguments of a tool that shows what a model makes of an image."""
    parser = argparse.ArgumentParser(
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        usage="%(prog)s [options] [KEY VALUE ...]",
        epilog="KEY VALUE ... at the end override the config",
    )
    add = parser.add_argument
    add("--config-file", required=True, metavar="CONFIG", help="YAML file or model zoo name")
    add("--weights", metavar="FILE", help="checkpoint instead of the config's MODEL.WEIGHTS")
    add("--input", required=True, metavar="FILE", help="an image")
    add("--output", required=True, metavar="FILE", help="image to write, .png or .jpg")
    add("--device", default="auto", help='"auto" (default), "cpu", "cuda", "cuda:1", ...')
    return parser


def run_tool(
    parser: argparse.ArgumentParser,
    work: Callable[[argparse.Namespace, list[str]], str],
    argv: Sequence[str] | None,
) -> int:
    """Parse a command line, cut off the trailing overrides, and do the work.

    Args:
        parser: of the tool.
        work: takes arguments and overrides; returns the line that says what was written.
        argv: the command line without the program.

    Returns:
        The exit code: 2 with one line on stderr for what cannot be used, 1 for what the model
        cannot predict.
    """
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s: %(message)s")
    try:
        arguments, overrides = split_overrides(sys.argv[1:] if argv is None else argv)
        print(work(parser.parse_args(arguments), overrides))
    except ValueError as error:
        print(f"{parser.prog}: {error}", file=sys.stderr)
        return 2
    except (MemoryError, OSError, RuntimeError) as error:  # of the model, about this image
        print(f"{parser.prog}: {describe(error)}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"{parser.prog}: interrupted", file=sys.stderr)
        return 130
    return 0


def load_predictor(args: argparse.Namespace, overrides: Sequence[str]) -> SOLOPredictor:
    """The model that `model_parser`'s arguments ask for; a bad output name fails before."""
    check_output(args.output)
    refuse_overwriting([args.output], [args.input])
    cfg, weights = load_trained(args.config_file, overrides, args.weights)
    names = getattr(args, "class_names", None)
    return SOLOPredictor(
        cfg,
        weights=weights,
        device=args.device,
        class_names=load_class_names(names) if names else None,
    )


def run_model(predictor: SOLOPredictor, image: np.ndarray, look: nn.Module | None = None) -> Pass:
    """Predict an image and keep what is inside.

    Args:
        predictor: with any head.
        image: uint8 BGR (H, W, 3).
        look: a module of the model whose output is wanted as well.
    """
    seen: dict[str, Any] = {"maps": None}
    model = predictor.model

    def keep_input(_: nn.Module, args: tuple) -> None:
        seen["image_size"] = tuple(args[0][0]["image"].shape[-2:])

    def keep_canvas(_: nn.Module, args: tuple) -> None:
        seen["canvas"] = tuple(args[0].shape[-2:])

    def keep_predictions(_: nn.Module, args: tuple, output: Any) -> None:  # noqa: ARG001
        seen["predictions"] = output

    def keep_maps(_: nn.Module, args: tuple, output: Any) -> None:  # noqa: ARG001
        seen["maps"] = output

    hooks = [
        model.register_forward_pre_hook(keep_input),
        model.get_submodule("backbone").register_forward_pre_hook(keep_canvas),
        model.get_submodule("head").register_forward_hook(keep_predictions),
    ]
    if look is not None:
        hooks.append(look.register_forward_hook(keep_maps))
    try:
        instances = predictor(image)["instances"]
    finally:
        for hook in hooks:
            hook.remove()
    return Pass(instances=instances.to("cpu"), **seen)


def heat(values: np.ndarray | torch.Tensor, low: float, high: float) -> np.ndarray:
    """Colours, uint8 BGR (H, W, 3), of values (H, W): dark blue is `low`, yellow is `high`."""
    values = np.asarray(values, dtype=np.float32)
    scaled = np.clip((values - low) / max(high - low, 1e-12), 0, 1)
    return cv2.applyColorMap((scaled * 255).round().astype(np.uint8), cv2.COLORMAP_VIRIDIS)


def tile(
    images: Sequence[np.ndarray], captions: Sequence[str] = (), columns: int | None = None
) -> np.ndarray:
    """Arrange images of any sizes in rows, white between them, captions above.

    Args:
        images: at least one, uint8 BGR.
        captions: a line for every image, or none at all.
        columns: default: as many as rows.
    """
    columns = columns or math.ceil(math.sqrt(len(images)))
    top = CAPTION if captions else 0
    height = max(x.shape[0] for x in images) + top + GAP
    width = max(x.shape[1] for x in images) + GAP
    rows = math.ceil(len(images) / columns)
    canvas = np.full((rows * height + GAP, columns * width + GAP, 3), 255, np.uint8)
    for i, image in enumerate(images):
        y, x = i // columns * height + GAP, i % columns * width + GAP
        if captions:
            cell = canvas[y : y + top, x : x + width - GAP]  # a view: long text ends at its edge
            write(cell, captions[i], (1, 13))
        canvas[y + top : y + top + image.shape[0], x : x + image.shape[1]] = image
    return canvas


def write(
    image: np.ndarray, text: str, place: tuple[int, int], color: Sequence[int] = (0, 0, 0)
) -> None:
    """Write on an image, in place, with a white edge; `place` is the lower left corner."""
    # OpenCV before 5 has no other characters.
    text = drawable(text).encode("ascii", "replace").decode()
    for ink, line in (((255, 255, 255), 3), (color, 1)):
        cv2.putText(image, text, place, cv2.FONT_HERSHEY_SIMPLEX, 0.4, ink, line, cv2.LINE_AA)


def check_output(path: str) -> None:
    """Raise a `ValueError` for a name that is no image's."""
    if Path(path).suffix.lower() not in (".png", ".jpg"):
        raise ValueError(f"--output {path}: expected a name with .png or .jpg")


def save(path: str, image: np.ndarray) -> str:
    """Write an image, making its folder; returns a line that says so."""
    check_output(path)
    try:
        write_image(path, image)
    except ValueError as error:
        raise ValueError(f"--output {error}") from error
    return f"{path}: {image.shape[1]}x{image.shape[0]} pixels"
