"""Stamps: scenes composed of photographic cut-outs over photographs.

::

    python -m solo_d2.data.scenes stamps --output datasets/stamps
    python -m solo_d2.data.scenes stamps --output datasets/sofi --sofi --train 600 --val 200

The cut-outs are the photographs among the stamps of Tux Paint (Debian package
tuxpaint-stamps-default), selected by hand and listed in ``stamps.json`` under coarse categories.
The backgrounds are photographs of two Debian wallpaper packages and of scikit-image. No cut-out
and no background of the validation split occurs in training. The images are licensed under the
GPL-2 (scikit-image's: see its data folder). They are fetched, never shipped, and a dataset built
from them falls under the same licences.

Every image has a soft visible matte per instance and a coarse label per region of the background
(``writer`` describes the files). Background labels were drawn by hand for each photograph: one
label, and polygons where there are several regions.
"""

from __future__ import annotations

import argparse
import functools
import hashlib
import importlib.util
import json
import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from ...io.image import open_image
from ._old import old_build, old_register, run_old_command
from .build import SPLITS, Draw, SceneSource
from .compose import Scene
from .cutouts import Background, Cutout, SceneOptions, sample_scene, sofi_options
from .debian import StampsUnavailableError, deb_package_name, fetch_package
from .kinds import KINDS, ONLY_CLASS

__all__ = ["Library", "StampsSource", "StampsUnavailableError", "load_table"]

logger = logging.getLogger(__name__)

FORMAT = 1  # goes up when the same parameters give other data
STAMPS_PACKAGE = "tuxpaint-stamps-default"


def load_table() -> dict[str, Any]:
    """Read the curated table of images.

    Returns:
        "categories": name -> {"upright", "train", "val"}, the latter two lists of paths below
        "cutout_root", without the ending; "backgrounds": list of {"package", "path", "split",
        "stuff"} with optional "region" (x0, y0, x1, y1: the part to use, where the rest shows
        objects) and "parts" (polygons of other labels), in fractions of the image;
        "stuff": names of the background labels.
    """
    return json.loads(Path(__file__).with_suffix(".json").read_text())


def _wanted_files(table: dict[str, Any]) -> dict[str, list[str]]:
    """List the paths to take from each Debian package."""
    stamps = [
        f"{table['cutout_root']}/{name}.png"
        for category in table["categories"].values()
        for split in SPLITS
        for name in category[split]
    ]
    wanted = {STAMPS_PACKAGE: stamps}
    for background in table["backgrounds"]:
        if background["package"] != "scikit-image":
            wanted.setdefault(background["package"], []).append(background["path"])
    return wanted


def _image_roots(
    table: dict[str, Any], cache: Path, debs: Sequence[Path], extracted: Path | None
) -> dict[str, Path]:
    """Return the folder of each package's images; a package of backgrounds may be missing."""
    wanted = _wanted_files(table)
    files: dict[str, Path] = {}
    for deb in debs:
        name = deb_package_name(deb)
        if name not in wanted:
            raise ValueError(f"--deb {deb} is the package {name}; expected one of {list(wanted)}")
        files[name] = deb
    roots: dict[str, Path] = {}
    for package, paths in wanted.items():
        if extracted is not None:
            roots[package] = extracted
            continue
        try:
            roots[package] = fetch_package(package, paths, cache, files.get(package))
        except StampsUnavailableError as error:
            if package == STAMPS_PACKAGE or package in files:
                raise
            logger.warning("going on without the backgrounds of %s: %s", package, error)
    # find_spec does not import it; its own loader might try to download.
    spec = importlib.util.find_spec("skimage")
    if spec is not None and spec.submodule_search_locations:
        roots["scikit-image"] = Path(next(iter(spec.submodule_search_locations))) / "data"
    return roots


@dataclass(frozen=True)
class Library:
    """Decoded images of one split.

    Attributes:
        cutouts: of objects.
        backgrounds: to put them on.
    """

    cutouts: list[Cutout]
    backgrounds: list[Background]


def _read_rgba(path: Path) -> np.ndarray:
    with open_image(path) as file:
        return np.asarray(file.convert("RGBA"))


def _load_cutouts(table: dict[str, Any], root: Path, split: str) -> list[Cutout]:
    cutouts: list[Cutout] = []
    missing: list[str] = []
    for index, (name, category) in enumerate(table["categories"].items()):
        before = len(cutouts)
        for stem in category[split]:
            path = root / table["cutout_root"] / f"{stem}.png"
            if not path.is_file():
                missing.append(stem)
                continue
            rgba = _read_rgba(path)
            cutouts.append(Cutout.from_straight(rgba, index, upright=category["upright"]))
        if len(cutouts) == before:
            raise StampsUnavailableError(
                f"none of the {len(category[split])} cut-outs of '{name}' ({split}) is below "
                f"{root / table['cutout_root']}: is this {STAMPS_PACKAGE}?"
            )
    if missing:
        logger.warning("%d %s cut-outs are not in this package: %s", len(missing), split, missing)
    return cutouts


def _load_background(path: Path, entry: dict[str, Any], stuff: Sequence[str]) -> Background:
    """Decode a background, downsampled to a short side of at most 800 pixels."""
    with open_image(path) as file:
        factor = max(1.0, min(file.size) / 800)
        size = (round(file.width / factor), round(file.height / factor))
        file.draft("RGB", size)  # lets JPEG decode at a fraction of the size
        image = np.asarray(file.convert("RGB"))
    image = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    labels = np.full(image.shape[:2], stuff.index(entry["stuff"]) + 1, np.uint8)
    for part in entry.get("parts", ()):
        polygon = np.rint(np.array(part["polygon"]) * size).astype(np.int32)
        cv2.fillPoly(labels, [polygon], stuff.index(part["stuff"]) + 1)
    x0, y0, x1, y1 = np.rint(np.array(entry.get("region", (0, 0, 1, 1))) * (size * 2)).astype(int)
    return Background(image[y0:y1, x0:x1].copy(), labels[y0:y1, x0:x1].copy())


def _load_library(table: dict[str, Any], roots: dict[str, Path], split: str) -> Library:
    backgrounds, missing = [], []
    for entry in table["backgrounds"]:
        if entry["split"] != split:
            continue
        path = roots[entry["package"]] / entry["path"] if entry["package"] in roots else None
        if path is None or not path.is_file():
            missing.append(f"{entry['package']}: {entry['path']}")
        else:
            backgrounds.append(_load_background(path, entry, table["stuff"]))
    if missing:
        logger.warning("%d %s backgrounds are missing: %s", len(missing), split, missing)
    if not backgrounds:
        raise StampsUnavailableError(
            f"no {split} background can be read; install scikit-image or pass the wallpaper "
            f"packages with --deb ({missing})"
        )
    return Library(_load_cutouts(table, roots[STAMPS_PACKAGE], split), backgrounds)


def _draw(
    rng: np.random.Generator, library: Library, options: SceneOptions, one_class: bool
) -> Scene:
    scene = sample_scene(rng, library.cutouts, library.backgrounds, options)
    return replace(scene, categories=np.zeros_like(scene.categories)) if one_class else scene


@dataclass(frozen=True)
class StampsSource(SceneSource):
    """Photographic cut-outs over photographs.

    Attributes:
        options: what scenes look like; by default 320x416 with sizes for all pyramid levels.
        one_class: call every object "object", in the same scenes.
        debs: Debian package files to use instead of downloading these packages.
        extracted: folder that holds the unpacked packages (with usr/share/… below it), used
            instead of `debs` and of downloading.
        cache: folder for fetched images; by default "cache" in the dataset's.
        table: see `load_table`.
    """

    options: SceneOptions = field(default_factory=SceneOptions)
    one_class: bool = False
    debs: Sequence[str | os.PathLike[str]] = ()
    extracted: str | os.PathLike[str] | None = None
    cache: str | os.PathLike[str] | None = None
    table: dict[str, Any] = field(default_factory=load_table)

    kind = "stamps"
    defaults = KINDS["stamps"].defaults

    @property
    def categories(self) -> Sequence[str]:  # type: ignore[override]
        """Names of the classes."""
        return [ONLY_CLASS] if self.one_class else list(self.table["categories"])

    @property
    def stuff(self) -> Sequence[str]:  # type: ignore[override]
        """Names of the background labels."""
        return self.table["stuff"]

    @classmethod
    def from_arguments(cls, args: argparse.Namespace) -> StampsSource:
        """See `SceneSource`."""
        options = sofi_options(*args.size) if args.sofi else SceneOptions(*args.size)
        return cls(options, args.one_class, args.deb, args.extracted, args.cache)

    def request(self, counts: Mapping[str, int], seed: int) -> dict[str, Any]:
        """See `SceneSource`."""
        digest = hashlib.sha256(json.dumps(self.table, sort_keys=True).encode()).hexdigest()
        return {
            # Only where it is set, so that datasets of before the option stay current.
            **({"one_class": True} if self.one_class else {}),
            "kind": "stamps",
            "format": FORMAT,
            "table": digest,
            "counts": counts,
            "seed": seed,
            "options": asdict(self.options),
        }

    def places(self) -> dict[str, Any]:
        """See `SceneSource`."""
        given = {"extracted": self.extracted, "cache": self.cache}
        found = {key: os.path.abspath(path) for key, path in given.items() if path is not None}
        return {**found, **({"debs": [*map(os.path.abspath, self.debs)]} if self.debs else {})}

    @classmethod
    def restore(cls, request: Mapping[str, Any], places: Mapping[str, Any]) -> StampsSource:
        """See `SceneSource`."""
        options = SceneOptions.from_json(request["options"])
        return cls(options, request.get("one_class", False), **places)

    def load(self, root: Path, seed: int, *, progress: bool) -> dict[str, Draw]:  # noqa: ARG002
        """See `SceneSource`.

        Raises:
            ValueError: A package file is not one of those needed.
            StampsUnavailableError: The images are not available on this machine.
        """
        roots = self._roots(root)
        return {
            split: functools.partial(
                _draw,
                library=_load_library(self.table, roots, split),
                options=self.options,
                one_class=self.one_class,
            )
            for split in SPLITS
        }

    def library(self, root: Path, split: str) -> Library:
        """Read the cut-outs and backgrounds of a split; errors as of `load`."""
        return _load_library(self.table, self._roots(root), split)

    def _roots(self, root: Path) -> dict[str, Path]:
        return _image_roots(
            self.table,
            Path(self.cache) if self.cache is not None else root / "cache",
            [Path(deb) for deb in self.debs],
            Path(self.extracted) if self.extracted is not None else None,
        )


def _old_source(**options: Any) -> StampsSource:
    return StampsSource(**{key: value for key, value in options.items() if value is not None})


build_stamps = old_build("build_stamps", _old_source)
register_stamps = old_register("register_stamps", "stamps", kind="stamps")


if __name__ == "__main__":
    run_old_command(StampsSource.kind)
