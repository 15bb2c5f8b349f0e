"""Training images that are composed when they are drawn, from the source of a built dataset."""

from __future__ import annotations

import functools
import json
import os
import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, overload

import numpy as np

from ...io.errors import one_line
from ..seeded import new_generator
from .build import Draw, SceneSource

__all__ = ["LABELS", "SCENE", "STUFF", "ComposedScenes", "compose_record", "composer"]

SCENE = "scene"
"""Key of a record whose image is composed: the folder of the dataset, see `composer`."""

LABELS = "scene_labels"
"""Key of such a record: the label of each of the scene's categories, where they are others."""

STUFF = "stuff"
"""Key of a record in memory: labels (H, W) of the background, uint8 from 1."""


class ComposedScenes(Sequence[dict[str, Any]]):
    """Records of images that do not exist before they are drawn.

    All are alike: what one shows depends on NumPy's random numbers when it is read, which the
    training loader seeds anew for every image that it draws.

    Args:
        root: folder of a built dataset.
        count: images of a pass.
    """

    def __init__(self, root: str | os.PathLike[str], count: int) -> None:
        self._root = os.path.abspath(root)
        self._count = count

    def __len__(self) -> int:
        return self._count

    @overload
    def __getitem__(self, index: int) -> dict[str, Any]: ...

    @overload
    def __getitem__(self, index: slice) -> list[dict[str, Any]]: ...

    def __getitem__(self, index: int | slice) -> dict[str, Any] | list[dict[str, Any]]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(self._count))]
        if not 0 <= index < self._count:
            raise IndexError(index)
        name = f"{self._root} (composed, image {index})"
        return {"file_name": name, "image_id": index, "annotations": [], SCENE: self._root}

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return (self[i] for i in range(self._count))


def compose_record(record: dict[str, Any], image_format: str) -> dict[str, Any]:
    """Compose the image of a record of `ComposedScenes`.

    Args:
        record: not changed.
        image_format: "BGR" or "RGB".

    Returns:
        A record in memory: ``image`` (H, W, 3) uint8, annotations with a boolean mask (H, W) and
        the "pixels" of their matte, and ``stuff`` where the backgrounds have labels.
    """
    draw = composer(record[SCENE])
    scene = draw(new_generator())
    height, width = scene.image.shape[:2]
    labels = record.get(LABELS)
    made = {key: value for key, value in record.items() if key not in (SCENE, LABELS)}
    made.update(height=height, width=width, image=scene.image)
    if image_format == "BGR":
        made["image"] = np.ascontiguousarray(scene.image[..., ::-1])
    if scene.stuff is not None:
        made[STUFF] = scene.stuff
    made["annotations"] = [
        {
            "category_id": int(category) if labels is None else labels[int(category)],
            "iscrowd": 0,
            "segmentation": mask,
            "alpha": {
                "pixels": np.rint(matte.alpha * 255).astype(np.uint8),
                "offset": [matte.x, matte.y],
            },
        }
        for category, mask, matte in zip(scene.categories, scene.masks, scene.mattes, strict=True)
    ]
    return made


@functools.cache
def composer(root: str) -> Draw:
    """Return what draws training scenes like those of a built dataset, with its cut-outs.

    It is kept: processes that load images, and are forked, share its images.

    Args:
        root: folder of the dataset.

    Raises:
        ValueError: no dataset, one of another version, or its cut-outs are gone.
        OSError: they cannot be had on this machine.
    """
    from .debian import StampsUnavailableError

    request, places = read_manifest(root)
    try:
        source = _sources()[request["kind"]].restore(request, places)
        now = json.loads(json.dumps(source.request(request["counts"], request["seed"])))
        if now != request:
            raise ValueError("its cut-outs, or the version, have changed; build it again")
        return source.load(Path(root), request["seed"], progress=False)["train"]
    except StampsUnavailableError as error:
        raise OSError(f"{root}: {one_line(error)}") from error
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"scenes of {root} cannot be composed: {one_line(error)}") from error


def read_manifest(root: str | os.PathLike[str]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return what a built dataset depends on, and where the images of its source lie.

    Raises:
        ValueError: there is no dataset.
    """
    path = Path(root, "manifest.json")
    try:
        manifest = json.loads(path.read_text())
        request, places = dict(manifest["request"]), dict(manifest.get("places", {}))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"there is no dataset of scenes in {os.fspath(root)} ({one_line(error)}); build one "
            f"with `solo-d2 scenes KIND --output {shlex.quote(os.fspath(root))}`"
        ) from error
    return request, places


def _sources() -> dict[str, type[SceneSource]]:
    """Return the sources by the kind that their manifests have."""
    from .rgba import RGBASource
    from .shapes import ShapesSource
    from .stamps import StampsSource

    return {"shapes": ShapesSource, "stamps": StampsSource, "matting": RGBASource}
