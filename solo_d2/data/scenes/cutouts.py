"""Sample random scenes of cut-outs over backgrounds.

Shapes: (H, W) canvas in pixels. The *size* of an object is sqrt(w * h) of its box, the measure
by which SOLO assigns objects to pyramid levels. Scales are sizes relative to the short side of
the canvas, so that one range covers the levels whatever the resolution.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import cv2
import numpy as np

from .compose import Layer, Scene, compose

__all__ = [
    "Background",
    "Crowding",
    "Cutout",
    "SceneOptions",
    "choose_cutouts",
    "colour_matrix",
    "recolour",
    "sample_background",
    "sample_scene",
    "sofi_options",
    "transform_cutout",
]


@dataclass(frozen=True)
class Cutout:
    """An image of one object.

    Attributes:
        rgba: (h, w, 4) uint8, RGB premultiplied by alpha, cropped to the object.
        category: contiguous category index, from 0.
        upright: whether the object keeps its orientation; it is then rotated by 20 degrees at
            most.
    """

    rgba: np.ndarray
    category: int
    upright: bool = True
    hull: np.ndarray = field(init=False, repr=False)

    def __post_init__(self) -> None:
        solid = (self.rgba[..., 3] >= 128).astype(np.uint8)
        points = cv2.findNonZero(solid)
        if points is None:
            raise ValueError("a cut-out needs pixels with an alpha of at least one half, got none")
        h, w = solid.shape
        # Corners of the pixels, not their centres: a box of one pixel has the size 1.
        corners = np.concatenate(
            [points.reshape(-1, 2) + step for step in ((0, 0), (0, 1), (1, 0), (1, 1))]
        )
        hull = cv2.convexHull(corners.astype(np.float32)).reshape(-1, 2)
        object.__setattr__(self, "hull", hull - np.array([w / 2, h / 2], np.float32))

    @classmethod
    def from_straight(
        cls, rgba: np.ndarray, category: int, *, upright: bool = True, max_side: int = 448
    ) -> Cutout:
        """Make a cut-out of an image whose colours are *not* premultiplied.

        Args:
            rgba: (h, w, 4) uint8.
            category: contiguous category index, from 0.
            upright: see the class.
            max_side: longest side in pixels; larger images are downsampled.
        """
        points = cv2.findNonZero((rgba[..., 3] >= 8).astype(np.uint8))
        if points is None:
            raise ValueError("a cut-out needs visible pixels, got a fully transparent image")
        x, y, w, h = cv2.boundingRect(points)
        values: np.ndarray = rgba[y : y + h, x : x + w].astype(np.float32)
        values[..., :3] *= values[..., 3:] / 255
        if max(w, h) > max_side:
            factor = max_side / max(w, h)
            size = (max(1, round(w * factor)), max(1, round(h * factor)))
            values = cv2.resize(values, size, interpolation=cv2.INTER_AREA)
        return cls(np.rint(values).astype(np.uint8), category, upright)


@dataclass(frozen=True)
class Background:
    """An image to put objects on.

    Attributes:
        image: (h, w, 3) uint8, RGB.
        stuff: (h, w) uint8 labels.
    """

    image: np.ndarray
    stuff: np.ndarray


@dataclass(frozen=True)
class Crowding:
    """A kind of scene: its frequency, and the number and scales of its objects.

    Attributes:
        weight: relative frequency.
        count: smallest and largest number of objects, inclusive.
        scale: smallest and largest scale.
        clustered: chance that its objects huddle together and come from two categories only.
    """

    weight: float
    count: tuple[int, int]
    scale: tuple[float, float]
    clustered: float = 0.0


@dataclass(frozen=True)
class SceneOptions:
    """Appearance of the scenes.

    Attributes:
        height: canvas height in pixels.
        width: canvas width in pixels.
        kinds: the mixture of scenes. The default covers scales 0.07 to 0.95: with level ranges
            in proportion to the canvas all five pyramid levels get objects.
        max_upscale: largest enlargement of a cut-out; a larger object would be a blur.
        min_visible: see `compose`.
        min_pixels: see `compose`.
    """

    height: int = 320
    width: int = 416
    kinds: tuple[Crowding, ...] = (
        Crowding(0.30, (1, 3), (0.30, 0.95)),
        Crowding(0.45, (3, 9), (0.07, 0.75), clustered=0.2),
        Crowding(0.25, (9, 20), (0.07, 0.35), clustered=0.5),
    )
    max_upscale: float = 2.5
    min_visible: float = 0.3
    min_pixels: int = 48

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> SceneOptions:
        """Make options of what `dataclasses.asdict` made of them."""
        kinds = [
            Crowding(x["weight"], tuple(x["count"]), tuple(x["scale"]), x["clustered"])
            for x in values["kinds"]
        ]
        return cls(**{**values, "kinds": tuple(kinds)})


def sofi_options(height: int = 320, width: int = 416) -> SceneOptions:
    """Return the options for scenes like the paper's SOFI-200: few large, well visible objects.

    SOFI-200 has 2.7 objects per image, selected by hand for large visible parts and little
    occlusion (paper §A.2). Here at least half of an object's alpha and 1/200 of the canvas are
    visible. Cut-outs are enlarged 1.5 times at most, since enlarging blurs their edges.

    Args:
        height: of the canvas in pixels.
        width: of the canvas in pixels.
    """
    return SceneOptions(
        height=height,
        width=width,
        kinds=(Crowding(1.0, (2, 4), (0.25, 0.95)),),
        max_upscale=1.5,
        min_visible=0.5,
        min_pixels=height * width // 200,
    )


def colour_matrix(rng: np.random.Generator, strength: float) -> np.ndarray:
    """Draw a (3, 4) map of premultiplied RGBA to RGB: saturation, cast, contrast, brightness."""
    luminance = np.full((3, 3), [0.299, 0.587, 0.114])
    saturation = rng.uniform(1 - strength, 1 + strength)
    contrast = math.exp(rng.uniform(-strength, strength))
    matrix = saturation * np.eye(3) + (1 - saturation) * luminance
    matrix *= rng.uniform(1 - 0.3 * strength, 1 + 0.3 * strength, (3, 1)) * contrast
    # Contrast turns around mid-grey; times alpha, because the colours are premultiplied.
    shift = 0.5 * (1 - contrast) + rng.uniform(-0.3, 0.3) * strength
    return np.hstack([matrix, np.full((3, 1), shift)])


def recolour(rgba: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """Apply a matrix of `colour_matrix` to premultiplied RGBA (h, w, 4), float32 in [0, 1]."""
    alpha = rgba[..., 3:]
    rgb = np.clip(cv2.transform(rgba, matrix.astype(np.float32)), 0, alpha)
    return np.concatenate([rgb, alpha], axis=2)


def transform_cutout(
    cutout: Cutout,
    size: float,
    *,
    angle: float = 0.0,
    flip: bool = False,
    stretch: float = 1.0,
    max_upscale: float = math.inf,
) -> np.ndarray:
    """Rotate, flip and resize a cut-out so that its object has the requested size.

    Args:
        cutout: the cut-out.
        size: sqrt(w * h) in pixels of the box of the turned object (alpha of at least one half).
        angle: degrees, counter-clockwise.
        flip: mirror left and right first.
        stretch: factor on the width, and its inverse on the height, before turning.
        max_upscale: the size gives way where it needs a larger enlargement than this.

    Returns:
        (h, w, 4) float32 in [0, 1], RGB premultiplied by alpha, cropped to alpha > 0.
    """
    h, w = cutout.rgba.shape[:2]
    theta = math.radians(angle)
    turn = np.array([[math.cos(theta), math.sin(theta)], [-math.sin(theta), math.cos(theta)]])
    linear = turn @ np.diag([-stretch if flip else stretch, 1 / stretch])
    extent = np.ptp(cutout.hull @ linear.T, axis=0) + 1e-6
    scale = min(size / math.sqrt(float(extent.prod())), max_upscale)
    values: np.ndarray = cutout.rgba.astype(np.float32) / 255
    small = (w, h)
    if scale < 1:  # area averaging first: a bilinear warp alone would alias
        small = (max(1, round(w * scale)), max(1, round(h * scale)))
        values = cv2.resize(values, small, interpolation=cv2.INTER_AREA)
    linear = linear @ np.diag([scale * w / small[0], scale * h / small[1]])
    corners = np.array([[-1, -1], [-1, 1], [1, -1], [1, 1]]) * np.array(small) / 2
    out_w, out_h = (math.ceil(v) + 2 for v in np.ptp(corners @ linear.T, axis=0))
    # cv2 puts pixel centres at integers, hence the halves.
    centre = np.array([out_w - 1, out_h - 1]) / 2 - linear @ ((np.array(small) - 1) / 2)
    matrix = np.hstack([linear, centre[:, None]])
    warped = cv2.warpAffine(values, matrix, (out_w, out_h), flags=cv2.INTER_LINEAR)
    warped = np.clip(warped, 0, 1)
    x, y, w, h = cv2.boundingRect((warped[..., 3] > 1 / 255).astype(np.uint8))
    return np.ascontiguousarray(warped[y : y + max(h, 1), x : x + max(w, 1)])


def sample_background(
    rng: np.random.Generator, background: Background, height: int, width: int
) -> tuple[np.ndarray, np.ndarray]:
    """Draw a part of a background: image (height, width, 3) uint8 RGB, and its labels."""
    h, w = background.image.shape[:2]
    widest = min(h / height, w / width)  # source pixels per canvas pixel
    ratio = math.exp(rng.uniform(min(0.0, math.log(widest)), max(0.0, math.log(widest))))
    ratio = min(ratio, widest)
    crop_h, crop_w = max(1, int(height * ratio)), max(1, int(width * ratio))
    y, x = int(rng.integers(h - crop_h + 1)), int(rng.integers(w - crop_w + 1))
    window = (slice(y, y + crop_h), slice(x, x + crop_w))
    mode = cv2.INTER_AREA if ratio > 1 else cv2.INTER_LINEAR
    image = cv2.resize(background.image[window], (width, height), interpolation=mode)
    stuff = cv2.resize(background.stuff[window], (width, height), interpolation=cv2.INTER_NEAREST)
    if rng.random() < 0.5:
        image, stuff = image[:, ::-1], stuff[:, ::-1]
    opaque = np.ones((height, width, 1), np.float32)
    rgba = np.concatenate([image.astype(np.float32) / 255, opaque], axis=2)
    rgb = recolour(rgba, colour_matrix(rng, 0.4))[..., :3]
    return np.rint(rgb * 255).astype(np.uint8), np.ascontiguousarray(stuff)


def choose_cutouts(
    rng: np.random.Generator, cutouts: Sequence[Cutout], count: int, few_categories: bool
) -> list[Cutout]:
    """Draw cut-outs; a category's probability is that of the root of its number of images."""
    by_category: dict[int, list[Cutout]] = {}
    for cutout in cutouts:
        by_category.setdefault(cutout.category, []).append(cutout)
    names = sorted(by_category)
    weights = np.sqrt([len(by_category[name]) for name in names])
    if few_categories and len(names) > 2:
        names = list(rng.choice(names, 2, replace=False, p=weights / weights.sum()))
        weights = np.ones(2)
    drawn = rng.choice(names, count, p=weights / weights.sum())
    return [by_category[name][int(rng.integers(len(by_category[name])))] for name in drawn]


def _sample_layer(
    rng: np.random.Generator, cutout: Cutout, size: float, anchor: np.ndarray, spread: float,
    options: SceneOptions,
) -> Layer:  # fmt: skip
    tilt = 20 if cutout.upright else 180
    rgba = transform_cutout(
        cutout,
        size,
        angle=float(rng.uniform(-tilt, tilt)),
        flip=bool(rng.random() < 0.5),
        stretch=math.exp(rng.uniform(-0.1, 0.1)),
        max_upscale=options.max_upscale,
    )
    rgba = recolour(rgba, colour_matrix(rng, 0.25))
    canvas = np.array([options.width, options.height])
    extent = np.array([rgba.shape[1], rgba.shape[0]])
    margin = np.minimum(0.3 * extent, canvas / 2)  # at most a fifth sticks out on a side
    centre = anchor + rng.normal(0, spread, 2) if spread else rng.uniform(0, 1, 2)
    centre = np.clip(centre * canvas, margin, canvas - margin)
    x, y = np.rint(centre - extent / 2).astype(int)
    return Layer(rgba, int(x), int(y), cutout.category)


def sample_scene(
    rng: np.random.Generator,
    cutouts: Sequence[Cutout],
    backgrounds: Sequence[Background],
    options: SceneOptions,
) -> Scene:
    """Sample one scene.

    Args:
        rng: the only source of randomness.
        cutouts: cut-outs to choose from, at least one.
        backgrounds: backgrounds to choose from, at least one.
        options: what scenes look like.

    Returns:
        The scene; its `stuff` labels are those of the background, also below the objects.
    """
    background = backgrounds[int(rng.integers(len(backgrounds)))]
    image, stuff = sample_background(rng, background, options.height, options.width)
    weights = np.array([kind.weight for kind in options.kinds])
    kind = options.kinds[int(rng.choice(len(options.kinds), p=weights / weights.sum()))]
    count = int(rng.integers(kind.count[0], kind.count[1] + 1))
    clustered = bool(rng.random() < kind.clustered)
    anchor, spread = rng.uniform(0.25, 0.75, 2), 0.2 if clustered else 0.0
    scales = np.exp(rng.uniform(math.log(kind.scale[0]), math.log(kind.scale[1]), count))
    sizes = scales * min(options.height, options.width)
    # Large objects tend to lie below, or they would hide the small ones.
    sizes = sizes[np.argsort(-sizes * np.exp(rng.normal(0, 0.4, count)), kind="stable")]
    chosen = choose_cutouts(rng, cutouts, count, clustered)
    layers = [
        _sample_layer(rng, cutout, size, anchor, spread, options)
        for cutout, size in zip(chosen, sizes, strict=True)
    ]
    return compose(
        image,
        layers,
        min_visible=options.min_visible,
        min_pixels=options.min_pixels,
        stuff=stuff,
    )
