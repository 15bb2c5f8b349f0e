"""Merge files and command lines into a config; unknown keys and wrong types are named."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from detectron2.config import CfgNode, get_cfg

from ..io.config_file import BASE_KEY, read_config_file
from ..io.errors import one_line
from .rules import like, shorten, suggest
from .unused import leaves

_KEY = re.compile(r"[A-Z][A-Z0-9_]*(\.[A-Z0-9_]+)*")


def merge_file(cfg: CfgNode, path: str | os.PathLike[str]) -> None:
    """Merge a YAML file and the files that it is based on into a config.

    As `cfg.merge_from_file`, but only local files are read and no code is run; see
    `solo_d2.io.config_file`.

    Args:
        cfg: changed in place; has all keys that the files may set.
        path: a local file.

    Raises:
        ValueError: a file cannot be read, has an unknown key, or a value of another type.
    """
    for part in read_config_file(path):
        try:
            version = part.content.get("VERSION", cfg.VERSION)
            if version != cfg.VERSION:
                raise ValueError(f"VERSION must be {cfg.VERSION}, got {shorten(version)}")
            for key, value in _flatten(cfg, part.content):
                _set(cfg, key, value)
        except ValueError as error:
            where = "" if part.path == Path(path) else f"{part.path}: "
            raise ValueError(f"{path}: not a usable config: {where}{one_line(error)}") from error


def merge_overrides(cfg: CfgNode, overrides: Sequence[Any]) -> None:
    """Merge KEY VALUE KEY VALUE ... into a config.

    Args:
        cfg: changed in place.
        overrides: keys, and values as text or as they are.

    Raises:
        ValueError: a key without a value, an unknown key, or a value of another type.
    """
    for key, value in _pairs(overrides):
        try:
            _set(cfg, key, value)
        except ValueError as error:
            raise ValueError(f"Bad config override: {one_line(error)}") from error


def split_overrides(argv: Sequence[str]) -> tuple[list[str], list[str]]:
    """Take config overrides, KEY VALUE KEY VALUE ..., out of a command line.

    argparse alone cannot: an option that takes several values would swallow them. A key is a word
    in capitals whose part before the first dot is a node of Detectron2's config, such as MODEL or
    INPUT, or a plain key of it, such as SEED. Pairs may stand before, between and behind options.
    A misspelt rest stays an override and fails as one.

    Args:
        argv: The command line without the program.

    Returns:
        The command line without the overrides, and the overrides.

    Raises:
        ValueError: A key has no value.
    """
    cfg = get_cfg()
    rest: list[str] = []
    overrides: list[str] = []
    words = iter(argv)
    for word in words:
        if not _is_key(word, cfg):
            rest.append(word)
            continue
        value = next(words, None)
        if value is None or value.startswith("--") or _is_key(value, cfg):
            raise ValueError(f"Config override {word} has no value. Write KEY VALUE.")
        overrides += [word, value]
    return rest, overrides


def _is_key(word: str, cfg: CfgNode) -> bool:
    root, dot, _ = word.partition(".")
    known = root in cfg and bool(dot) == isinstance(cfg[root], CfgNode)
    return known and _KEY.fullmatch(word) is not None


def _pairs(overrides: Sequence[Any]) -> Iterator[tuple[str, Any]]:
    for index in range(0, len(overrides), 2):
        key = str(overrides[index])
        if key.startswith("-"):
            raise ValueError(f"Bad config override: {key} is no option of this command, and no key")
        if "=" in key:
            raise ValueError(f"Bad config override: {key}; write KEY VALUE, without =")
        if index + 1 == len(overrides):
            raise ValueError(f"Bad config override: {key} has no value; write KEY VALUE")
        yield key, overrides[index + 1]


def _flatten(
    node: CfgNode | None, content: dict[Any, Any], prefix: str = ""
) -> Iterator[tuple[str, Any]]:
    """Full names and values of a file's content, down to the keys of a config's node.

    Below an unknown name, `node` is None: the whole name of a key says best what was meant.
    """
    for name, value in content.items():
        child = None if node is None else node.get(name)
        unknown = node is None or (name not in node and not node.is_new_allowed())
        if isinstance(value, dict) and value and (isinstance(child, CfgNode) or unknown):
            yield from _flatten(child, value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def _set(cfg: CfgNode, key: str, value: Any) -> None:
    """Set one key by its full name, if it exists and the value has the type of the present one."""
    *nodes, name = key.split(".")
    node: Any = cfg
    for part in nodes:
        node = node.get(part) if isinstance(node, CfgNode) else None
    if not isinstance(node, CfgNode) or (name not in node and not node.is_new_allowed()):
        if BASE_KEY in (key, name):
            raise ValueError(f"{key}: {BASE_KEY} can only stand at the top of a file")
        raise ValueError(f"there is no key {key[:120]}{_similar(key, cfg)}")
    node[name] = _coerced(key, value, node.get(name))


def _coerced(key: str, value: Any, present: Any) -> Any:
    """`value`, decoded if it is text, in the type of `present` where that loses nothing."""
    if isinstance(present, CfgNode):
        raise ValueError(f"{key} is a node with keys below it, got {shorten(value)}")
    if isinstance(value, dict) and present is not None:
        raise ValueError(f"{key} must be {like(present).allowed()}, got keys below it")
    try:
        decoded = CfgNode._decode_cfg_value(value)
    except (MemoryError, RecursionError) as error:
        raise ValueError(f"{key} has an unreadable value {shorten(value)}") from error
    if present is None or decoded is None:
        return decoded
    if isinstance(present, str) and isinstance(value, str):
        return decoded if isinstance(decoded, str) else value  # a name such as 2024
    if isinstance(present, float) and type(decoded) is int and abs(decoded) < 2**53:
        return float(decoded)
    if isinstance(present, tuple | list) and isinstance(decoded, tuple | list):
        return type(present)(decoded)
    if type(decoded) is not type(present):
        raise ValueError(f"{key} must be {like(present).allowed()}, got {shorten(decoded)}")
    return decoded


def _similar(key: str, cfg: CfgNode) -> str:
    """The hint at existing keys that resemble an unknown one, or have its last part."""
    known = [name for name, _ in leaves(cfg)]
    last = key.split(".")[-1]
    ending = [name for name in known if name.split(".")[-1] == last]
    return suggest(key, known, cutoff=0.75) or (
        f"; did you mean {' or '.join(ending[:3])}?" if ending else ""
    )
