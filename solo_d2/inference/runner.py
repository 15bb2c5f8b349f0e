"""Running a predictor over many images or a video: drawing, collecting results, going on."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import torch
from tqdm import tqdm

from ..io.frames import FrameSource
from ..io.image import read_image, write_image
from ..io.paths import file_key, fit_name, printable
from ..io.pipeline import ahead
from ..io.video import VideoWriter, open_frames
from .collecting import ResultCollector, ResultSink
from .dataset_ids import ImageId
from .failures import BadFrames, describe, raise_if_hopeless
from .films import WAITING, FoundFrame, Images, Show, Write, frame_output
from .outputs import distinct_stems
from .predictor import SOLOPredictor
from .renderers import DrawingRenderer, Renderer

if TYPE_CHECKING:
    from ..tracking import Tracker

__all__ = ["InferenceRun", "ResultSink", "show_in_window", "write_image"]


class InferenceRun(ResultCollector):
    """One run of a predictor over many inputs, which continues past those that cannot be used.

    Args:
        predictor: Gives the instances and the class names.
        draw: Whether images and videos are rendered and written.
        renderer: Makes what is written; by default a `DrawingRenderer`.
        tracker: Gives the instances of a film the numbers of their objects.

    Attributes:
        on_image: Called with every image file and what was found in it; None for nobody.
        failures: One line for each input that could not be used; each was reported on stderr.
        frames: Frames of the latest film so far, with those that could not be used.
        frame_rate: Frames per second of the latest film, from its decoding to its encoding.
        live: Whether the latest film was of a camera or stream, which only a signal ends.
        interrupted: What has ended the run before its inputs did: Ctrl-C or another signal.
        video_file: Where the latest video is; None if none was written.
        folder: Where the images of the latest film are; None if it has none of its own.

    Example:
        >>> from solo_d2.testing import tiny_config
        >>> run = InferenceRun(SOLOPredictor(tiny_config()), draw=False)
        >>> run.done, run.results
        (0, [])
    """

    def __init__(
        self,
        predictor: SOLOPredictor,
        *,
        draw: bool = True,
        renderer: Renderer | None = None,
        tracker: Tracker | None = None,
    ) -> None:
        super().__init__(predictor.metadata)
        self.predictor = predictor
        self.tracker = tracker
        self.on_image: Callable[[Path, dict[str, Any]], None] | None = None
        self.failures: list[str] = []
        self.frames = 0
        self.frame_rate = 0.0
        self.live = False
        self.interrupted: KeyboardInterrupt | None = None
        self.video_file: Path | None = None
        self.folder: Path | None = None
        if renderer is None:
            renderer = DrawingRenderer.of(predictor.metadata)
        self.renderer = renderer if draw else None

    def fail(self, problem: object) -> None:
        """Report an input that cannot be used, and remember it."""
        self.failures.append(printable(str(problem)))
        tqdm.write(f"skipped: {self.failures[-1]}", file=sys.stderr)

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
        if self.renderer is not None and self.renderer.separate:
            targets = distinct_stems(targets)
        before = self.done
        with (
            self._interruptible(lambda: f"{self.done - before} of {len(files)} images"),
            tqdm(total=len(files), unit="image", disable=None) as progress,
        ):
            for batch in self._read(files, batch_size):
                for (index, image), prediction in self._predict(files, batch):
                    with self._named(files[index]):
                        self.collect(prediction, image_ids[index], printable(files[index]))
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

    def _write(self, target: Path, images: Images) -> None:
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
        then is kept. A frame that cannot be used stays as it is in the video. Decoding, the model,
        and drawing with encoding overlap.

        Args:
            source: A video file, a folder of images, an address, or the number of a camera; see
                `open_frames`.
            output: The video to write, or, with a `separate` renderer, a folder of that name
                without its extension.
            show: Called with every rendered frame; the run ends when it returns False.

        Raises:
            ValueError: The source cannot be read, or the output not be written.
            OutputError: An output cannot be written any further.
        """
        white = getattr(self.predictor, "max_value", 0)
        with open_frames(source, max_value=white) as reader:
            self.live = reader.live
            if output is None or self.renderer is None:
                self._frames(reader, None, show)
            elif self.renderer.separate:
                folder = Path(output).with_suffix("")
                if not isinstance(source, int) and file_key(folder) == file_key(source):
                    raise ValueError(
                        f"{printable(folder)}: has the frames, among which the cut-outs would be. "
                        "Name another output."
                    )
                self.folder = folder

                def write_images(number: int, _seconds: float, images: Images) -> None:
                    if images:
                        self._write(folder / f"{number:06d}.png", images)

                self._frames(reader, write_images, show)
            else:
                self._video_file(reader, VideoWriter(output, reader.fps), show)

    def _video_file(self, reader: FrameSource, writer: VideoWriter, show: Show | None) -> None:
        def write(_number: int, seconds: float, images: Images) -> None:
            writer.write(images[""], seconds)

        try:
            with writer:
                self._frames(reader, write, show)
                # What is live is always ended so.
                writer.close(whole=self.interrupted is None or reader.live)
        finally:
            self.video_file = writer.written

    def _frames(self, reader: FrameSource, write: Write | None, show: Show | None) -> None:
        """Decode ahead of the network, and render and write behind it."""
        bad, before, begin = BadFrames(), self.done, time.perf_counter()
        renderer = None if self.renderer is None else self.renderer.for_video()
        name = printable(reader.name)
        self.frames = 0
        if self.tracker is not None:
            self.tracker.reset()
        with ExitStack() as stack:
            stack.enter_context(
                self._interruptible(lambda: f"{self.done - before} frames of {name}")
            )
            progress = stack.enter_context(
                tqdm(total=reader.frame_count, unit="frame", disable=None)
            )
            hand_over = stack.enter_context(frame_output(renderer, write, show, bad))
            timed = ((frame, reader.seconds, reader.skipped) for frame in reader)
            frames = stack.enter_context(closing(ahead(timed, WAITING, newest=reader.live)))
            stack.callback(reader.stop)
            used = 0
            for frame, seconds, skipped in frames:
                number = used + skipped
                used, self.frames = used + 1, number + 1
                prediction = self._follow(frame, number, name, bad)
                if not hand_over(FoundFrame(number, seconds, frame, prediction)):
                    break
                progress.update(number + 1 - progress.n)
            else:
                self.frames = used + reader.skipped
        self.frame_rate = self.frames / (time.perf_counter() - begin)
        if bad.count:
            self.fail(f"{name}: {bad}")
        if reader.skipped:
            self.fail(f"{name}: {reader.skipped} images cannot be used as frames, see above")

    def _follow(
        self, frame: np.ndarray, number: int, name: str, bad: BadFrames
    ) -> dict[str, Any] | None:
        """Predict, number and collect the instances of a frame; None if it cannot be used."""
        try:
            prediction: dict[str, Any] = self.predictor(frame)
            if self.tracker is not None:
                prediction["instances"] = self.tracker(prediction["instances"])
            self.collect(prediction, ImageId(number), name)
        except Exception as error:
            raise_if_hopeless(error)
            bad.add(number, error)
            return None
        return prediction


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
