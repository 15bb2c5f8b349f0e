"""``solo-d2 scenes film``: write films with known identities, as frames, YouTube-VIS and MOTS.

Layout below the output::

    frames/film_000/00000.jpg   the frames of every film
    instances.json              objects with their masks in all frames, as YouTube-VIS has them
    mots/film_000.txt           the same by frame: "frame object class height width RLE"

A film is the input of ``solo-d2 predict --video-input DIR/frames/film_000 --track``.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from pycocotools import mask as mask_util
from tqdm import tqdm

from ...io.image import write_image
from ...io.json_file import save_json
from ...io.segmentation import encode_mask
from .cutouts import Background, Cutout
from .debian import StampsUnavailableError
from .film import Film, FilmOptions, sample_film
from .shapes import SHAPES, shape_sprites
from .stamps import StampsSource
from .writer import JPEG_QUALITY

__all__ = ["Sprites", "main", "make_sprites", "write_films"]


class Sprites:
    """What films are made of.

    Args:
        cutouts: of objects.
        backgrounds: to put them on.
        categories: names of the classes.
    """

    def __init__(
        self,
        cutouts: Sequence[Cutout],
        backgrounds: Sequence[Background],
        categories: Sequence[str],
    ) -> None:
        self.cutouts, self.backgrounds, self.categories = cutouts, backgrounds, categories

    def film(self, options: FilmOptions, seed: int, number: int) -> Film:
        """Return a film, which depends on its arguments only."""
        random = np.random.default_rng([seed, number])
        return sample_film(random, self.cutouts, self.backgrounds, options)


def make_sprites(source: str, root: Path, options: StampsSource | None = None) -> Sprites:
    """Return the cut-outs and backgrounds of a source.

    Args:
        source: "shapes", or "stamps", of which the validation split is taken.
        root: folder of the dataset, for what is fetched.
        options: where the stamps are.

    Raises:
        StampsUnavailableError: the images are not available on this machine.
    """
    if source == "shapes":
        return Sprites(*shape_sprites(np.random.default_rng(0), 360, 3), SHAPES)
    stamps = options or StampsSource()
    library = stamps.library(root, "val")
    return Sprites(library.cutouts, library.backgrounds, stamps.categories)


def write_films(
    sprites: Sprites, output: Path, options: FilmOptions, *, films: int, seed: int
) -> None:
    """Write films and who is where in them.

    Args:
        sprites: what they are made of.
        output: folder, see the module.
        options: what they look like.
        films: how many.
        seed: of their contents.

    Raises:
        ValueError: a file cannot be written, or would replace somebody's work.
    """
    content_file, mots = output / "instances.json", output / "mots"
    if content_file.exists() and not mots.is_dir():
        raise ValueError(f"{content_file}: is of no films written here; name a new folder")
    videos: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    mots.mkdir(parents=True, exist_ok=True)
    for number in tqdm(range(films), unit="film", disable=None):
        film, name = sprites.film(options, seed, number), f"film_{number:03d}"
        objects, names = _write_frames(film, output, name)
        videos.append(
            {"id": number + 1, "height": options.height, "width": options.width,
             "length": options.frames, "file_names": names}
        )  # fmt: skip
        for one in objects:
            head = {"id": len(annotations) + 1, "video_id": number + 1, "iscrowd": 0}
            annotations.append({**head, **one})
    categories = [{"id": k + 1, "name": name} for k, name in enumerate(sprites.categories)]
    content = {"videos": videos, "categories": categories, "annotations": annotations}
    save_json(content_file, content)


def _write_frames(film: Film, output: Path, name: str) -> tuple[list[dict[str, Any]], list[str]]:
    """Write the frames and MOTS of a film; returns its objects and the names of its files."""
    count, frames = len(film.categories), film.options.frames
    masks: list[list[dict[str, Any] | None]] = [[None] * frames for _ in range(count)]
    names, lines = [], []
    for number, frame in enumerate(film):
        names.append(f"{name}/{number:05d}.jpg")
        write_image(output / "frames" / names[-1], frame.image[..., ::-1], quality=JPEG_QUALITY)
        for identity, mask in zip(frame.objects.tolist(), frame.masks, strict=True):
            rle = encode_mask(mask)
            masks[identity][number] = rle
            category = film.categories[identity] + 1
            size = f"{rle['size'][0]} {rle['size'][1]}"
            lines.append(f"{number + 1} {identity + 1} {category} {size} {rle['counts']}\n")
    (output / "mots" / f"{name}.txt").write_text("".join(lines))
    objects = [
        {
            "category_id": int(category) + 1,
            "height": film.options.height,
            "width": film.options.width,
            "segmentations": rles,
            "bboxes": [None if x is None else mask_util.toBbox(x).tolist() for x in rles],
            "areas": [None if x is None else int(mask_util.area(x)) for x in rles],
        }
        for category, rles in zip(film.categories, masks, strict=True)
        if any(rles)  # an object that no frame shows is none
    ]
    return objects, names


def make_parser() -> argparse.ArgumentParser:
    """Make the parser of the command."""
    parser = argparse.ArgumentParser(
        prog="solo-d2 scenes film",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add, usual = parser.add_argument, FilmOptions()
    add("--output", type=Path, required=True, metavar="DIR", help="folder of the films")
    add("--source", choices=("stamps", "shapes"), default="stamps", help="default: stamps")
    add("--films", type=int, default=4, metavar="N", help="default: 4")
    add("--frames", type=int, default=usual.frames, metavar="N", help="of a film (%(default)s)")
    add("--size", nargs=2, type=int, default=(usual.height, usual.width), metavar=("H", "W"),
        help=f"pixels of a frame ({usual.height} {usual.width})")  # fmt: skip
    add("--objects", nargs=2, type=int, default=usual.objects, metavar=("LOW", "HIGH"),
        help="of a film ({} {})".format(*usual.objects))  # fmt: skip
    add("--seed", type=int, default=0, help="of the films (%(default)s)")
    add("--deb", nargs="+", default=[], metavar="FILE", help="package files to use for stamps")
    add("--extracted", metavar="DIR", help="folder with the unpacked packages")
    add("--cache", metavar="DIR", help="folder for fetched images (OUTPUT/cache)")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code: 2 for a wrong option, 1 for images or files."""
    args = make_parser().parse_args(argv)
    try:
        height, width = args.size
        low, high = args.objects
        options = FilmOptions(height, width, args.frames, (low, high))
        if args.films < 1 or args.seed < 0:
            raise ValueError(f"need --films >= 1 and --seed >= 0, got {args.films} and {args.seed}")
        stamps = StampsSource(debs=args.deb, extracted=args.extracted, cache=args.cache)
        sprites = make_sprites(args.source, args.output, stamps)
        write_films(sprites, args.output, options, films=args.films, seed=args.seed)
    except (OSError, ValueError, StampsUnavailableError) as error:
        sys.stderr.write(f"error: {error}\n")
        return 2 if isinstance(error, ValueError) else 1
    return 0
