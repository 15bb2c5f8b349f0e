"""Encoders behind `VideoWriter`: frames to a file that can be played whenever writing ends."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from .errors import one_line
from .growing import GrowingFile
from .paths import printable

__all__ = ["CONTAINERS", "AVEncoder", "OpenCVEncoder"]

_CLOCK = Fraction(1, 90000)  # exact for all usual frame rates
_logger = logging.getLogger(__name__)

# Frames that refer to later ones would begin late in files of fragments, which have no edit lists.
_X264 = ("libx264", {"crf": "20", "preset": "veryfast", "bf": "0"})
_VP9 = (
    "libvpx-vp9",
    {"crf": "30", "b": "0", "deadline": "realtime", "cpu-used": "8", "row-mt": "1"}
    | {"lag-in-frames": "0"},
)
# A piece of a film every second, each of which can be played without those that follow.
_FRAGMENTS = {"movflags": "empty_moov+default_base_moof", "frag_duration": "1000000"}
_CLUSTERS = {"cluster_time_limit": "1000"}

CONTAINERS: dict[str, tuple[str, dict[str, str], tuple[str, dict[str, str]]]] = {
    ".mp4": ("mp4", _FRAGMENTS, _X264),
    ".m4v": ("mp4", _FRAGMENTS, _X264),
    ".mov": ("mov", _FRAGMENTS, _X264),
    ".mkv": ("matroska", _CLUSTERS, _X264),
    ".webm": ("webm", _CLUSTERS, _VP9),
}
"""By extension: FFmpeg's name of the format, its options, codec and the codec's options."""


class AVEncoder:
    """H.264 in yuv420p, or VP9 in .webm, through PyAV.

    Args:
        av: the module.
        path: the video.
        height: of the frames, even.
        width: of the frames, even.
        fps: frames per second.
    """

    def __init__(self, av: Any, path: Path, height: int, width: int, fps: float) -> None:
        self._av = av
        self._file = GrowingFile(path)
        self._format, options, (codec, codec_options) = CONTAINERS[path.suffix.lower()]
        try:
            self._container = av.open(self._file, "w", format=self._format, options=options)
            rate = Fraction(fps).limit_denominator(1001)  # 30000 / 1001 and the like stay exact
            self._stream = self._container.add_stream(codec, rate=rate)
        except Exception as error:  # PyAV without this encoder has errors of its own
            self._file.discard()
            raise ValueError(
                f"{printable(path)}: this PyAV cannot write it ({one_line(error)}). "
                "Name it .mp4, or pip install --upgrade av."
            ) from error
        self._stream.height, self._stream.width = height, width
        self._stream.pix_fmt = "yuv420p"
        self._stream.options = codec_options
        self._stream.codec_context.time_base = _CLOCK

    def write(self, frame: np.ndarray, seconds: float) -> None:
        """Add a frame, uint8 BGR (H, W, 3), that is shown from `seconds` on.

        Raises:
            OutputError: the file cannot be written any further.
        """
        encoded = self._av.VideoFrame.from_ndarray(frame, format="bgr24")
        encoded.pts, encoded.time_base = round(seconds / _CLOCK), _CLOCK
        with self._named_errors():
            self._container.mux(self._stream.encode(encoded))

    @contextmanager
    def _named_errors(self) -> Iterator[None]:
        """Raise the file's own error in place of PyAV's about a call that failed."""
        try:
            yield
        except Exception as error:
            if self._file.error is not None:
                raise self._file.error from error
            raise

    def close(self, *, whole: bool) -> Path:
        """Finish the file; returns where it is.

        Raises:
            OutputError: it cannot be finished.
        """
        try:
            with self._named_errors():
                self._container.mux(self._stream.encode(None))
                self._container.close()
        except Exception as error:
            if whole:
                raise
            # What is on the disk can be played without its last second.
            _logger.debug("%s: %s", self._file.path, error)
        if whole and self._format in ("mp4", "mov") and self._put_index_in_front():
            return self._file.target
        return self._file.finish(whole=whole)

    def _put_index_in_front(self) -> bool:
        """Rewrite a whole file so that players know its length, and browsers begin at once."""
        front = GrowingFile(self._file.target)
        options = {"movflags": "faststart"}
        try:
            with (
                self._av.open(str(self._file.path)) as source,
                self._av.open(str(front.path), "w", format=self._format, options=options) as sink,
            ):
                (stream,) = source.streams.video
                copy = sink.add_stream_from_template(stream)
                for packet in source.demux(stream):
                    if packet.dts is not None:  # the last one is empty
                        packet.stream = copy
                        sink.mux(packet)
            front.finish(whole=True)
        except OSError as error:  # the disk has no place for a second copy
            _logger.debug("%s: %s", front.path, error)
            front.discard()
            return False
        self._file.discard()
        return True


class OpenCVEncoder:
    """MPEG-4 Part 2 through OpenCV; such a file can be played when it is closed, not before.

    Args:
        path: the video, .mp4.
        height: of the frames.
        width: of the frames.
        fps: frames per second.
    """

    def __init__(self, path: Path, height: int, width: int, fps: float) -> None:
        self._file = GrowingFile(path)
        name = str(self._file.path)
        fourcc = cv2.VideoWriter.fourcc(*"mp4v")
        # OpenCV ends the process for names that are not UTF-8.
        opened = printable(name) == name
        self._writer = cv2.VideoWriter()
        if not (opened and self._writer.open(name, fourcc, fps, (width, height))):
            self._file.discard()
            raise ValueError(
                f'{printable(path)}: OpenCV cannot write it here. Install the extra "video".'
            )

    def write(self, frame: np.ndarray, seconds: float) -> None:  # noqa: ARG002
        """Add a frame, uint8 BGR (H, W, 3); the rate is constant."""
        self._writer.write(frame)

    def close(self, *, whole: bool) -> Path:
        """Finish the file; returns where it is."""
        self._writer.release()
        return self._file.finish(whole=whole)
