"""Running a predictor over many images or a video: drawing, collecting results, going on."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from os import PathLike
from pathlib import Path
from typing import Any, Protocol

import cv2
import numpy as np
import torch
from tqdm import tqdm

from ..io.image import read_image, write_image
from ..io.paths import fit_name, printable
from ..io.results import coco_category_ids, instances_to_coco_results, panoptic_to_json
from ..io.results_file import ResultList
from ..io.video import VideoReader, VideoWriter
from .dataset_ids import DatasetIds, ImageId
from .failures import BadFrames, describe, raise_if_hopeless
from .predictor import SOLOPredictor
from .renderers import DrawingRenderer, Renderer

__all__ = ["InferenceRun", "ResultSink", "show_in_window", "write_image"]

_Images = dict[str, np.ndarray]


class ResultSink(Protocol):
    """Takes the results of one image after the other."""

    def add(self, results: Sequence[dict[str, Any]], panoptic: dict[str, Any] | None) -> None:
        """Take COCO results, and of a panoptic model its segments (`panoptic_to_json`)."""


class InferenceRun:
    """One run of a predictor over many inputs, which continues past those that cannot be used.

    Args:
        predictor: Gives the instances and the class names.
        draw: Whether images and videos are rendered and written.
        renderer: Makes what is written; by default a `DrawingRenderer`.

    Attributes:
        sink: Takes the results: by default a `ResultList`; None for nobody.
        on_image: Called with every image file and what was found in it; None for nobody.
        class_names: In the order of the labels, if the predictor has them.
        failures: One line for each input that could not be used; each was reported on stderr.
        done: Images and frames that the model has seen.
        found: Instances in them.
        interrupted: What has ended the run before its inputs did: Ctrl-C or another signal.
        video_file: Where the latest video is; None if none was written.

    Example:
        >>> from solo_d2.testing import tiny_config
        >>> run = InferenceRun(SOLOPredictor(tiny_config()), draw=False)
        >>> run.done, run.results
        (0, [])
    """

    def __init__(
        self, predictor: SOLOPredictor, *, draw: bool = True, renderer: Renderer | None = None
    ) -> None:
        self.predictor = predictor
        self.sink: ResultSink | None = ResultList()
        self.on_image: Callable[[Path, dict[str, Any]], None] | None = None
        self.failures: list[str] = []
        self.done = self.found = 0
        self.interrupted: KeyboardInterrupt | None = None
        self.video_file: Path | None = None
        get = predictor.metadata.get
        self.class_names = _printable_names(get("thing_classes", None))
        self._category_ids = coco_category_ids(get("thing_dataset_id_to_contiguous_id", None))
        self._stuff_names = _printable_names(get("stuff_classes", None))
        self._stuff_ids = coco_category_ids(get("stuff_dataset_id_to_contiguous_id", None))
        if renderer is None:
            renderer = DrawingRenderer(self.class_names, self._stuff_names)
        self.renderer = renderer if draw else None

    @property
    def results(self) -> list[dict[str, Any]]:
        """COCO results of all inputs so far, if they are kept in memory."""
        return self.sink.results if isinstance(self.sink, ResultList) else []

    @property
    def panoptic(self) -> list[dict[str, Any]]:
        """Segments of all inputs so far, of a panoptic model and if they are kept in memory."""
        return self.sink.panoptic if isinstance(self.sink, ResultList) else []

    def fail(self, problem: object) -> None:
        """Report an input that cannot be used, and remember it."""
        self.failures.append(printable(str(problem)))
        tqdm.write(f"skipped: {self.failures[-1]}", file=sys.stderr)

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

    def images(
        self,
        files: Sequence[Path],
        targets: Sequence[Path],
        *,
        batch_size: int = 1,
        image_ids: Sequence[ImageId | None] | None = None,
    ) -> None:
        """Predict, render and collect images; their `image_id` counts `files` from 1.

        Ctrl-C ends the run, and what is done by then is kept.

        Args:
            files: The images.
            targets: The file to write for each.
            batch_size: Images read and predicted together, 1 or more.
            image_ids: Ids in place of the numbers, see `DatasetIds`; None for an image whose
                results nobody wants.

        Raises:
            OutputError: The results cannot be written any further.
        """
        if batch_size < 1:
            raise ValueError(f"batch_size must be 1 or more, got {batch_size}.")
        if image_ids is None:
            image_ids = [ImageId(number) for number in range(1, len(files) + 1)]
        before = self.done
        with (
            self._interruptible(lambda: f"{self.done - before} of {len(files)} images"),
            tqdm(total=len(files), unit="image", disable=None) as progress,
        ):
            for batch in self._read(files, batch_size):
                for (index, image), prediction in self._predict(files, batch):
                    with self._named(files[index]):
                        self._collect(prediction, image_ids[index], printable(files[index]))
                        if self.on_image is not None:
                            self.on_image(files[index], prediction)
                    if self.renderer is not None:
                        with self._named(files[index]):
                            self._write(targets[index], self.renderer.image(image, prediction))
                progress.update(batch[-1][0] + 1 - progress.n)
            progress.update(len(files) - progress.n)

    def _read(self, files: Iterable[Path], size: int) -> Iterator[list[tuple[int, np.ndarray]]]:
        """Readable images with their index, in groups of `size`; the others are reported."""
        white = getattr(self.predictor, "max_value", 0)
        batch: list[tuple[int, np.ndarray]] = []
        for index, file in enumerate(files):
            try:
                batch.append((index, read_image(file, "BGR", max_value=white)))
            except ValueError as error:
                self.fail(error)
            if len(batch) == size:
                yield batch
                batch = []
        if batch:
            yield batch

    def _predict(
        self, files: Sequence[Path], batch: list[tuple[int, np.ndarray]]
    ) -> Iterator[tuple[tuple[int, np.ndarray], dict[str, Any]]]:
        """Images of a batch with their predictions, without those that fail."""
        try:
            yield from zip(batch, self.predictor([image for _, image in batch]), strict=True)
            return
        except Exception as error:
            raise_if_hopeless(error)
            if len(batch) == 1:
                self.fail(f"{files[batch[0][0]]}: {describe(error)}")
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        for single in batch if len(batch) > 1 else ():  # one alone may be the one that fails
            yield from self._predict(files, [single])

    @contextmanager
    def _named(self, file: Path | str) -> Iterator[None]:
        """Turn whatever goes wrong with one input, but for its results' file, into a failure."""
        try:
            yield
        except Exception as error:
            raise_if_hopeless(error)
            self.fail(f"{file}: {describe(error)}")

    @contextmanager
    def _interruptible(self, done: Callable[[], str]) -> Iterator[None]:
        try:
            yield
        except KeyboardInterrupt as stop:
            self.interrupted = stop
            signal = f" ({stop})" if str(stop) else ""
            tqdm.write(f"interrupted{signal} after {done()}", file=sys.stderr)

    def _write(self, target: Path, images: _Images) -> None:
        """Write the images of one input, with the endings of their names."""
        if not images:
            self.fail(f"{target.stem}: no instance as asked for was found")
        for ending, image in images.items():
            suffix = f"{ending}.png" if ending else target.suffix
            try:
                write_image(target.with_name(fit_name(target.stem, suffix)), image)
            except ValueError as error:
                self.fail(error)

    def video(
        self,
        source: str | PathLike[str] | int,
        output: str | PathLike[str] | None = None,
        *,
        show: Callable[[np.ndarray], bool] | None = None,
    ) -> None:
        """Predict, render and collect frames; their `image_id` counts from 0.

        Colours follow the objects from frame to frame. Ctrl-C ends the run, and what is done by
        then is kept. A frame that cannot be used stays as it is in the video.

        Args:
            source: A video file or the number of a camera.
            output: The video to write, or, with a `separate` renderer, a folder of that name
                without its extension.
            show: Called with every rendered frame; the run ends when it returns False.

        Raises:
            ValueError: The source cannot be read, or the output not be written.
            OutputError: An output cannot be written any further.
        """
        with VideoReader(source) as reader:
            if output is None or self.renderer is None:
                self._frames(reader, None, show)
            elif self.renderer.separate:
                folder = Path(output).with_suffix("")

                def write_images(number: int, images: _Images) -> None:
                    if images:
                        self._write(folder / f"{number:06d}.png", images)

                self._frames(reader, write_images, show)
            else:
                self._video_file(reader, VideoWriter(output, reader.fps), show)

    def _video_file(
        self,
        reader: VideoReader,
        writer: VideoWriter,
        show: Callable[[np.ndarray], bool] | None,
    ) -> None:
        def write(_number: int, images: _Images) -> None:
            writer.write(images[""], reader.seconds)

        try:
            with writer:
                self._frames(reader, write, show)
                # A camera is always ended so.
                writer.close(whole=self.interrupted is None or reader.camera)
        finally:
            self.video_file = writer.written

    def _frames(
        self,
        reader: VideoReader,
        write: Callable[[int, _Images], None] | None,
        show: Callable[[np.ndarray], bool] | None,
    ) -> None:
        bad, before = BadFrames(), self.done
        renderer = None if self.renderer is None else self.renderer.for_video()
        progress = tqdm(reader, total=reader.frame_count, unit="frame", disable=None)
        name = printable(reader.name)
        with self._interruptible(lambda: f"{self.done - before} frames of {name}"), progress:
            for number, frame in enumerate(progress):
                images: _Images = {}
                try:
                    prediction = self.predictor(frame)
                    self._collect(prediction, ImageId(number), name)
                    if renderer is not None:
                        images = renderer.image(frame, prediction)
                except Exception as error:
                    raise_if_hopeless(error)
                    bad.add(number, error)
                if renderer is None:
                    continue
                if not (images or renderer.separate):
                    images = {"": frame}
                if write is not None:
                    write(number, images)
                if show is not None and not show(images.get("", frame)):
                    break
        if bad.count:
            self.fail(f"{name}: {bad}")

    def _collect(self, prediction: dict[str, Any], image: ImageId | None, file_name: str) -> None:
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


def show_in_window(frame: np.ndarray) -> bool:
    """Show a uint8 BGR frame in a window; False once q or Escape was pressed there.

    Raises:
        ValueError: There is no display.

    Example:
        >>> import numpy as np
        >>> show_in_window(np.zeros((48, 64, 3), np.uint8))  # doctest: +SKIP
        True
    """
    try:
        cv2.imshow("solo_d2: q quits", frame)
        return cv2.waitKey(1) & 0xFF not in (ord("q"), 27)
    except cv2.error as error:
        raise ValueError("There is no display for a window: write a file instead.") from error
