"""RGBA cut-outs of your own, composed over your own images into scenes with mattes.

::

    python -m solo_d2.data.scenes rgba --cutouts DIR --backgrounds DIR --output DIR

``--cutouts`` holds images with an alpha channel of 8 or 16 bits (PNG, WebP, TIFF), one object
each. Its subfolders are the classes; a folder without subfolders is one class, "object". If the
alpha is in separate files, as in most matting datasets, ``--mattes`` names a folder with the same
layout. ``--backgrounds`` holds images, which should not show the classes.

No cut-out and no background of the validation split occurs in training, unless there is only one
of a kind; a warning says so. Scenes are those of `sofi_options`: few large objects, each at least
half visible. A matte is the *visible* alpha. ``writer`` describes the files.
"""

from __future__ import annotations

import argparse
import functools
import logging
import os
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from tqdm import tqdm

from ._old import old_build, old_register, run_old_command
from .build import SPLITS, Draw, SceneSource
from .cutouts import Crowding, SceneOptions, sample_scene, sofi_options
from .kinds import KINDS
from .rgba_folders import CutoutFile, list_cutouts, list_images, read_background, read_cutout

__all__ = ["RGBASource", "split_files"]

logger = logging.getLogger(__name__)

FORMAT = 1  # goes up when the same parameters give other data

_File = TypeVar("_File", bound=Hashable)


def split_files(
    files: Sequence[_File], val_share: float, rng: np.random.Generator
) -> dict[str, list[_File]]:
    """Divide files among training and validation, without a file in both.

    Args:
        files: At least one.
        val_share: Share of the files for validation, in (0, 1); each split gets one at least.
        rng: Decides which.

    Returns:
        Files of "train" and "val"; a single file is in both.
    """
    if len(files) == 1:
        return {split: list(files) for split in SPLITS}
    count = min(max(1, round(val_share * len(files))), len(files) - 1)
    chosen = set(rng.permutation(len(files))[:count].tolist())
    return {
        "train": [file for k, file in enumerate(files) if k not in chosen],
        "val": [file for k, file in enumerate(files) if k in chosen],
    }


def _is_shared(group: Mapping[str, Sequence[Any]]) -> bool:
    return group["train"] == group["val"]


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


def _read_classes(value: str | None) -> list[str] | None:
    """Read names from a file, one a line; "coco" means COCO's 80."""
    if value is None:
        return None
    if value == "coco":
        import detectron2.data.datasets  # noqa: F401 - registers COCO's names
        from detectron2.data import MetadataCatalog

        return list(MetadataCatalog.get("coco_2017_val").thing_classes)
    if not Path(value).is_file():
        raise ValueError(f"--classes {value}: expected 'coco', or a file with a name on each line")
    return [line.strip() for line in Path(value).read_text().splitlines() if line.strip()]


def _options(args: argparse.Namespace) -> SceneOptions:
    if not 0 <= args.min_visible <= 1:
        raise ValueError(f"--min-visible must lie in [0, 1], got {args.min_visible}")
    options = replace(sofi_options(*args.size), min_visible=args.min_visible)
    if args.objects is None:
        return options
    (kind,) = options.kinds
    return replace(options, kinds=(Crowding(kind.weight, args.objects, kind.scale),))


class RGBASource(SceneSource):
    """RGBA cut-outs over backgrounds, from folders.

    Args:
        cutouts: Folder of the cut-outs, see the module.
        backgrounds: Folder of the backgrounds.
        mattes: Folder of the alpha of cut-outs that have none.
        classes: Names of all classes, in the order of the model's; by default the subfolders'.
        val_share: Share of the cut-outs of each class and of the backgrounds that only validation
            shows, in (0, 1). The seed of the dataset decides which.
        options: What scenes look like; by default as `sofi_options`.

    Raises:
        ValueError: `val_share` is out of range, a folder is empty, or a class is not in `classes`.
    """

    kind = "rgba"
    defaults = KINDS["rgba"].defaults

    def __init__(
        self,
        cutouts: str | os.PathLike[str],
        backgrounds: str | os.PathLike[str],
        *,
        mattes: str | os.PathLike[str] | None = None,
        classes: Sequence[str] | None = None,
        val_share: float = 0.2,
        options: SceneOptions | None = None,
    ) -> None:
        if not 0 < val_share < 1:
            raise ValueError(f"need 0 < val_share < 1, got {val_share}")
        self.options = options or sofi_options()
        self.val_share = val_share
        folders = {"cutouts": cutouts, "backgrounds": backgrounds, "mattes": mattes}
        self._folders = {
            key: os.path.abspath(path) for key, path in folders.items() if path is not None
        }
        self._cutouts = list_cutouts(Path(cutouts), Path(mattes) if mattes is not None else None)
        self._backgrounds = list_images(Path(backgrounds), "backgrounds")
        self.categories = _class_names(self._cutouts, classes)

    @classmethod
    def from_arguments(cls, args: argparse.Namespace) -> RGBASource:
        """See `SceneSource`."""
        return cls(
            args.cutouts,
            args.backgrounds,
            mattes=args.mattes,
            classes=_read_classes(args.classes),
            val_share=args.val_share,
            options=_options(args),
        )

    def request(self, counts: Mapping[str, int], seed: int) -> dict[str, Any]:
        """See `SceneSource`."""
        cutouts, backgrounds = self._split(seed)
        files = {}
        for split in SPLITS:
            inside = [file for group in cutouts.values() for file in group[split]]
            paths = [path for file in inside for path in (file.path, file.matte) if path]
            files[split] = [_fingerprint(path) for path in [*paths, *backgrounds[split]]]
        return {
            "kind": "matting",
            "format": FORMAT,
            "counts": counts,
            "seed": seed,
            "classes": self.categories,
            "options": asdict(self.options),
            "files": files,
        }

    def places(self) -> dict[str, Any]:
        """See `SceneSource`."""
        return {**self._folders, "val_share": self.val_share}

    @classmethod
    def restore(cls, request: Mapping[str, Any], places: Mapping[str, Any]) -> RGBASource:
        """See `SceneSource`."""
        if not places:
            raise ValueError("it does not say where its cut-outs lie; run the same command again")
        options = SceneOptions.from_json(request["options"])
        return cls(**places, classes=request["classes"], options=options)

    def load(self, root: Path, seed: int, *, progress: bool) -> dict[str, Draw]:  # noqa: ARG002
        """See `SceneSource`.

        Raises:
            ValueError: An image cannot be used; the message names it.
        """
        cutouts, backgrounds = self._split(seed)
        shared = [f"the class '{name}'" for name, group in cutouts.items() if _is_shared(group)]
        shared += ["the backgrounds"] * _is_shared(backgrounds)
        for name in shared:
            logger.warning(
                "there is one file of %s: training and validation share it, so that the "
                "validation says nothing about new ones", name,
            )  # fmt: skip
        draws: dict[str, Draw] = {}
        for split in SPLITS:
            inside = [file for group in cutouts.values() for file in group[split]]
            bar = functools.partial(tqdm, unit="image", disable=None if progress else True)
            images = [
                read_cutout(file, self.categories, self.options)
                for file in bar(inside, f"{split} cut-outs")
            ]
            grounds = [
                read_background(path, self.options)
                for path in bar(backgrounds[split], f"{split} backgrounds")
            ]
            logger.info("%s: %d cut-outs, %d backgrounds", split, len(images), len(grounds))
            draws[split] = functools.partial(
                sample_scene, cutouts=images, backgrounds=grounds, options=self.options
            )
        return draws

    def _split(
        self, seed: int
    ) -> tuple[dict[str, dict[str, list[CutoutFile]]], dict[str, list[Path]]]:
        """Divide the cut-outs of each class, and the backgrounds."""
        rng = np.random.default_rng([seed, len(SPLITS)])  # scenes take the streams 0 and 1
        cutouts = {}
        for category in sorted({file.category for file in self._cutouts}):
            files = [file for file in self._cutouts if file.category == category]
            cutouts[category] = split_files(files, self.val_share, rng)
        return cutouts, split_files(self._backgrounds, self.val_share, rng)


build_matting = old_build("build_matting", RGBASource)
register_matting = old_register("register_matting", "matting", kind="rgba", matting=True)


if __name__ == "__main__":
    run_old_command(RGBASource.kind)
