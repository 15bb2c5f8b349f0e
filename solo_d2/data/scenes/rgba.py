"""Matting: SOFI-style scenes composed of anybody's RGBA cut-outs over anybody's pictures.

::

    python -m solo_d2.data.scenes.rgba --cutouts DIR --backgrounds DIR --output DIR

``--cutouts`` holds pictures with an alpha channel of 8 or 16 bits (PNG, WebP, TIFF), one object in
each; its subfolders are the classes, and a folder without subfolders is one class, "object". Where
the alpha lies in files of its own, as in most matting data, ``--mattes`` names a folder laid out in
the same way. ``--backgrounds`` holds pictures of any kind, which should not show the classes.

No cut-out and no background of the validation split is seen in training, unless there is only one
of a kind, and then a warning says so. Scenes are those of `sofi_options`: few large objects, of
each of which at least half is visible; ``alpha`` is the *visible* part. Files are described in
``coco_writer``; `register_matting` registers them.
"""

from __future__ import annotations

import argparse
import functools
import json
import logging
import os
import sys
import time
from collections.abc import Hashable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from detectron2.data import MetadataCatalog
from tqdm import tqdm

from .compose import Scene
from .cutouts import Background, Crowding, Cutout, SceneOptions, sample_scene, sofi_options
from .rgba_folders import CutoutFile, list_cutouts, list_pictures, read_background, read_cutout
from .writer import SceneSplit, is_current, parse_size, register_built, write_dataset

__all__ = ["build_matting", "main", "register_matting", "split_files"]

logger = logging.getLogger(__name__)

FORMAT = 1  # goes up when the same parameters give other data
SPLITS = ("train", "val")

_File = TypeVar("_File", bound=Hashable)


def split_files(
    files: Sequence[_File], val_share: float, rng: np.random.Generator, what: str
) -> dict[str, list[_File]]:
    """Divide files among training and validation, without a file in both.

    Args:
        files: at least one.
        val_share: of the files, in (0, 1); each split gets one at least.
        rng: decides which.
        what: they are, for the warning.

    Returns:
        Files of "train" and "val"; a single file is in both, and a warning says so.
    """
    if len(files) == 1:
        logger.warning(
            "there is one file of %s: training and validation share it, so that the validation "
            "says nothing about new ones", what,
        )  # fmt: skip
        return {split: list(files) for split in SPLITS}
    count = min(max(1, round(val_share * len(files))), len(files) - 1)
    chosen = set(rng.permutation(len(files))[:count].tolist())
    return {
        "train": [file for k, file in enumerate(files) if k not in chosen],
        "val": [file for k, file in enumerate(files) if k in chosen],
    }


def _split_all(
    cutouts: Sequence[CutoutFile], backgrounds: Sequence[Path], val_share: float, seed: int
) -> dict[str, tuple[list[CutoutFile], list[Path]]]:
    rng = np.random.default_rng([seed, len(SPLITS)])  # scenes take the streams 0 and 1
    found = {}
    for category in sorted({file.category for file in cutouts}):
        files = [file for file in cutouts if file.category == category]
        found[category] = split_files(files, val_share, rng, f"the class '{category}'")
    papers = split_files(backgrounds, val_share, rng, "the backgrounds")
    return {s: ([x for c in found.values() for x in c[s]], papers[s]) for s in SPLITS}


def _class_names(files: Sequence[CutoutFile], classes: Sequence[str] | None) -> list[str]:
    found = sorted({file.category for file in files})
    if classes is None:
        return found
    for file in files:
        if file.category not in classes:
            raise ValueError(
                f"{file.path} is of the class '{file.category}', which is not among the "
                f"{len(classes)} classes given: {', '.join(classes[:8])}, ..."
            )
    if len(set(classes)) < len(classes):
        raise ValueError("the list of classes names one twice")
    return list(classes)


def _fingerprint(path: Path) -> list[Any]:
    state = path.stat()
    return [str(path), state.st_size, state.st_mtime_ns]


def _request(
    parts: dict[str, tuple[list[CutoutFile], list[Path]]],
    counts: dict[str, int],
    seed: int,
    names: Sequence[str],
    options: SceneOptions,
) -> dict[str, Any]:
    """All that the data set depends on, as json would read it back."""
    files = {}
    for split, (inside, papers) in parts.items():
        paths = [path for file in inside for path in (file.path, file.matte) if path]
        files[split] = [_fingerprint(path) for path in [*paths, *papers]]
    request = {
        "kind": "matting",
        "format": FORMAT,
        "counts": counts,
        "seed": seed,
        "classes": names,
        "options": asdict(options),
        "files": files,
    }
    return json.loads(json.dumps(request))


def _make_scene(
    cutouts: Sequence[Cutout],
    backgrounds: Sequence[Background],
    options: SceneOptions,
    seed: int,
    stream: int,
    i: int,
) -> Scene:
    return sample_scene(np.random.default_rng([seed, stream, i]), cutouts, backgrounds, options)


def build_matting(
    output: str | os.PathLike[str],
    cutouts: str | os.PathLike[str],
    backgrounds: str | os.PathLike[str],
    *,
    mattes: str | os.PathLike[str] | None = None,
    classes: Sequence[str] | None = None,
    train: int = 1000,
    val: int = 200,
    val_share: float = 0.2,
    seed: int = 0,
    workers: int | None = None,
    options: SceneOptions | None = None,
    progress: bool = True,
) -> bool:
    """Build the data set, unless `output` holds it already with the same parameters and files.

    Args:
        output: folder of the data set.
        cutouts: folder of the cut-outs, see the module.
        backgrounds: folder of the backgrounds.
        mattes: folder of the alpha of cut-outs that have none.
        classes: names of all classes, in the order of the model's; default: the subfolders'.
        train: number of training scenes, at least 1.
        val: number of validation scenes, at least 1.
        val_share: of the cut-outs of each class and of the backgrounds, in (0, 1).
        seed: at least 0; the division depends on it, and scenes on it and on their index.
        workers: processes; default: the number of CPUs.
        options: what scenes look like; default: those of `sofi_options`.
        progress: whether to show progress bars.

    Returns:
        Whether anything was built.

    Raises:
        ValueError: a number out of range, an empty folder, a picture that cannot be used.
    """
    if train < 1 or val < 1 or seed < 0 or not 0 < val_share < 1:
        raise ValueError(
            "need train >= 1, val >= 1, seed >= 0 and 0 < val_share < 1; got "
            f"{train}, {val}, {seed}, {val_share}"
        )
    root, options = Path(output), options or sofi_options()
    files = list_cutouts(Path(cutouts), Path(mattes) if mattes is not None else None)
    names = _class_names(files, classes)
    parts = _split_all(files, list_pictures(Path(backgrounds), "backgrounds"), val_share, seed)
    counts = {"train": train, "val": val}
    request = _request(parts, counts, seed, names, options)
    if is_current(root, request):
        logger.info("%s is up to date", root)
        return False
    begin = time.perf_counter()
    splits = []
    for stream, (split, (inside, papers)) in enumerate(parts.items()):
        bar = functools.partial(tqdm, unit="picture", disable=not progress)
        pictures = [read_cutout(x, names, options) for x in bar(inside, f"{split} cut-outs")]
        grounds = [read_background(x, options) for x in bar(papers, f"{split} backgrounds")]
        make = functools.partial(_make_scene, pictures, grounds, options, seed, stream)
        splits.append(SceneSplit(split, counts[split], make, names, alpha=True))
        logger.info("%s: %d cut-outs, %d backgrounds", split, len(pictures), len(grounds))
    write_dataset(root, request, splits, workers=workers, progress=progress)
    logger.info("built %s in %.1f s", root, time.perf_counter() - begin)
    return True


def register_matting(root: str | os.PathLike[str], *, prefix: str = "matting") -> tuple[str, str]:
    """Register a built set with Detectron2; evaluation measures its mattes, too.

    Also a set of ``solo_d2.data.scenes.stamps`` will do. Registering the same folder again does
    nothing.

    Args:
        root: the `output` of `build_matting`.
        prefix: the data sets are called "<prefix>_train" and "<prefix>_val".

    Returns:
        The two names, training first.

    Raises:
        ValueError: the set has not been built, or a name stands for another folder.
    """
    return register_built(Path(root), prefix, kind="matting", matting=True)


def _read_classes(value: str | None) -> list[str] | None:
    """Names in a file, one a line, or "coco" for COCO's 80."""
    if value is None:
        return None
    if value == "coco":
        import detectron2.data.datasets  # noqa: F401 - registers COCO's names

        return list(MetadataCatalog.get("coco_2017_val").thing_classes)
    if not Path(value).is_file():
        raise ValueError(f"--classes {value}: expected 'coco', or a file with a name on each line")
    return [line.strip() for line in Path(value).read_text().splitlines() if line.strip()]


def _parse_range(text: str) -> tuple[int, int]:
    """(smallest, largest) of an argument such as "2-4"."""
    low, _, high = text.partition("-")
    high = high or low
    if not (low.isdigit() and high.isdigit() and 1 <= int(low) <= int(high)):
        raise argparse.ArgumentTypeError(f"expected MIN-MAX, such as 2-4, got '{text}'")
    return int(low), int(high)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m solo_d2.data.scenes.rgba",
        description="Compose scenes of RGBA cut-outs over backgrounds, with a matte per object.",
    )
    add = parser.add_argument
    add("--cutouts", required=True, metavar="DIR", help="RGBA pictures, in a folder per class")
    add("--backgrounds", required=True, metavar="DIR", help="pictures to put them on")
    add("--output", required=True, metavar="DIR", help="folder of the data set")
    add("--mattes", metavar="DIR", help="alpha of cut-outs without alpha channel")
    add("--classes", metavar="FILE", help="all class names, one a line, or 'coco'")
    add("--train", type=int, default=1000, help="training scenes (%(default)s)")
    add("--val", type=int, default=200, help="validation scenes (%(default)s)")
    add("--val-share", type=float, default=0.2, help="of the pictures (%(default)s)")
    add("--size", type=parse_size, default=(320, 416), help="HxW pixels (320x416)")
    add("--objects", type=_parse_range, metavar="MIN-MAX", help="tried per scene (2-4)")
    add("--min-visible", type=float, default=0.5, help="share of an object (%(default)s)")
    add("--seed", type=int, default=0)
    add("--workers", type=int, help="processes (number of CPUs)")
    return parser


def _options(args: argparse.Namespace) -> SceneOptions:
    if not 0 <= args.min_visible <= 1:
        raise ValueError(f"--min-visible must lie in [0, 1], got {args.min_visible}")
    options = replace(sofi_options(*args.size), min_visible=args.min_visible)
    if args.objects is None:
        return options
    (kind,) = options.kinds
    return replace(options, kinds=(Crowding(kind.weight, args.objects, kind.scale),))


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns its exit status."""
    args = _parser().parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    try:
        build_matting(
            args.output,
            args.cutouts,
            args.backgrounds,
            mattes=args.mattes,
            classes=_read_classes(args.classes),
            train=args.train,
            val=args.val,
            val_share=args.val_share,
            seed=args.seed,
            workers=args.workers,
            options=_options(args),
        )
    except (OSError, ValueError) as error:
        sys.stderr.write(f"error: {error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
