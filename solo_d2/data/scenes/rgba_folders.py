"""List and read folders of cut-outs and of backgrounds."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from ...io.alpha import read_alpha
from ...io.decode import WITH_ALPHA, orientation, turn
from ...io.image import IMAGE_EXTENSIONS, open_image, read_image
from .cutouts import Background, Cutout, SceneOptions
from .kinds import ONLY_CLASS

__all__ = ["CutoutFile", "list_cutouts", "list_images", "read_background", "read_cutout"]

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class CutoutFile:
    """A cut-out on disk.

    Attributes:
        path: the image.
        category: name of its class.
        matte: a greyscale image of its alpha; None if the image has an alpha channel.
    """

    path: Path
    category: str
    matte: Path | None = None


def list_images(folder: Path, what: str) -> list[Path]:
    """List the images below a folder, sorted. Hidden files are skipped, others with a warning.

    Raises:
        ValueError: no such folder, or no image in it.
    """
    if not folder.is_dir():
        raise ValueError(f"{folder}: no such folder; it should hold the {what}")
    inside = sorted(path for path in folder.rglob("*") if path.is_file())
    inside = [p for p in inside if not any(x.startswith(".") for x in p.relative_to(folder).parts)]
    images = [path for path in inside if path.suffix.lower() in IMAGE_EXTENSIONS]
    if not images:
        known = ", ".join(IMAGE_EXTENSIONS)
        raise ValueError(f"{folder} holds no image for the {what}; known endings: {known}")
    others = [path.name for path in inside if path.suffix.lower() not in IMAGE_EXTENSIONS]
    if others:
        logger.warning("%s: left out %d files like %s", folder, len(others), others[:3])
    return images


def list_cutouts(folder: Path, mattes: Path | None = None) -> list[CutoutFile]:
    """List the cut-outs of a folder. Its subfolders are the classes; without any there is one.

    Args:
        folder: folder of the images.
        mattes: a folder with the same layout that holds the alpha of each image.

    Raises:
        ValueError: an empty folder, an image beside the subfolders, or a missing matte.
    """
    images = list_images(folder, "cut-outs")
    flat = [path for path in images if path.parent == folder]
    if flat and len(flat) < len(images):
        raise ValueError(
            f"{flat[0]} lies beside the folders of the classes, so that its class is unknown; move "
            "it into one of them"
        )
    by_stem: dict[Path, Path] = {}
    if mattes is not None:
        found = list_images(mattes, "mattes of the cut-outs")
        by_stem = {path.relative_to(mattes).with_suffix(""): path for path in found}
    files = []
    for path in images:
        inside = path.relative_to(folder)
        matte = by_stem.get(inside.with_suffix(""))
        if mattes is not None and matte is None:
            raise ValueError(
                f"{path} has no matte: {mattes / inside.with_suffix('.png')} is missing"
            )
        category = ONLY_CLASS if flat else inside.parts[0]
        files.append(CutoutFile(path, category, matte))
    return files


def read_cutout(file: CutoutFile, categories: Sequence[str], options: SceneOptions) -> Cutout:
    """Read a cut-out at the largest size that scenes can show.

    Raises:
        ValueError: the image cannot be read, has no alpha channel, is fully transparent, or is too
            small for such scenes; the message names the file.
    """
    rgba = _read_rgba(file)
    if rgba[..., 3].min() == 255:
        logger.warning("%s is opaque everywhere: the entire image counts as the object", file.path)
    side = max(options.height, options.width)
    try:
        cutout = Cutout.from_straight(rgba, categories.index(file.category), max_side=side)
    except ValueError as error:
        raise ValueError(f"{file.path}: {error}") from error
    solid = int((cutout.rgba[..., 3] >= 128).sum())
    if solid * options.max_upscale**2 < options.min_pixels:
        raise ValueError(
            f"{file.path} shows an object of {solid} pixels, which these scenes of "
            f"{options.height}x{options.width} cannot show; remove it, or use a smaller --size"
        )
    return cutout


def _read_rgba(file: CutoutFile) -> np.ndarray:
    """Read RGBA (h, w, 4) uint8, upright, with colours that are not premultiplied."""
    if file.matte is not None:
        rgb, alpha = read_image(file.path, "RGB"), read_alpha(file.matte)
        if alpha.shape != rgb.shape[:2]:
            raise ValueError(
                f"{file.matte} has {alpha.shape[1]}x{alpha.shape[0]} pixels, its image "
                f"{file.path} {rgb.shape[1]}x{rgb.shape[0]}"
            )
        return np.dstack([rgb, alpha])
    with open_image(file.path) as image:
        image.load()
        if image.mode in WITH_ALPHA or "transparency" in image.info:
            rgba = np.asarray(image.convert("RGBA"))
            return turn(rgba, orientation(image, str(file.path)))
    raise ValueError(
        f"{file.path} has no alpha channel; save the cut-out as RGBA, or give a folder of mattes "
        "with --mattes"
    )


def read_background(path: Path, options: SceneOptions) -> Background:
    """Read a background, downsampled to what scenes need.

    Raises:
        ValueError: it cannot be read.
    """
    image = read_image(path, "RGB")
    factor = min(1.0, 2 * max(options.height, options.width) / min(image.shape[:2]))
    if factor < 1:
        size = (round(image.shape[1] * factor), round(image.shape[0] * factor))
        image = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    return Background(image, np.zeros(image.shape[:2], np.uint8))
