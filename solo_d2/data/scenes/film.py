"""Films with known identities: cut-outs that move along smooth paths over a background.

Objects pass in front of each other, leave the canvas and come back; what is visible of each is
known in every frame. Shapes: (H, W) canvas in pixels, I objects of a film, T frames.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from .compose import Layer, compose
from .cutouts import (
    Background,
    Cutout,
    choose_cutouts,
    colour_matrix,
    recolour,
    sample_background,
    transform_cutout,
)

__all__ = ["Film", "FilmFrame", "FilmOptions", "sample_film"]

_MAX_UPSCALE = 2.5  # a larger enlargement of a cut-out is a blur


@dataclass(frozen=True)
class FilmOptions:
    """What films look like.

    Attributes:
        height: canvas height in pixels.
        width: canvas width in pixels.
        frames: T, 1 or more.
        objects: smallest and largest number of objects, inclusive.
        scale: smallest and largest size of an object, as shares of the canvas's short side.
        speed: smallest and largest top speed, in shares of the short side per frame.
        reach: largest distance of an object from the middle of its path, in shares of the
            canvas's sides; above 0.5 all leave the canvas now and then.
        min_pixels: an object of which fewer are visible is hidden, and has no mask.

    Raises:
        ValueError: a number is out of range.
    """

    height: int = 320
    width: int = 416
    frames: int = 60
    objects: tuple[int, int] = (5, 9)
    scale: tuple[float, float] = (0.15, 0.4)
    speed: tuple[float, float] = (0.005, 0.03)
    reach: float = 0.45
    min_pixels: int = 48

    def __post_init__(self) -> None:
        if self.frames < 1 or min(self.height, self.width) < 16:
            raise ValueError(
                "a film needs 1 frame or more of 16x16 pixels or more, got "
                f"{self.frames} of {self.height}x{self.width}"
            )
        if not 1 <= self.objects[0] <= self.objects[1]:
            raise ValueError(f"--objects must be 1 <= LOW <= HIGH, got {self.objects}")


@dataclass(frozen=True)
class FilmFrame:
    """A frame with what is visible.

    Attributes:
        image: (H, W, 3) uint8, RGB.
        objects: indices (K,) of the objects that are visible, below I.
        masks: their visible parts, boolean (K, H, W), which do not overlap.
    """

    image: np.ndarray
    objects: np.ndarray
    masks: np.ndarray


@dataclass(frozen=True)
class _Path:
    """A smooth closed path: two oscillations per axis, of place, size and angle."""

    middle: np.ndarray  # (2,) x and y in pixels
    reach: np.ndarray  # (2, 2) per oscillation and axis, in pixels
    rates: np.ndarray  # (2, 2) radians per frame
    phases: np.ndarray  # (2, 2)

    def at(self, frame: int) -> np.ndarray:
        return self.middle + (self.reach * np.sin(self.rates * frame + self.phases)).sum(0)


@dataclass(frozen=True)
class _Actor:
    """An object of a film."""

    cutout: Cutout
    size: float  # in pixels
    flip: bool
    colours: np.ndarray
    path: _Path
    sway: np.ndarray = field(repr=False)  # (2, 2): rate and phase of size and of angle

    def layer(self, frame: int, identity: int) -> Layer:
        """The object in a frame; its identity stands where a layer has its category."""
        size, angle = np.sin(self.sway[:, 0] * frame + self.sway[:, 1])
        rgba = transform_cutout(
            self.cutout,
            self.size * math.exp(0.2 * float(size)),
            angle=(15 if self.cutout.upright else 90) * float(angle),
            flip=self.flip,
            max_upscale=_MAX_UPSCALE,
        )
        rgba = recolour(rgba, self.colours)
        x, y = np.rint(self.path.at(frame) - np.array(rgba.shape[1::-1]) / 2).astype(int)
        return Layer(rgba, int(x), int(y), identity)


@dataclass(frozen=True)
class Film:
    """A film whose frames are drawn when they are asked for.

    Attributes:
        options: what it looks like.
        background: (H, W, 3) uint8, RGB.
        actors: its objects, I of them, the lowest first.
    """

    options: FilmOptions
    background: np.ndarray
    actors: Sequence[_Actor] = field(repr=False)

    @property
    def categories(self) -> np.ndarray:
        """Category of every object (I,)."""
        return np.array([actor.cutout.category for actor in self.actors], np.int64)

    def frame(self, number: int) -> FilmFrame:
        """Draw a frame, from 0."""
        layers = [actor.layer(number, identity) for identity, actor in enumerate(self.actors)]
        # Nothing is left out of a film because it is hidden; it only has no mask then.
        scene = compose(self.background, layers, min_visible=0.0, min_pixels=0)
        masks = scene.masks
        visible = masks.sum((1, 2)) >= self.options.min_pixels
        return FilmFrame(scene.image, scene.categories[visible], masks[visible])

    def __iter__(self) -> Iterator[FilmFrame]:
        """All frames, in their order."""
        return map(self.frame, range(self.options.frames))


def _sample_path(rng: np.random.Generator, options: FilmOptions) -> _Path:
    canvas = np.array([options.width, options.height], float)
    # A wide and a narrower, quicker oscillation: a path that is smooth and no ellipse.
    reach = rng.uniform(0.4, 1.0, (2, 2)) * options.reach * canvas * np.array([[0.8], [0.2]])
    top = float(_log_uniform(rng, options.speed, 1)[0]) * canvas.min()
    rates = top / math.sqrt(2) / reach * np.array([[0.75], [0.25]])
    return _Path(
        middle=rng.uniform(0.15, 0.85, 2) * canvas,
        reach=reach,
        rates=rates * rng.choice((-1, 1), (2, 2)),
        phases=rng.uniform(0, 2 * math.pi, (2, 2)),
    )


def _log_uniform(rng: np.random.Generator, bounds: tuple[float, float], count: int) -> np.ndarray:
    return np.exp(rng.uniform(math.log(bounds[0]), math.log(bounds[1]), count))


def sample_film(
    rng: np.random.Generator,
    cutouts: Sequence[Cutout],
    backgrounds: Sequence[Background],
    options: FilmOptions,
) -> Film:
    """Sample one film.

    Args:
        rng: the only source of randomness.
        cutouts: cut-outs to choose from, at least one.
        backgrounds: backgrounds to choose from, at least one.
        options: what films look like.
    """
    background = backgrounds[int(rng.integers(len(backgrounds)))]
    image, _ = sample_background(rng, background, options.height, options.width)
    count = int(rng.integers(options.objects[0], options.objects[1] + 1))
    scales = _log_uniform(rng, options.scale, count)
    actors = [
        _Actor(
            cutout,
            size=float(scale) * min(options.height, options.width),
            flip=bool(rng.random() < 0.5),
            colours=colour_matrix(rng, 0.25),
            path=_sample_path(rng, options),
            sway=np.stack([rng.uniform(0.02, 0.1, 2), rng.uniform(0, 2 * math.pi, 2)], axis=1),
        )
        for cutout, scale in zip(
            choose_cutouts(rng, cutouts, count, few_categories=bool(rng.random() < 0.5)),
            sorted(scales, reverse=True),
            strict=True,
        )
    ]
    return Film(options, image, actors)
