"""Reading videos and cameras frame by frame, and writing videos that a browser plays."""

from __future__ import annotations

import importlib
import logging
from collections.abc import Iterator
from fractions import Fraction
from os import PathLike, fspath
from pathlib import Path
from types import TracebackType
from typing import Any

import cv2
import numpy as np

__all__ = ["VideoReader", "VideoWriter"]

_DEFAULT_FPS = 30.0
_logger = logging.getLogger(__name__)


class VideoReader:
    """Frames of a video file or a camera, one at a time; a context manager.

    Args:
        source: A video file that OpenCV reads, or the number of a camera.

    Attributes:
        name: The file, or "camera N".
        fps: Frames per second; 30 where the source does not say.
        frame_count: Number of frames that the file promises (an estimate in some formats);
            None for a camera or where the file does not say.

    Raises:
        ValueError: There is no such file or camera, or it has no frame that can be decoded.
    """

    def __init__(self, source: str | PathLike[str] | int) -> None:
        camera = isinstance(source, int)
        self.name = f"camera {source}" if isinstance(source, int) else fspath(source)
        if not camera and not Path(self.name).is_file():
            raise ValueError(f"{self.name}: no such video file. Check the path.")
        self._capture = cv2.VideoCapture(source if isinstance(source, int) else self.name)
        # The first frame is read here: a header alone does not make a video.
        found, self._first = self._capture.read()
        if not found:
            self.close()
            remedy = "Is it connected and free?" if camera else "Convert it to H.264 mp4."
            raise ValueError(f"{self.name}: no frame can be read. {remedy}")
        fps = self._capture.get(cv2.CAP_PROP_FPS)
        self.fps = fps if 0 < fps < 1000 else _DEFAULT_FPS
        count = int(self._capture.get(cv2.CAP_PROP_FRAME_COUNT))
        self.frame_count = None if camera or count <= 0 else count

    def __iter__(self) -> Iterator[np.ndarray]:
        """The frames once, uint8 BGR (H, W, 3); warns where a file ends too early."""
        frame: np.ndarray | None = self._first
        seen = 0
        while frame is not None:
            yield frame
            seen += 1
            found, decoded = self._capture.read()
            frame = decoded if found else None
        if self.frame_count is not None and seen < self.frame_count:
            _logger.warning(
                "%s: ended after %d of %d frames; it may be truncated",
                self.name,
                seen,
                self.frame_count,
            )

    def close(self) -> None:
        """Free the file or camera."""
        self._capture.release()

    def __enter__(self) -> VideoReader:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


class VideoWriter:
    """Writes an mp4 file frame by frame; a context manager.

    With PyAV (`pip install "solo_d2[video]"`) the file is H.264 in yuv420p, which every browser
    plays. Without it OpenCV writes MPEG-4 Part 2, which most players, but few browsers, play.
    The file is made with the first frame: without frames there is none.

    Args:
        path: The file, ending in .mp4. An existing one is replaced.
        fps: Frames per second, above 0.

    Attributes:
        codec: "h264" or "mpeg4".

    Raises:
        ValueError: The path has another ending or its folder cannot be written, or `fps` is not
            above 0.
    """

    def __init__(self, path: str | PathLike[str], fps: float) -> None:
        self.path = Path(path)
        if self.path.suffix.lower() != ".mp4":
            raise ValueError(f"{self.path}: a video is written as .mp4. Name it so.")
        if not fps > 0:
            raise ValueError(f"fps must be above 0, got {fps}.")
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ValueError(f"{self.path.parent}: cannot make this folder ({error}).") from error
        self.fps = float(fps)
        self._av = _import_av()
        self.codec = "mpeg4" if self._av is None else "h264"
        self._size: tuple[int, int] | None = None
        self._sink: _H264Sink | _OpenCVSink | None = None

    def write(self, frame: np.ndarray) -> None:
        """Add one frame.

        Args:
            frame: uint8 BGR, shape (H, W, 3), of one size for the whole video. Odd sides are
                padded by repeating the last row or column, since the format knows even ones only.

        Raises:
            ValueError: The frame has another type or shape than the first one, or the file cannot
                be written.
        """
        if frame.dtype != np.uint8 or frame.ndim != 3 or frame.shape[2] != 3 or not frame.size:
            raise ValueError(f"A frame is uint8 (H, W, 3), got {frame.dtype} {frame.shape}.")
        height, width = frame.shape[:2]
        if self._size is None:
            self._size = (height, width)
            self._sink = self._open(height + height % 2, width + width % 2)
        if (height, width) != self._size:
            raise ValueError(
                f"Frames of one video have one size: {self._size}, got {(height, width)} "
                "(height, width). Resize them."
            )
        assert self._sink is not None
        self._sink.write(np.pad(frame, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge"))

    def _open(self, height: int, width: int) -> _H264Sink | _OpenCVSink:
        try:
            self.path.open("wb").close()  # PyAV would find out with the first packet only
        except OSError as error:
            raise ValueError(f"{self.path}: cannot be written ({error}).") from error
        if self._av is not None:
            return _H264Sink(self._av, self.path, height, width, self.fps)
        _logger.warning(
            "%s: written as MPEG-4 Part 2, which browsers do not play. "
            'For H.264: pip install "solo_d2[video]"',
            self.path,
        )
        return _OpenCVSink(self.path, height, width, self.fps)

    def close(self) -> None:
        """Finish the file; without this it cannot be played."""
        if self._sink is not None:
            self._sink.close()
            self._sink = None

    def __enter__(self) -> VideoWriter:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def _import_av() -> Any:
    """PyAV, or None without the extra "video"."""
    try:
        return importlib.import_module("av")
    except ImportError:
        return None


class _H264Sink:
    """H.264 in yuv420p through PyAV."""

    def __init__(self, av: Any, path: Path, height: int, width: int, fps: float) -> None:
        self._av = av
        # The index in front, so that a browser starts before it has the whole file.
        self._container = av.open(str(path), "w", options={"movflags": "faststart"})
        rate = Fraction(fps).limit_denominator(1001)  # 30000 / 1001 and the like stay exact
        self._stream = self._container.add_stream("libx264", rate=rate)
        self._stream.height, self._stream.width = height, width
        self._stream.pix_fmt = "yuv420p"
        self._stream.options = {"crf": "20", "preset": "veryfast"}

    def write(self, frame: np.ndarray) -> None:
        picture = self._av.VideoFrame.from_ndarray(frame, format="bgr24")
        self._container.mux(self._stream.encode(picture))

    def close(self) -> None:
        self._container.mux(self._stream.encode(None))
        self._container.close()


class _OpenCVSink:
    """MPEG-4 Part 2 through OpenCV."""

    def __init__(self, path: Path, height: int, width: int, fps: float) -> None:
        fourcc = cv2.VideoWriter.fourcc(*"mp4v")
        self._writer = cv2.VideoWriter(str(path), fourcc, fps, (width, height))
        if not self._writer.isOpened():
            raise ValueError(f'{path}: OpenCV cannot write mp4 here. Install the extra "video".')

    def write(self, frame: np.ndarray) -> None:
        self._writer.write(frame)

    def close(self) -> None:
        self._writer.release()
