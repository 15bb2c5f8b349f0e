"""Packages that only some formats need, imported where they are used."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from types import ModuleType


def need(name: str, what: str, extra: str = "export") -> ModuleType:
    """Import a package of an extra.

    Args:
        name: Of the package.
        what: That needs it, for the message.
        extra: Its extra.

    Raises:
        ValueError: It is not installed, or cannot be loaded.

    Example:
        >>> need("json", "this example").__name__
        'json'
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ValueError(
            f'{what} needs the package {name}, which is not installed here: pip install "solo_d2'
            f'[{extra}]"'
        ) from error


def versions(names: Sequence[str]) -> dict[str, str]:
    """Versions of packages that are imported, by name."""
    return {name: str(getattr(importlib.import_module(name), "__version__", "")) for name in names}
