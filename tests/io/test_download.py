"""Facts about fetching a file, with a server on this machine: whole, resumed, refused."""

from __future__ import annotations

import functools
import hashlib
import http.server
import threading
import time

import pytest

from solo_d2.io import http as module
from solo_d2.io.download import DownloadError, download, sha256

CONTENT = bytes(range(256)) * 5000  # more than one chunk
DIGEST = hashlib.sha256(CONTENT).hexdigest()


class Host(http.server.BaseHTTPRequestHandler):
    """Serves `content`; every test sets how, by attributes of the server."""

    def do_GET(self):
        self.server.requests.append(dict(self.headers))
        self.server.answer(self)

    def log_message(self, *arguments):
        pass


@pytest.fixture
def host():
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Host)
    server.requests, server.answer = [], whole
    server.url = f"http://127.0.0.1:{server.server_port}/file.pth"
    thread = threading.Thread(target=functools.partial(server.serve_forever, 0.01))
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def send(handler, body, *, status=200, **headers):
    handler.send_response(status)
    headers = {"Content-Length": str(len(body)), "ETag": '"1"'} | {
        key.replace("_", "-"): value for key, value in headers.items()
    }
    for key, value in headers.items():
        if value is not None:
            handler.send_header(key, value)
    handler.end_headers()
    handler.wfile.write(body)


def whole(handler):
    send(handler, CONTENT)


def ranges(handler, content=CONTENT, etag='"1"'):
    """A host that continues the same file, and sends a changed one from its start."""
    wanted = handler.headers.get("Range")
    if wanted is None or handler.headers.get("If-Range") != etag:
        return send(handler, content, ETag=etag)
    start = int(wanted.removeprefix("bytes=").removesuffix("-"))
    extent = f"bytes {start}-{len(content) - 1}/{len(content)}"
    return send(handler, content[start:], status=206, ETag=etag, Content_Range=extent)


def cut(handler, after=300_000, **headers):
    """A connection that ends early."""
    send(handler, CONTENT[:after], **{"Content_Length": str(len(CONTENT)), **headers})


def leave_part(host, path):
    """A download that broke off after 300 000 bytes."""
    host.answer = cut
    with pytest.raises(DownloadError, match="300000 of 1280000 bytes; try again"):
        download(host.url, path)
    assert not path.exists()


def test_file_comes_whole_and_leaves_nothing_beside_it(host, tmp_path):
    path = tmp_path / "file.pth"
    download(host.url, path, DIGEST[:8])
    assert path.read_bytes() == CONTENT
    assert sha256(path) == DIGEST
    assert list(tmp_path.iterdir()) == [path]
    assert "Range" not in host.requests[0]


def test_interrupted_download_goes_on_where_it_stopped(host, tmp_path):
    path = tmp_path / "file.pth"
    leave_part(host, path)
    host.answer = ranges
    download(host.url, path, DIGEST[:8])
    assert path.read_bytes() == CONTENT
    assert host.requests[1]["Range"] == "bytes=300000-"
    assert list(tmp_path.iterdir()) == [path]


def test_changed_file_is_not_glued_to_an_old_part(host, tmp_path):
    path = tmp_path / "file.pth"
    leave_part(host, path)
    new = CONTENT[::-1]
    host.answer = functools.partial(ranges, content=new, etag='"2"')
    download(host.url, path)
    assert path.read_bytes() == new


def test_host_without_ranges_sends_all_again(host, tmp_path):
    path = tmp_path / "file.pth"
    leave_part(host, path)
    host.answer = whole
    download(host.url, path)
    assert path.read_bytes() == CONTENT


@pytest.mark.parametrize("etag", [None, 'W/"1"'])
def test_part_without_a_sure_mark_is_not_continued(host, tmp_path, etag):
    path = tmp_path / "file.pth"
    host.answer = functools.partial(cut, ETag=etag)
    with pytest.raises(DownloadError):
        download(host.url, path)
    host.answer = ranges
    download(host.url, path)
    assert "Range" not in host.requests[1]
    assert path.read_bytes() == CONTENT


def test_part_is_continued_by_date_where_there_is_no_strong_etag(host, tmp_path):
    date = "Wed, 21 Oct 2015 07:28:00 GMT"
    host.answer = functools.partial(cut, ETag='W/"1"', Last_Modified=date)
    with pytest.raises(DownloadError):
        download(host.url, tmp_path / "file.pth")
    host.answer = functools.partial(ranges, etag=date)
    download(host.url, tmp_path / "file.pth")
    assert (tmp_path / "file.pth").read_bytes() == CONTENT
    assert host.requests[1]["Range"] == "bytes=300000-"


def test_part_that_is_too_long_is_fetched_again(host, tmp_path):
    path = tmp_path / "file.pth"
    leave_part(host, path)

    def refuse_ranges(handler):
        if "Range" in handler.headers:
            return send(handler, b"", status=416, Content_Range="bytes */1000")
        return whole(handler)

    host.answer = refuse_ranges
    download(host.url, path)
    assert path.read_bytes() == CONTENT


def test_wrong_range_is_refused(host, tmp_path):
    path = tmp_path / "file.pth"
    leave_part(host, path)
    host.answer = functools.partial(send, body=b"x", status=206, Content_Range="bytes 5-5/6")
    with pytest.raises(DownloadError, match="another range"):
        download(host.url, path)
    host.answer = ranges
    download(host.url, path)
    assert path.read_bytes() == CONTENT


def test_wrong_hash_is_deleted(host, tmp_path):
    with pytest.raises(DownloadError, match=f"begins with {DIGEST[:8]}, expected 00000000"):
        download(host.url, tmp_path / "file.pth", "00000000")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("body", "kind"),
    [(b"<!doctype html>", "text/html; charset=utf-8"), (b"\n <html>", "application/octet-stream")],
)
def test_web_page_is_not_a_file(host, tmp_path, body, kind):
    host.answer = functools.partial(send, body=body, Content_Type=kind)
    with pytest.raises(DownloadError, match="web page"):
        download(host.url, tmp_path / "file.pth")
    assert not (tmp_path / "file.pth").exists()


def test_web_page_does_not_spoil_a_part(host, tmp_path):
    path = tmp_path / "file.pth"
    leave_part(host, path)
    host.answer = functools.partial(send, body=b"<html>", Content_Type="text/html")
    with pytest.raises(DownloadError):
        download(host.url, path)
    host.answer = ranges
    download(host.url, path)
    assert host.requests[-1]["Range"] == "bytes=300000-"
    assert path.read_bytes() == CONTENT


@pytest.mark.parametrize("status", [403, 404, 500])
def test_refusal_is_named(host, tmp_path, status):
    host.answer = functools.partial(send, body=b"no", status=status)
    with pytest.raises(DownloadError, match=f"answers {status}"):
        download(host.url, tmp_path / "file.pth")
    assert list(tmp_path.iterdir()) == []


def test_empty_answer_is_refused(host, tmp_path):
    host.answer = functools.partial(send, body=b"")
    with pytest.raises(DownloadError, match="0 bytes"):
        download(host.url, tmp_path / "file.pth")
    assert not (tmp_path / "file.pth").exists()


def test_file_of_unknown_size_is_taken(host, tmp_path):
    host.answer = functools.partial(send, body=CONTENT, Content_Length=None)
    download(host.url, tmp_path / "file.pth", DIGEST[:8])
    assert (tmp_path / "file.pth").read_bytes() == CONTENT


def test_dead_host_is_an_error_at_once(tmp_path):
    with pytest.raises(DownloadError, match="cannot be reached"):
        download("http://127.0.0.1:9/file.pth", tmp_path / "file.pth")


def test_silent_host_times_out(host, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "TIMEOUT", 0.2)
    host.answer = lambda handler: time.sleep(0.6)
    with pytest.raises(DownloadError, match="cannot be reached"):
        download(host.url, tmp_path / "file.pth")


def test_stalled_transfer_times_out_and_can_go_on(host, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "TIMEOUT", 0.2)

    def stall(handler):
        cut(handler, after=1_100_000)
        time.sleep(0.6)

    host.answer = stall
    with pytest.raises(DownloadError, match="broke off"):
        download(host.url, tmp_path / "file.pth")
    host.answer = ranges
    download(host.url, tmp_path / "file.pth")
    assert "Range" in host.requests[1]
    assert (tmp_path / "file.pth").read_bytes() == CONTENT


def test_redirect_is_followed(host, tmp_path):
    def elsewhere(handler):
        if handler.path == "/file.pth":
            return send(handler, b"", status=302, Location="/other")
        return whole(handler)

    host.answer = elsewhere
    download(host.url, tmp_path / "file.pth")
    assert (tmp_path / "file.pth").read_bytes() == CONTENT


@pytest.mark.parametrize("target", ["file:///etc/hostname", "ftp://127.0.0.1/x"])
def test_redirect_to_another_scheme_is_refused(host, tmp_path, target):
    host.answer = functools.partial(send, body=b"", status=302, Location=target)
    with pytest.raises(DownloadError, match=r"redirect|Redirect|302"):
        download(host.url, tmp_path / "file.pth")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("url", ["file:///etc/hostname", "ftp://127.0.0.1/x", "/etc/hostname"])
def test_only_http_is_fetched(tmp_path, url):
    with pytest.raises(DownloadError, match="http or https"):
        download(url, tmp_path / "file.pth")
