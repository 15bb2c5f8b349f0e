"""Open exported files, and read what they say of themselves."""

from __future__ import annotations

import tempfile
from os import PathLike
from pathlib import Path

from detectron2.config import CfgNode, get_cfg

from ..config import add_solo_config, merge_file, validate_config
from ..config.unused import leaves
from ..io.errors import one_line, shown
from ..io.paths import not_a_file, printable
from .backends import BACKENDS, Backend
from .formats import format_of
from .info import ExportInfo

_FIXED = ("MODEL", "TEST.DETECTIONS_PER_IMAGE", "TEST.AUG")
_FREE = ("MODEL.WEIGHTS", "MODEL.DEVICE")


def open_exported(path: Path) -> tuple[Backend, ExportInfo]:
    """Open a file and read its metadata.

    Returns:
        The runtime, which is yet to be loaded, and the metadata.

    Raises:
        ValueError: There is no such file, it is damaged or of another version, its metadata is
            missing or was changed, or the runtime is not installed.

    Example:
        >>> backend, info = open_exported(Path("model.onnx"))            # doctest: +SKIP
    """
    suffix = format_of(path).suffix
    problem = not_a_file(path)
    if problem is not None:
        raise ValueError(f"{printable(path)}: {problem}; expected an exported model")
    try:
        backend = BACKENDS[suffix](path)
    except ValueError as error:
        raise ValueError(f"{printable(path)}: {error}") from error
    except Exception as error:  # of the runtimes, each its own
        raise ValueError(
            f"{printable(path)}: cannot be opened; is it cut off? ({one_line(error)})"
        ) from error
    if backend.metadata is None:
        raise ValueError(
            f"{printable(path)}: has no metadata of solo_d2; only files that solo_d2 exported can "
            "be run"
        )
    try:
        return backend, ExportInfo.from_json(backend.metadata)
    except ValueError as error:
        raise ValueError(f"{printable(path)}: {error}") from error


def read_config(path: Path, info: ExportInfo) -> CfgNode:
    """Return the config that travels with an exported model.

    Raises:
        ValueError: This version of the package has other keys.
    """
    cfg = get_cfg()
    add_solo_config(cfg)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, path.name)
        file.write_text(info.config, encoding="utf-8")
        merge_file(cfg, file)
    validate_config(cfg)
    return cfg


def exported_config(path: str | PathLike[str]) -> CfgNode:
    """Return the config in an exported file, with the file as `MODEL.WEIGHTS`.

    Raises:
        ValueError: See `open_exported`.

    Example:
        >>> cfg = exported_config("model.onnx")                          # doctest: +SKIP
    """
    path = Path(path)
    cfg = read_config(path, open_exported(path)[1])
    cfg.MODEL.WEIGHTS = str(path)
    return cfg


def check_fixed(cfg: CfgNode, own: CfgNode, path: Path) -> None:
    """Check that a config leaves alone what an exported file cannot change any more.

    Args:
        cfg: In use.
        own: That of the file.
        path: The file, for the message.

    Raises:
        ValueError: A key of the model has another value.
    """
    exported = dict(leaves(own))
    for key, value in leaves(cfg):
        if not key.startswith(_FIXED) or key in _FREE or value == exported.get(key, value):
            continue
        raise ValueError(
            f"{printable(path)}: {key} is {shown(exported[key])} for good, got {shown(value)}; "
            "export the model with the value that is wanted"
        )
