"""``solo://PROJECT/MODEL``: a published checkpoint, fetched and converted once, as a local file."""

from __future__ import annotations

import logging
import os
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import IO, Any

from detectron2.utils.file_io import PathHandler, PathManager

from ..checkpoint.files import load_checkpoint, save_checkpoint
from ..checkpoint.foreign.convert import convert_state_dict
from ..checkpoint.info import INFO_KEY
from ..checkpoint.places import register_scheme
from ..io.cache import cache_root, cached
from ..io.download import DownloadError, download, sha256
from .checkpoints import PREFIX, PublishedCheckpoint, find_checkpoint

WEIGHTS_VARIABLE = "SOLO_D2_WEIGHTS"
"""Environment variable: a folder with the published files, instead of their hosts."""

_CONVERSION = 3
"""Part of the converted files' names: count it up when conversion changes its result."""

_logger = logging.getLogger(__name__)


def local_weights(name: str, *, force: bool = False) -> Path:
    """Get a published checkpoint as a file that fits the models of this package.

    The published file is taken from the folder ``SOLO_D2_WEIGHTS`` where that is set, else from
    the cache (``FVCORE_CACHE``, by default ``~/.torch/iopath_cache``, there ``solo_d2/PROJECT/``),
    to which it is downloaded when it is missing. The converted file lies in the cache and is made
    once for every content of the published one. Processes that ask at once wait for one another.
    A model of this package ("solo_d2/MODEL") lies in the package.

    Args:
        name: "PROJECT/MODEL", also with ``solo://`` before it.
        force: download again what is in the cache.

    Returns:
        A file with "model" and what `CheckpointInfo` says of it.

    Raises:
        ValueError: There is no such checkpoint, its file cannot be had or is not what was
            published, or the cache cannot be written.

    Example:
        >>> local_weights("adelaidet/unknown")  # doctest: +ELLIPSIS
        Traceback (most recent call last):
            ...
        ValueError: 'adelaidet/unknown' is not a published checkpoint that solo_d2 knows; ...
    """
    checkpoint = find_checkpoint(name)
    if checkpoint.shipped:
        return (
            Path(__file__).with_name("shipped") / f"{checkpoint.name.partition('/')[2]}.safetensors"
        )
    try:
        with cached(checkpoint.project, checkpoint.file) as path:
            published, digest = _published(checkpoint, path, force)
            model = checkpoint.name.partition("/")[2]
            converted = path.with_name(f"{model}-{digest[:8]}-v{_CONVERSION}.pth")
            if not converted.is_file():
                _convert(checkpoint, published, converted)
    except OSError as error:
        raise ValueError(
            f"{checkpoint.weights}: cannot use the cache {cache_root()} ({error}); let "
            "FVCORE_CACHE name a folder that can be written and has room"
        ) from error
    return converted


def published_digest(name: str) -> str:
    """Return the SHA-256 of a published file, which is had as in `local_weights`.

    Args:
        name: of a checkpoint that does not come with this package.

    Raises:
        ValueError: see `local_weights`.
        OSError: the cache cannot be used.
    """
    checkpoint = find_checkpoint(name)
    with cached(checkpoint.project, checkpoint.file) as path:
        return _published(checkpoint, path, force=False)[1]


def _published(checkpoint: PublishedCheckpoint, path: Path, force: bool) -> tuple[Path, str]:
    """The published file, checked, and its SHA-256; `path` is its place in the cache."""
    published = _given_file(checkpoint) or _downloaded_file(checkpoint, path, force)
    digest = sha256(published)
    _check_digest(checkpoint, published, digest)
    return published, digest


def _given_file(checkpoint: PublishedCheckpoint) -> Path | None:
    folder = os.environ.get(WEIGHTS_VARIABLE)
    if not folder:
        return None
    # Two projects use one name for different files; then a subfolder for each tells them apart.
    for path in (Path(folder, checkpoint.project, checkpoint.file), Path(folder, checkpoint.file)):
        if path.is_file():
            return path
    raise ValueError(
        f"{checkpoint.weights}: {WEIGHTS_VARIABLE} is set, and {folder} has no "
        f"{checkpoint.file}. Get it from {checkpoint.url}, or unset {WEIGHTS_VARIABLE} to let it "
        "be downloaded."
    )


def _downloaded_file(checkpoint: PublishedCheckpoint, path: Path, force: bool) -> Path:
    if path.is_file() and not force:
        return path
    try:
        check = partial(load_checkpoint, mmap=True)
        download(checkpoint.url, path, checkpoint.sha256_prefix, check=check)
    except DownloadError as error:
        raise ValueError(
            f"{checkpoint.weights}: cannot download {checkpoint.url}: {error}. A file obtained "
            f"otherwise can be put into {path.parent} as {checkpoint.file}, or be named in "
            "MODEL.WEIGHTS, as it is or converted by tools/convert_weights.py."
        ) from error
    return path


def _check_digest(checkpoint: PublishedCheckpoint, path: Path, digest: str) -> None:
    expected = checkpoint.sha256_prefix
    if not digest.startswith(expected):
        raise ValueError(
            f"{path}: not the file that was published as {checkpoint.name}: its SHA-256 begins "
            f"with {digest[: len(expected)]}, expected {expected}. Delete it and get "
            f"{checkpoint.url} again."
        )


def _convert(checkpoint: PublishedCheckpoint, published: Path, converted: Path) -> None:
    """Convert a published file and say in the result which config and which input it needs."""
    _logger.info("Converting %s to %s", published, converted)
    try:
        state = convert_state_dict(load_checkpoint(published), source=checkpoint.source)
    except ValueError as error:
        text = str(error).removeprefix(f"{published}: ")
        raise ValueError(f"{published}: cannot be used as {checkpoint.name}: {text}") from error
    info = state.info
    if state.overrides or _architecture(info.config) != _architecture(checkpoint.config):
        changes = "".join(f", {key} {value}" for key, value in state.overrides.items())
        raise ValueError(
            f"{published}: not {checkpoint.name}, which fits {checkpoint.config}, but "
            f"{info.architecture}, which fits {info.config}{changes}. Put the file of "
            f"{checkpoint.url} in its place."
        )
    # Weights do not show how long they were trained; the table knows.
    info = replace(info, config=checkpoint.config)
    save_checkpoint({"model": dict(state), INFO_KEY: info.to_dict()}, converted)


def _architecture(config: str) -> str:
    """A config's name without its schedule."""
    return config.removesuffix(".yaml").removesuffix("_1x").removesuffix("_3x")


class PublishedWeightsHandler(PathHandler):
    """Lets Detectron2 open ``solo://PROJECT/MODEL``."""

    def _get_supported_prefixes(self) -> list[str]:
        return [PREFIX]

    def _get_local_path(self, path: str, force: bool = False, **kwargs: Any) -> str:
        self._check_kwargs(kwargs)
        return str(local_weights(path, force=force))

    def _open(self, path: str, mode: str = "r", buffering: int = -1, **kwargs: Any) -> IO[Any]:
        self._check_kwargs(kwargs)
        if mode not in ("r", "rb"):
            raise ValueError(f"{path} can only be read, not opened with the mode {mode!r}")
        return open(local_weights(path), mode, buffering)

    def _exists(self, path: str, **kwargs: Any) -> bool:
        self._check_kwargs(kwargs)
        try:
            find_checkpoint(path)
        except ValueError:
            return False
        return True

    _isfile = _exists


def register_published_weights() -> None:
    """Make ``solo://`` known, also to Detectron2; importing `solo_d2.model_zoo` does so."""
    register_scheme(PREFIX.removesuffix("://"), local_weights)
    PathManager.register_handler(PublishedWeightsHandler(), allow_override=True)
