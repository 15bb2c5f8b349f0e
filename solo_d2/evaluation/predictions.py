"""What all evaluators check of a model's output, keep by image, and where results go."""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Any

import torch
from detectron2.data import MetadataCatalog
from detectron2.structures import Boxes, Instances
from detectron2.utils import comm

from ..io.atomic import AtomicFile

__all__ = ["ByImage", "check_instances", "remove_old", "results_file", "results_folder"]

_logger = logging.getLogger(__name__)


def check_instances(
    found: Instances, image: dict[str, Any], size: tuple[int, int] | None, num_classes: int
) -> Instances:
    """Check that the instances of an image fit the dataset.

    Args:
        found: the model's, on any device.
        image: the model's input, for messages.
        size: (height, width) of the image in the dataset; None where nobody knows it.
        num_classes: of the dataset.

    Returns:
        `found`; with all fields where some models return none, having found nothing.

    Raises:
        ValueError: instances without masks, of another size, or of a class that the dataset has
            not.
    """
    name = image.get("file_name", f"image {image.get('image_id')}")
    if not found.get_fields():
        return _nothing(found.image_size)
    shapes = [found.image_size]
    shapes += [tuple(found.get(k).shape[1:]) for k in _MASKS if found.has(k)]
    if size is not None and any(shape != size for shape in shapes):
        wrong = next(shape for shape in shapes if shape != size)
        raise ValueError(
            f"{name}: predictions of {wrong}, expected {size} (height, width); the "
            'input\'s "height" and "width" decide'
        )
    missing = [k for k in ("scores", "pred_classes") if not found.has(k)]
    if not any(map(found.has, _MASKS)):
        missing.append("pred_masks")
    if missing:
        raise ValueError(
            f"{name}: the model's instances have no {', '.join(missing)}, only "
            f"{sorted(found.get_fields())}; instance masks are evaluated here"
        )
    labels = found.pred_classes.tolist()
    wrong_labels = [label for label in labels if not 0 <= label < num_classes]
    if wrong_labels:
        raise ValueError(
            f"{name}: the model found class {wrong_labels[0]}, the dataset has {num_classes} "
            f"classes; set MODEL.SOLO.NUM_CLASSES {num_classes}"
        )
    return found


def _is_finite(found: Instances) -> torch.Tensor:
    """Return whether score, box and matte of each instance are finite numbers."""
    finite = torch.isfinite(found.scores)
    if found.has("pred_boxes"):
        finite = finite & torch.isfinite(found.pred_boxes.tensor).all(1)
    if found.has("pred_mattes") and found.pred_mattes.is_floating_point():
        finite = finite & torch.isfinite(found.pred_mattes).flatten(1).all(1)
    return finite


_MASKS = ("pred_masks", "pred_mattes")


def _nothing(size: tuple[int, int]) -> Instances:
    return Instances(
        size,
        pred_masks=torch.zeros((0, *size), dtype=torch.bool),
        pred_boxes=Boxes(torch.zeros((0, 4))),
        pred_classes=torch.zeros(0, dtype=torch.int64),
        scores=torch.zeros(0),
    )


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


def remove_old(file: Path) -> None:
    """Remove what an earlier evaluation wrote about results that are gone, and say so."""
    if file.is_file():
        file.unlink()
        _logger.warning("Removed %s, which was of an earlier evaluation", file)


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
        self._strange: list[tuple[Any, int]] = []  # image id, instances that are not finite

    def wants(self, image_id: Any) -> bool:
        """Tell whether an image is new.

        Raises:
            ValueError: the dataset has no such image.
        """
        if image_id not in self._known:
            raise ValueError(f"the dataset {self._name} has no image with the id {image_id!r}")
        self._repeated += image_id in self._values
        return image_id not in self._values

    def finite(self, image_id: Any, found: Instances) -> Instances:
        """Leave out instances of an image with NaN or infinite values, and count them."""
        good = _is_finite(found)
        if bool(good.all()):
            return found
        self._strange.append((image_id, int((~good).sum())))
        return found[good]

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
        state = (self._values, self._repeated, self._strange)
        parts = [state]
        if distributed:
            comm.synchronize()
            parts = comm.gather(state, dst=0)
            if not comm.is_main_process():
                return None
        found: dict[Any, Any] = {}
        for values, _, _ in parts:
            found = {**values, **found}
        again = sum(len(values) + repeated for values, repeated, _ in parts) - len(found)
        self._report(found, again, [x for _, _, strange in parts for x in strange], missing)
        return found

    def _report(
        self, found: dict[Any, Any], again: int, strange: list[tuple[Any, int]], missing: str
    ) -> None:
        if again:
            _logger.warning("%s: %d images came again and count once", self._name, again)
        if strange:
            _logger.warning(
                "%s: %d instances with NaN or infinite values were left out, the first in image %s",
                self._name, sum(count for _, count in strange), strange[0][0],
            )  # fmt: skip
        lacking = len(self._known) - len(found)
        if lacking and found and missing:
            _logger.warning(
                "%s: %d of %d images were not processed; %s",
                self._name, lacking, len(self._known), missing,
            )  # fmt: skip
