"""Frames of films, cameras, streams and folders, one at a time."""

from __future__ import annotations

import logging
import math
import os
import re
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from os import PathLike, fspath
from pathlib import Path
from types import TracebackType
from urllib.parse import urlsplit

import cv2
import numpy as np

from .image import IMAGE_EXTENSIONS, ImageError, read_image
from .paths import printable

__all__ = ["FrameFolder", "FrameSource", "StreamReader", "is_stream", "position"]

DEFAULT_FPS = 30.0
"""Of sources that do not say theirs."""

_COUNTED = (".3gp", ".avi", ".m4v", ".mov", ".mp4")
"""Of films that store the number of frames; of others OpenCV gives duration times rate."""

SCHEMES = ("http", "https", "rtsp", "rtsps")
"""Of addresses that are read as streams."""

# A stream may name others to go on with, but no file of this machine.
_OPTIONS = "rtsp_transport;tcp|protocol_whitelist;http,https,tcp,tls,rtsp,rtp,udp,crypto"
_logger = logging.getLogger(__name__)


class FrameSource(ABC):
    """Something that has frames; a context manager.

    Attributes:
        name: For people.
        live: Whether frames come when they come, and are lost if nobody takes them.
        fps: Frames per second, on average.
        frame_count: Frames that are promised; None where nobody knows.
        seconds: When the latest frame is shown, from the first one on.
        skipped: Frames so far that could not be used, and were left out.
    """

    name: str
    live: bool = False
    fps: float = DEFAULT_FPS
    frame_count: int | None = None
    seconds: float = 0.0
    skipped: int = 0

    @abstractmethod
    def __iter__(self) -> Iterator[np.ndarray]:
        """The frames once, uint8 BGR (H, W, 3)."""

    def _advance(self, now: float) -> None:
        """Set when the next frame is shown: not every format has times, damaged ones jump back."""
        self.seconds = now if now > self.seconds else self.seconds + 1 / self.fps

    def _is_cut(self, seen: int) -> bool:
        """Return whether frames are missing, and not just what was estimated from the duration."""
        if self.frame_count is None or seen >= self.frame_count:
            return False
        counted = Path(self.name).suffix.lower() in _COUNTED
        return counted or self.seconds + 1 < self.frame_count / self.fps

    def stop(self) -> None:  # noqa: B027 - most have nothing to stop
        """Let an iterator that waits in another thread end soon."""

    def close(self) -> None:  # noqa: B027
        """Free what is behind the source."""

    def __enter__(self) -> FrameSource:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


class FrameFolder(FrameSource):
    """The images of a folder as frames, by their names, numbers in them as numbers.

    An image that cannot be read, or has not the size of the first one, is left out, with a line.

    Args:
        folder: With images of one size.
        fps: Frames per second.
        max_value: See `read_image`.

    Raises:
        ValueError: There is no image in it.
    """

    def __init__(
        self, folder: str | PathLike[str], fps: float = DEFAULT_FPS, *, max_value: float = 0
    ) -> None:
        self.name, self.fps, self._max_value = fspath(folder), fps, max_value
        files = [x for x in Path(folder).iterdir() if x.suffix.lower() in IMAGE_EXTENSIONS]
        self.files = sorted(files, key=lambda file: _natural(file.name))
        if not self.files:
            raise ValueError(f"{printable(self.name)}: no image in this folder. Check the path.")
        self.frame_count = len(self.files)

    def __iter__(self) -> Iterator[np.ndarray]:
        """The images that can be used, uint8 BGR (H, W, 3)."""
        shape: tuple[int, ...] | None = None
        for number, file in enumerate(self.files):
            try:
                frame = read_image(file, "BGR", max_value=self._max_value)
                shape = shape or frame.shape
                if frame.shape != shape:
                    raise ImageError(
                        file,
                        f"has (height, width) {frame.shape[:2]}, the frames before it "
                        f"{shape[:2]}. Resize it, or move it to another folder.",
                    )
            except ValueError as error:
                self.skipped += 1
                _logger.warning("left out: %s", error)
                continue
            self.seconds = number / self.fps
            yield frame


def _natural(name: str) -> list[tuple[int, str]]:
    """Key of sorting by which 9 comes before 10."""
    parts = re.split(r"(\d+)", name.lower())
    return [(int(x), "") if x.isdecimal() else (-1, x) for x in parts]


def position(capture: cv2.VideoCapture) -> float:
    """Return when the latest frame of a film is shown, in seconds; 0 where nobody knows."""
    seconds = capture.get(cv2.CAP_PROP_POS_MSEC) / 1000
    return seconds if math.isfinite(seconds) else 0.0


def is_stream(source: object) -> bool:
    """Return whether a source is an address on a network."""
    return isinstance(source, str) and "://" in source


class StreamReader(FrameSource):
    """Frames of an address (HTTP, RTSP), which is opened again when the connection is lost.

    An address with an end of its own, such as a film on a server, ends there. A live one ends when
    it could not be opened `attempts` times in a row, with a line.

    Args:
        url: The address; a password in it is never shown.
        patience: Seconds without a frame after which the connection counts as lost.
        attempts: To open it again; before each the wait doubles, from `pause` on.
        pause: Seconds.

    Raises:
        ValueError: The address is of another kind, or gives no frame.
    """

    def __init__(
        self, url: str, *, patience: float = 10.0, attempts: int = 5, pause: float = 1.0
    ) -> None:
        self.name = _without_password(url)
        if urlsplit(url).scheme.lower() not in SCHEMES:
            raise ValueError(f"{printable(self.name)}: streams are {', '.join(SCHEMES)}.")
        self._url, self._patience, self._attempts, self._pause = url, patience, attempts, pause
        self._stop = threading.Event()
        self._capture = cv2.VideoCapture()
        first = self._open()
        if first is None:
            self.close()
            raise ValueError(
                f"{printable(self.name)}: no frame came within {patience:g} s. Check the address "
                "and that its server runs."
            )
        self._first, self._start = first, position(self._capture)
        fps = self._capture.get(cv2.CAP_PROP_FPS)
        self.fps = fps if 0 < fps < 1000 else DEFAULT_FPS
        count = int(self._capture.get(cv2.CAP_PROP_FRAME_COUNT))
        self.live = count <= 0
        self.frame_count = None if self.live else count

    def _open(self) -> np.ndarray | None:
        """Connect; returns the first frame, None if none came."""
        timeout = round(1000 * self._patience)
        limits = [cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, timeout, cv2.CAP_PROP_READ_TIMEOUT_MSEC, timeout]
        self._capture.release()
        with _environment(OPENCV_FFMPEG_CAPTURE_OPTIONS=_OPTIONS, OPENCV_FFMPEG_LOGLEVEL="-8"):
            self._capture.open(self._url, cv2.CAP_FFMPEG, limits)
            return self._read()

    def _read(self) -> np.ndarray | None:
        found, frame = self._capture.read()
        return frame if found else None

    def __iter__(self) -> Iterator[np.ndarray]:
        """The frames, uint8 BGR (H, W, 3); says what became of the connection."""
        frame: np.ndarray | None = self._first
        seen = 0
        begin = time.monotonic()
        while frame is not None and not self._stop.is_set():
            yield frame
            seen += 1
            frame = self._read()
            if frame is None and self.live:
                frame = self._again()
            film = position(self._capture) - self._start
            self._advance(time.monotonic() - begin if self.live else film)
        if self._is_cut(seen) and not self._stop.is_set():
            name = printable(self.name)
            _logger.warning("%s: ended after %d of %d frames", name, seen, self.frame_count)

    def _again(self) -> np.ndarray | None:
        """Open the address again and again; None if it stays silent."""
        name = printable(self.name)
        for attempt in range(self._attempts):
            if self._stop.wait(self._pause * 2**attempt):
                return None
            frame = self._open()
            if frame is not None:
                _logger.warning("%s: the connection was lost and is there again", name)
                return frame
        _logger.warning("%s: ended, or lost after %d attempts", name, self._attempts)
        return None

    def stop(self) -> None:
        """See `FrameSource`."""
        self._stop.set()

    def close(self) -> None:
        """Close the connection."""
        self._capture.release()


@contextmanager
def _environment(**values: str) -> Iterator[None]:
    """Set variables that OpenCV reads when it opens something, where the user has not."""
    mine = {key: value for key, value in values.items() if key not in os.environ}
    os.environ.update(mine)
    try:
        yield
    finally:
        for key in mine:
            os.environ.pop(key, None)


def _without_password(url: str) -> str:
    """Return an address that can be shown: "rtsp://camera/1" of "rtsp://me:secret@camera/1"."""
    scheme, separator, rest = url.partition("://")
    place, slash, path = rest.partition("/")
    return f"{scheme}{separator}{place.rpartition('@')[2]}{slash}{path}"
