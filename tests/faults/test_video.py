"""Faults of videos: what ends a run, what is cut, turned, or shown at odd times, odd names."""

from __future__ import annotations

import importlib.util
import io
import json
import os
import signal
from fractions import Fraction

import cv2
import numpy as np
import pytest
from stub_predictor import StubPredictor, demo, film, in_a_child, load_demo, picture, playable

from solo_d2.inference.outputs import video_path
from solo_d2.io import growing, video
from solo_d2.io.video import VideoReader, VideoWriter, writable_extensions

needs_av = pytest.mark.skipif(importlib.util.find_spec("av") is None, reason="needs PyAV")
BOTH = [pytest.param(True, marks=needs_av, id="PyAV"), pytest.param(False, id="OpenCV")]


@pytest.fixture
def work(tmp_path, monkeypatch):
    """A folder to work in, with a film of 60 frames."""
    monkeypatch.chdir(tmp_path)
    film(tmp_path / "in.mp4", 60)
    return tmp_path


def without_av(monkeypatch, with_av):
    if not with_av:
        monkeypatch.setattr(video, "_import_av", lambda: None)


def frames_in(path):
    return {entry["image_id"] for entry in json.loads(path.read_text())}


# What ends a run


def kill(number):
    return lambda: os.kill(os.getpid(), number)


def lost_gpu():
    raise RuntimeError("CUDA error: unspecified launch failure")


ENDS = {
    "SIGINT": (kill(signal.SIGINT), 130, "interrupted (SIGINT) after 50 frames of in.mp4"),
    "SIGTERM": (kill(signal.SIGTERM), 143, "interrupted (SIGTERM) after 50 frames of in.mp4"),
    "lost GPU": (lost_gpu, 1, "CUDA error"),
}


@pytest.mark.parametrize("older", [False, True], ids=["new", "older"])
@pytest.mark.parametrize("with_av", BOTH)
@pytest.mark.parametrize("end", ENDS)
def test_a_video_is_playable_and_never_replaced_by_a_part(
    work, monkeypatch, capsys, end, with_av, older
):
    without_av(monkeypatch, with_av)
    stop, code, said = ENDS[end]
    if older:
        film(work / "out.mp4", 7)
    stub = StubPredictor(before=lambda n: stop() if n == 51 else None)
    line = ("--video-input", "in.mp4", "--output", "out.mp4", "--save-json", "r.json")
    assert demo(stub, *line) == code
    error = capsys.readouterr().err
    assert said in error and "Traceback" not in error
    kept = next(work.glob("out.partial-*.mp4")) if older else work / "out.mp4"
    assert playable(kept) == 50
    assert str(kept.name) in error
    assert not older or playable(work / "out.mp4") == 7
    assert frames_in(work / "r.json") == set(range(50))


@needs_av
@pytest.mark.parametrize("extension", [".mp4", ".mov", ".mkv", ".webm"])
def test_a_killed_process_leaves_a_video_that_plays(work, extension):
    film(work / "in.mp4", 200)
    older = film(work / "older.mp4", 7)
    target = older.rename(work / f"out{extension}")
    stub = StubPredictor(before=lambda n: os.kill(os.getpid(), 9) if n == 190 else None)
    line = ("--video-input", "in.mp4", "--output", target)
    assert in_a_child(lambda: demo(stub, *line)) == -signal.SIGKILL
    (partial,) = work.glob("out.partial-*")
    assert playable(partial) >= 100  # all but the encoder's queue and a second
    assert playable(target) == 7


@pytest.mark.parametrize("with_av", BOTH)
def test_a_whole_video_replaces_the_older_one_and_leaves_nothing_else(work, monkeypatch, with_av):
    without_av(monkeypatch, with_av)
    film(work / "out.mp4", 7)
    assert demo(StubPredictor(), "--video-input", "in.mp4", "--output", "out.mp4") == 0
    assert playable(work / "out.mp4") == 60
    assert sorted(os.listdir()) == ["in.mp4", "out.mp4"]


@needs_av
@pytest.mark.parametrize("limit", [100, 3000])
def test_a_full_disk_is_one_line_and_keeps_both_videos(work, monkeypatch, capsys, limit):
    film(work / "out.mp4", 7)

    class Tight(io.FileIO):
        def write(self, data):
            if self.tell() + len(data) > limit:
                raise OSError(28, "No space left on device")
            return super().write(data)

    monkeypatch.setattr(growing, "open", lambda *_, **k: Tight(_[0], _[1]), raising=False)
    assert demo(StubPredictor(), "--video-input", "in.mp4", "--output", "out.mp4") == 1
    error = capsys.readouterr().err
    assert "No space left on device" in error and "Traceback" not in error
    assert playable(work / "out.mp4") == 7


@needs_av
def test_without_room_for_a_second_copy_the_video_is_whole_all_the_same(work, monkeypatch):
    import av

    real = av.open

    def no_room(file, mode=None, **options):
        if options.get("options", {}).get("movflags") == "faststart":
            raise OSError(28, "No space left on device")
        return real(file, mode, **options)

    monkeypatch.setattr(av, "open", no_room)
    assert demo(StubPredictor(), "--video-input", "in.mp4", "--output", "out.mp4") == 0
    assert playable(work / "out.mp4") == 60
    assert sorted(os.listdir()) == ["in.mp4", "out.mp4"]


def test_an_exception_in_a_block_keeps_the_older_video(work):
    film(work / "out.mp4", 7)
    with pytest.raises(KeyError), VideoWriter("out.mp4", 25) as writer:
        writer.write(np.zeros((48, 64, 3), np.uint8))
        raise KeyError
    assert playable(work / "out.mp4") == 7
    assert playable(writer.written) == 1


# Frames


def test_frames_that_fail_stay_as_they_are_and_are_said_in_one_line(work, capsys):
    def fail(n):
        if n % 3 == 0:
            raise MemoryError("no room")

    line = ("--video-input", "in.mp4", "--output", "out.mp4", "--save-json", "r.json")
    assert demo(StubPredictor(before=fail), *line) == 1
    assert playable(work / "out.mp4") == 60
    assert frames_in(work / "r.json") == {k for k in range(60) if k % 3 != 2}
    skipped = [x for x in capsys.readouterr().err.splitlines() if x.startswith("skipped")]
    assert skipped == [
        "skipped: in.mp4: 20 frames could not be used, the first one is frame 2: too large for "
        "the memory that is left (no room)"
    ]


def test_nothing_is_kept_of_frames_without_results(work, monkeypatch):
    encoded = []
    monkeypatch.setattr(
        "solo_d2.inference.collecting.instances_to_coco_results",
        lambda *a, **k: encoded.append(a) or [],
    )
    assert demo(StubPredictor(), "--video-input", "in.mp4", "--output", "out.mp4") == 0
    assert encoded == []


# Names and formats


@needs_av
@pytest.mark.parametrize("extension", [".mp4", ".m4v", ".mov", ".mkv", ".webm", ".MP4"])
def test_the_extension_says_the_format(work, extension):
    name = f"out{extension}"
    assert demo(StubPredictor(), "--video-input", "in.mp4", "--output", name) == 0
    assert (work / name).is_file()
    with VideoReader(name) as reader:
        frames = list(reader)
    assert len(frames) == 60
    assert frames[0].shape == (48, 64, 3)


BAD_OUTPUTS = {
    "film.avi": "a video is written as .mp4",
    "film.gif": "a video is written as .mp4",
    "film.png": "a video is written as .mp4",
    "film.xyz": '.mp4 .m4v .mov .mkv .webm. For a folder end the name with "/"',
    "in.mp4": "is an input, drawing would replace it",
    "link.mp4": "is an input, drawing would replace it",
    "hard.mp4": "is an input, drawing would replace it",
    ".": "is an input, drawing would replace it",
    "pipe.mp4": "is a named pipe",
    "folder.mp4/in.mp4/": "in.mp4: cannot be written: is a folder",
    "file/out.mp4": "is no folder",
}


@needs_av
@pytest.mark.parametrize("output", BAD_OUTPUTS)
def test_outputs_that_cannot_be_are_told_before_the_first_frame(work, capsys, output):
    (work / "link.mp4").symlink_to("in.mp4")
    os.link("in.mp4", "hard.mp4")
    os.mkfifo("pipe.mp4")
    (work / "folder.mp4" / "in.mp4" / "in.mp4").mkdir(parents=True)
    (work / "file").touch()
    before = sorted(work.rglob("*"))
    stub = StubPredictor()
    assert demo(stub, "--video-input", "in.mp4", "--output", output) == 2
    assert stub.seen == 0
    (line,) = capsys.readouterr().err.splitlines()
    assert BAD_OUTPUTS[output] in line
    assert sorted(work.rglob("*")) == before


def test_without_pyav_other_formats_name_the_remedy(work, monkeypatch, capsys):
    without_av(monkeypatch, False)
    assert writable_extensions() == (".mp4",)
    assert demo(StubPredictor(), "--video-input", "in.mp4", "--output", "out.mkv") == 2
    with pytest.raises(ValueError, match=r"out\.mkv: .*pip install \"solo_d2\[video\]\""):
        VideoWriter("out.mkv", 25)


@pytest.mark.parametrize("output", ["out", "out/", "run.2", "a.mkv/", "new/deep"])
def test_other_names_are_folders(work, output):
    assert demo(StubPredictor(), "--video-input", "in.mp4", "--output", output) == 0
    assert playable(work / output / "in.mp4") == 60


NAMES = {
    "Latin-1": b"\xe9t\xe9.mp4",
    "broken UTF-8": b"\xff.mp4",
    "newline": b"a\nb.mp4",
    "emoji": "\U0001f600.mp4".encode(),
    "255 bytes": b"a" * 251 + b".mp4",
}


@needs_av
@pytest.mark.parametrize("kind", NAMES)
def test_every_name_is_read_and_written(work, kind):
    name = os.fsdecode(NAMES[kind])
    (work / "in.mp4").rename(name)
    line = ("--video-input", name, "--output", "out", "--save-json", "r.json")
    assert demo(StubPredictor(), *line) == 0
    assert [os.fsencode(x) for x in os.listdir("out")] == [NAMES[kind]]
    (work / "out" / name).rename("x.mp4")
    assert playable("x.mp4") == 60
    assert len(frames_in(work / "r.json")) == 60


def test_opencv_alone_refuses_names_that_would_end_the_process(work, monkeypatch, capsys):
    without_av(monkeypatch, False)
    name = os.fsdecode(b"\xe9t\xe9.mp4")
    assert demo(StubPredictor(), "--video-input", "in.mp4", "--output", name) == 2
    assert 'Install the extra "video"' in capsys.readouterr().err
    assert os.listdir() == ["in.mp4"]


def test_long_names_of_sources_become_names_of_outputs(work):
    assert len(os.fsencode(video_path("a" * 255, "out").name)) == 255
    assert video_path(3, "out").name == "camera_3.mp4"


# Sources


def cut_behind(path, share):
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])


SOURCES = {
    "none.mp4": "no such video file",
    "empty.mp4": "the file is empty",
    "text.mp4": "damaged or cut off",
    "cut.mp4": "damaged or cut off",
    "zero.mp4": "damaged or cut off",
    "photo.png/": "no such video file",
    "folder": "no image in this folder",
    "pipe.mp4": "is a named pipe",
    "loop.mp4": "is a link that leads nowhere or to itself",
    "ftp://localhost/a.mp4": "streams are http, https, rtsp, rtsps",
    "http://me:secret@localhost:9/a.mp4": "http://localhost:9/a.mp4: no frame came",
    "rtsp://localhost:9/a": "no frame came within 10 s",
    "a" * 300 + ".mp4": "cannot be reached",
    "list.mp4": "damaged or cut off",
}


@needs_av
@pytest.mark.parametrize("source", SOURCES)
def test_sources_that_cannot_be_read_are_one_line(work, capsys, source):
    (work / "empty.mp4").touch()
    (work / "text.mp4").write_text("no video")
    (work / "list.mp4").write_text("#EXTM3U\n#EXTINF:9,\nfile:///etc/passwd\n")
    cut_behind(film(work / "cut.mp4", 60), 0.5)  # the index is at the end
    no_frames(work / "zero.mp4")
    picture(work / "photo.png")
    (work / "folder").mkdir()
    os.mkfifo("pipe.mp4")
    (work / "loop.mp4").symlink_to("loop.mp4")
    stub = StubPredictor()
    assert demo(stub, "--video-input", source, "--output", "out.mp4") == 2
    assert stub.seen == 0
    (line,) = capsys.readouterr().err.splitlines()
    assert SOURCES[source] in line
    assert not (work / "out.mp4").exists()


def no_frames(path):
    import av

    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        container.start_encoding()


@needs_av
def test_a_film_that_was_cut_gives_its_frames_and_says_so(work, caplog):
    with VideoWriter("long.mp4", 25) as writer:
        noise = np.random.default_rng(0)
        for _ in range(60):
            writer.write(noise.integers(0, 255, (48, 64, 3), np.uint8))
    cut_behind(work / "long.mp4", 0.6)  # its index is in front
    with VideoReader("long.mp4") as reader:
        count = len(list(reader))
    assert 20 < count < 60
    assert f"long.mp4: ended after {count} of 60 frames; the file may be damaged" in caplog.text


def timed_film(path, seconds):
    """A film with a frame at each of the seconds."""
    import av

    clock = Fraction(1, 1000)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        stream.codec_context.time_base = clock
        for k, second in enumerate(seconds):
            frame = av.VideoFrame.from_ndarray(np.full((48, 64, 3), 10 * k, np.uint8), "bgr24")
            frame.pts, frame.time_base = round(second * 1000), clock
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def times(path):
    capture, found = cv2.VideoCapture(str(path)), []
    while capture.read()[0]:
        found.append(capture.get(cv2.CAP_PROP_POS_MSEC) / 1000)
    return found


@needs_av
@pytest.mark.parametrize("extension", [".mp4", ".mkv", ".webm"])
def test_frames_keep_their_times_at_a_variable_rate(work, extension):
    seconds = [0, 0.04, 0.08, 0.5, 1.5, 1.54, 4.0, 4.04]
    timed_film(work / "odd.mp4", seconds)
    out = f"out{extension}"
    assert demo(StubPredictor(), "--video-input", "odd.mp4", "--output", out) == 0
    assert times(out) == pytest.approx(seconds, abs=0.002)


@needs_av
def test_times_that_jump_back_or_are_none_are_spread_evenly(work):
    with VideoWriter("out.mp4", 10) as writer:
        for second in (0.0, 0.5, 0.2, None, 0.5, 2.0):
            writer.write(np.zeros((48, 64, 3), np.uint8), second)
    assert times("out.mp4") == pytest.approx([0.0, 0.5, 0.6, 0.7, 0.8, 2.0], abs=0.002)


def turned(path, quarter):
    """Write the rotation of a phone into the track's matrix."""
    data = bytearray(path.read_bytes())
    one = 1 << 16
    matrix = {1: (0, one, 0, -one, 0, 0), 2: (-one, 0, 0, 0, -one, 0), 3: (0, -one, 0, one, 0, 0)}
    place = data.index(b"tkhd") + 4 + 40
    words = [*matrix[quarter], 0, 0, 1 << 30]
    data[place : place + 36] = b"".join(int(x).to_bytes(4, "big", signed=True) for x in words)
    path.write_bytes(bytes(data))


@needs_av
@pytest.mark.parametrize("quarter", [1, 2, 3])
def test_a_phone_s_film_is_upright(work, quarter):
    frame = np.zeros((48, 64, 3), np.uint8)
    frame[:24, :32] = 255
    with VideoWriter("phone.mp4", 25) as writer:
        for _ in range(5):
            writer.write(frame)
    turned(work / "phone.mp4", quarter)
    assert demo(StubPredictor(0), "--video-input", "phone.mp4", "--output", "out.mp4") == 0
    with VideoReader("out.mp4") as reader:
        upright = next(iter(reader))
    expected = np.rot90(frame, -quarter)
    assert upright.shape == expected.shape
    assert np.abs(upright.astype(int) - expected).mean() < 20


def test_a_camera_is_ended_by_a_signal_and_its_film_is_whole(work, monkeypatch, capsys):
    film(work / "out.mp4", 7)
    capture = cv2.VideoCapture("in.mp4")
    # The camera is faster than the model: of its 60 frames five or more get through.
    stub = StubPredictor(before=lambda n: os.kill(os.getpid(), signal.SIGINT) if n == 5 else None)
    line = ("--webcam", "--output", "out.mp4", "--save-json", "r.json")
    with monkeypatch.context() as patch:
        patch.setattr(cv2, "VideoCapture", lambda number: capture)
        assert demo(stub, *line) == 130
    assert playable(work / "out.mp4") == 4
    assert frames_in(work / "r.json") == set(range(4))


def test_cut_outs_of_a_video_survive_what_ends_it(work):
    module = load_demo(StubPredictor())
    from solo_d2.inference.renderers import CutOutRenderer, MatteChoice
    from solo_d2.inference.runner import InferenceRun

    stub = StubPredictor(before=lambda n: os.kill(os.getpid(), 15) if n == 4 else None)
    renderer = CutOutRenderer(["a/b" * 100], MatteChoice(foreground=False))
    line = ["--config-file", "x", "--video-input", "in.mp4", "--output", "out"]
    code = module.main(line, make_run=lambda *_: InferenceRun(stub, renderer=renderer))
    assert code == 143
    names = sorted(os.listdir("out/in"))
    assert len(names) == 9 and names[0].startswith("000000_00_a-ba-b")
