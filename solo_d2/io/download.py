"""One file over HTTP: resumed where it broke off, checked, and whole once it has its name."""

from __future__ import annotations

import hashlib
import logging
import os
import re
from collections.abc import Callable
from http.client import HTTPException, HTTPResponse
from pathlib import Path

from tqdm import tqdm

from .errors import one_line
from .http import RequestError, open_url, public

MAX_BYTES = 16 << 30
"""Of a file; no weights are larger, but an endless answer is."""

_CHUNK = 1 << 20
_logger = logging.getLogger(__name__)


class DownloadError(Exception):
    """A file did not come; the text is one line that says why."""


def download(
    url: str,
    path: Path,
    sha256_prefix: str = "",
    *,
    check: Callable[[Path], object] | None = None,
) -> None:
    """Fetch a file to `path`, in an existing folder.

    What arrives is kept in ``NAME.part.EXTENSION`` and continued by the next call, if the host
    says (by ETag or Last-Modified) that the file is still the same. `path` itself appears complete
    and checked or not at all. Two processes must not fetch the same path at once: hold a lock.

    Args:
        url: http or https. Redirects may lead to https, and from http to http.
        path: The file to write.
        sha256_prefix: Hexadecimal digits that the file's SHA-256 must begin with; "" for unknown.
        check: Raises a `ValueError` for a file that is not what it should be.

    Raises:
        DownloadError: The host cannot be reached, is too slow, or answers something else than the
            whole file.
        OSError: `path` cannot be written.
    """
    part = path.with_name(f"{path.stem}.part{path.suffix}")
    _logger.info("Downloading %s to %s", public(url), path)
    with _request(url, part) as response:
        total = _receive(response, part, path.name)
    _check_size(part, total)
    _check_digest(part, sha256_prefix)
    if check is not None:
        _check_content(part, check)
    part.replace(path)
    _discard(part)


def sha256(path: Path) -> str:
    """Hexadecimal SHA-256 of a file."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def _request(url: str, part: Path) -> HTTPResponse:
    """Ask for a file, or for what `part` lacks of it."""
    mark = _read_mark(part)
    offset = part.stat().st_size if mark and part.is_file() else 0
    headers = {"Range": f"bytes={offset}-", "If-Range": mark} if offset else {}
    try:
        return open_url(url, headers)
    except RequestError as error:
        if error.status == 416 and offset:  # nothing is left to send: the part is not what it seems
            _discard(part)
            return _request(url, part)
        raise DownloadError(str(error)) from error


def _receive(response: HTTPResponse, part: Path, name: str) -> int | None:
    """Write or continue `part`; returns the size of the whole file, None where it is unknown."""
    if response.headers.get_content_type() == "text/html":
        raise DownloadError("the host sends a web page instead of the file")
    offset, total = _extent(response, part)
    if total is not None and total > MAX_BYTES:
        raise DownloadError(f"the host has {total} bytes for it, more than {MAX_BYTES}")
    if offset == 0:
        etag = response.headers.get("ETag", "")
        strong = "" if etag.startswith("W/") else etag
        _discard(part)  # never an old part under a new mark
        _mark_of(part).write_text(strong or response.headers.get("Last-Modified", ""), "utf-8")
    progress = tqdm(total=total, initial=offset, unit="B", unit_scale=True, desc=name, disable=None)
    with part.open("ab") as file, progress:
        while chunk := _read(response):
            if file.tell() == 0 and chunk.lstrip().startswith(b"<"):
                raise DownloadError("the host sends a web page instead of the file")
            if file.tell() + len(chunk) > MAX_BYTES:
                raise DownloadError(f"the host sends more than {MAX_BYTES} bytes")
            file.write(chunk)
            progress.update(len(chunk))
        file.flush()
        os.fsync(file.fileno())
    return total


def _extent(response: HTTPResponse, part: Path) -> tuple[int, int | None]:
    """Where in the file the answer begins, and the size of the file."""
    if response.status != 206:
        return 0, response.length  # None where the host does not say
    text = response.headers.get("Content-Range", "")
    found = re.fullmatch(r"bytes (\d{1,18})-\d{1,18}/(\d{1,18}|\*)", text)
    have = part.stat().st_size if part.is_file() else 0
    if not found or int(found[1]) != have:
        _discard(part)
        raise DownloadError("the host sends another range than asked for; try again")
    return have, None if found[2] == "*" else int(found[2])


def _read(response: HTTPResponse) -> bytes:
    try:
        return response.read1(_CHUNK)
    except (OSError, HTTPException) as error:
        raise DownloadError(
            f"the connection broke off ({one_line(error)}); try again to go on from there"
        ) from error


def _check_size(part: Path, total: int | None) -> None:
    size = part.stat().st_size
    if total is not None and size < total:
        raise DownloadError(
            f"the connection ended after {size} of {total} bytes; try again to go on from there"
        )
    if size == 0 or size != (total or size):
        _discard(part)
        raise DownloadError(f"the host sent {size} bytes instead of {total or 'a file'}")


def _check_digest(part: Path, sha256_prefix: str) -> None:
    digest = sha256(part) if sha256_prefix else ""
    if not digest.startswith(sha256_prefix):
        _discard(part)
        raise DownloadError(
            f"its SHA-256 begins with {digest[: len(sha256_prefix)]}, expected {sha256_prefix}: "
            "damaged or changed, deleted"
        )


def _check_content(part: Path, check: Callable[[Path], object]) -> None:
    try:
        check(part)
    except ValueError as error:
        _discard(part)
        text = one_line(error).removeprefix(f"{part}: ")
        raise DownloadError(f"what the host sent {text}; deleted") from error


def _mark_of(part: Path) -> Path:
    return part.with_name(part.name + ".mark")


def _discard(part: Path) -> None:
    part.unlink(missing_ok=True)
    _mark_of(part).unlink(missing_ok=True)


def _read_mark(part: Path) -> str:
    """What the host said of the part; "" for none, and for what cannot go into a request."""
    try:
        mark = _mark_of(part).read_text("utf-8")
    except (OSError, UnicodeDecodeError):
        return ""
    return mark if mark.isascii() and mark.isprintable() else ""
