"""Old names, for one release: `build_…`, `register_…` and a command for each source."""

from __future__ import annotations

import os
import runpy
import sys
import warnings
from collections.abc import Callable
from typing import Any

from .build import SceneSource, build


def old_build(name: str, make_source: Callable[..., SceneSource]) -> Callable[..., bool]:
    """Make a function that builds the dataset of one source.

    Args:
        name: Its name.
        make_source: Takes what `build` does not.
    """
    own = ("train", "val", "seed", "workers", "progress")

    def build_old(output: str | os.PathLike[str], *args: Any, **options: Any) -> bool:
        new = "solo_d2.data.scenes.build.build"
        warnings.warn(f"{name} is {new} with a source now", DeprecationWarning, stacklevel=2)
        given = {key: options.pop(key) for key in own if key in options}
        return build(make_source(*args, **options), output, **given)

    return build_old


def old_register(
    name: str, default_prefix: str, *, kind: str, matting: bool = False
) -> Callable[..., tuple[str, str]]:
    """Make a function that registers the dataset of one source; see `register_built`."""

    def register_old(
        root: str | os.PathLike[str], *, prefix: str = default_prefix
    ) -> tuple[str, str]:
        from .register import register_built

        new = "solo_d2.data.scenes.register.register_built"
        warnings.warn(f"{name} is {new} now", DeprecationWarning, stacklevel=2)
        return register_built(root, prefix, kind=kind, matting=matting)

    return register_old


def run_old_command(kind: str) -> None:
    """Run ``python -m solo_d2.data.scenes KIND`` with the arguments of this process; exits."""
    sys.argv.insert(1, kind)
    runpy.run_module("solo_d2.data.scenes", run_name="__main__")
