"""Kinds of constraints on the value of one key; `values.py` says which key has which."""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache
from numbers import Integral, Real
from typing import Any

import torch
from detectron2.layers import get_norm


@dataclass(frozen=True)
class Rule:
    """What a value must be.

    Attributes:
        allowed: the end of the sentence "KEY must be ...".
        accepts: whether a value is allowed; gets values of any type.
        names: the names to suggest instead of a misspelt one.
    """

    allowed: Callable[[], str]
    accepts: Callable[[Any], bool]
    names: Callable[[], Iterable[str]] = tuple

    def check(self, key: str, value: Any) -> None:
        """Raise a `ValueError` with key and value unless the value is allowed."""
        if not self.accepts(value):
            hint = suggest(value, self.names()) if isinstance(value, str) else ""
            raise ValueError(f"{key} must be {self.allowed()}, got {shorten(value)}{hint}")


def shorten(value: Any) -> str:
    """Write a value in one line of bounded length."""
    text = repr(value).replace("\n", " ")
    return text if len(text) <= 120 else f"{text[:117]}..."


def suggest(name: str, known: Iterable[str], cutoff: float = 0.6) -> str:
    """Return "; did you mean ...?" with the known names that are alike, or nothing."""
    by_lower = {other.lower(): other for other in known if other}
    close = difflib.get_close_matches(name.lower(), by_lower, n=3, cutoff=cutoff)
    return f"; did you mean {' or '.join(by_lower[x] for x in close)}?" if close else ""


def integer(low: int, high: int | None = None) -> Rule:
    """Allow integers from `low` to `high`."""
    bounds = f">= {low}" if high is None else f"from {low} to {high}"
    return Rule(
        lambda: f"an integer {bounds}",
        lambda value: _is(value, Integral) and low <= value and (high is None or value <= high),
    )


def number(
    low: float = -math.inf, high: float = math.inf, *, above: bool = False, below: bool = False
) -> Rule:
    """Allow finite numbers from `low` to `high`; without `low` if `above`, `high` if `below`."""

    def accepts(value: Any) -> bool:
        if not _is(value, Real) or not math.isfinite(value):
            return False
        return (low < value if above else low <= value) and (
            value < high if below else value <= high
        )

    def allowed() -> str:
        if math.isinf(high):
            return "a number" if math.isinf(low) else f"a number {'>' if above else '>='} {low:g}"
        return f"a number in {'(' if above else '['}{low:g}, {high:g}{')' if below else ']'}"

    return Rule(allowed, accepts)


def flag() -> Rule:
    """Allow True and False."""
    return Rule(lambda: "True or False", lambda value: isinstance(value, bool))


def text(*, empty: bool = False) -> Rule:
    """Allow text, also an empty one if `empty`."""
    return Rule(
        lambda: "a text" if empty else "a text that is not empty",
        lambda value: isinstance(value, str) and (empty or bool(value.strip())),
    )


def choice(names: Iterable[Any] | Callable[[], Iterable[Any]]) -> Rule:
    """Allow some names or numbers; a function gives those of the moment."""
    current: Callable[[], Iterable[Any]] = names if callable(names) else lambda: names

    def accepts(value: Any) -> bool:
        return (isinstance(value, str) or _is(value, Integral)) and value in list(current())

    def strings() -> list[str]:
        return [name for name in current() if isinstance(name, str)]

    return Rule(lambda: f"one of {', '.join(map(repr, current()))}", accepts, strings)


def items(rule: Rule, count: int | None = None, *, least: int = 0) -> Rule:
    """Allow lists and tuples of `count` values, or of `least` and more, that follow a rule."""

    def accepts(value: Any) -> bool:
        if not isinstance(value, list | tuple) or len(value) < least:
            return False
        return (count is None or len(value) == count) and all(map(rule.accepts, value))

    size = f"{count} values" if count is not None else f"{least} or more values"
    return Rule(lambda: f"a list of {size}, each {rule.allowed()}", accepts, rule.names)


def either(*rules: Rule) -> Rule:
    """Allow what one of several rules allows."""
    return Rule(
        lambda: " or ".join(rule.allowed() for rule in rules),
        lambda value: any(rule.accepts(value) for rule in rules),
        lambda: [name for rule in rules for name in rule.names()],
    )


def exactly(value: Any) -> Rule:
    """Allow one value, such as None or infinity."""
    return Rule(lambda: repr(value), lambda other: type(other) is type(value) and other == value)


_NORMS = ("BN", "SyncBN", "FrozenBN", "GN", "LN", "nnSyncBN", "naiveSyncBN", "naiveSyncBN_N")


@cache
def _is_norm(name: str) -> bool:
    try:
        get_norm(name, 32)
    except KeyError:
        return False
    return True


def norm() -> Rule:
    """Allow the normalisation layers that this Detectron2 knows; "" is none."""

    def known() -> list[str]:
        return [name for name in _NORMS if _is_norm(name)]

    return Rule(
        lambda: f'"" for none or one of {", ".join(known())}',
        lambda value: isinstance(value, str) and _is_norm(value),
        known,
    )


def device() -> Rule:
    """Allow names of torch devices, of this machine or another, and "auto"."""

    def accepts(value: Any) -> bool:
        if value == "auto" or isinstance(value, torch.device):
            return True
        try:
            return isinstance(value, str) and torch.device(value) is not None
        except RuntimeError:
            return False

    return Rule(lambda: '"auto", "cpu" or "cuda[:N]"', accepts)


def like(default: Any) -> Rule:
    """Allow values of the type that the default has; anything where that is None."""
    kinds: list[tuple[type | tuple[type, ...], Rule]] = [
        (bool, flag()),
        (int, Rule(lambda: "an integer", lambda value: _is(value, Integral))),
        (float, number()),
        (str, text(empty=True)),
        ((list, tuple), Rule(lambda: "a list", lambda value: isinstance(value, list | tuple))),
    ]
    for kind, rule in kinds:
        if isinstance(default, kind):
            return rule
    return Rule(lambda: "anything", lambda _: True)


def _is(value: Any, kind: type) -> bool:
    """Return whether a value is a number of a kind; True and False are none."""
    return isinstance(value, kind) and not isinstance(value, bool)
