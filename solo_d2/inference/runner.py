"""Running a predictor over many pictures or a video: drawing, collecting results, going on."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from os import PathLike
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from detectron2.structures import Instances
from tqdm import tqdm

from ..io.image import read_image
from ..io.results import (
    coco_category_ids,
    instances_to_coco_results,
    panoptic_things,
    panoptic_to_json,
)
from ..io.video import VideoReader, VideoWriter
from .colors import InstanceColors
from .drawing import draw_instances, draw_panoptic
from .predictor import SOLOPredictor

__all__ = ["InferenceRun", "show_in_window", "write_image"]


class InferenceRun:
    """One run of a predictor over many inputs, which a bad input does not end.

    Args:
        predictor: Gives the instances and the class names.
        draw: Whether pictures and videos are drawn and written.

    Attributes:
        failures: One line for each input that could not be used; each was reported on stderr.
        results: COCO results of all inputs so far.
        panoptic: of a panoptic model, the segments of all inputs so far (`panoptic_to_json`).
    """

    def __init__(self, predictor: SOLOPredictor, *, draw: bool = True) -> None:
        self.predictor = predictor
        self.draw = draw
        self.failures: list[str] = []
        self.results: list[dict[str, Any]] = []
        self.panoptic: list[dict[str, Any]] = []
        self._names = predictor.metadata.get("thing_classes", None)
        self._category_ids = coco_category_ids(
            predictor.metadata.get("thing_dataset_id_to_contiguous_id", None)
        )
        self._stuff_names = predictor.metadata.get("stuff_classes", None)
        self._stuff_ids = coco_category_ids(
            predictor.metadata.get("stuff_dataset_id_to_contiguous_id", None)
        )

    @property
    def content(self) -> list[dict[str, Any]] | dict[str, Any]:
        """For a file: `results`; of a panoptic model a dict of ``results`` and ``panoptic``."""
        if not self.panoptic:
            return self.results
        return {"results": self.results, "panoptic": self.panoptic}

    def fail(self, problem: object) -> None:
        """Report an input that cannot be used, and remember it."""
        self.failures.append(str(problem))
        tqdm.write(f"skipped: {problem}", file=sys.stderr)

    def images(
        self, files: Sequence[Path], targets: Sequence[Path], *, batch_size: int = 1
    ) -> None:
        """Predict, draw and collect pictures; their `image_id` counts `files` from 1.

        Args:
            files: The pictures.
            targets: The file to draw each on.
            batch_size: Pictures read and predicted together, 1 or more.
        """
        if batch_size < 1:
            raise ValueError(f"batch_size must be 1 or more, got {batch_size}.")
        with tqdm(total=len(files), unit="picture", disable=None) as progress:
            for batch in self._read(files, batch_size):
                predictions = self.predictor([image for _, image in batch])
                for (index, image), prediction in zip(batch, predictions, strict=True):
                    self._collect(prediction, index + 1, str(files[index]))
                    if self.draw:
                        self._write(targets[index], self._draw(image, prediction))
                progress.update(batch[-1][0] + 1 - progress.n)
            progress.update(len(files) - progress.n)

    def _read(self, files: Iterable[Path], size: int) -> Iterator[list[tuple[int, np.ndarray]]]:
        """Readable pictures with their index, in groups of `size`; the others are reported."""
        batch: list[tuple[int, np.ndarray]] = []
        for index, file in enumerate(files):
            try:
                batch.append((index, read_image(file, "BGR")))
            except ValueError as error:
                self.fail(error)
            if len(batch) == size:
                yield batch
                batch = []
        if batch:
            yield batch

    def _write(self, target: Path, drawing: np.ndarray) -> None:
        try:
            write_image(target, drawing)
        except ValueError as error:
            self.fail(error)

    def _draw(
        self,
        image: np.ndarray,
        prediction: dict[str, Any],
        colors: Callable[[Instances], np.ndarray] | None = None,
    ) -> np.ndarray:
        """What the model found: segments of a panoptic model, else instances."""
        if "panoptic_seg" not in prediction:
            found = prediction["instances"].to("cpu")
            chosen = None if colors is None else colors(found)
            return draw_instances(image, found, self._names, chosen)
        found = panoptic_things(*prediction["panoptic_seg"])
        chosen = None if colors is None else colors(found)
        segments = prediction["panoptic_seg"]
        return draw_panoptic(image, segments, self._names, self._stuff_names, chosen)

    def video(
        self,
        source: str | PathLike[str] | int,
        output: str | PathLike[str] | None = None,
        *,
        show: Callable[[np.ndarray], bool] | None = None,
    ) -> None:
        """Predict, draw and collect frames; their `image_id` counts from 0.

        Colours follow the objects from frame to frame. Ctrl-C ends the run, and what is done by
        then is kept.

        Args:
            source: A video file or the number of a camera.
            output: The mp4 file to write.
            show: Called with every drawn frame; the run ends when it returns False.

        Raises:
            ValueError: The source cannot be read, or the output not be written.
        """
        with VideoReader(source) as reader:
            if output is None or not self.draw:
                self._frames(reader, show)
                return
            with VideoWriter(output, reader.fps) as writer:

                def write(frame: np.ndarray) -> bool:
                    writer.write(frame)
                    return show is None or show(frame)

                self._frames(reader, write)

    def _frames(self, reader: VideoReader, show: Callable[[np.ndarray], bool] | None) -> None:
        colors = InstanceColors()
        progress = tqdm(reader, total=reader.frame_count, unit="frame", disable=None)
        try:
            for number, frame in enumerate(progress):
                prediction = self.predictor(frame)
                self._collect(prediction, number, reader.name)
                if not self.draw or show is None:
                    continue
                if not show(self._draw(frame, prediction, colors)):
                    break
        except KeyboardInterrupt:
            progress.write(f"{reader.name}: interrupted", file=sys.stderr)

    def _collect(self, prediction: dict[str, Any], image_id: int, file_name: str) -> None:
        self.results += instances_to_coco_results(
            prediction["instances"],
            image_id,
            file_name=file_name,
            category_ids=self._category_ids,
            class_names=self._names,
        )
        if "panoptic_seg" in prediction:
            self.panoptic.append(
                panoptic_to_json(
                    prediction["panoptic_seg"],
                    image_id,
                    file_name=file_name,
                    thing_ids=self._category_ids,
                    stuff_ids=self._stuff_ids,
                    thing_names=self._names,
                    stuff_names=self._stuff_names,
                )
            )


def write_image(path: str | PathLike[str], image: np.ndarray) -> None:
    """Write a picture in the format of the file name, making its folder.

    Args:
        path: The file.
        image: uint8 BGR, shape (H, W, 3).

    Raises:
        ValueError: It cannot be written.
    """
    try:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        written = cv2.imwrite(str(path), image)
    except (OSError, cv2.error) as error:
        raise ValueError(f"{path}: cannot be written ({' '.join(str(error).split())}).") from error
    if not written:
        raise ValueError(f"{path}: cannot be written. Is its folder writable?")


def show_in_window(frame: np.ndarray) -> bool:
    """Show a uint8 BGR frame in a window; False once q or Escape was pressed there.

    Raises:
        ValueError: There is no display.
    """
    try:
        cv2.imshow("solo_d2: q quits", frame)
        return cv2.waitKey(1) & 0xFF not in (ord("q"), 27)
    except cv2.error as error:
        raise ValueError("There is no display for a window: write a file instead.") from error
