"""ONNX Runtime for browsers, from the npm registry: fetched once, checked and kept."""

from __future__ import annotations

import tarfile
from os import PathLike
from pathlib import Path

from ..io.cache import cached
from ..io.download import DownloadError, download, sha256
from ..io.errors import one_line
from ..io.paths import not_a_file, printable

VERSION = "1.30.0"
URL = f"https://registry.npmjs.org/onnxruntime-web/-/onnxruntime-web-{VERSION}.tgz"
SHA256 = "d2228df7e4616bc3348bf504ee888f3bec43789a273f0a63f3e68d203ce3bf71"
MEMBERS = {
    "runtime.js": "package/dist/ort.wasm.bundle.min.mjs",
    "runtime.bin": "package/dist/ort-wasm-simd-threaded.wasm",
}
"""Files of the page, and of the archive they come from."""


def read_runtime(archive: str | PathLike[str] | None = None) -> dict[str, bytes]:
    """Return the files of the runtime by their names on the page.

    Args:
        archive: The tarball of `URL`; by default it is fetched (32 MiB) and kept in the cache.

    Raises:
        ValueError: `archive` is not that tarball.
        OSError: It cannot be fetched or read.
    """
    if archive is not None:
        path = Path(archive)
        problem = not_a_file(path)
        if problem is not None:
            raise ValueError(f"{printable(path)}: {problem}; expected the file of {URL}")
        if sha256(path) != SHA256:
            raise ValueError(f"{printable(path)}: has another SHA-256; expected the file of {URL}")
        return _members(path)
    with cached("web", f"onnxruntime-web-{VERSION}.tgz") as path:
        if not (path.is_file() and sha256(path) == SHA256):
            try:
                download(URL, path, SHA256)
            except DownloadError as error:
                raise OSError(
                    f"{URL}: {one_line(error)}; fetch it elsewhere and name it with --runtime"
                ) from error
        return _members(path)


def _members(path: Path) -> dict[str, bytes]:
    files = {}
    with tarfile.open(path) as archive:  # nothing is unpacked: two files are read
        for name, member in MEMBERS.items():
            file = archive.extractfile(member)
            assert file is not None, member  # the checksum says that it is there
            files[name] = file.read()
    return files
