"""Where weights are: what ``MODEL.WEIGHTS`` and the like name becomes a file on this machine.

What lies on the network comes through this package's own downloader, into a folder and under a
name of its own choice. Neither iopath nor Detectron2's handlers ever see a name from a config.
"""

from __future__ import annotations

import hashlib
import importlib
import logging
import os
import re
from collections.abc import Callable
from functools import partial
from pathlib import Path
from urllib.parse import parse_qsl, urlencode, urlsplit

from detectron2.checkpoint.catalog import ModelCatalog

from ..io.atomic import atomic_write
from ..io.cache import cache_root, cached
from ..io.download import DownloadError, download, sha256
from ..io.errors import one_line, printable
from ..io.http import public
from .files import load_checkpoint
from .info import INFO_KEY, CheckpointInfo

_logger = logging.getLogger(__name__)

_DETECTRON2_URL = "https://dl.fbaipublicfiles.com/detectron2/"
_HASHED_HOSTS = ("download.openmmlab.com", "download.pytorch.org")
"""Hosts of files whose names end with the first digits of their SHA-256."""
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")
_REMEDY = (
    "Check the name and the network, or get the file otherwise and set MODEL.WEIGHTS to its path."
)

_PROVIDERS = {"solo": "solo_d2.model_zoo", "hf": "solo_d2.model_zoo"}
"""Scheme -> the module whose import registers it, as an entry point would; it stands above this."""

_resolvers: dict[str, Callable[[str], Path]] = {}


def register_scheme(scheme: str, resolver: Callable[[str], Path]) -> None:
    """Let weights be named ``SCHEME://...``.

    Args:
        scheme: in lower case.
        resolver: gives the local file of a whole name, or raises a `ValueError` with the name.
    """
    _resolvers[scheme] = resolver


def find_weights(name: str) -> tuple[Path, bool]:
    """Find the file that a name of weights means, and download it if need be.

    Args:
        name: a path; a URL (http, https); a name of Detectron2's ("detectron2://", "catalog://")
            or of a registered scheme ("solo://"). With ``?matching_heuristics=True`` for a
            backbone whose names lack a prefix; what else a URL asks for belongs to its host.

    Returns:
        The file, which need not exist where `name` is a path, and whether to match by heuristics.

    Raises:
        ValueError: Another scheme, or a file that cannot be fetched or is no checkpoint.
    """
    if not _SCHEME.match(name) and os.path.exists(name):
        return Path(name), False
    base, _, query = name.partition("?")
    pairs = parse_qsl(query, keep_blank_values=True)
    heuristics = ("matching_heuristics", "True") in pairs
    if heuristics:
        rest = urlencode([pair for pair in pairs if pair[0] != "matching_heuristics"])
        name = f"{base}?{rest}" if rest else base
    return _resolve(name), heuristics


def read_info(name: str) -> CheckpointInfo | None:
    """Read what weights say of themselves, such as their classes, and leave the weights alone.

    Args:
        name: as for `find_weights`; it is downloaded if need be.

    Returns:
        The description; None for "" and for a file without one.

    Raises:
        ValueError: The file cannot be had or read, or its description is damaged.

    Example:
        >>> from solo_d2 import SOLO
        >>> from solo_d2.testing import tiny_config
        >>> model = SOLO(tiny_config())
        >>> model.class_names = ("cup", "fork", "spoon")
        >>> SOLOCheckpointer(model, ".").save("mine")
        >>> read_info("mine.pth").class_names
        ('cup', 'fork', 'spoon')
    """
    if not name:
        return None
    path, _ = find_weights(name)
    values = load_checkpoint(path, mmap=True, verify=False).get(INFO_KEY)
    try:
        return None if values is None else CheckpointInfo.from_dict(values)
    except ValueError as error:
        raise ValueError(f"{public_name(name)}: {error}") from error


def public_name(name: str) -> str:
    """Return the name of weights for people and logs: a URL without passwords and keys."""
    return public(name) if _SCHEME.match(name) else printable(name)


def _resolve(name: str) -> Path:
    found = _SCHEME.match(name)
    if found is None:
        return Path(name)
    scheme = found[1].lower()
    if scheme in _PROVIDERS and scheme not in _resolvers:
        importlib.import_module(_PROVIDERS[scheme])
    if scheme in _resolvers:
        return _resolvers[scheme](name)
    if scheme in ("http", "https"):
        return _fetch(name)
    rest = name[found.end() :]
    if scheme == "detectron2":
        return _of_detectron2(name, _DETECTRON2_URL + _relative(name, rest))
    if scheme == "catalog":
        try:
            url = ModelCatalog.get(rest)
        except (KeyError, RuntimeError) as error:
            raise ValueError(f"{public_name(name)}: is not in Detectron2's catalogue") from error
        return _of_detectron2(name, url)
    known = ", ".join(sorted({"http", "https", "detectron2", "catalog", *_PROVIDERS, *_resolvers}))
    raise ValueError(
        f"{public_name(name)}: weights are not read through {scheme}://. Name a file on this "
        f"machine by its path, or use one of {known}"
    )


def _relative(name: str, path: str) -> str:
    parts = path.split("/")
    if not re.fullmatch(r"[A-Za-z0-9_./+-]+", path) or {"", ".", ".."} & set(parts):
        raise ValueError(f"{public_name(name)}: is not a name of Detectron2's files")
    return path


def _of_detectron2(name: str, url: str) -> Path:
    """A file of Detectron2's, also from where Detectron2 itself has put it before."""
    there = cache_root() / urlsplit(url).path.lstrip("/")
    if there.is_file():
        try:
            load_checkpoint(there, mmap=True)
            return there
        except ValueError as error:
            _logger.warning("%s; getting %s again", one_line(error), public_name(name))
    return _fetch(url)


def _fetch(url: str) -> Path:
    """The file of a URL: from the cache while it is what was downloaded, else from its host."""
    try:
        with cached("urls", _file_name(url)) as path:
            seal = path.with_name(path.name + ".sha256")
            if not _is_sealed(path, seal):
                download(
                    url, path, _published_digest(url), check=partial(load_checkpoint, mmap=True)
                )
                with atomic_write(seal) as file:
                    file.write(sha256(path).encode())
            return path
    except DownloadError as error:
        raise ValueError(f"{public(url)}: cannot be fetched ({error}). {_REMEDY}") from error
    except OSError as error:
        raise ValueError(
            f"{public(url)}: cannot be kept in the cache {cache_root()} ({one_line(error)}). Let "
            "FVCORE_CACHE name a folder that can be written and has room"
        ) from error


def _file_name(url: str) -> str:
    """A name without folders that is another one for every URL."""
    digest = hashlib.sha256(url.encode("utf-8", "surrogatepass")).hexdigest()
    last = url.partition("?")[0].partition("#")[0].rpartition("/")[2]
    return f"{digest[:16]}-{re.sub(r'[^A-Za-z0-9._-]', '_', last)[-60:]}"


def _is_sealed(path: Path, seal: Path) -> bool:
    if not (path.is_file() and seal.is_file()):
        return False
    if seal.read_bytes() == sha256(path).encode():
        return True
    _logger.warning("%s has changed since it was downloaded; getting it again", path)
    return False


def _published_digest(url: str) -> str:
    found = re.fullmatch(r"https?://([a-z.]+)/[^?#]*-([0-9a-f]{8})\.pth", url)
    return found[2] if found and found[1] in _HASHED_HOSTS else ""
