"""Stamps: scenes composed of photographic cut-outs over photographs.

::

    python -m solo_d2.data.scenes.stamps --output datasets/stamps
    python -m solo_d2.data.scenes.stamps --output datasets/sofi --sofi --train 600 --val 200

The cut-outs are the photographs among the stamps of Tux Paint (Debian package
tuxpaint-stamps-default), picked by eye and listed in ``stamps.json`` under coarse categories;
the backgrounds are photographs of two Debian wallpaper packages and of scikit-image. No cut-out
and no background of the validation split is ever seen in training. The pictures are licensed
under the GPL-2 (scikit-image's: see its data folder): they are fetched, never shipped, and a
data set that was built from them falls under the same licences.

Every picture has a soft visible matte per instance and a coarse label for each region of the
background (see ``coco_writer`` for the files). Background labels are drawn by hand per
photograph: one label, and polygons where there are several regions.
"""

from __future__ import annotations

import argparse
import functools
import hashlib
import importlib.util
import json
import logging
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from ...io.image import open_image
from .compose import Scene
from .cutouts import Background, Cutout, SceneOptions, sample_scene, sofi_options
from .debian import StampsUnavailableError, deb_package_name, fetch_package
from .rgba_folders import ONLY_CLASS
from .writer import SceneSplit, is_current, parse_size, register_built, write_dataset

__all__ = ["StampsUnavailableError", "build_stamps", "load_table", "main", "register_stamps"]

logger = logging.getLogger(__name__)

FORMAT = 1  # goes up when the same parameters give other data
SPLITS = ("train", "val")
STAMPS_PACKAGE = "tuxpaint-stamps-default"


def load_table() -> dict[str, Any]:
    """The curated table of pictures.

    Returns:
        "categories": name -> {"upright", "train", "val"}, the latter two lists of paths below
        "cutout_root", without the ending; "backgrounds": list of {"package", "path", "split",
        "stuff"} with optional "region" (x0, y0, x1, y1: the part to use, where the rest shows
        objects) and "parts" (polygons of other labels), in fractions of the whole picture;
        "stuff": names of the background labels.
    """
    return json.loads(Path(__file__).with_suffix(".json").read_text())


def _wanted_files(table: dict[str, Any]) -> dict[str, list[str]]:
    """Paths to take from each Debian package."""
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


def _picture_roots(
    table: dict[str, Any], cache: Path, debs: Sequence[Path], extracted: Path | None
) -> dict[str, Path]:
    """Package name -> folder of its pictures; a package of backgrounds may be missing."""
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
class _Library:
    """Decoded pictures of one split."""

    cutouts: list[Cutout]
    backgrounds: list[Background]


def _read_rgba(path: Path) -> np.ndarray:
    with open_image(path) as picture:
        return np.asarray(picture.convert("RGBA"))


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
    """Decodes one background, with a short side of at most 800 pixels."""
    with open_image(path) as picture:
        factor = max(1.0, min(picture.size) / 800)
        size = (round(picture.width / factor), round(picture.height / factor))
        picture.draft("RGB", size)  # lets JPEG decode at a fraction of the size
        image = np.asarray(picture.convert("RGB"))
    image = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    labels = np.full(image.shape[:2], stuff.index(entry["stuff"]) + 1, np.uint8)
    for part in entry.get("parts", ()):
        polygon = np.rint(np.array(part["polygon"]) * size).astype(np.int32)
        cv2.fillPoly(labels, [polygon], stuff.index(part["stuff"]) + 1)
    x0, y0, x1, y1 = np.rint(np.array(entry.get("region", (0, 0, 1, 1))) * (size * 2)).astype(int)
    return Background(image[y0:y1, x0:x1].copy(), labels[y0:y1, x0:x1].copy())


def _load_library(table: dict[str, Any], roots: dict[str, Path], split: str) -> _Library:
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
    return _Library(_load_cutouts(table, roots[STAMPS_PACKAGE], split), backgrounds)


def _make_scene(
    library: _Library, options: SceneOptions, one_class: bool, seed: int, stream: int, i: int
) -> Scene:
    rng = np.random.default_rng([seed, stream, i])
    scene = sample_scene(rng, library.cutouts, library.backgrounds, options)
    return replace(scene, categories=np.zeros_like(scene.categories)) if one_class else scene


def _manifest(
    table: dict[str, Any], counts: dict[str, int], seed: int, options: Any, one_class: bool
) -> dict:
    digest = hashlib.sha256(json.dumps(table, sort_keys=True).encode()).hexdigest()
    return {
        # Only where it is set, so that data sets of before the option stay current.
        **({"one_class": True} if one_class else {}),
        "kind": "stamps",
        "format": FORMAT,
        "table": digest,
        "counts": counts,
        "seed": seed,
        "options": json.loads(json.dumps(asdict(options))),
    }


def build_stamps(
    output: str | os.PathLike[str],
    *,
    train: int = 1000,
    val: int = 150,
    seed: int = 0,
    workers: int | None = None,
    options: SceneOptions | None = None,
    one_class: bool = False,
    debs: Sequence[str | os.PathLike[str]] = (),
    extracted: str | os.PathLike[str] | None = None,
    cache: str | os.PathLike[str] | None = None,
    table: dict[str, Any] | None = None,
    progress: bool = True,
) -> bool:
    """Builds the data set, unless `output` holds it already with the same parameters.

    Args:
        output: folder of the data set.
        train: number of training scenes, at least 1.
        val: number of validation scenes, at least 1.
        seed: seed, at least 0; scenes depend on it and on their index only.
        workers: processes; default: the number of CPUs.
        options: what scenes look like; default: 320x416, sizes for all pyramid levels.
        one_class: call every object "object", in the same scenes.
        debs: Debian package files to use instead of downloading these packages.
        extracted: folder that holds the unpacked packages (with usr/share/… below it) and is
            used instead of downloading and of `debs`.
        cache: folder for fetched pictures; default: "cache" in `output`.
        table: see `load_table`, the default.
        progress: whether to show progress bars.

    Returns:
        Whether anything was built.

    Raises:
        ValueError: If a number is out of range or a package file is not one of those needed.
        StampsUnavailableError: If the pictures cannot be had on this machine.
    """
    if train < 1 or val < 1 or seed < 0:
        raise ValueError(f"need train >= 1, val >= 1, seed >= 0; got {train}, {val}, {seed}")
    root = Path(output)
    table = table or load_table()
    options = options or SceneOptions()
    counts = {"train": train, "val": val}
    request = _manifest(table, counts, seed, options, one_class)
    if is_current(root, request):
        logger.info("%s is up to date", root)
        return False
    begin = time.perf_counter()
    roots = _picture_roots(
        table,
        Path(cache) if cache is not None else root / "cache",
        [Path(deb) for deb in debs],
        Path(extracted) if extracted is not None else None,
    )
    libraries = {name: _load_library(table, roots, name) for name in SPLITS}
    logger.info("pictures ready after %.1f s", time.perf_counter() - begin)
    splits = [
        SceneSplit(
            name,
            counts[name],
            functools.partial(_make_scene, libraries[name], options, one_class, seed, stream),
            [ONLY_CLASS] if one_class else list(table["categories"]),
            table["stuff"],
            alpha=True,
        )
        for stream, name in enumerate(SPLITS)
    ]
    write_dataset(root, request, splits, workers=workers, progress=progress)
    logger.info("built %s in %.1f s", root, time.perf_counter() - begin)
    return True


def register_stamps(root: str | os.PathLike[str], *, prefix: str = "stamps") -> tuple[str, str]:
    """Registers a built stamps set with Detectron2.

    Registering the same folder again does nothing.

    Args:
        root: the `output` of `build_stamps`.
        prefix: the data sets are called "<prefix>_train" and "<prefix>_val".

    Returns:
        The two names, training first.

    Raises:
        ValueError: If the set has not been built, or a name stands for another folder.
    """
    return register_built(Path(root), prefix, kind="stamps")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m solo_d2.data.scenes.stamps",
        description="Builds the stamps data set: photographic cut-outs over photographs.",
    )
    parser.add_argument("--output", required=True, help="folder of the data set")
    parser.add_argument("--train", type=int, default=1000, help="training scenes (%(default)s)")
    parser.add_argument("--val", type=int, default=150, help="validation scenes (%(default)s)")
    parser.add_argument("--size", type=parse_size, default=(320, 416), help="HxW pixels (320x416)")
    parser.add_argument(
        "--sofi", action="store_true", help="few objects, large and well visible, for mattes"
    )
    parser.add_argument("--one-class", action="store_true", help=f'call all objects "{ONLY_CLASS}"')
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, help="processes (number of CPUs)")
    parser.add_argument("--deb", nargs="+", default=[], metavar="FILE", help="package files to use")
    parser.add_argument("--extracted", metavar="DIR", help="folder with the unpacked packages")
    parser.add_argument("--cache", metavar="DIR", help="folder for pictures (OUTPUT/cache)")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns its exit status."""
    args = _parser().parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    height, width = args.size
    everyday = replace(SceneOptions(), height=height, width=width)
    try:
        build_stamps(
            args.output,
            train=args.train,
            val=args.val,
            seed=args.seed,
            workers=args.workers,
            options=sofi_options(height, width) if args.sofi else everyday,
            one_class=args.one_class,
            debs=args.deb,
            extracted=args.extracted,
            cache=args.cache,
        )
    except (OSError, ValueError, StampsUnavailableError) as error:
        sys.stderr.write(f"error: {error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
