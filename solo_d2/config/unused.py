"""Keys without effect: what one option of a choice uses and the chosen one does not."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator, Mapping, Set
from dataclasses import dataclass
from functools import cache
from itertools import accumulate
from types import MappingProxyType
from typing import Any

from detectron2.config import CfgNode, get_cfg

from .keys import HEAD_KEYS, add_solo_config
from .rules import shorten

Uses = Mapping[Any, Iterable[str] | None]
"""Keys that every option uses, a node standing for all keys below it; None: unknown."""


@dataclass(frozen=True)
class Choice:
    """A key whose value decides which other keys have an effect.

    Attributes:
        key: the key.
        uses: what each of its values uses. A value that is missing or has None may use any key.
        of: the option in use; by default the key's value.
    """

    key: str
    uses: Callable[[], Uses]
    of: Callable[[CfgNode], Any] | None = None

    def ignored(self, cfg: CfgNode, defaults: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
        """Yield the keys that the chosen option ignores and that are not at their defaults.

        Args:
            cfg: the config.
            defaults: of `default_values`.

        Yields:
            The key, and its default.
        """
        uses = self.uses()
        used = uses.get(self.of(cfg) if self.of else get(cfg, self.key))
        if used is None:
            return
        used = set(used)
        others = {key for keys in uses.values() for key in keys or ()} - used
        for key, default in defaults.items():
            if covers(others, key) and not covers(used, key):
                if not _same(get(cfg, key, default), default):
                    yield key, copy.deepcopy(default)

    def check(self, cfg: CfgNode, defaults: Mapping[str, Any]) -> None:
        """Raise a `ValueError` for the first key that is `ignored`."""
        for key, default in self.ignored(cfg, defaults):
            users = [str(x) for x, keys in self.uses().items() if covers(set(keys or ()), key)]
            raise ValueError(
                f"{key} is {shorten(get(cfg, key))}, but {get(cfg, self.key)} has no use for it; "
                f"leave it at {shorten(default)} or choose another {self.key}"
                + ("" if self.of else f": {', '.join(users)}")
            )


def default_values() -> Mapping[str, Any]:
    """Return every key of Detectron2 and this package, by its full name, with its default."""
    return _default_values(repr(HEAD_KEYS))


@cache
def _default_values(head_keys: str) -> Mapping[str, Any]:  # noqa: ARG001 - a registered head adds some
    cfg = get_cfg()
    add_solo_config(cfg)
    return MappingProxyType(dict(leaves(cfg)))


def leaves(node: CfgNode, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield full name and value of every key below a node."""
    for key, value in node.items():
        if isinstance(value, CfgNode):
            yield from leaves(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value


def get(cfg: CfgNode, key: str, missing: Any = None) -> Any:
    """Return the value of a key by its full name; `missing` where there is no such key."""
    node: Any = cfg
    for part in key.split("."):
        if not isinstance(node, CfgNode) or part not in node:
            return missing
        node = node[part]
    return node


def covers(names: Set[str], key: str) -> bool:
    """Return whether a key is one of the names, or lies below one."""
    return not names.isdisjoint(_with_nodes(key))


@cache
def _with_nodes(key: str) -> tuple[str, ...]:
    """Return a key and the nodes that it lies below."""
    return tuple(accumulate(key.split("."), "{}.{}".format))


def _same(value: Any, default: Any) -> bool:
    """Return whether values are equal; a tuple equals the list of the same values."""
    if isinstance(value, list | tuple) and isinstance(default, list | tuple):
        return list(value) == list(default)
    return bool(value == default)
