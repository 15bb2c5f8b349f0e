"""Kinds of scenes on the command line, declared apart from their sources: ``--help`` is quick."""

from __future__ import annotations

import argparse
import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .build import SceneSource

__all__ = ["KINDS", "ONLY_CLASS", "Kind"]

ONLY_CLASS = "object"
"""Name of the class of datasets without classes."""


@dataclass(frozen=True)
class Kind:
    """A kind of scenes.

    Attributes:
        source: "MODULE.CLASS" of its `SceneSource`, in this package.
        summary: What its scenes show, in a few words.
        defaults: Numbers of training and validation scenes, and (height, width) of a scene.
        add_arguments: Adds the options that only this kind has.
    """

    source: str
    summary: str
    defaults: tuple[int, int, tuple[int, int]]
    add_arguments: Callable[[argparse.ArgumentParser], None] = lambda _: None

    def make_source(self, args: argparse.Namespace) -> SceneSource:
        """Make the source that a command line asks for.

        Raises:
            ValueError: An option cannot be used.
        """
        module, name = self.source.split(".")
        kind: type[SceneSource] = getattr(importlib.import_module(f".{module}", __package__), name)
        return kind.from_arguments(args)


def _add_shapes(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add(
        "--objects", nargs=2, type=int, default=(1, 8), metavar=("LOW", "HIGH"),
        help="shapes that a scene has at least and at most (1 8)",
    )  # fmt: skip
    add(
        "--radii", nargs=2, type=float, default=(0.04, 0.35), metavar=("LOW", "HIGH"),
        help="their radii, as shares of the shorter side (0.04 0.35)",
    )  # fmt: skip


def _add_stamps(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--sofi", action="store_true", help="few objects, large and well visible, for mattes")
    add("--one-class", action="store_true", help=f'call all objects "{ONLY_CLASS}"')
    add("--deb", nargs="+", default=[], metavar="FILE", help="package files to use")
    add("--extracted", metavar="DIR", help="folder with the unpacked packages")
    add("--cache", metavar="DIR", help="folder for fetched images (OUTPUT/cache)")


def _add_rgba(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--cutouts", required=True, metavar="DIR", help="RGBA images, in a folder per class")
    add("--backgrounds", required=True, metavar="DIR", help="images to put them on")
    add("--mattes", metavar="DIR", help="alpha of cut-outs without alpha channel")
    add("--classes", metavar="FILE", help="all class names, one a line, or 'coco'")
    add("--val-share", type=float, default=0.2, help="of the images (%(default)s)")
    add("--objects", type=_parse_range, metavar="MIN-MAX", help="tried per scene (2-4)")
    add("--min-visible", type=float, default=0.5, help="share of an object (%(default)s)")


def _parse_range(text: str) -> tuple[int, int]:
    """Parse "MIN-MAX", such as "2-4"."""
    low, _, high = text.partition("-")
    high = high or low
    if not (low.isdigit() and high.isdigit() and 1 <= int(low) <= int(high)):
        raise argparse.ArgumentTypeError(f"expected MIN-MAX, such as 2-4, got '{text}'")
    return int(low), int(high)


KINDS = {
    "shapes": Kind(
        "shapes.ShapesSource",
        "textured shapes over textures; no images needed",
        (500, 100, (160, 208)),
        _add_shapes,
    ),
    "stamps": Kind(
        "stamps.StampsSource",
        "photographic cut-outs over photographs, fetched from Debian",
        (1000, 150, (320, 416)),
        _add_stamps,
    ),
    "rgba": Kind(
        "rgba.RGBASource",
        "RGBA cut-outs of your own over backgrounds, a matte per object",
        (1000, 200, (320, 416)),
        _add_rgba,
    ),
}
"""KIND of the command line -> what it is."""
