"""What all evaluators check of a model's output, keep by image, and where results go."""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Any

import torch
from detectron2.data import MetadataCatalog
from detectron2.structures import Instances
from detectron2.utils import comm

from ..io.atomic import AtomicFile

__all__ = ["ByImage", "checked", "results_file", "results_folder"]

_logger = logging.getLogger(__name__)


def checked(
    found: Instances, image: dict[str, Any], size: tuple[int, int] | None, num_classes: int
) -> Instances:
    """Check the instances of an image, and leave out those that are not finite.

    Args:
        found: the model's, with ``pred_classes`` and ``scores``, on any device.
        image: the model's input, for messages.
        size: (height, width) of the image in the dataset; None where nobody knows it.
        num_classes: of the dataset.

    Returns:
        `found`, or those of them whose score, box and matte are finite numbers.

    Raises:
        ValueError: instances of another size, or of a class that the dataset has not.
    """
    name = image.get("file_name", f"image {image.get('image_id')}")
    shapes = [found.image_size]
    shapes += [tuple(found.get(k).shape[1:]) for k in _MASKS if found.has(k)]
    if size is not None and any(shape != size for shape in shapes):
        wrong = next(shape for shape in shapes if shape != size)
        raise ValueError(
            f"{name}: predictions of {wrong}, expected {size} (height, width); the "
            'input\'s "height" and "width" decide'
        )
    if not len(found):
        return found
    low, high = int(found.pred_classes.min()), int(found.pred_classes.max())
    if low < 0 or high >= num_classes:
        raise ValueError(
            f"{name}: the model found class {low if low < 0 else high}, the dataset has "
            f"{num_classes} classes; set MODEL.SOLO.NUM_CLASSES {num_classes}"
        )
    finite = torch.isfinite(found.scores)
    if found.has("pred_boxes"):
        finite = finite & torch.isfinite(found.pred_boxes.tensor).all(1)
    if found.has("pred_mattes") and found.pred_mattes.is_floating_point():
        finite = finite & torch.isfinite(found.pred_mattes).flatten(1).all(1)
    if bool(finite.all()):
        return found
    _logger.warning(
        "%s: %d of %d instances have NaN or infinite values and are left out",
        name, len(found) - int(finite.sum()), len(found),
    )  # fmt: skip
    return found[finite]


_MASKS = ("pred_masks", "pred_mattes")


def results_folder(
    folder: Path | None, dataset_name: str, inputs: Iterable[str | Path]
) -> Path | None:
    """Make a folder for predictions, file by file; None stays None.

    Args:
        folder: the folder.
        dataset_name: for messages.
        inputs: files of the dataset, of which none may lie there.

    Raises:
        ValueError: it cannot be made or written to, or one of `inputs` lies in it.
    """
    if folder is None:
        return None
    place = folder.resolve()
    if any(parent.resolve() == place for parent in {Path(file).parent for file in inputs}):
        raise ValueError(
            f"{folder}: predictions would be written among the ground truth of the dataset "
            f"{dataset_name}; choose another OUTPUT_DIR"
        )
    try:
        folder.mkdir(parents=True, exist_ok=True)
        AtomicFile(folder / "check").discard()
    except OSError as error:
        raise ValueError(f"{folder}: cannot be written ({error}); {_REMEDY}") from error
    return folder


_REMEDY = "choose another OUTPUT_DIR"


def results_file(output_dir: str | Path | None, name: str, dataset_name: str) -> Path | None:
    """Choose the file for results, and check at once that it can be written; None stays None.

    Args:
        output_dir: its folder, which is made.
        name: of the file.
        dataset_name: whose annotation files it must not replace.

    Raises:
        ValueError: it cannot be written, or the dataset is read from it.
    """
    if output_dir is None:
        return None
    file = Path(output_dir) / name
    metadata = MetadataCatalog.get(dataset_name)
    inputs = [metadata.get("json_file"), metadata.get("panoptic_json")]
    inputs += [*(metadata.get("source") or ())]
    if any(x is not None and Path(x).resolve() == file.resolve() for x in inputs):
        raise ValueError(
            f"{file} has the annotations of the dataset {dataset_name}, and results would "
            "replace it; choose another OUTPUT_DIR"
        )
    if comm.is_main_process():  # the only one that writes it
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            AtomicFile(file).discard()
        except OSError as error:
            raise ValueError(f"{file}: cannot be written ({error}); {_REMEDY}") from error
    return file


class ByImage:
    """What an evaluator keeps of every image: each once, and none that the dataset has not.

    Samplers fill up the last batch of several processes with images that came before, and a
    stranger's loader may leave some out; both would change averages without a word.

    Args:
        dataset_name: for messages.
        known: the dataset's image ids.
    """

    def __init__(self, dataset_name: str, known: Collection[Any]) -> None:
        self._name, self._known = dataset_name, known
        self._values: dict[Any, Any] = {}
        self._repeated = 0

    def wants(self, image_id: Any) -> bool:
        """Tell whether an image is new.

        Raises:
            ValueError: the dataset has no such image.
        """
        if image_id not in self._known:
            raise ValueError(f"the dataset {self._name} has no image with the id {image_id!r}")
        self._repeated += image_id in self._values
        return image_id not in self._values

    def add(self, image_id: Any, value: Any) -> None:
        """Keep what belongs to an image."""
        self._values[image_id] = value

    def values(self) -> Collection[Any]:
        """Return what this process kept."""
        return self._values.values()

    def gather(self, *, distributed: bool = True, missing: str = "") -> dict[Any, Any] | None:
        """Return what all processes kept, by image id; None but on the main process.

        Args:
            distributed: ask the other processes.
            missing: what becomes of images that were not processed, for the log; empty says
                nothing.
        """
        if distributed:
            comm.synchronize()
            parts = comm.gather((self._values, self._repeated), dst=0)
            if not comm.is_main_process():
                return None
        else:
            parts = [(self._values, self._repeated)]
        found: dict[Any, Any] = {}
        for values, _ in parts:
            found = {**values, **found}
        again = sum(len(v) + r for v, r in parts) - len(found)
        if again:
            _logger.warning("%s: %d images came again and count once", self._name, again)
        lacking = len(self._known) - len(found)
        if lacking and found and missing:
            _logger.warning(
                "%s: %d of %d images were not processed; %s",
                self._name, lacking, len(self._known), missing,
            )  # fmt: skip
        return found
