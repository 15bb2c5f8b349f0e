"""Facts about reading and writing videos."""

from __future__ import annotations

import importlib.util
import logging
from fractions import Fraction

import cv2
import numpy as np
import pytest

from solo_d2.io import video
from solo_d2.io.video import VideoReader, VideoWriter

needs_av = pytest.mark.skipif(importlib.util.find_spec("av") is None, reason="needs PyAV")


def frames_of(count, height, width):
    """Flat frames that get brighter by 20 each."""
    return [np.full((height, width, 3), 20 * n + 20, dtype=np.uint8) for n in range(count)]


def write(path, frames, fps=25.0):
    with VideoWriter(path, fps) as writer:
        for frame in frames:
            writer.write(frame)
    return writer


@needs_av
@pytest.mark.parametrize(
    ("size", "stored"), [((48, 64), (48, 64)), ((47, 63), (48, 64)), ((1, 1), (2, 2))]
)
def test_h264_that_browsers_play(tmp_path, size, stored):
    import av

    path = tmp_path / "new" / "out.mp4"
    assert write(path, frames_of(7, *size)).codec == "h264"
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        assert stream.codec_context.name == "h264"
        assert stream.codec_context.pix_fmt == "yuv420p"
        assert (stream.height, stream.width) == stored
        assert stream.average_rate == 25
        assert sum(1 for _ in container.decode(stream)) == 7
    data = path.read_bytes()
    assert data.index(b"moov") < data.index(b"mdat")  # playable before it is fully loaded


@needs_av
def test_ntsc_rate_stays_exact(tmp_path):
    import av

    write(tmp_path / "out.mp4", frames_of(3, 16, 16), fps=30000 / 1001)
    with av.open(str(tmp_path / "out.mp4")) as container:
        assert container.streams.video[0].average_rate == Fraction(30000, 1001)


@pytest.mark.parametrize("with_av", [pytest.param(True, marks=needs_av), False])
def test_frames_come_back(tmp_path, monkeypatch, caplog, with_av):
    if not with_av:
        monkeypatch.setattr(video, "_import_av", lambda: None)
    frames = frames_of(6, 32, 48)
    frames[2][:, :24] = (200, 40, 40)  # blue: a swap of channels would show
    writer = write(tmp_path / "out.mp4", frames)
    assert writer.codec == ("h264" if with_av else "mpeg4")
    assert ("solo_d2[video]" in caplog.text) is not with_av
    with VideoReader(tmp_path / "out.mp4") as reader:
        assert reader.frame_count == 6
        assert reader.fps == pytest.approx(25)
        read = list(reader)
    assert len(read) == 6
    for before, after in zip(frames, read, strict=True):
        # Away from the edge of the blue half: colour has half the resolution.
        for half in (slice(0, 20), slice(28, 48)):
            difference = before[:, half].astype(int) - after[:, half]
            assert np.abs(difference.mean(axis=(0, 1))).max() < 12


@needs_av
@pytest.mark.parametrize("ending", [".mp4", ".m4v", ".mov", ".mkv", ".webm"])
@pytest.mark.parametrize("times", [[0, 0.1, 0.133, 0.166, 1.166, 1.2, 8.0], [0, 1, 2, 3]])
def test_frames_keep_their_times_and_the_file_its_length(tmp_path, ending, times, caplog):
    import av

    path = tmp_path / f"film{ending}"
    with VideoWriter(path, 25) as writer:
        for frame, seconds in zip(frames_of(len(times), 32, 48), times, strict=True):
            writer.write(frame, seconds)
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        found = [
            float(packet.pts * stream.time_base)
            for packet in container.demux(stream)
            if packet.size
        ]
    assert found == pytest.approx(times, abs=2e-3)
    with av.open(str(path)) as container:
        assert container.duration / 1e6 == pytest.approx(times[-1], abs=0.2)
    with VideoReader(path) as reader:
        assert len(list(reader)) == len(times)
    assert "damaged" not in caplog.text  # other formats have a duration and no number of frames


def test_a_name_with_a_colon_is_no_protocol(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "out.mp4", frames_of(3, 16, 16))
    (tmp_path / "out.mp4").rename("12:30.mp4")
    with VideoReader("12:30.mp4") as reader:
        assert reader.name == "12:30.mp4"
        assert len(list(reader)) == 3


def test_odd_frames_are_padded_by_their_edge(tmp_path):
    frame = np.zeros((33, 33, 3), dtype=np.uint8)
    frame[:, 16:] = 255
    write(tmp_path / "out.mp4", [frame] * 2)
    with VideoReader(tmp_path / "out.mp4") as reader:
        read = next(iter(reader))
    assert read.shape == (34, 34, 3)
    assert read[:, 33].mean() > 230


def test_a_cut_video_warns_and_gives_its_frames(tmp_path, caplog):
    path = tmp_path / "cut.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 25, (64, 64))
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    for _ in range(20):
        writer.write(noise)
    writer.release()
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with caplog.at_level(logging.WARNING), VideoReader(path) as reader:
        count = len(list(reader))
    assert 0 < count < 20
    assert reader.frame_count == 20
    assert f"cut.avi: ended after {count} of 20 frames" in caplog.text


@pytest.mark.parametrize("content", [None, b"", b"this is no video"])
def test_unreadable_videos_are_named(tmp_path, content):
    path = tmp_path / "bad.mp4"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ValueError, match=r"bad\.mp4: no (such video file|frame can be read)"):
        VideoReader(path)


def test_a_missing_camera_is_named():
    with pytest.raises(ValueError, match="camera 97: no frame can be read"):
        VideoReader(97)


def test_frames_of_another_size_are_refused(tmp_path):
    with VideoWriter(tmp_path / "out.mp4", 25) as writer:
        writer.write(np.zeros((8, 8, 3), dtype=np.uint8))
        with pytest.raises(ValueError, match=r"one size: \(8, 8\), got \(8, 9\)"):
            writer.write(np.zeros((8, 9, 3), dtype=np.uint8))


@pytest.mark.parametrize(
    "frame", [np.zeros((8, 8), dtype=np.uint8), np.zeros((8, 8, 3)), np.zeros((0, 8, 3), np.uint8)]
)
def test_what_is_no_frame_is_refused(tmp_path, frame):
    with (
        VideoWriter(tmp_path / "out.mp4", 25) as writer,
        pytest.raises(ValueError, match="uint8"),
    ):
        writer.write(frame)


def test_without_frames_there_is_no_file(tmp_path):
    write(tmp_path / "out.mp4", [])
    assert not (tmp_path / "out.mp4").exists()


@pytest.mark.parametrize(
    ("name", "fps"), [("out.avi", 25), ("out.gif", 25), ("out", 25), ("out.mp4", 0)]
)
def test_unusable_names_and_rates_are_refused(tmp_path, name, fps):
    with pytest.raises(ValueError, match=r"\.mp4|fps must be above 0"):
        VideoWriter(tmp_path / name, fps)


@pytest.mark.parametrize("with_av", [pytest.param(True, marks=needs_av), False])
def test_unwritable_files_are_named(tmp_path, monkeypatch, with_av):
    if not with_av:
        monkeypatch.setattr(video, "_import_av", lambda: None)
    (tmp_path / "folder.mp4").mkdir()
    with (
        pytest.raises(ValueError, match=r"folder\.mp4: cannot be written"),
        VideoWriter(tmp_path / "folder.mp4", 25) as writer,
    ):
        writer.write(np.zeros((8, 8, 3), dtype=np.uint8))
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match=r"out\.mp4: cannot be written: .*file is no folder"):
        VideoWriter(tmp_path / "file" / "out.mp4", 25)
