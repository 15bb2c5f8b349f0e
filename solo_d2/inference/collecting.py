"""What a run has found so far: counted, and handed on as COCO results."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from ..io.paths import printable
from ..io.results import coco_category_ids, instances_to_coco_results, panoptic_to_json
from ..io.results_file import ResultList
from .dataset_ids import DatasetIds, ImageId

__all__ = ["ResultCollector", "ResultSink"]


class ResultSink(Protocol):
    """Takes the results of one image after the other."""

    def add(self, results: Sequence[dict[str, Any]], panoptic: dict[str, Any] | None) -> None:
        """Take COCO results, and of a panoptic model its segments (`panoptic_to_json`)."""


class ResultCollector:
    """Counts what was found, and hands it to a sink under the names and ids of a model's classes.

    Args:
        metadata: Has `get`, as Detectron2's metadata.

    Attributes:
        sink: Takes the results: by default a `ResultList`; None for nobody.
        class_names: In the order of the labels, if they are known.
        done: Images and frames that the model has seen.
        found: Instances in them.
    """

    def __init__(self, metadata: Any) -> None:
        self.sink: ResultSink | None = ResultList()
        self.done = self.found = 0
        get = metadata.get
        self.class_names = _printable_names(get("thing_classes", None))
        self._category_ids = coco_category_ids(get("thing_dataset_id_to_contiguous_id", None))
        self._stuff_names = _printable_names(get("stuff_classes", None))
        self._stuff_ids = coco_category_ids(get("stuff_dataset_id_to_contiguous_id", None))

    @property
    def results(self) -> list[dict[str, Any]]:
        """COCO results of all inputs so far, if they are kept in memory."""
        return self.sink.results if isinstance(self.sink, ResultList) else []

    @property
    def panoptic(self) -> list[dict[str, Any]]:
        """Segments of all inputs so far, of a panoptic model and if they are kept in memory."""
        return self.sink.panoptic if isinstance(self.sink, ResultList) else []

    def use_category_ids(self, ids: DatasetIds) -> None:
        """Write the category ids of a dataset, by the names of the classes.

        Raises:
            ValueError: The model has no names, or the dataset none of them.
        """
        if self.class_names is None:
            raise ValueError(
                f"The weights bring no class names, so that their category ids in {ids.path} are "
                "not known. Give --class-names."
            )
        self._category_ids = ids.category_ids(self.class_names)
        if self._stuff_names and ids.has_stuff:
            stuff = ids.category_ids(self._stuff_names[1:], things=False)
            self._stuff_ids = [0, *stuff]

    def collect(self, prediction: dict[str, Any], image: ImageId | None, file_name: str) -> None:
        """Count the instances of an image, and hand them on unless it has no id."""
        self.done += 1
        self.found += len(prediction["instances"])
        if self.sink is None or image is None:
            return
        image.check(prediction["instances"].image_size)
        image_id = image.id
        results = instances_to_coco_results(
            prediction["instances"],
            image_id,
            file_name=file_name,
            category_ids=self._category_ids,
            class_names=self.class_names,
        )
        segments = None
        if "panoptic_seg" in prediction:
            segments = panoptic_to_json(
                prediction["panoptic_seg"],
                image_id,
                file_name=file_name,
                thing_ids=self._category_ids,
                stuff_ids=self._stuff_ids,
                thing_names=self.class_names,
                stuff_names=self._stuff_names,
            )
        self.sink.add(results, segments)


def _printable_names(names: Sequence[str] | None) -> list[str] | None:
    """Names that can be drawn, printed and read by every reader of JSON."""
    return None if names is None else [printable(str(name)) for name in names]
