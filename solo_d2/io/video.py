"""Reading films and cameras frame by frame, and writing videos that a browser plays."""

from __future__ import annotations

import importlib
import logging
import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack
from os import PathLike, fspath
from pathlib import Path
from types import TracebackType
from typing import Any

import cv2
import numpy as np

from .frames import DEFAULT_FPS, FrameFolder, FrameSource, StreamReader, is_stream, position
from .growing import check_output
from .paths import not_a_file, printable
from .video_encoders import CONTAINERS, AVEncoder, OpenCVEncoder

__all__ = [
    "VIDEO_EXTENSIONS",
    "VideoReader",
    "VideoWriter",
    "open_frames",
    "writable_extensions",
]

VIDEO_EXTENSIONS = (
    *(".3gp", ".avi", ".flv", ".m2ts", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".mts"),
    *(".ogv", ".ts", ".webm", ".wmv"),
)
"""File name extensions (lower case) of videos; which of them can be read is OpenCV's matter."""

_logger = logging.getLogger(__name__)


class VideoReader(FrameSource):
    """Frames of a video file or a camera, one at a time, upright; a context manager.

    Args:
        source: A video file that OpenCV reads, or the number of a camera.

    Attributes:
        name: The file, or "camera N".
        live: Whether it is a camera.
        fps: Frames per second, on average; 30 where the source does not say.
        frame_count: Number of frames that the file promises (an estimate in some formats);
            None for a camera or where the file does not say.
        seconds: When the latest frame is shown, from the first one on.

    Raises:
        ValueError: There is no such file or camera, or it has no frame that can be decoded.
    """

    def __init__(self, source: str | PathLike[str] | int) -> None:
        self.live = isinstance(source, int)
        self.name = f"camera {source}" if isinstance(source, int) else fspath(source)
        self._resources = ExitStack()
        # FFmpeg's own words about a damaged file; what matters is said here.
        os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
        self._capture = cv2.VideoCapture(source if isinstance(source, int) else self._file())
        # The first frame is read here: a header alone does not make a video.
        found, self._first = self._capture.read()
        if not found:
            self.close()
            raise ValueError(f"{printable(self.name)}: no frame can be read{self._doubt()}")
        fps = self._capture.get(cv2.CAP_PROP_FPS)
        self.fps = fps if 0 < fps < 1000 else DEFAULT_FPS
        count = int(self._capture.get(cv2.CAP_PROP_FRAME_COUNT))
        self.frame_count = None if self.live or count <= 0 else count
        self.seconds = 0.0
        self._start = self._clock()

    def _file(self) -> str:
        """The file under a name that OpenCV takes."""
        problem = not_a_file(self.name)
        if problem is not None:
            problem = "no such video file" if problem == "no such file" else problem
            raise ValueError(f"{printable(self.name)}: {problem}. Check the path.")
        if printable(self.name) == self.name:
            return os.path.abspath(self.name)  # FFmpeg takes "12:" of "12:30.mp4" for a protocol
        # OpenCV ends the process for names that are not UTF-8.
        folder = self._resources.enter_context(tempfile.TemporaryDirectory())
        link = Path(folder) / f"video{printable(Path(self.name).suffix)}"
        link.symlink_to(os.path.abspath(self.name))
        return str(link)

    def _doubt(self) -> str:
        if self.live:
            return ". Is it connected and free?"
        if not os.path.getsize(self.name):
            return ": the file is empty. Get it again."
        return (
            ": it is damaged or cut off, or in a format that OpenCV does not know. Get the file "
            "again, or convert it to H.264 mp4."
        )

    def __iter__(self) -> Iterator[np.ndarray]:
        """The frames once, uint8 BGR (H, W, 3); warns where a file ends too early."""
        frame: np.ndarray | None = self._first
        seen = 0
        while frame is not None:
            yield frame
            seen += 1
            found, decoded = self._capture.read()
            frame = decoded if found else None
            self._advance(self._clock() - self._start)
        if self._is_cut(seen):
            _logger.warning(
                "%s: ended after %d of %d frames; the file may be damaged or cut off",
                printable(self.name),
                seen,
                self.frame_count,
            )

    def _clock(self) -> float:
        return time.monotonic() if self.live else position(self._capture)

    def close(self) -> None:
        """Free the file or camera."""
        self._capture.release()
        self._resources.close()


def open_frames(source: str | PathLike[str] | int, *, max_value: float = 0) -> FrameSource:
    """Open what has frames.

    Args:
        source: A video file, a folder of images, an address (see `StreamReader`), or the number of
            a camera.
        max_value: Of the images of a folder, see `read_image`.

    Raises:
        ValueError: It cannot be read, or has no frame.
    """
    if isinstance(source, int):
        return VideoReader(source)
    if is_stream(source):
        return StreamReader(fspath(source))
    if os.path.isdir(source):
        return FrameFolder(source, max_value=max_value)
    return VideoReader(source)


class VideoWriter:
    """Writes a video frame by frame; a context manager.

    With PyAV (`pip install "solo_d2[video]"`) the file is H.264 in yuv420p, which every browser
    plays, in .mp4, .m4v, .mov or .mkv, or VP9 in .webm. Without it OpenCV writes MPEG-4 Part 2 in
    .mp4, which most players, but few browsers, play. The file is made with the first frame:
    without frames there is none.

    It grows under another name (see `GrowingFile`), and an older file is replaced when it is whole.
    With PyAV it can be played whatever ends the process, up to the last second or so.

    Args:
        path: The file.
        fps: Frames per second, above 0.

    Attributes:
        codec: "h264", "vp9" or "mpeg4".
        written: Where the file is, once it is closed; None without frames.

    Raises:
        ValueError: The path has an ending that is not written here, the file cannot be written, or
            `fps` is not above 0.
    """

    def __init__(self, path: str | PathLike[str], fps: float) -> None:
        self.path = Path(path)
        self._av = _import_av()
        extension = self.path.suffix.lower()
        if extension not in writable_extensions():
            more = "" if self._av else ' (others with pip install "solo_d2[video]")'
            raise ValueError(
                f"{printable(self.path)}: a video is written as {' '.join(writable_extensions())}"
                f"{more}. Name it so."
            )
        if not fps > 0:
            raise ValueError(f"fps must be above 0, got {fps}.")
        check_output(path)
        self.fps = float(fps)
        self.codec = "vp9" if extension == ".webm" else "h264" if self._av else "mpeg4"
        self.written: Path | None = None
        self._size: tuple[int, int] | None = None
        self._seconds = -1 / self.fps
        self._encoder: AVEncoder | OpenCVEncoder | None = None

    def write(self, frame: np.ndarray, seconds: float | None = None) -> None:
        """Add one frame.

        Args:
            frame: uint8 BGR, shape (H, W, 3), of one size for the whole video. Odd sides are
                padded by repeating the last row or column, since the format knows even ones only.
            seconds: When it is shown, above that of the frame before; by default 1 / fps later.
                OpenCV's files have a constant rate all the same.

        Raises:
            ValueError: The frame has another type or shape than the first one, or the file cannot
                be made.
            OutputError: The file cannot be written any further.
        """
        if frame.dtype != np.uint8 or frame.ndim != 3 or frame.shape[2] != 3 or not frame.size:
            raise ValueError(f"A frame is uint8 (H, W, 3), got {frame.dtype} {frame.shape}.")
        height, width = frame.shape[:2]
        if self._encoder is None:
            self._size = (height, width)
            self._encoder = self._open(height + height % 2, width + width % 2)
        if (height, width) != self._size:
            raise ValueError(
                f"Frames of one video have one size: {self._size}, got {(height, width)} "
                "(height, width). Resize them."
            )
        later = self._seconds + 1 / self.fps
        self._seconds = later if seconds is None or seconds <= self._seconds else seconds
        padded = np.pad(frame, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
        self._encoder.write(padded, self._seconds)

    def _open(self, height: int, width: int) -> AVEncoder | OpenCVEncoder:
        if self._av is not None:
            return AVEncoder(self._av, self.path, height, width, self.fps)
        _logger.warning(
            "%s: written as MPEG-4 Part 2, which browsers do not play. "
            'For H.264: pip install "solo_d2[video]"',
            printable(self.path),
        )
        return OpenCVEncoder(self.path, height, width, self.fps)

    def close(self, *, whole: bool = True) -> None:
        """Finish the file.

        Args:
            whole: Nothing is missing. Otherwise an older file stays, and what there is stays
                beside it under a name of its own.

        Raises:
            OutputError: It cannot be finished.
        """
        if self._encoder is not None:
            encoder, self._encoder = self._encoder, None
            self.written = encoder.close(whole=whole)

    def __enter__(self) -> VideoWriter:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close(whole=kind is None)


def writable_extensions() -> tuple[str, ...]:
    """Return the file name extensions (lower case) that `VideoWriter` knows here."""
    return (".mp4",) if _import_av() is None else tuple(CONTAINERS)


def _import_av() -> Any:
    """PyAV, or None without the extra "video"."""
    try:
        return importlib.import_module("av")
    except ImportError:
        return None
