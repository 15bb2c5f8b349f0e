"""Write generated scenes as a dataset in COCO format, in parallel and reproducibly.

Layout below the root, for every split::

    annotations/<split>.json   COCO, plus the keys below
    <split>/000001.jpg         images
    alpha/<split>/…png         8-bit visible mattes, one crop per instance (scenes with soft alpha)
    stuff/<split>/000001.png   background labels, 0 where an instance is (scenes with stuff)

An annotation's ``"alpha"`` is ``{"file_name": path below the root, "offset": [x, y]}``; an
image's ``"stuff_file_name"`` is a path below the root, and ``"stuff_categories"`` names the
labels from 1.
"""

from __future__ import annotations

import json
import logging
import multiprocessing
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from pycocotools import mask as mask_util
from tqdm import tqdm

from ...io.atomic import atomic_write
from ...io.image import write_image
from ...io.paths import printable
from ...io.segmentation import encode_mask
from .compose import Scene

__all__ = [
    "SceneSplit",
    "check_replaceable",
    "is_current",
    "note_places",
    "staged",
    "write_dataset",
    "write_split",
]

logger = logging.getLogger(__name__)

JPEG_QUALITY = 92

_MANIFEST, _STAGE = "manifest.json", ".building"
_WRITTEN = ("annotations", "train", "val", "alpha", "stuff", _MANIFEST)
"""What a build replaces in its folder."""


@dataclass(frozen=True)
class SceneSplit:
    """A split to write.

    Attributes:
        name: of the split, such as "train"; names the files.
        count: number of scenes, at least 1.
        make_scene: index from 0 -> scene. Must be picklable, and depend on the index only: the
            data must not depend on the number of workers.
        categories: names; a scene's category k becomes the category id k + 1.
        stuff: names of the background labels, from label 1.
        alpha: whether to write mattes.
    """

    name: str
    count: int
    make_scene: Callable[[int], Scene]
    categories: Sequence[str]
    stuff: Sequence[str] = ()
    alpha: bool = False


def _annotate(mask: np.ndarray, category: int) -> dict[str, Any]:
    rle = encode_mask(mask)
    return {
        "category_id": category + 1,
        "segmentation": rle,
        "bbox": [float(v) for v in mask_util.toBbox(rle)],
        "area": int(mask_util.area(rle)),
        "iscrowd": 0,
    }


def _write_scene(
    root: Path, split: SceneSplit, index: int
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Write the files of one scene and return its image and annotation records, without ids."""
    scene = split.make_scene(index)
    stem = f"{index + 1:06d}"
    write_image(root / split.name / f"{stem}.jpg", scene.image[..., ::-1], quality=JPEG_QUALITY)
    height, width = scene.image.shape[:2]
    image: dict[str, Any] = {"file_name": f"{stem}.jpg", "height": height, "width": width}
    masks = scene.masks
    if split.stuff and scene.stuff is not None:
        image["stuff_file_name"] = f"stuff/{split.name}/{stem}.png"
        labels = np.where(masks.any(axis=0), 0, scene.stuff).astype(np.uint8)
        write_image(root / image["stuff_file_name"], labels)
    annotations = []
    for k, (mask, category) in enumerate(zip(masks, scene.categories, strict=True)):
        record = _annotate(mask, int(category))
        if split.alpha:
            matte = scene.mattes[k]
            name = f"alpha/{split.name}/{stem}_{k:02d}.png"
            write_image(root / name, np.rint(matte.alpha * 255).astype(np.uint8))
            record["alpha"] = {"file_name": name, "offset": [matte.x, matte.y]}
        annotations.append(record)
    return image, annotations


_job: tuple[Path, SceneSplit]  # what this worker process works on


def _start_worker(root: Path, split: SceneSplit) -> None:
    global _job
    _job = (root, split)
    cv2.setNumThreads(0)  # one thread a process: the processes are the parallelism


def _work(index: int) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    return _write_scene(*_job, index)


def _scenes(
    root: Path, split: SceneSplit, workers: int
) -> Iterator[tuple[dict[str, Any], list[dict[str, Any]]]]:
    if workers <= 1:
        yield from (_write_scene(root, split, index) for index in range(split.count))
        return
    # Fork shares the decoded images with the workers; elsewhere they are sent once.
    method = "fork" if "fork" in multiprocessing.get_all_start_methods() else "spawn"
    context = multiprocessing.get_context(method)
    with context.Pool(workers, _start_worker, (root, split)) as pool:
        yield from pool.imap(_work, range(split.count), chunksize=4)


def write_split(
    root: str | os.PathLike[str], split: SceneSplit, *, workers: int = 1, progress: bool = True
) -> dict[str, int]:
    """Make and write all scenes of a split.

    Args:
        root: folder of the dataset; made where missing.
        split: what to write.
        workers: processes; the result does not depend on it.
        progress: whether to show a progress bar.

    Returns:
        Number of instances per category name.
    """
    root = Path(root)
    folders = ["annotations", split.name]
    folders += [f"stuff/{split.name}"] * bool(split.stuff)
    folders += [f"alpha/{split.name}"] * split.alpha
    for folder in folders:
        (root / folder).mkdir(parents=True, exist_ok=True)
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    scenes = _scenes(root, split, workers)
    for image, records in tqdm(
        scenes, split.name, split.count, unit="scene", disable=None if progress else True
    ):
        images.append({"id": len(images) + 1, **image})
        for record in records:
            # From 1: COCO's evaluation takes an annotation with the id 0 for "no match".
            annotations.append({"id": len(annotations) + 1, "image_id": len(images), **record})
    content = {
        "info": {"description": f"{split.name} scenes made by solo_d2"},
        "images": images,
        "annotations": annotations,
        "categories": [{"id": k, "name": n} for k, n in enumerate(split.categories, 1)],
    }
    if split.stuff:
        content["stuff_categories"] = [{"id": k, "name": n} for k, n in enumerate(split.stuff, 1)]
    (root / "annotations" / f"{split.name}.json").write_text(json.dumps(content))
    counts = dict.fromkeys(split.categories, 0)
    for record in annotations:
        counts[split.categories[record["category_id"] - 1]] += 1
    return counts


@contextmanager
def staged(root: Path) -> Iterator[Path]:
    """Stage files in a folder that replaces entries of `root` only when complete.

    Yields an empty folder inside of `root`. When the block ends well, its entries replace those
    of the same name in `root`; ``manifest.json`` goes away first and comes back last, so that a
    run that was cut off is never taken for a finished one. The empty folder goes away after that:
    until then it tells `check_replaceable` whose the entries are.
    """
    root.mkdir(parents=True, exist_ok=True)
    stage = root / _STAGE
    shutil.rmtree(stage, ignore_errors=True)
    stage.mkdir()
    try:
        yield stage
    except BaseException:
        shutil.rmtree(stage, ignore_errors=True)
        raise
    (root / _MANIFEST).unlink(missing_ok=True)
    for entry in sorted(stage.iterdir(), key=lambda path: path.name == _MANIFEST):
        target = root / entry.name
        if target.is_dir():
            shutil.rmtree(target)
        os.replace(entry, target)
    stage.rmdir()


def check_replaceable(root: Path) -> None:
    """Check that what a build would replace in its folder was written by an earlier one.

    Raises:
        ValueError: It may be somebody's work.
    """
    there = [name for name in _WRITTEN if os.path.lexists(root / name)]
    if not there or (root / _STAGE).is_dir() or _read_request(root) is not None:
        return
    raise ValueError(
        f"{printable(root)}: has {there[0]}, which no finished build of scenes wrote and which may "
        "be somebody's work; name a new folder"
    )


def _read_request(root: Path) -> Any:
    """The request for which a dataset was built; None where there is no complete dataset."""
    try:
        return json.loads((root / _MANIFEST).read_text())["request"]
    except (OSError, ValueError, KeyError, TypeError):
        return None


def write_dataset(
    root: Path,
    request: dict[str, Any],
    splits: Sequence[SceneSplit],
    *,
    workers: int | None = None,
    progress: bool = True,
) -> None:
    """Write all splits of a dataset, and the manifest that `is_current` compares.

    Args:
        root: folder of the dataset; an earlier build is replaced at the end.
        request: the parameters, as json would read them back.
        splits: what to write.
        workers: processes; default: the number of CPUs.
        progress: whether to show progress bars.
    """
    workers = workers or os.cpu_count() or 1
    instances = {}
    with staged(root) as stage:
        for split in splits:
            instances[split.name] = write_split(stage, split, workers=workers, progress=progress)
        manifest = {"request": request, "instances": instances}
        (stage / _MANIFEST).write_text(json.dumps(manifest, indent=1))
    for split in splits:
        logger.info("%s: %d scenes, %s", split.name, split.count, instances[split.name])


def is_current(root: Path, request: dict[str, Any]) -> bool:
    """Return whether `root` holds a complete dataset that was built for this `request`."""
    return bool(_read_request(root) == request)


def note_places(root: Path, places: dict[str, Any]) -> None:
    """Note in the manifest of a dataset where the images of its source lie."""
    path = root / _MANIFEST
    manifest = json.loads(path.read_text())
    if places and manifest.get("places") != places:
        with atomic_write(path) as file:
            file.write(json.dumps({**manifest, "places": places}, indent=1).encode())
