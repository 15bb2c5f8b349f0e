"""Build a dataset of generated scenes from a source, unless it is there already."""

from __future__ import annotations

import argparse
import functools
import json
import logging
import os
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from .compose import Scene
from .writer import SceneSplit, check_replaceable, is_current, note_places, write_dataset

__all__ = ["SPLITS", "Draw", "SceneSource", "build"]

logger = logging.getLogger(__name__)

SPLITS = ("train", "val")

Draw = Callable[[np.random.Generator], Scene]
"""Draws one scene. Must be picklable, since worker processes call it."""


class SceneSource(ABC):
    """Where the scenes of a dataset come from.

    Attributes:
        kind: name of the source on the command line.
        defaults: numbers of training and validation scenes, and (height, width) of a scene.
        categories: names of the classes; a scene's category k is the k-th.
        stuff: names of the background labels, from label 1.
        alpha: whether to write a matte per object.
    """

    kind: ClassVar[str]
    defaults: ClassVar[tuple[int, int, tuple[int, int]]]
    categories: Sequence[str]
    stuff: Sequence[str] = ()
    alpha: ClassVar[bool] = True

    @classmethod
    @abstractmethod
    def from_arguments(cls, args: argparse.Namespace) -> SceneSource:
        """Make a source of the options, among them ``size``, (height, width) of a scene."""

    @abstractmethod
    def request(self, counts: Mapping[str, int], seed: int) -> dict[str, Any]:
        """List all that the dataset depends on, in JSON's types; `counts` are scenes by split."""

    def places(self) -> dict[str, Any]:
        """List where its images lie, in JSON's types, for `restore`; by default nothing."""
        return {}

    @classmethod
    def restore(cls, request: Mapping[str, Any], places: Mapping[str, Any]) -> SceneSource:
        """Make the source of a dataset again.

        Args:
            request: that of the dataset.
            places: those of its source.

        Raises:
            ValueError: The source cannot do it, which is the default, or its images are gone.
        """
        del request, places
        raise ValueError(f"scenes of the kind {cls.kind} are not composed in training")

    @abstractmethod
    def load(self, root: Path, seed: int, *, progress: bool) -> Mapping[str, Draw]:
        """Read what scenes are made of; returns what draws them, by split. `root` is the output."""


def build(
    source: SceneSource,
    output: str | os.PathLike[str],
    *,
    train: int | None = None,
    val: int | None = None,
    seed: int = 0,
    workers: int | None = None,
    progress: bool = True,
) -> bool:
    """Build a dataset, unless `output` holds it already with the same parameters.

    Args:
        source: Where the scenes come from.
        output: Folder of the dataset.
        train: Number of training scenes, at least 1; by default the source's.
        val: Number of validation scenes, at least 1; by default the source's.
        seed: At least 0. A scene depends on the seed, its split and its index only.
        workers: Number of processes; by default the number of CPUs.
        progress: Show progress bars.

    Returns:
        Whether anything was built.

    Raises:
        ValueError: A number is out of range, the source cannot use what it was given, or `output`
            has files in the place of the dataset's that no earlier build wrote.
        OSError: A file cannot be written.
    """
    train = source.defaults[0] if train is None else train
    val = source.defaults[1] if val is None else val
    if train < 1 or val < 1 or seed < 0:
        raise ValueError(f"need train >= 1, val >= 1, seed >= 0; got {train}, {val}, {seed}")
    root, counts = Path(output), {"train": train, "val": val}
    request = json.loads(json.dumps(source.request(counts, seed)))
    if is_current(root, request):
        note_places(root, source.places())
        logger.info("%s is up to date", root)
        return False
    check_replaceable(root)
    begin = time.perf_counter()
    draws = source.load(root, seed, progress=progress)
    splits = [
        SceneSplit(
            name,
            counts[name],
            functools.partial(_make_scene, draws[name], seed, stream),
            source.categories,
            source.stuff,
            source.alpha,
        )
        for stream, name in enumerate(SPLITS)
    ]
    write_dataset(root, request, splits, workers=workers, progress=progress)
    note_places(root, source.places())
    logger.info("built %s in %.1f s", root, time.perf_counter() - begin)
    return True


def _make_scene(draw: Draw, seed: int, stream: int, index: int) -> Scene:
    return draw(np.random.default_rng([seed, stream, index]))
