"""Requests over HTTP that end: no silent, slow or wandering host is waited for."""

from __future__ import annotations

import base64
import io
import time
from collections.abc import Mapping
from http.client import HTTPConnection, HTTPException, HTTPResponse, HTTPSConnection
from typing import Any, cast
from urllib.error import HTTPError
from urllib.parse import quote, unquote, urlsplit, urlunsplit
from urllib.request import (
    HTTPDefaultErrorHandler,
    HTTPErrorProcessor,
    HTTPHandler,
    HTTPRedirectHandler,
    HTTPSHandler,
    OpenerDirector,
    ProxyHandler,
    Request,
    UnknownHandler,
)

from .errors import one_line, printable

TIMEOUT = 30.0
"""Seconds that a host may be silent, or send fewer than `MIN_RATE` bytes a second."""
MIN_RATE = 1024
"""Bytes a second, on average over `TIMEOUT`; a host that sends one by one would never be silent."""


class RequestError(Exception):
    """A request failed; the text is one line that says why.

    Attributes:
        status: that the host answered; 0 if it did not.
    """

    def __init__(self, text: str, status: int = 0) -> None:
        super().__init__(text)
        self.status = status


def open_url(url: str, headers: Mapping[str, str]) -> HTTPResponse:
    """Ask for a URL.

    Args:
        url: http or https, with or without a name and a password, which go to this host alone.
        headers: of the request.

    Returns:
        The answer with status 200 or 206, to be read and closed. Reading it raises an `OSError`
        or `HTTPException` when the host breaks off or is too slow.

    Raises:
        RequestError: Another scheme, a host that cannot be reached, is too slow or refuses, or a
            redirect away from http and https.
    """
    try:
        request = _request(url, headers)
        answer = cast(HTTPResponse, _opener().open(request, timeout=TIMEOUT))
    except HTTPError as error:
        error.close()
        text = printable(" ".join(str(error.reason).split()))
        raise RequestError(f"the host answers {error.code} {text}".rstrip(), error.code) from error
    except (OSError, HTTPException, ValueError, OverflowError) as error:  # also of wrong URLs
        reason = getattr(error, "reason", None)  # of a URLError, often another error
        text = one_line(reason if isinstance(reason, Exception) else error)
        raise RequestError(f"the host cannot be reached ({text})") from error
    if answer.status not in (200, 206):
        answer.close()
        raise RequestError(f"the host answers {answer.status} instead of the file", answer.status)
    return answer


def public(url: str) -> str:
    """Return a URL for people and logs, without passwords and keys."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return "a URL that is none"
    host = parts.netloc.rpartition("@")[2]
    return printable(urlunsplit((parts.scheme, host, parts.path, "", "")))


def _request(url: str, headers: Mapping[str, str]) -> Request:
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise RequestError(f"{public(url)} is not an http or https address")
    user, at, host = parts.netloc.rpartition("@")
    path = quote(parts.path or "/", safe="/%:@!$&'()*+,;=~")
    query = quote(parts.query, safe="/%:@!$&'()*+,;=~?")
    bare = urlunsplit((parts.scheme, host, path, query, ""))
    request = Request(bare, headers={"User-Agent": "solo_d2", **headers})
    if at:  # never sent to a host that this one redirects to
        login = base64.b64encode(unquote(user).encode()).decode()
        request.add_unredirected_header("Authorization", f"Basic {login}")
    return request


def _opener() -> OpenerDirector:
    """What opens http and https alone: there is no way to a file or to FTP."""
    opener = OpenerDirector()
    for handler in (
        ProxyHandler(),
        UnknownHandler(),
        _HTTP(),
        _HTTPS(),
        HTTPDefaultErrorHandler(),
        _Redirects(),
        HTTPErrorProcessor(),
    ):
        opener.add_handler(handler)
    return opener


class _Redirects(HTTPRedirectHandler):
    def redirect_request(
        self, req: Request, fp: Any, code: int, msg: str, headers: Any, newurl: str
    ) -> Request | None:
        fp.close()  # urllib would read the text beside the redirect, however long it is
        if urlsplit(newurl).scheme not in (urlsplit(req.full_url).scheme, "https"):
            raise RequestError(f"the host redirects to {public(newurl)}, not to https")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


class _Paced(io.RawIOBase):
    """Bytes of a socket; too slow ones are an error."""

    def __init__(self, source: io.RawIOBase) -> None:
        self.source = source
        self.waited, self.count = 0.0, 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        start = time.monotonic()
        count = self.source.readinto(buffer)
        self.waited += time.monotonic() - start
        self.count += count or 0
        if self.waited > TIMEOUT:
            if count and self.count < MIN_RATE * self.waited:
                raise TimeoutError(f"the host sends fewer than {MIN_RATE} bytes a second")
            self.waited, self.count = 0.0, 0
        return count

    def close(self) -> None:
        self.source.close()
        super().close()


class _PacedResponse(HTTPResponse):
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fp = io.BufferedReader(_Paced(self.fp.detach()))


class _Connection(HTTPConnection):
    response_class = _PacedResponse


class _SecureConnection(HTTPSConnection):
    response_class = _PacedResponse


class _HTTP(HTTPHandler):
    def http_open(self, req: Request) -> HTTPResponse:
        return self.do_open(_Connection, req)


class _HTTPS(HTTPSHandler):
    def https_open(self, req: Request) -> HTTPResponse:
        return self.do_open(_SecureConnection, req)
