"""solo_d2: the SOLO family of box-free instance segmentation for Detectron2.

Names are loaded at their first use, so that `import solo_d2` takes no time and the installer of
Detectron2 runs without it. The meta-architectures, heads and backbones of this package are
registered as soon as the package and Detectron2's models are both imported, in whichever order.
Importing has no other effect.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import TYPE_CHECKING, Any

from . import _missing, _moved
from ._version import __version__ as __version__

if TYPE_CHECKING:
    from . import model_zoo
    from .config import add_solo_config
    from .inference import SOLOPredictor
    from .model_zoo import load_config
    from .modeling import SOLO, SOLO_HEAD_REGISTRY, PanopticSOLO, SoftSOLO, compile

__all__ = [
    "SOLO",
    "SOLO_HEAD_REGISTRY",
    "PanopticSOLO",
    "SOLOPredictor",
    "SoftSOLO",
    "add_solo_config",
    "compile",
    "load_config",
    "model_zoo",
]

_AWAITED = ("detectron2.modeling", "detectron2.solver")
"""Modules with whose import everything is registered."""

_ROOMS = {
    "SOLO": "modeling",
    "SOLO_HEAD_REGISTRY": "modeling",
    "PanopticSOLO": "modeling",
    "SOLOPredictor": "inference",
    "SoftSOLO": "modeling",
    "add_solo_config": "config",
    "compile": "modeling",
    "load_config": "model_zoo",
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
        for room in ("modeling", "model_zoo", "solver"):
            importlib.import_module(f".{room}", __name__)
    except ModuleNotFoundError as error:
        text = _missing.explain(error)
        if text is None:
            raise
        raise ImportError(text, name=error.name) from error


class _RegisterWithModels(MetaPathFinder):
    """Calls `_register` as soon as Detectron2's models or its solver are imported."""

    asking = False

    def find_spec(
        self,
        name: str,
        path: Sequence[str] | None = None,  # noqa: ARG002
        target: ModuleType | None = None,  # noqa: ARG002
    ) -> ModuleSpec | None:
        if self.asking or name not in _AWAITED:
            return None
        self.asking = True  # the others
        try:
            spec = importlib.util.find_spec(name)
        finally:
            self.asking = False
        loader = spec.loader if spec else None
        if loader is not None:
            run = loader.exec_module

            def run_and_register(module: ModuleType) -> None:
                if self in sys.meta_path:  # a question for the module alone imports nothing
                    sys.meta_path.remove(self)
                run(module)
                # Our models may be what imports Detectron2's; they register by themselves.
                if f"{__name__}.modeling" not in sys.modules:
                    _register()

            setattr(loader, "exec_module", run_and_register)  # noqa: B010
        return spec


_moved.install()
if any(name in sys.modules for name in _AWAITED):
    _register()
else:
    sys.meta_path.insert(0, _RegisterWithModels())
