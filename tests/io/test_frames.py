"""Facts about where frames come from: folders, and streams that end, stall and come back."""

from __future__ import annotations

import threading
from functools import partial
from http.server import BaseHTTPRequestHandler, SimpleHTTPRequestHandler, ThreadingHTTPServer

import cv2
import numpy as np
import pytest

from solo_d2.io.frames import FrameFolder, StreamReader
from solo_d2.io.image import write_image
from solo_d2.io.video import VideoReader, VideoWriter, open_frames


def flat(value):
    return np.full((48, 64, 3), value, np.uint8)


# ------------------------------------------------------------------ folders


def test_images_of_a_folder_come_in_the_order_of_their_numbers(tmp_path, caplog):
    for number in (10, 9, 100):
        write_image(tmp_path / f"frame{number}.png", flat(number))
    (tmp_path / "frame11.png").write_bytes(b"damaged")
    (tmp_path / "notes.txt").touch()
    with open_frames(tmp_path) as folder:
        assert isinstance(folder, FrameFolder)
        assert (folder.frame_count, folder.fps, folder.live) == (4, 30.0, False)
        seen = [(frame[0, 0, 0], folder.seconds) for frame in folder]
    assert seen == [(9, 0.0), (10, pytest.approx(1 / 30)), (100, pytest.approx(3 / 30))]
    (line,) = caplog.messages
    assert "left out" in line and "frame11.png" in line


def test_images_of_a_folder_have_the_value_that_is_white(tmp_path):
    cv2.imwrite(str(tmp_path / "1.png"), np.full((8, 8), 4095, np.uint16))
    with open_frames(tmp_path, max_value=4095) as folder:
        assert next(iter(folder)).min() == 255


def test_an_image_of_another_size_is_left_out_and_named(tmp_path, caplog):
    for number in range(4):
        write_image(tmp_path / f"{number}.png", flat(number)[: 40 if number == 2 else 48])
    with open_frames(tmp_path) as folder:
        seen = [(frame[0, 0, 0], folder.skipped) for frame in folder]
    assert seen == [(0, 0), (1, 0), (3, 1)]
    (line,) = caplog.messages
    assert "2.png" in line and "(40, 64)" in line and "(48, 64)" in line


def test_a_folder_without_images_is_named(tmp_path):
    with pytest.raises(ValueError, match="no image in this folder"):
        open_frames(tmp_path)


def test_other_names_are_files(tmp_path):
    with pytest.raises(ValueError, match="no such video file"):
        open_frames(tmp_path / "film.mp4")


# ------------------------------------------------------------------ streams


class Camera(BaseHTTPRequestHandler):
    """Motion JPEG of five frames a connection; refuses when there were enough."""

    connections = 2

    def do_GET(self):
        if self.server.seen >= self.connections:
            self.send_error(503)
            return
        self.server.seen += 1
        self.send_response(200)
        self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=frame")
        self.end_headers()
        for number in range(5):
            data = cv2.imencode(".jpg", flat(40 * number + 20))[1].tobytes()
            head = f"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: {len(data)}\r\n\r\n"
            self.wfile.write(head.encode() + data + b"\r\n")

    def log_message(self, *args):
        pass


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *args):
        pass


@pytest.fixture
def serve():
    servers = []

    def start(handler):
        server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        server.seen = 0
        threading.Thread(target=server.serve_forever, daemon=True).start()
        servers.append(server)
        return f"127.0.0.1:{server.server_port}"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def test_a_film_on_a_server_is_read_to_its_end(tmp_path, serve):
    with VideoWriter(tmp_path / "film.mp4", 10) as writer:
        for number in range(6):
            writer.write(flat(40 * number))
    place = serve(partial(Quiet, directory=str(tmp_path)))
    with open_frames(f"http://{place}/film.mp4") as stream:
        assert (stream.live, stream.frame_count) == (False, 6)
        assert len(list(stream)) == 6
    assert stream.fps == pytest.approx(10)


def test_a_film_on_a_server_keeps_its_times_and_is_not_called_cut(tmp_path, serve, caplog):
    pytest.importorskip("av")
    times = [0, 0.1, 0.133, 0.166, 1.166, 1.2, 8.0]
    with VideoWriter(tmp_path / "film.mkv", 25) as writer:
        for number, seconds in enumerate(times):
            writer.write(flat(20 * number), seconds)
    place = serve(partial(Quiet, directory=str(tmp_path)))
    with open_frames(f"http://{place}/film.mkv") as stream:
        assert not stream.live
        assert [stream.seconds for _ in stream] == pytest.approx(times, abs=2e-3)
    assert "ended after" not in caplog.text  # the number of frames is an estimate


def test_a_lost_connection_is_opened_again_until_it_stays_lost(serve, caplog):
    url = f"http://me:secret@{serve(Camera)}/camera"
    with StreamReader(url, patience=3, attempts=2, pause=0.01) as stream:
        assert stream.live
        frames = list(stream)
    assert len(frames) == 10
    assert [line.rpartition(": ")[2] for line in caplog.messages] == [
        "the connection was lost and is there again",
        "ended, or lost after 2 attempts",
    ]
    assert "secret" not in stream.name + caplog.text


def test_stopping_ends_a_stream_that_waits(serve):
    with StreamReader(f"http://{serve(Camera)}/", patience=3, attempts=9, pause=60) as stream:
        frames = iter(stream)
        for _ in range(5):
            next(frames)
        threading.Timer(0.05, stream.stop).start()
        assert list(frames) == []


def test_addresses_that_are_none_and_servers_that_are_not_there():
    with pytest.raises(ValueError, match="streams are http, https, rtsp, rtsps"):
        open_frames("file:///etc/passwd")
    with pytest.raises(ValueError, match="no frame came within 1 s"):
        StreamReader("http://127.0.0.1:9/", patience=1)


def test_a_stream_cannot_name_files_of_this_machine(tmp_path, serve):
    (tmp_path / "list.m3u8").write_text(
        f"#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\nfile://{tmp_path}/film.mp4\n#EXT-X-ENDLIST\n"
    )
    with VideoWriter(tmp_path / "film.mp4", 10) as writer:
        writer.write(flat(0))
    place = serve(partial(Quiet, directory=str(tmp_path)))
    with pytest.raises(ValueError, match="no frame came"):
        StreamReader(f"http://{place}/list.m3u8", patience=3)
    assert VideoReader(tmp_path / "film.mp4").frame_count == 1
