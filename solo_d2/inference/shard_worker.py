"""Prediction of one shard after the other by one model."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch

from ..io.image import decode_image, read_image
from ..io.results_file import ResultList
from .collecting import ResultCollector
from .dataset_ids import DatasetIds
from .failures import describe, raise_if_hopeless
from .predictor import SOLOPredictor
from .shards import BadImage, Record, Shard, ShardFolder

__all__ = ["ShardWorker"]

_T = TypeVar("_T")


class _Image(NamedTuple):
    """An image of a shard, or why there is none."""

    place: int
    name: str
    pixels: np.ndarray | None
    problem: str


class ShardWorker(ResultCollector):
    """Predicts shards and puts their results into a folder. Nothing is drawn.

    The next batch is read and decoded while the model is busy with one.

    Args:
        predictor: gives the instances and the class names.
        folder: takes the results.
        batch_size: images predicted together, 1 or more.
        ids: of a dataset, for category ids.
    """

    def __init__(
        self,
        predictor: SOLOPredictor,
        folder: ShardFolder,
        *,
        batch_size: int = 1,
        ids: DatasetIds | None = None,
    ) -> None:
        super().__init__(predictor.metadata)
        self.predictor = predictor
        self._folder, self._size = folder, batch_size
        if ids is not None:
            self.use_category_ids(ids)

    def run(self, shard: Shard) -> Record:
        """Predict a shard.

        Raises:
            SourceError: its images cannot be read any further; nothing is written.
            OSError: its results cannot be written.
        """
        self.sink = results = ResultList()
        bad: list[BadImage] = []
        images = 0
        for batch in _ahead(self._batches(shard)):
            images += len(batch)
            bad += self._one_batch(shard, batch)
        record = Record(images - len(bad), len(results.results), tuple(bad))
        self._folder.commit(shard, results.results, record)
        return record

    def _one_batch(self, shard: Shard, batch: list[_Image]) -> Iterator[BadImage]:
        """Predict what can be, and yield the rest."""
        readable = [(image, x) for image in batch if (x := image.pixels) is not None]
        problems = {x.place: x.problem for x in batch if x.pixels is None}
        for image, prediction in self._try(readable) if readable else ():
            if isinstance(prediction, str):
                problems[image.place] = prediction
                continue
            try:
                self.collect(prediction, shard.image_id(image.place), image.name)
            except ValueError as error:  # of another size than the dataset says
                problems[image.place] = describe(error)
        for image in batch:
            if image.place in problems:
                image_id = shard.image_id(image.place)
                label = None if image_id is None else image_id.id
                yield BadImage(label, image.name, problems[image.place])

    def _try(self, images: list[tuple[_Image, np.ndarray]]) -> list[tuple[_Image, Any]]:
        """Predict images together, and where that fails one by one; a text says why one failed."""
        try:
            found = self.predictor([pixels for _, pixels in images])
            return [(image, x) for (image, _), x in zip(images, found, strict=True)]
        except Exception as error:
            raise_if_hopeless(error)
            if len(images) == 1:
                return [(images[0][0], describe(error))]
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        return [x for single in images for x in self._try([single])]

    def _batches(self, shard: Shard) -> Iterator[list[_Image]]:
        batch: list[_Image] = []
        white = getattr(self.predictor, "max_value", 0)
        for index, item in enumerate(shard.source.items()):
            pixels, problem = None, ""
            try:
                if item.content is None:
                    pixels = read_image(item.name, "BGR", max_value=white)
                else:
                    pixels = decode_image(item.content, item.name, max_value=white)
            except (ValueError, MemoryError) as error:
                problem = describe(error)
            batch.append(_Image(index, item.name, pixels, problem))
            if len(batch) == self._size:
                yield batch
                batch = []
        if batch:
            yield batch


def _ahead(values: Iterator[_T]) -> Iterator[_T]:
    """Yield values of which the next one is made meanwhile, in a thread."""
    with ThreadPoolExecutor(1) as pool:
        pending = pool.submit(next, values, None)
        while (value := pending.result()) is not None:
            pending = pool.submit(next, values, None)
            yield value
