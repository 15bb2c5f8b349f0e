"""Weights by URL: what a host can do wrong or on purpose, and what becomes of it."""

from __future__ import annotations

import io
import logging
import pickle
import re
import socket
import zipfile

import pytest
import torch
from detectron2.utils.file_io import PathManager
from hosts import raw, running_host, send, silent
from payloads import Payload
from torch import nn

from solo_d2.checkpoint import load_weights, places
from solo_d2.checkpoint.places import find_weights, public_name
from solo_d2.io import download, http


def saved(**more):
    file = io.BytesIO()
    torch.save({"model": nn.Linear(3, 2).state_dict(), **more}, file)
    return file.getvalue()


WEIGHTS = saved()


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """A cache of the test's own; nothing may come to lie beside it."""
    folder = tmp_path / "a" / "b" / "cache"
    monkeypatch.setenv("FVCORE_CACHE", str(folder))
    yield folder
    outside = [x for x in tmp_path.rglob("*") if x.is_file() and folder not in x.parents]
    assert outside == []


@pytest.fixture
def host():
    with running_host(send(WEIGHTS)) as server:
        yield server


def kept(cache):
    """Names of the files that were taken over from a host."""
    return [x.name for x in cache.rglob("*") if x.is_file() and not x.name.endswith(".lock")]


CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


def chunked(*parts, end=b"0\r\n\r\n"):
    return raw(CHUNKED, *(b"%x\r\n%s\r\n" % (len(part), part) for part in parts), end)


def redirect(target, body=b""):
    return send(body, 302, Location=target)


def endless_redirect(handler):
    """Redirects with a text that never ends."""
    handler.wfile.write(b"HTTP/1.1 302 Found\r\nLocation: /b\r\n\r\n")
    while not handler.server.closing.is_set():
        handler.wfile.write(bytes(1 << 16))


def bomb():
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a/data.pkl", bytes(30 << 20))
    return file.getvalue()


ANSWERS = {
    "403": (send(b"", 403), "answers 403"),
    "404": (send(b"no", 404), "answers 404"),
    "500": (send(b"", 500), "answers 500"),
    "204, no content": (send(b"", 204), "answers 204"),
    "control characters in the reason": (
        raw(b"HTTP/1.1 404 \x1b[31mred\r\n\r\n"),
        r"404 .*\?\[31m",
    ),
    "no HTTP": (raw(b"SSH-2.0-OpenSSH_9.2\r\n"), "cannot be reached"),
    "closes at once": (raw(), "cannot be reached"),
    "a line without end": (raw(b"HTTP/1.1 200 OK\r\nX: " + b"x" * 99999), "cannot be reached"),
    "headers without end": (
        raw(b"HTTP/1.1 200 OK\r\n" + b"A: b\r\n" * 999),
        "cannot be reached .*headers",
    ),
    "redirects in a circle": (redirect("/a"), "answers 302"),
    "redirects to a file": (redirect("file:///etc/hostname"), "answers 302"),
    "redirects to ftp": (redirect("ftp://127.0.0.1/a"), "redirects to ftp"),
    "redirects nowhere": (redirect("http://[/"), "cannot be reached"),
    "redirects to a dead host": (redirect("http://127.0.0.1:9/a.pth"), "cannot be reached"),
    "text of a redirect without end": (endless_redirect, "answers 302"),
    "a web page by its type": (send(WEIGHTS, Content_Type="text/html"), "web page"),
    "a web page by its content": (send(b"\n <!doctype html>"), "web page"),
    "JSON": (send(b'{"error": "quota"}'), "is a JSON file"),
    "a picture": (send(b"\x89PNG" + bytes(99)), "is a PNG image"),
    "text": (send(b"Not found, sorry"), "is no checkpoint"),
    "nothing": (send(b""), "0 bytes"),
    "compressed though not asked for": (
        send(b"\x1f\x8b" + bytes(99), Content_Encoding="gzip"),
        "gzip archive",
    ),
    "a pickle with code": (send(pickle.dumps(Payload("/nowhere/marker"))), "would run code"),
    "a zip bomb": (send(bomb()), "is compressed"),
    "a damaged file": (send(WEIGHTS[:300] + b"\0\1" + WEIGHTS[302:]), "is damaged"),
    "half a file, said to be whole": (send(WEIGHTS[:500]), "is damaged"),
    "cut": (send(WEIGHTS[:500], Content_Length="9999"), "ended after 500 of 9999 bytes"),
    "cut chunks": (chunked(WEIGHTS[:500], end=b"ffff\r\nabc"), "broke off"),
    "wrong chunks": (chunked(WEIGHTS[:500], end=b"zz\r\n"), "broke off"),
    "too long by its length": (send(b"x", Content_Length=str(1 << 60)), "more than"),
    "another part than asked for": (
        send(b"x", 206, Content_Range="bytes 5-5/6"),
        "another range",
    ),
    "a part of unreadable extent": (send(b"x", 206, Content_Range="bytes ?"), "another range"),
}


@pytest.mark.parametrize("name", ANSWERS)
def test_bad_answer_is_one_line_and_stays_out_of_the_cache(host, cache, name):
    host.answer, said = ANSWERS[name]
    model = nn.Linear(3, 2)
    with pytest.raises(ValueError, match=said) as caught:
        load_weights(model, f"{host.url}/a.pth")
    text = str(caught.value)
    assert text.startswith(f"{host.url}/a.pth: cannot be fetched (") and text.isprintable()
    assert "set MODEL.WEIGHTS to its path" in text
    assert all(".part" in x for x in kept(cache))
    # Nothing of it is in the way of a better answer.
    host.answer = send(WEIGHTS)
    load_weights(model, f"{host.url}/a.pth")
    assert len(kept(cache)) == 2


GOOD = {
    "of unknown length": send(WEIGHTS, Content_Length=None),
    "in chunks": chunked(WEIGHTS[:500], WEIGHTS[500:]),
    "with a length that is no number": send(WEIGHTS, Content_Length="many"),
    "with a negative length": send(WEIGHTS, Content_Length="-5"),
    "with a name of the host's choice": send(
        WEIGHTS, Content_Disposition='attachment; filename="../../x.pth"'
    ),
    "with a mark that cannot be sent back": send(WEIGHTS, ETag='"\xfc"'),
}


@pytest.mark.parametrize("name", GOOD)
def test_odd_but_whole_answer_is_taken(host, cache, name):
    host.answer = GOOD[name]
    load_weights(nn.Linear(3, 2), f"{host.url}/a.pth")
    assert len(kept(cache)) == 2


def test_answer_without_end_is_given_up(host, monkeypatch, cache):
    monkeypatch.setattr(download, "MAX_BYTES", 1000)
    host.answer = chunked(b"x" * 600, b"x" * 600)
    with pytest.raises(ValueError, match="more than 1000 bytes"):
        load_weights(nn.Linear(3, 2), f"{host.url}/a.pth")


SLOW = {
    "silent": silent(),
    "silent in its headers": silent(b"HTTP/1.1 200 OK\r\nContent-"),
    "silent in the file": silent(b"HTTP/1.1 200 OK\r\n\r\n" + WEIGHTS[:300]),
    "headers byte by byte": raw(*(b"H" for _ in range(600)), pause=0.02),
    "file byte by byte": raw(b"HTTP/1.1 200 OK\r\n\r\n", *(b"P" for _ in range(600)), pause=0.02),
    "chunks of a byte": raw(CHUNKED, *(b"1\r\nP\r\n" for _ in range(600)), pause=0.02),
}


@pytest.mark.parametrize("name", SLOW)
def test_slow_host_is_given_up(host, monkeypatch, name):
    host.answer = SLOW[name]
    monkeypatch.setattr(http, "TIMEOUT", 0.3)
    with pytest.raises(ValueError, match=r"timed out|fewer than 1024 bytes a second"):
        load_weights(nn.Linear(3, 2), f"{host.url}/a.pth")


def test_every_connection_has_a_time_out(monkeypatch):
    seen = []

    def connect(address, timeout=None, *arguments, **more):
        seen.append(timeout)
        raise ConnectionRefusedError("no")

    monkeypatch.setattr("socket.create_connection", connect)
    for scheme in ("http", "https"):
        with pytest.raises(ValueError, match="cannot be reached"):
            load_weights(nn.Linear(3, 2), f"{scheme}://127.0.0.1/a.pth")
    assert seen == [http.TIMEOUT, http.TIMEOUT] and 0 < http.TIMEOUT <= 60


def test_interrupted_file_is_continued(host, cache):
    host.answer = send(WEIGHTS[:500], ETag='"1"', Content_Length=str(len(WEIGHTS)))
    with pytest.raises(ValueError, match="try again to go on"):
        load_weights(nn.Linear(3, 2), f"{host.url}/a.pth")
    extent = f"bytes 500-{len(WEIGHTS) - 1}/{len(WEIGHTS)}"
    host.answer = send(WEIGHTS[500:], 206, ETag='"1"', Content_Range=extent)
    load_weights(nn.Linear(3, 2), f"{host.url}/a.pth")
    assert host.asked[1][1]["Range"] == "bytes=500-"


# Names


PATHS = [
    "/../../planted.pth",
    "/a/../../../planted.pth",
    "/%2e%2e/%2e%2e/planted.pth",
    "/..%2f..%2fplanted.pth",
    "//double//slashes//a.pth",
    "/C:\\Windows\\a.pth",
    "/.hidden",
    "/..",
    "/",
    "",
    "/a.pth?file=../../../planted.pth",
    "/a.pth#../../planted.pth",
    "/" + "x" * 3000 + ".pth",
    "/gewichte ü.pth",
    "/a.pth\x00/b",
    "/a.pth\r\nX-Evil: 1",
]


@pytest.mark.parametrize("path", PATHS, ids=repr)
def test_path_of_a_url_decides_on_no_folder(host, cache, path):
    try:
        load_weights(nn.Linear(3, 2), host.url + path)
    except ValueError as error:
        assert str(error).isprintable()
    assert {x.parent for x in cache.rglob("*") if x.is_file()} == {cache / "solo_d2" / "urls"}
    assert all("X-Evil" not in headers for _, headers in host.asked)


URLS = [
    "http://", "http:///a.pth", "http://[", "http://[::1/a.pth", "http://127.0.0.1:99999/a.pth",
    "http://127.0.0.1:abc/a", "http://127.0.0.1:-1/a", "http:// 127.0.0.1/a", "http://a b/c",
    "http://\x00/a", "http://%00/a", "https://" + "a" * 300 + "/a", "http://..../a", "http://@/a",
    "http://me:pass@/a", "http://exämple.invalid/a", "http://\ud800/a", "HTTP://127.0.0.1:9/a",
    "http://?a", "http://#a", "https://\u2100/a",
]  # fmt: skip


@pytest.mark.parametrize("url", URLS, ids=ascii)
def test_urls_that_are_none_are_one_line(monkeypatch, url):
    def unknown(*arguments, **more):
        raise socket.gaierror("Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    with pytest.raises(ValueError, match="cannot be fetched") as caught:
        load_weights(nn.Linear(3, 2), url)
    assert str(caught.value).isprintable() and "pass" not in str(caught.value)


def test_equal_file_names_of_other_urls_are_other_files(host):
    files = [find_weights(f"{host.url}/{folder}/a.pth")[0] for folder in ("x", "y", "x?1", "x")]
    assert len(set(files)) == 3 and files[0] == files[3]
    assert [path for path, _ in host.asked] == ["/x/a.pth", "/y/a.pth", "/x?1/a.pth"]


SCHEMES = ["s3", "gs", "manifold", "lpr", "file", "ftp", "hdfs", "LPR", "everstore", "data", "x+y"]


@pytest.mark.parametrize("scheme", SCHEMES)
def test_other_schemes_are_refused_by_name(monkeypatch, tmp_path, scheme):
    for name in ("get_local_path", "open", "exists", "isfile"):
        monkeypatch.setattr(PathManager, name, None)  # nobody may ask it
    with pytest.raises(
        ValueError, match=re.escape(f"not read through {scheme.lower()}://")
    ) as caught:
        load_weights(nn.Linear(3, 2), f"{scheme}://host/a.pth")
    assert "detectron2, hf, http, https, solo" in str(caught.value)


def test_iopath_sees_no_url(host, monkeypatch):
    for name in ("get_local_path", "open", "exists", "isfile"):
        monkeypatch.setattr(PathManager, name, None)
    monkeypatch.setattr(places, "_DETECTRON2_URL", host.url + "/detectron2/")
    load_weights(nn.Linear(3, 2), f"{host.url}/a.pth")
    load_weights(nn.Linear(3, 2), "detectron2://ImageNetPretrained/MSRA/R-50.pkl")
    assert host.asked[1][0] == "/detectron2/ImageNetPretrained/MSRA/R-50.pkl"


def test_names_of_detectron2_mean_its_own_host(monkeypatch):
    asked = []
    monkeypatch.setattr(places, "_fetch", asked.append)
    find_weights("detectron2://ImageNetPretrained/MSRA/R-50.pkl")
    find_weights("catalog://ImageNetPretrained/FAIR/X-101-64x4d")
    assert asked == [
        "https://dl.fbaipublicfiles.com/detectron2/ImageNetPretrained/MSRA/R-50.pkl",
        "https://dl.fbaipublicfiles.com/detectron/ImageNetPretrained/FBResNeXt/X-101-64x4d.pkl",
    ]


@pytest.mark.parametrize(
    "name", ["../a.pkl", "a/../../b.pkl", "", "/etc/passwd", "a//b.pkl", "%2e%2e/a", "a b", "a?b"]
)
def test_other_names_of_detectron2_are_refused(name):
    with pytest.raises(ValueError, match="is not a name of Detectron2's files"):
        find_weights(f"detectron2://{name}")
    with pytest.raises(ValueError, match="not in Detectron2's catalogue"):
        find_weights(f"catalog://{name}")


def test_file_that_detectron2_fetched_is_used(host, cache, monkeypatch, caplog):
    monkeypatch.setattr(places, "_DETECTRON2_URL", host.url + "/detectron2/")
    old = cache / "detectron2" / "a" / "b.pth"
    old.parent.mkdir(parents=True)
    old.write_bytes(WEIGHTS)
    assert find_weights("detectron2://a/b.pth")[0] == old
    assert host.asked == []
    old.write_text("<html>a page that was cached")
    assert find_weights("detectron2://a/b.pth")[0] != old
    assert "is a web page" in caplog.text and len(host.asked) == 1


def test_query_of_a_host_stays_in_the_url(host):
    file, heuristics = find_weights(f"{host.url}/a.pth?sig=x%2F1&matching_heuristics=True")
    assert heuristics and file.is_file()
    assert host.asked[0][0] == "/a.pth?sig=x%2F1"


# What was downloaded before


def test_second_use_asks_nobody(host):
    assert find_weights(f"{host.url}/a.pth") == find_weights(f"{host.url}/a.pth")
    assert len(host.asked) == 1


@pytest.mark.parametrize("harm", ["changed", "cut", "unsealed"])
def test_file_that_changed_in_the_cache_is_fetched_again(host, harm, caplog):
    file, _ = find_weights(f"{host.url}/a.pth")
    if harm == "unsealed":
        file.with_name(file.name + ".sha256").unlink()
    else:
        content = bytearray(WEIGHTS)
        content[300] ^= 1
        file.write_bytes(content if harm == "changed" else WEIGHTS[:500])
    again, _ = find_weights(f"{host.url}/a.pth")
    assert again == file and file.read_bytes() == WEIGHTS
    assert len(host.asked) == 2
    assert ("has changed since it was downloaded" in caplog.text) is (harm != "unsealed")


def test_hash_in_the_name_is_verified_for_hosts_that_publish_it():
    digest = places._published_digest
    assert digest("https://download.pytorch.org/models/resnet50-0676ba61.pth") == "0676ba61"
    assert digest("https://download.openmmlab.com/a/b_3x_coco_2022-fed092d4.pth") == "fed092d4"
    assert digest("https://elsewhere.org/model-20230101.pth") == ""
    assert digest("https://download.pytorch.org/models/resnet50.pth") == ""


def test_cache_that_cannot_be_written_is_named(host, cache):
    cache.mkdir(parents=True)
    (cache / "solo_d2").write_text("a file where a folder should be")
    with pytest.raises(ValueError, match="FVCORE_CACHE"):
        load_weights(nn.Linear(3, 2), f"{host.url}/a.pth")


# Secrets


def test_passwords_and_keys_of_urls_are_not_logged(host, caplog):
    address = host.url.partition("//")[2]
    url = f"http://me:secret1@{address}/a.pth?token=secret2#secret3"
    with caplog.at_level(logging.DEBUG):
        load_weights(nn.Linear(3, 2), url)
        host.answer = send(b"", 404)
        with pytest.raises(ValueError, match="404") as caught:
            load_weights(nn.Linear(3, 2), url + "x")
    assert "secret" not in caplog.text + str(caught.value) + str(find_weights(url))
    assert host.asked[0][0] == "/a.pth?token=secret2"
    assert host.asked[0][1]["Authorization"] == "Basic bWU6c2VjcmV0MQ=="


def test_password_does_not_go_to_another_host(host):
    with running_host(send(WEIGHTS)) as other:
        host.answer = redirect(f"{other.url}/a.pth")
        address = host.url.partition("//")[2]
        load_weights(nn.Linear(3, 2), f"http://me:secret@{address}/a.pth")
        assert "Authorization" in host.asked[0][1]
        assert "Authorization" not in other.asked[0][1]


def test_redirect_from_https_to_http_is_refused():
    request = http._request("https://host/a.pth", {})
    with pytest.raises(http.RequestError, match="redirects to http://other/b, not to https"):
        http._Redirects().redirect_request(
            request, io.BytesIO(), 302, "Found", {}, "http://other/b?token=x"
        )
    plain = http._request("http://host/a.pth", {})
    followed = http._Redirects().redirect_request(
        plain, io.BytesIO(), 302, "Found", {}, "https://other/b"
    )
    assert followed.full_url == "https://other/b"


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("http://u:p@host:80/a.pth?x=1#y", "http://host:80/a.pth"),
        ("https://host/a.pth", "https://host/a.pth"),
        ("a b?c#d.pth", "a b?c#d.pth"),
        ("bell\a.pth", "bell?.pth"),
        ("http://[", "a URL that is none"),
    ],
)
def test_names_for_people(name, shown):
    assert public_name(name) == shown
