"""A model behind HTTP: what it answers, what it refuses, and that a crowd gets all its answers."""

from __future__ import annotations

import contextlib
import http.client
import io
import json
import re
import signal
import socket
import struct
import tempfile
import threading
import time
import zipfile
import zlib
from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np
import pytest
from builders import tiny_config, tiny_model
from commands import call
from pycocotools import mask as mask_utils

from solo_d2 import SOLOPredictor
from solo_d2.cli import main as cli

uvicorn = pytest.importorskip("uvicorn")
pytest.importorskip("starlette")
from starlette.applications import Starlette  # noqa: E402
from starlette.routing import Mount  # noqa: E402

from solo_d2.serve import Limits, make_app  # noqa: E402
from solo_d2.serve import app as application  # noqa: E402

LIMITS = Limits(waiting=8, bytes=50_000, pixels=120 * 120, seconds=5)
SIZES = [(50, 70), (64, 64), (40, 90), (33, 47), (96, 96)]


@pytest.fixture(scope="module")
def predictor():
    cfg = tiny_config(
        *("MODEL.SOLO.SCORE_THRESH_TEST", 0.0, "MODEL.SOLO.FINAL_SCORE_THRESH_TEST", 0.0),
        *("TEST.DETECTIONS_PER_IMAGE", 3, "INPUT.MIN_SIZE_TEST", 48),
    )
    model = tiny_model()
    model = type(model)(cfg)
    model.class_names, model.category_ids = ("cup", "fork", "spoon"), (3, 5, 9)
    return SOLOPredictor(cfg, model=model, device="cpu")


@contextlib.contextmanager
def running(app):
    """The port of a server of this process."""
    server = uvicorn.Server(uvicorn.Config(app, log_level="error", timeout_graceful_shutdown=5))
    listener = socket.create_server(("127.0.0.1", 0), backlog=512)
    thread = threading.Thread(target=server.run, args=([listener],))
    thread.start()
    try:
        yield listener.getsockname()[1]
    finally:
        server.should_exit = True
        thread.join()
        listener.close()


@pytest.fixture(scope="module")
def port(predictor):
    with running(make_app(predictor, LIMITS, threshold=0.0)) as number:
        yield number


def ask(port, path="/predict", body=None, method="POST", **headers):
    """Status, headers and body of an answer."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=300)
    try:
        connection.request(method, path, body, headers)
        answer = connection.getresponse()
        return answer.status, answer.headers, answer.read()
    finally:
        connection.close()


def picture(size=(50, 70), seed=0, ending=".png"):
    pixels = np.random.default_rng(seed).integers(0, 255, (*size, 3), np.uint8)
    return cv2.imencode(ending, pixels)[1].tobytes()


def bomb():
    """A PNG of a few bytes whose header claims 40000 x 40000 pixels."""
    head = b"IHDR" + struct.pack(">IIBBBBB", 40000, 40000, 8, 2, 0, 0, 0)
    body = b"IDAT" + zlib.compress(b"\0" * 100)
    chunks = [
        struct.pack(">I", len(x) - 4) + x + struct.pack(">I", zlib.crc32(x))
        for x in (head, body, b"IEND")
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def form(*files):
    """Body and content type of a form."""
    parts = [
        b'--x\r\nContent-Disposition: form-data; name="file"; filename="../../etc/passwd"\r\n'
        b"Content-Type: image/png\r\n\r\n" + file + b"\r\n"
        for file in files
    ]
    return b"".join(parts) + b"--x--\r\n", {"Content-Type": "multipart/form-data; boundary=x"}


# ------------------------------------------------------------------ answers


def test_json_has_the_instances_of_the_predictor(port, predictor):
    status, headers, body = ask(port, body=picture())
    assert (status, headers["content-type"]) == (200, "application/json")
    content = json.loads(body)
    assert (content["height"], content["width"]) == (50, 70)
    expected = predictor(cv2.imdecode(np.frombuffer(picture(), np.uint8), 1))
    assert len(content["instances"]) == len(expected.instances) == 3
    for entry, other in zip(content["instances"], expected.to_coco(), strict=True):
        assert entry == {key: value for key, value in other.items() if key != "image_id"}
        assert entry["category_id"] in (3, 5, 9)


def test_masks_are_polygons_or_none(port):
    whole = json.loads(ask(port, body=picture())[2])["instances"]
    path = "/predict?masks=polygons&tolerance=0"
    traced = json.loads(ask(port, path, picture())[2])["instances"]
    for entry, other in zip(traced, whole, strict=True):
        rle = mask_utils.merge(mask_utils.frPyObjects(entry["segmentation"], 50, 70))
        union = mask_utils.iou([rle], [other["segmentation"]], [False])
        assert union[0, 0] > 0.8  # holes are filled
    bare = json.loads(ask(port, "/predict?masks=none", picture())[2])["instances"]
    assert bare == [{k: v for k, v in x.items() if k != "segmentation"} for x in whole]


def test_a_threshold_leaves_out_what_scores_less(port):
    scores = [x["score"] for x in json.loads(ask(port, body=picture())[2])["instances"]]
    path = f"/predict?threshold={scores[1]}"
    kept = [x["score"] for x in json.loads(ask(port, path, picture())[2])["instances"]]
    assert kept == [x for x in scores if x >= scores[1]]
    assert ask(port, "/predict?threshold=1&output=cutout", picture())[0] == 204


def test_images_are_drawn_and_cut_out(port):
    status, headers, body = ask(port, "/predict?output=overlay", picture())
    assert (status, headers["content-type"]) == (200, "image/png")
    drawn = cv2.imdecode(np.frombuffer(body, np.uint8), cv2.IMREAD_UNCHANGED)
    assert drawn.shape == (50, 70, 3)
    body = ask(port, "/predict?output=cutout", picture())[2]
    assert cv2.imdecode(np.frombuffer(body, np.uint8), cv2.IMREAD_UNCHANGED).shape[2] == 4
    status, headers, body = ask(port, "/predict?output=cutouts", picture())
    names = zipfile.ZipFile(io.BytesIO(body)).namelist()
    assert headers["content-type"] == "application/zip"
    assert len(names) == 3 and all(name.startswith(f"0{k}_") for k, name in enumerate(names))


def test_a_form_is_as_good_as_a_body(port):
    body, headers = form(picture())
    assert ask(port, body=body, **headers)[2] == ask(port, body=picture())[2]


@pytest.mark.parametrize("kind", ["multipart/form-data", "Multipart/Form-Data"])
def test_no_part_of_a_form_is_written_to_a_file(predictor, monkeypatch, kind):
    """Beyond its first megabyte a library would put it there, and fail where no file can be."""
    monkeypatch.setattr(tempfile, "tempdir", "/nowhere")
    large = picture((700, 900))
    assert len(large) > 1.5e6
    with running(make_app(predictor, Limits(bytes=2_000_000), threshold=0.0)) as port:
        body, headers = form(large)
        headers["Content-Type"] = headers["Content-Type"].replace("multipart/form-data", kind)
        status, _, content = ask(port, body=body, **headers)
    assert status == 200, content


def test_the_page_works_below_another_address(predictor):
    app = Starlette(routes=[Mount("/solo", make_app(predictor, LIMITS, threshold=0.0))])
    with running(app) as port:
        page = ask(port, "/solo/", method="GET")[2].decode()
        addresses = re.findall(r'fetch\("([^"?]+)', page)
        assert sorted(addresses) == ["model", "predict"]
        assert ask(port, "/solo/model", method="GET")[0] == 200
        assert ask(port, "/solo/predict", body=picture())[0] == 200


def test_the_page_and_what_the_model_is(port):
    status, headers, body = ask(port, "/", method="GET")
    assert status == 200 and b"predict?" in body
    assert "default-src 'none'" in headers["content-security-policy"]
    assert b"http://" not in body and b"https://" not in body
    model = json.loads(ask(port, "/model", method="GET")[2])
    assert model["classes"] == ["cup", "fork", "spoon"] and model["max_bytes"] == 50_000
    health = json.loads(ask(port, "/health", method="GET")[2])
    assert health["status"] == "ok" and health["done"] > 0


# ------------------------------------------------------------------ refusals

BAD = {
    "no image": ("", b"GIF? no", {}, 400, "not an image in a known format"),
    "cut off": ("", picture()[:2000], {}, 400, "damaged or truncated"),
    "empty": ("", b"", {}, 400, "has no image"),
    "bomb": ("", bomb(), {}, 413, "too large (limit"),
    "a pixel too many": ("", picture((120, 121), ending=".jpg"), {}, 413, "120 pixels; limit"),
    "a byte too many": ("", bytes(50_001), {}, 413, "larger than 50000 bytes"),
    "two files": ("", *form(picture(), picture()), 400, "Too many files"),
    "no file": ("", *form(), 400, "the form has no file"),
    "no form": ("", b"x", {"Content-Type": "multipart/form-data; boundary=x"}, 400, ""),
    "a path": ("?path=/etc/passwd", b"", {}, 400, "'path' is no parameter"),
    "a URL": ("?url=http://a", b"", {}, 400, "'url' is no parameter"),
    "an output": ("?output=mask", picture(), {}, 400, "output must be one of json, overlay"),
    "a score": ("?threshold=nan", picture(), {}, 400, "threshold must be a number in [0, 1]"),
}


@pytest.mark.parametrize("kind", BAD)
def test_what_cannot_be_predicted_is_refused_in_a_line(port, kind):
    query, body, headers, status, text = BAD[kind]
    got, answered, content = ask(port, f"/predict{query}", body, **headers)
    assert (got, answered["content-type"]) == (status, "application/json"), content
    error = json.loads(content)["error"]
    assert text in error and "\n" not in error


def test_a_body_without_a_length_is_bounded_too(port):
    chunks = (bytes(1000) for _ in range(51))
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    connection.request("POST", "/predict", chunks, encode_chunked=True,
                       headers={"Transfer-Encoding": "chunked"})  # fmt: skip
    answer = connection.getresponse()
    assert answer.status == 413, answer.read()
    connection.close()


def test_the_limits_themselves_are_allowed(port):
    assert ask(port, body=picture((120, 120), ending=".jpg"))[0] == 200
    padded = picture() + bytes(50_000 - len(picture()))
    assert len(padded) == 50_000 and ask(port, body=padded)[0] == 200


def test_other_hosts_names_and_methods_are_refused(port):
    assert ask(port, body=picture(), Host="evil.example")[0] == 400
    assert ask(port, method="GET")[0] == 405
    assert ask(port, "/../pyproject.toml", method="GET")[0] == 404


def test_an_upload_that_stalls_ends(predictor):
    limits = Limits(seconds=0.2)
    with running(make_app(predictor, limits)) as port:
        with socket.create_connection(("127.0.0.1", port)) as client:
            client.sendall(
                b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\n"
            )
            client.settimeout(20)
            assert client.recv(100).startswith(b"HTTP/1.1 408")
        assert json.loads(ask(port, "/health", method="GET")[2])["waiting"] == 0


def test_a_model_that_fails_fails_alone(predictor, monkeypatch):
    def fail(images):
        if images.shape[:2] == (64, 64):
            raise RuntimeError("no such\nkernel")
        return SOLOPredictor.__call__(predictor, images)

    with running(make_app(Stand(predictor, fail))) as port:
        status, _, body = ask(port, body=picture((64, 64)))
        assert (status, json.loads(body)["error"]) == (500, "RuntimeError: no such kernel")
        assert ask(port, body=picture())[0] == 200


class Stand:
    """A predictor that does something else when it is called."""

    def __init__(self, predictor, run):
        self.__dict__.update(vars(predictor), run=run, max_value=0)

    def __call__(self, image):
        return self.run(image)


# ------------------------------------------------------------------ many at once


def test_more_than_can_wait_are_told_to_come_again(predictor, monkeypatch):
    go, decoded = threading.Event(), []
    decode = application.decode_image
    monkeypatch.setattr(
        application, "decode_image", lambda *a, **k: decoded.append(1) or decode(*a, **k)
    )

    def run(image):
        go.wait(30)
        return predictor(image)

    with running(make_app(Stand(predictor, run), Limits(waiting=5))) as port:
        with ThreadPoolExecutor(5) as clients:
            first = [clients.submit(ask, port, "/predict", picture()) for _ in range(5)]
            while json.loads(ask(port, "/health", method="GET")[2])["waiting"] < 5:
                time.sleep(0.01)
            status, headers, body = ask(port, body=picture())
            assert (status, json.loads(body)["error"][:14]) == (503, "5 requests are")
            assert int(headers["retry-after"]) >= 1
            assert len(decoded) <= 2  # uploads wait as they came, not as pixels
            go.set()
            assert [x.result()[0] for x in first] == [200] * 5
        assert ask(port, body=picture())[0] == 200


def test_two_hundred_at_once_get_every_answer(predictor):
    limits = Limits(waiting=48, bytes=LIMITS.bytes, pixels=LIMITS.pixels)
    with running(make_app(predictor, limits, threshold=0.0)) as port:
        crowd(port)


def crowd(port):
    """Half of 200 clients send good images, half send what is refused."""
    good = [picture(size, seed) for seed, size in enumerate(SIZES)]
    expected = [ask(port, body=body)[2] for body in good]
    bad = list(BAD.values())

    def client(k):
        if k % 2:
            query, body, headers, status, _ = bad[k // 2 % len(bad)]
        else:
            query, body, headers, status = "", good[k // 2 % 5], {}, 200
        for _ in range(1000):
            got, _, content = ask(port, f"/predict{query}", body, **headers)
            if got != 503:
                return k, got == status, content
            time.sleep(0.5)
        raise AssertionError("never answered")

    with ThreadPoolExecutor(200) as clients:
        answers = list(clients.map(client, range(200)))
    assert all(right for _, right, _ in answers)
    assert all(content == expected[k // 2 % 5] for k, _, content in answers if k % 2 == 0)
    health = json.loads(ask(port, "/health", method="GET")[2])
    assert (health["waiting"], health["done"]) == (0, 5 + 100)


# ------------------------------------------------------------------ the command


def test_the_command_serves_until_it_is_stopped(predictor, tmp_path, monkeypatch):
    predictor.save_pretrained(tmp_path / "model")
    served = []

    def run(self, sockets):
        served.append((self.config.app, sockets[0].getsockname()))
        signal.raise_signal(signal.SIGTERM)

    monkeypatch.setattr(uvicorn.Server, "run", run)
    done = call(cli.main, "serve", tmp_path / "model", "--port", "0", "--device", "cpu")
    ((_, address),) = served
    assert (done.returncode, address[0]) == (0, "127.0.0.1"), done.stderr
    assert done.stdout.splitlines()[-1].startswith(f"http://127.0.0.1:{address[1]} ")


@pytest.mark.parametrize(
    ("options", "code", "text"),
    [
        (["--port", "65536"], 2, "--port must be in [0, 65535], got 65536"),
        (["--max-waiting", "0"], 2, "--max-waiting must be positive, got 0"),
        (["--confidence-threshold", "2"], 2, "--confidence-threshold must be in [0, 1]"),
        (["--port", "0"], 2, "'nothing'"),
        (["--host", "192.0.2.1"], 1, "192.0.2.1 port 8000 cannot be had"),
    ],
)
def test_a_wrong_command_ends_in_a_line(options, code, text):
    done = call(cli.main, "serve", "nothing", *options)
    assert done.returncode == code
    assert text in done.stderr.replace("nothing is", "'nothing'") and "Traceback" not in done.stderr
