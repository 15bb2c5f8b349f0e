"""Procedural shapes: textured shapes over textured backgrounds.

::

    python -m solo_d2.data.scenes shapes --output datasets/shapes

A scene needs no images and takes milliseconds: for tests, and for machines on which the stamps
cannot be had.
"""

from __future__ import annotations

import argparse
import functools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from ._old import old_build, old_register, run_old_command
from .build import SPLITS, Draw, SceneSource
from .compose import Layer, Scene, compose
from .cutouts import Background, Cutout
from .kinds import KINDS

__all__ = ["SHAPES", "ShapesSource", "make_shapes_scene", "shape_sprites"]

FORMAT = 1  # goes up when the same parameters give other data
OBJECTS, RADII = (1, 8), (0.04, 0.35)
SHAPES = ("circle", "square", "triangle", "star", "ring")


def _texture(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """Draw a texture (height, width, 3) float32 in [0, 1]: stripes, checks or clouds."""
    y, x = np.mgrid[:height, :width].astype(np.float32)
    angle, period = rng.uniform(0, math.pi), rng.uniform(4, 24)
    u = (math.cos(angle) * x + math.sin(angle) * y) * (2 * math.pi / period)
    v = (math.cos(angle) * y - math.sin(angle) * x) * (2 * math.pi / period)
    kind = int(rng.integers(3))
    if kind == 0:
        mix = 0.5 + 0.5 * np.sin(u)
    elif kind == 1:
        mix = (np.sin(u) * np.sin(v) > 0).astype(np.float32)
    else:
        coarse = rng.random((int(rng.integers(3, 9)), int(rng.integers(3, 9)))).astype(np.float32)
        mix = np.clip(cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC), 0, 1)
    first = rng.random(3)
    second = np.clip(first + rng.uniform(-0.4, 0.4, 3), 0, 1)
    colour = first + mix[..., None] * (second - first)
    noise = rng.normal(0, 0.03, (height, width, 1))
    return np.clip(colour + noise, 0, 1).astype(np.float32)


def _outline(shape: str, radius: float, angle: float) -> np.ndarray:
    """Compute the corners (n, 2) of a polygon around the origin."""
    corners = {"square": 4, "triangle": 3, "star": 10}[shape]
    turns = angle + np.arange(corners) * (2 * math.pi / corners)
    radii = np.full(corners, radius)
    if shape == "star":
        radii[1::2] *= 0.45
    return np.stack([np.cos(turns), np.sin(turns)], axis=1) * radii[:, None]


def _alpha(shape: str, radius: float, angle: float) -> np.ndarray:
    """Render the coverage (n, n) float32 in [0, 1] of a shape with the circumradius `radius`."""
    side = 2 * math.ceil(radius) + 3
    fine = 4  # samples per pixel and axis
    canvas = np.zeros((side * fine, side * fine), np.uint8)
    centre = (side * fine - 1) / 2
    if shape in ("circle", "ring"):
        middle = (round(centre), round(centre))
        cv2.circle(canvas, middle, round(radius * fine), 255, -1)
        if shape == "ring":
            cv2.circle(canvas, middle, round(radius * fine * 0.55), 0, -1)
    else:
        points = _outline(shape, radius * fine, angle) + centre
        cv2.fillPoly(canvas, [np.rint(points).astype(np.int32)], 255)
    small = cv2.resize(canvas, (side, side), interpolation=cv2.INTER_AREA)
    return small.astype(np.float32) / 255


def shape_sprites(
    rng: np.random.Generator, side: int, count: int
) -> tuple[list[Cutout], list[Background]]:
    """Draw shapes and textures as cut-outs and backgrounds.

    Args:
        rng: the only source of randomness.
        side: of a background, in pixels; shapes have a third of it as diameter.
        count: shapes of each kind, and backgrounds.
    """
    cutouts = []
    for category, shape in enumerate(SHAPES):
        for _ in range(count):
            alpha = _alpha(shape, side / 6, float(rng.uniform(0, 2 * math.pi)))[..., None]
            rgba = np.concatenate([_texture(rng, *alpha.shape[:2]) * alpha, alpha], axis=2)
            cutouts.append(Cutout(np.rint(rgba * 255).astype(np.uint8), category, upright=False))
    textures = [np.rint(_texture(rng, side, side) * 255).astype(np.uint8) for _ in range(count)]
    return cutouts, [Background(x, np.zeros(x.shape[:2], np.uint8)) for x in textures]


def _layer(rng: np.random.Generator, height: int, width: int, radius: float) -> Layer:
    category = int(rng.integers(len(SHAPES)))
    alpha = _alpha(SHAPES[category], radius, float(rng.uniform(0, 2 * math.pi)))
    side = alpha.shape[0]
    rgb = _texture(rng, side, side) * alpha[..., None]
    x = int(rng.integers(0, width)) - side // 2
    y = int(rng.integers(0, height)) - side // 2
    return Layer(np.concatenate([rgb, alpha[..., None]], axis=2), x, y, category)


def _scene(
    rng: np.random.Generator,
    height: int,
    width: int,
    objects: tuple[int, int],
    radii: tuple[float, float] = RADII,
) -> Scene:
    background = np.rint(_texture(rng, height, width) * 255).astype(np.uint8)
    count = int(rng.integers(objects[0], objects[1] + 1))
    short = min(height, width)
    largest = radii[1] * short
    low = math.log(min(max(radii[0] * short, 5.0), largest))
    drawn = np.sort(np.exp(rng.uniform(low, math.log(largest), count)))[::-1]
    layers = [_layer(rng, height, width, float(radius)) for radius in drawn]
    return compose(background, layers, min_visible=0.4, min_pixels=24)


def make_shapes_scene(
    seed: int | Sequence[int], height: int, width: int, *, objects: tuple[int, int] = (1, 8)
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Make one scene in memory.

    Args:
        seed: seed, at least 0, or several of them; the same one gives the same scene.
        height: pixels, at least 16.
        width: pixels, at least 16.
        objects: smallest and largest number of shapes to try, inclusive. A shape that would hide
            too much of another one is left out.

    Returns:
        image: (height, width, 3) uint8, RGB.
        masks: (K, height, width) bool, visible parts, which do not overlap.
        classes: (K,) int64 indices into `SHAPES`.

    Raises:
        ValueError: If the canvas is too small or the range of objects is empty.
    """
    if min(height, width) < 16:
        raise ValueError(f"a shapes scene needs at least 16x16 pixels, got {height}x{width}")
    if not 0 <= objects[0] <= objects[1]:
        raise ValueError(f"objects must be (smallest, largest) with 0 <= both, got {objects}")
    scene = _scene(np.random.default_rng(seed), height, width, objects)
    return scene.image, scene.masks, scene.categories


@dataclass(frozen=True)
class ShapesSource(SceneSource):
    """Textured shapes, made by arithmetic.

    Attributes:
        size: (height, width) of a scene in pixels, at least 16 each.
        objects: smallest and largest number of shapes to try.
        radii: smallest and largest radius, as a share of the shorter side; none is below 5 pixels.

    Raises:
        ValueError: The size is too small, or a range is empty.
    """

    size: tuple[int, int] = (160, 208)
    objects: tuple[int, int] = OBJECTS
    radii: tuple[float, float] = RADII

    kind = "shapes"
    defaults = KINDS["shapes"].defaults
    categories = SHAPES
    alpha = False

    def __post_init__(self) -> None:
        if min(self.size) < 16:
            raise ValueError(
                "a shapes scene needs at least 16x16 pixels, got {}x{}".format(*self.size)
            )
        if not 1 <= self.objects[0] <= self.objects[1]:
            raise ValueError(f"--objects must be 1 <= LOW <= HIGH, got {self.objects}")
        if not 0 < self.radii[0] <= self.radii[1] <= 1:
            raise ValueError(f"--radii must be 0 < LOW <= HIGH <= 1, got {self.radii}")

    @classmethod
    def from_arguments(cls, args: argparse.Namespace) -> ShapesSource:
        """See `SceneSource`."""
        return cls(args.size, tuple(args.objects), tuple(args.radii))

    def request(self, counts: Mapping[str, int], seed: int) -> dict[str, Any]:
        """See `SceneSource`."""
        request = {
            "kind": "shapes", "format": FORMAT, "counts": counts, "seed": seed, "size": self.size,
        }  # fmt: skip
        # As datasets had it before there were these options.
        others = {"objects": (self.objects, OBJECTS), "radii": (self.radii, RADII)}
        return request | {key: value for key, (value, usual) in others.items() if value != usual}

    @classmethod
    def restore(cls, request: Mapping[str, Any], places: Mapping[str, Any]) -> ShapesSource:  # noqa: ARG003
        """See `SceneSource`."""
        height, width = request["size"]
        low, high = request.get("objects", OBJECTS)
        smallest, largest = request.get("radii", RADII)
        return cls((height, width), (low, high), (smallest, largest))

    def load(self, root: Path, seed: int, *, progress: bool) -> dict[str, Draw]:  # noqa: ARG002
        """See `SceneSource`."""
        height, width = self.size
        draw = functools.partial(
            _scene, height=height, width=width, objects=self.objects, radii=self.radii
        )
        return dict.fromkeys(SPLITS, draw)


def _old_source(height: int = 160, width: int = 208) -> ShapesSource:
    return ShapesSource((height, width))


build_shapes = old_build("build_shapes", _old_source)
register_shapes = old_register("register_shapes", "shapes", kind="shapes")


if __name__ == "__main__":
    run_old_command(ShapesSource.kind)
