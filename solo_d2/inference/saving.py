"""What was found as datasets, which a person corrects and a model trains on."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np

from ..data.datasets.formats import make_writer
from ..data.datasets.writing import DatasetWriter, LabelledImage, LabelledObject, check_folder
from ..io.paths import is_within, printable
from ..io.results import EncodedInstances
from .outputs import is_file_name

__all__ = ["DatasetSaver", "save_folders"]


class DatasetSaver:
    """Saves images and the instances found in them, as datasets of a training split.

    It is called with every image and its prediction; nothing is made before the first one.

    Args:
        folders: To write, by format.
        classes: Names in the order of the labels.
        tolerance: Pixels by which outlines may be simplified.

    Raises:
        ValueError: The model has no names of its classes.
    """

    def __init__(
        self, folders: Mapping[str, Path], classes: Sequence[str] | None, tolerance: float
    ) -> None:
        if classes is None:
            raise ValueError("the weights bring no class names for --save; give --class-names")
        self._folders, self._classes, self._tolerance = folders, list(classes), tolerance
        self._writers: list[DatasetWriter] = []

    def __call__(self, file: Path, prediction: Mapping[str, Any]) -> None:
        """Save one image.

        Raises:
            ValueError: The image cannot be copied, or a format not hold what was found in it.
            OutputError: A file cannot be written any further.
        """
        if not self._writers:
            self._writers = [
                make_writer(kind, folder, self._classes, tolerance=self._tolerance)
                for kind, folder in self._folders.items()
            ]
        found = prediction["instances"].to("cpu")
        mattes: Sequence[np.ndarray | None] = [None] * len(found)
        soft = found.has("pred_mattes")
        if soft and any(writer.keeps_mattes for writer in self._writers):
            mattes = [np.rint(matte * 255).astype(np.uint8) for matte in found.pred_mattes.numpy()]
        encoded = EncodedInstances.of(found)
        columns = (encoded.labels.tolist(), encoded.segmentations(), encoded.scores.tolist())
        objects = [
            LabelledObject(label, mask, score, matte=matte)
            for label, mask, score, matte in zip(*columns, mattes, strict=True)
        ]
        image = LabelledImage(file, encoded.size, objects)
        for writer in self._writers:
            writer.lost["matte"] += len(found) * (soft and not writer.keeps_mattes)
            writer.add(image)

    def close(self) -> list[str]:
        """Write what comes at the end, and return what there is to say."""
        lines = []
        for writer in self._writers:
            writer.close()
            lines.append(f"{writer.kind}: {printable(writer.root)}")
            if writer.message():
                lines.append(writer.message())
        return lines


def save_folders(
    words: Sequence[str],
    output: str | PathLike[str],
    others: Iterable[str | PathLike[str]] = (),
) -> dict[str, Path]:
    """Return the folders to write by format.

    Args:
        words: "FORMAT" or "FORMAT:DIR".
        output: Folder in which DIR is called as its format, where it is not said.
        others: Files and folders that are written as well.

    Raises:
        ValueError: A format comes twice, a folder has files, or something else is to be written
            into it: drawings beside the images would be trained on.
    """
    folders: dict[str, Path] = {}
    for word in words:
        kind, _, folder = word.partition(":")
        if not folder and is_file_name(output):
            raise ValueError(f"--save {kind}: the output is one file; say a folder: {kind}:DIR")
        path = Path(folder) if folder else Path(output) / kind
        if kind in folders:
            raise ValueError(f"--save {word}: comes twice; name each format once")
        check_folder(path)
        folders[kind] = path
    for kind, path in folders.items():
        for other in (*others, *(x for name, x in folders.items() if name != kind)):
            if is_within(other, path):
                raise ValueError(
                    f"--save {kind}:{printable(path)}: the folder is for this dataset alone, and "
                    f"{printable(other)} would be written into it; name another one"
                )
    return folders
