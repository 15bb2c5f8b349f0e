"""solo_d2: the SOLO family of box-free instance segmentation for Detectron2.

Names are loaded at their first use, so that `import solo_d2` takes no time and the installer of
Detectron2 runs without it. Loading the first name registers the meta-architectures, heads and
backbones of this package with Detectron2, and has no other effect. Where Detectron2 is loaded
already, importing the package registers them at once.
"""

from __future__ import annotations

import importlib
import sys
from typing import TYPE_CHECKING, Any

from . import _moved

if TYPE_CHECKING:
    from . import model_zoo
    from .config import add_solo_config
    from .inference import SOLOPredictor
    from .modeling import SOLO, SOLO_HEAD_REGISTRY

__version__ = "0.1.0"

__all__ = ["SOLO", "SOLO_HEAD_REGISTRY", "SOLOPredictor", "add_solo_config", "model_zoo"]

_ROOMS = {
    "SOLO": "modeling",
    "SOLO_HEAD_REGISTRY": "modeling",
    "SOLOPredictor": "inference",
    "add_solo_config": "config",
    "model_zoo": "model_zoo",
}
"""Module of every public name; a module stands for itself."""


def __getattr__(name: str) -> Any:
    if name not in _ROOMS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    _register()
    room = importlib.import_module(f".{_ROOMS[name]}", __name__)
    return room if name == _ROOMS[name] else getattr(room, name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


def _register() -> None:
    """Register everything with Detectron2.

    Raises:
        ImportError: There is no torch or no Detectron2; the last line is the command to run.
    """
    try:
        for room in ("modeling", "model_zoo"):
            importlib.import_module(f".{room}", __name__)
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        commands = {
            "detectron2": f"{sys.executable} -m solo_d2.install_detectron2",
            "torch": f"{sys.executable} -m pip install torch torchvision",
            "torchvision": f"{sys.executable} -m pip install torch torchvision",
        }
        if package not in commands:
            raise
        raise ImportError(
            f"solo_d2 needs {package}, which is not installed here. Run\n{commands[package]}",
            name=package,
        ) from error


_moved.install()
if "detectron2" in sys.modules:
    _register()
