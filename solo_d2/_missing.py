"""What to run where a package is missing that pip cannot bring along."""

from __future__ import annotations

import sys

_COMMANDS = {
    "detectron2": "-m solo_d2.install_detectron2",
    "torch": "-m pip install torch torchvision",
    "torchvision": "-m pip install torch torchvision",
}


def explain(error: ModuleNotFoundError) -> str | None:
    """Return what is missing, and in the last line the command that installs it.

    Args:
        error: Of an import.

    Returns:
        The text; None for a module that is not one of these packages.
    """
    package = (error.name or "").partition(".")[0]
    if package not in _COMMANDS:
        return None
    return (
        f"solo_d2 needs {package}, which is not installed here. Run\n"
        f"{sys.executable} {_COMMANDS[package]}"
    )
