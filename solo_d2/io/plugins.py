"""Import a user's own code by the name of a module or the path of a file."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Iterable
from pathlib import Path
from types import ModuleType

from .errors import one_line

__all__ = ["import_plugins"]


def import_plugins(names: Iterable[str]) -> list[ModuleType]:
    """Import modules that register heads, losses, data sources and the like.

    Only what the user names on the command line or in Python is ever imported; no config and no
    checkpoint can name code. Importing the same file again does nothing.

    Args:
        names: Paths of ``.py`` files, or dotted names of modules that can be imported from the
            current folder or the environment.

    Raises:
        ValueError: There is no such module, or it fails while it is imported.
    """
    return [_import(name) for name in names]


def _import(name: str) -> ModuleType:
    try:
        if name.endswith(".py"):
            return _import_file(Path(name).resolve())
        if "" not in sys.path and str(Path.cwd()) not in sys.path:
            sys.path.insert(0, str(Path.cwd()))
        return importlib.import_module(name)
    except Exception as error:  # whatever the user's code raises
        raise ValueError(
            f"--import {name}: {type(error).__name__}: {one_line(error)}; expected a .py file or "
            "the name of a module"
        ) from error


def _import_file(path: Path) -> ModuleType:
    known = f"_solo_d2_plugin_{path.stem}"
    module = sys.modules.get(known)
    if module is not None and module.__file__ == str(path):
        return module
    spec = importlib.util.spec_from_file_location(known, path)
    if spec is None or spec.loader is None or not path.is_file():
        raise FileNotFoundError("no such file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[known] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[known]
        raise
    return module
