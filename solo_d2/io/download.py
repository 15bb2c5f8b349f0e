"""One file over HTTP: resumed where it broke off, checked, and whole once it has its name."""

from __future__ import annotations

import hashlib
import logging
import os
import re
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from urllib.error import HTTPError
from urllib.parse import urlsplit
from urllib.request import HTTPRedirectHandler, Request, build_opener

from tqdm import tqdm

from .errors import one_line

TIMEOUT = 30.0
"""Seconds that a host may be silent."""

_CHUNK = 1 << 20
_logger = logging.getLogger(__name__)


class DownloadError(Exception):
    """A file did not come; the text is one line that says why."""


def download(url: str, path: Path, sha256_prefix: str = "") -> None:
    """Fetch a file to `path`, in an existing folder.

    What arrives is kept in ``PATH.part`` and continued by the next call, if the host says (by
    ETag or Last-Modified) that the file is still the same. `path` itself appears complete or not
    at all. Two processes must not fetch the same path at once: hold a lock.

    Args:
        url: http or https. Redirects may not leave the scheme.
        path: The file to write.
        sha256_prefix: Hexadecimal digits that the file's SHA-256 must begin with; "" for unknown.

    Raises:
        DownloadError: The host cannot be reached or answers something else than the whole file.
        OSError: `path` cannot be written.
    """
    if urlsplit(url).scheme not in ("http", "https"):
        raise DownloadError(f"{url} is not an http or https address")
    part = path.with_name(path.name + ".part")
    _logger.info("Downloading %s to %s", url, path)
    with _request(url, part) as response:
        total = _receive(response, part, path.name)
    _check(part, total, sha256_prefix)
    part.replace(path)
    _discard(part)


def sha256(path: Path) -> str:
    """Hexadecimal SHA-256 of a file."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


class _SameScheme(HTTPRedirectHandler):
    def redirect_request(self, req, fp, code, msg, headers, newurl):  # type: ignore[no-untyped-def]
        if urlsplit(newurl).scheme != urlsplit(req.full_url).scheme:
            raise DownloadError(f"the host redirects to {newurl}")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _request(url: str, part: Path) -> HTTPResponse:
    """Ask for a file, or for what `part` lacks of it."""
    headers = {"User-Agent": "solo_d2"}
    mark = _read_mark(part)
    offset = part.stat().st_size if mark and part.is_file() else 0
    if offset:
        headers |= {"Range": f"bytes={offset}-", "If-Range": mark}
    try:
        return build_opener(_SameScheme).open(Request(url, headers=headers), timeout=TIMEOUT)
    except HTTPError as error:
        error.close()
        if error.code == 416 and offset:  # nothing is left to send: the part is not what it seems
            _discard(part)
            return _request(url, part)
        raise DownloadError(f"the host answers {error.code} {error.reason}") from error
    except (OSError, HTTPException) as error:
        raise DownloadError(f"the host cannot be reached ({_reason(error)})") from error


def _receive(response: HTTPResponse, part: Path, name: str) -> int | None:
    """Write or continue `part`; returns the size of the whole file, None where it is unknown."""
    if response.headers.get_content_type() == "text/html":
        raise DownloadError("the host sends a web page instead of the file")
    offset, total = _extent(response, part)
    if offset == 0:
        etag = response.headers.get("ETag", "")
        strong = "" if etag.startswith("W/") else etag
        _discard(part)  # never an old part under a new mark
        _mark_of(part).write_text(strong or response.headers.get("Last-Modified", ""))
    progress = tqdm(total=total, initial=offset, unit="B", unit_scale=True, desc=name, disable=None)
    with part.open("ab") as file, progress:
        while chunk := _read(response):
            if file.tell() == 0 and chunk.lstrip().startswith(b"<"):
                raise DownloadError("the host sends a web page instead of the file")
            file.write(chunk)
            progress.update(len(chunk))
        file.flush()
        os.fsync(file.fileno())
    return total


def _extent(response: HTTPResponse, part: Path) -> tuple[int, int | None]:
    """Where in the file the answer begins, and the size of the file."""
    if response.status != 206:
        length = response.headers.get("Content-Length")
        return 0, int(length) if length else None
    text = response.headers.get("Content-Range", "")
    found = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", text)
    if not found or int(found[1]) != part.stat().st_size:
        _discard(part)
        raise DownloadError(f"the host sends another range than asked for ({text!r}); try again")
    return int(found[1]), None if found[2] == "*" else int(found[2])


def _read(response: HTTPResponse) -> bytes:
    try:
        return response.read(_CHUNK)
    except (OSError, HTTPException) as error:
        raise DownloadError(
            f"the connection broke off ({_reason(error)}); try again to go on from there"
        ) from error


def _check(part: Path, total: int | None, sha256_prefix: str) -> None:
    size = part.stat().st_size
    if total is not None and size < total:
        raise DownloadError(
            f"the connection ended after {size} of {total} bytes; try again to go on from there"
        )
    if size == 0 or size != (total or size):
        _discard(part)
        raise DownloadError(f"the host sent {size} bytes instead of {total or 'a file'}")
    digest = sha256(part) if sha256_prefix else ""
    if not digest.startswith(sha256_prefix):
        _discard(part)
        raise DownloadError(
            f"its SHA-256 begins with {digest[: len(sha256_prefix)]}, expected {sha256_prefix}: "
            "damaged or changed, deleted"
        )


def _mark_of(part: Path) -> Path:
    return part.with_name(part.name + ".mark")


def _discard(part: Path) -> None:
    part.unlink(missing_ok=True)
    _mark_of(part).unlink(missing_ok=True)


def _read_mark(part: Path) -> str:
    mark = _mark_of(part)
    return mark.read_text() if mark.is_file() else ""


def _reason(error: Exception) -> str:
    reason = getattr(error, "reason", None)  # of a URLError, often another error
    return one_line(reason if isinstance(reason, Exception) else error)
