"""Read YAML configs with their `_BASE_` files: local files only, data only, of bounded size."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from .errors import one_line

BASE_KEY = "_BASE_"
"""Key of the config files that a file starts from."""

MAX_BYTES = 2**20
"""Largest config file that is read."""

MAX_FILES = 100
"""Most files that one config is made of."""

MAX_VALUES = 20_000
"""Most values of one file, counted with every use of an anchor."""

MAX_DEPTH = 30
"""Deepest nesting of one file."""

# A drive letter, as in C:\, is no scheme.
_REMOTE = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:|//|\\\\")


class ConfigPart(NamedTuple):
    """One file of a config.

    Attributes:
        path: as it was named, for messages.
        content: its keys without `_BASE_`: dicts of dicts, lists, text, numbers, booleans, None.
    """

    path: Path
    content: dict[str, Any]


def is_remote(name: str) -> bool:
    """Return whether a name is a URL, another name with a scheme, or a network path."""
    return _REMOTE.match(name) is not None


def read_config_file(path: str | os.PathLike[str]) -> list[ConfigPart]:
    """Read a config file and the files that it is based on.

    A file names its bases in `_BASE_`, a path or a list of paths, relative to itself; "~" is the
    home folder. Nothing is fetched, and no tag of YAML makes an object or calls anything.

    Args:
        path: a local YAML file.

    Returns:
        The files in the order in which they apply: bases first, `path` last.

    Raises:
        ValueError: a file is missing, no YAML mapping, too large, in another encoding, has a key
            twice, is based on itself, or is not a local file.
    """
    top = Path(path)
    try:
        return list(_read(top, (), iter(range(MAX_FILES))))
    except _UnusableError as error:
        where = "" if error.path == top else f"{error.path}: "
        reason = ValueError(f"{where}{error}")
        raise ValueError(f"{top}: not a usable config: {one_line(reason)}") from error


def read_yaml(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Read a YAML file that somebody else wrote, as safely as a config.

    Raises:
        ValueError: no such file, or no mapping that can be used.
    """
    try:
        return _content(Path(path))
    except _UnusableError as error:
        raise ValueError(f"{path}: not a usable YAML file: {one_line(error)}") from error


class _UnusableError(ValueError):
    """What is wrong with the file `path`, in one line without its name."""

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(reason)
        self.path = path


def _read(path: Path, above: tuple[Path, ...], budget: Iterator[int]) -> Iterator[ConfigPart]:
    """Yield the bases of a file and the file; `above` led to it, `budget` counts all files."""
    if next(budget, None) is None:
        raise _UnusableError(path, f"more than {MAX_FILES} files by way of {BASE_KEY}")
    if path.resolve() in [file.resolve() for file in above]:
        chain = " -> ".join(map(str, (*above, path)))
        raise _UnusableError(path, f"{BASE_KEY} leads in a circle: {chain}")
    content = _content(path)
    try:
        bases = _bases(path, content.pop(BASE_KEY, []))
    except ValueError as error:
        raise _UnusableError(path, one_line(error)) from error
    for base in bases:
        yield from _read(base, (*above, path), budget)
    yield ConfigPart(path, content)


def _content(path: Path) -> dict[str, Any]:
    """Read one file, whatever may be wrong with it."""
    try:
        return _load(path)
    except RecursionError as error:
        raise _UnusableError(path, "nested too deeply") from error
    except OSError as error:
        raise _UnusableError(path, f"cannot be read ({error.strerror})") from error
    except (yaml.YAMLError, ValueError) as error:
        raise _UnusableError(path, one_line(error)) from error
    except Exception as error:  # constructors of numbers and dates raise whatever they trip over
        raise _UnusableError(path, f"a value cannot be read ({error!r})") from error


def _bases(path: Path, value: Any) -> list[Path]:
    """Paths that a file names in `_BASE_`."""
    names = value if isinstance(value, list) else [value]
    for name in names:
        if not isinstance(name, str) or not name.strip() or "\0" in name:
            raise ValueError(f"{BASE_KEY} must be a path or a list of paths, got {value!r}")
        if is_remote(name):
            raise ValueError(
                f"{BASE_KEY} must be a local file, got {name!r}; download it and name the copy"
            )
    return [path.parent / Path(name).expanduser() for name in names]


def _load(path: Path) -> dict[str, Any]:
    """Read the mapping in one file."""
    content = yaml.load(_text(path), Loader=_Loader)
    _check_size(content)
    if content is None:
        return {}
    if not isinstance(content, dict):
        kind = "a list" if isinstance(content, list) else repr(content)[:60]
        raise ValueError(f"expected a mapping at its top, KEY: VALUE, got {kind}")
    return content


def _text(path: Path) -> str:
    if not path.is_file():
        raise ValueError("is not a regular file" if path.exists() else "no such file")
    with path.open("rb") as file:
        data = file.read(MAX_BYTES + 1)
    if len(data) > MAX_BYTES:
        raise ValueError(f"larger than {MAX_BYTES} bytes")
    return data.decode("utf-8-sig")


class _Loader(yaml.SafeLoader):
    """PyYAML's safe loader that refuses a key that stands twice, and merges of unbounded size."""

    merged = 0

    def flatten_mapping(self, node: yaml.MappingNode) -> None:
        super().flatten_mapping(node)  # calls itself for whatever "<<" names
        self.merged += len(node.value)
        if self.merged > MAX_VALUES:
            raise ValueError(f"more than {MAX_VALUES} values")

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        node: yaml.MappingNode = super().compose_mapping_node(anchor)
        seen: set[str] = set()
        for key, _ in node.value:
            name = str(key.value)
            if name in seen and key.tag != "tag:yaml.org,2002:merge":
                raise ValueError(f"{name} stands twice, again in line {key.start_mark.line + 1}")
            seen.add(name)
        return node


def _check_size(content: Any) -> None:
    """Bound what anchors can blow up, and refuse a value that contains itself."""
    count = 0
    rest = [(content, 0)]
    while rest:
        value, depth = rest.pop()
        count += 1
        if count > MAX_VALUES or depth > MAX_DEPTH:
            limit = f"{MAX_VALUES} values" if count > MAX_VALUES else f"{MAX_DEPTH} levels"
            raise ValueError(f"more than {limit}")
        if isinstance(value, dict):
            rest.extend((child, depth + 1) for child in value.values())
        elif isinstance(value, list | tuple | set):
            rest.extend((child, depth + 1) for child in value)
