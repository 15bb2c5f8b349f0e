"""Cityscapes' instance AP, with the official scripts made to work on today's NumPy."""

from __future__ import annotations

import contextlib
import io
import itertools
import logging
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from detectron2.data import MetadataCatalog
from detectron2.evaluation import DatasetEvaluator
from detectron2.utils import comm
from PIL import Image

from ..layers import dense_masks
from ._numpy import numpy_name
from .predictions import ByImage, check_instances

__all__ = ["CityscapesInstanceEvaluator"]

_logger = logging.getLogger(__name__)

_IMAGE_END, _TRUTH_END = "_leftImg8bit.png", "_gtFine_instanceIds.png"


class CityscapesInstanceEvaluator(DatasetEvaluator):
    """Mask AP and AP50 of Cityscapes, as the official scripts compute them.

    It does what Detectron2's evaluator of the same name does, but works on NumPy 2, where
    cityscapesscripts fails, and on Detectron2's main branch, whose own imports modules that were
    never published. Predictions are exchanged as files, so that all processes must see one disk.

    Args:
        dataset_name: a registered dataset with ``thing_classes``, ``gt_dir`` and the evaluator
            type "cityscapes_instance" in its metadata. Where these have an ``image_dir``, only the
            ground truth of its images counts.
        output_dir: ignored; there is nothing worth keeping.

    Raises:
        ValueError: cityscapesscripts is not installed, or `gt_dir` holds no ground truth.

    Example:
        >>> from detectron2.data import MetadataCatalog
        >>> _ = MetadataCatalog.get("streets").set(thing_classes=["car"], gt_dir="no_folder")
        >>> CityscapesInstanceEvaluator("streets")  # doctest: +ELLIPSIS
        Traceback (most recent call last):
            ...
        ValueError: no_folder holds no ground truth; expected ...
    """

    def __init__(self, dataset_name: str, output_dir: str | None = None) -> None:  # noqa: ARG002
        try:
            from cityscapesscripts.evaluation import evalInstanceLevelSemanticLabeling  # noqa: F401
            from cityscapesscripts.helpers import labels
        except ImportError as error:
            raise ValueError(
                "evaluation on Cityscapes needs cityscapesscripts; install it: "
                f"pip install cityscapesscripts (missing: {error.name})"
            ) from error
        metadata = MetadataCatalog.get(dataset_name)
        self._dataset_name = dataset_name
        self._classes = list(metadata.thing_classes)
        self._label_ids = [labels.name2label[name].id for name in self._classes]
        self._truth = _truth_files(Path(metadata.gt_dir), metadata.get("image_dir"))
        self._folder = Path()
        self._numbers = itertools.count()

    def reset(self) -> None:
        """Make a new folder for predictions, the first process's for all of them."""
        own = tempfile.mkdtemp(prefix="cityscapes_") if comm.is_main_process() else ""
        self._folder = Path(comm.all_gather(own)[0])
        self._found = ByImage(self._dataset_name, {_stem(file) for file in self._truth})

    def process(self, inputs: list[dict[str, Any]], outputs: list[dict[str, Any]]) -> None:
        """Write the instances of a batch.

        Args:
            inputs: the model's, with ``file_name``.
            outputs: the model's, with ``instances``.

        Raises:
            ValueError: an image without ground truth, instances of another size, or of a class
                that Cityscapes has not.
        """
        for image, output in zip(inputs, outputs, strict=True):
            stem = _stem(image["file_name"])
            if not self._found.wants(stem):
                continue
            size = (image["height"], image["width"]) if "height" in image else None
            found = check_instances(output["instances"], image, size, len(self._classes))
            found = self._found.finite(stem, found).to("cpu")
            self._found.add(stem, None)
            masks = dense_masks(found.pred_masks).numpy().view(np.uint8)
            lines = []
            for mask, label, score in zip(masks, found.pred_classes, found.scores, strict=True):
                # The lines are split at blanks, and a city may have one.
                name = f"{comm.get_rank()}_{next(self._numbers)}.png"
                Image.fromarray(mask * 255).save(self._folder / name, compress_level=1)
                lines.append(f"{name} {self._label_ids[label]} {float(score)}\n")
            (self._folder / f"{stem}_pred.txt").write_text("".join(lines))

    def evaluate(self) -> dict[str, dict[str, float]] | None:
        """Score all predictions.

        Returns:
            ``{"segm": {"AP", "AP50", "AP-<class>"...}}`` in percent; None on other processes.

        Raises:
            ValueError: an image of the ground truth has no prediction.
        """
        if self._found.gather() is None:
            return None
        try:
            predictions = [str(self._prediction_of(file)) for file in self._truth]
            with _repaired_scripts(self._folder) as scripts:
                found = scripts.evaluateImgLists(predictions, self._truth, scripts.args)
        finally:
            shutil.rmtree(self._folder, ignore_errors=True)
        averages = found["averages"]
        values = {"AP": 100 * averages["allAp"], "AP50": 100 * averages["allAp50%"]}
        for name in self._classes:
            values[f"AP-{name}"] = 100 * averages["classes"][name]["ap"]
        return {"segm": {key: float(value) for key, value in values.items()}}

    def _prediction_of(self, truth: str) -> Path:
        file = self._folder / f"{_stem(truth)}_pred.txt"
        if not file.is_file():
            raise ValueError(
                f"no prediction was made for {truth}; evaluate on all images of the folder"
            )
        return file


def _truth_files(folder: Path, images: str | None) -> list[str]:
    """Files of instance ids, without those of images that a part of the dataset lacks."""
    found = sorted(folder.glob(f"*/*{_TRUTH_END}"))
    if not found:
        raise ValueError(
            f"{folder} holds no ground truth; expected CITY/*{_TRUTH_END}, as in Cityscapes' "
            "gtFine_trainvaltest.zip"
        )
    if images is None:
        return list(map(str, found))
    used = [file for file in found if _image_of(file, Path(images)).is_file()]
    unused = sorted(set(found) - set(used))
    if unused:
        _logger.warning(
            "%d of %d files of ground truth in %s do not count: their images, such as %s, do not "
            "exist", len(unused), len(found), folder, _image_of(unused[0], Path(images)),
        )  # fmt: skip
    return list(map(str, used))


def _image_of(truth: Path, images: Path) -> Path:
    return images / truth.parent.name / truth.name.replace(_TRUTH_END, _IMAGE_END)


def _stem(file: str) -> str:
    """CITY_SEQUENCE_FRAME, by which the scripts find what belongs to an image."""
    return "_".join(Path(file).stem.split("_")[:3])


@contextlib.contextmanager
def _repaired_scripts(folder: Path) -> Iterator[Any]:
    """The official evaluation, set up for `folder`, able to run on NumPy 2, and quiet."""
    from cityscapesscripts.evaluation import evalInstanceLevelSemanticLabeling as scripts

    args = scripts.args
    args.predictionPath, args.predictionWalk = str(folder.resolve()), None
    args.JSONOutput = args.colorized = False
    args.gtInstancesFile = str(folder / "gtInstances.json")
    # A cache of the ground truth, which nobody would read again, and which cannot be written as
    # JSON because of NumPy's integers in it.
    write = scripts.writeDict2JSON
    scripts.writeDict2JSON = lambda *_: None
    text = io.StringIO()
    try:
        with contextlib.redirect_stdout(text), numpy_name("in1d", np.isin):
            yield scripts
    except SystemExit as error:  # how the scripts report a bad file
        raise ValueError(f"cityscapesscripts: {text.getvalue().strip()}") from error
    finally:
        scripts.writeDict2JSON = write
    _logger.info("Evaluation results for segm:\n%s", text.getvalue())
