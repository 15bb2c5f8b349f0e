"""Old names of modules, for one release: importing one gives its successor, with a warning."""

from __future__ import annotations

import importlib
import sys
import warnings
from collections.abc import Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import CodeType, ModuleType

_SCENES = ("compose", "cutouts", "panoptic_writer", "rgba_folders", "shapes", "stamps")
_FOREIGN = ("architectures", "convert", "key_maps")
_IO = ("alpha", "panoptic_png", "results", "video")

MOVED = {
    "checkpoint.atomic": "io.atomic",
    "data.datasets.coco_writer": "data.scenes.writer",
    "data.datasets.matting": "data.scenes.rgba",
    "data.datasets.pictures": "data.scenes.debian",
    "data.image": "io.image",
    "matting_effects": "inference.effects",
    "model_zoo.download": "io.download",
    "predictor": "inference.predictor",
    "utils": "io",
    "utils.cli": "inference.cli",
    "utils.colors": "inference.colors",
    "visualization": "inference.drawing",
    **{f"utils.{name}": f"io.{name}" for name in _IO},
    **{f"data.datasets.{name}": f"data.scenes.{name}" for name in _SCENES},
    **{f"checkpoint.{name}": f"checkpoint.foreign.{name}" for name in _FOREIGN},
}
"""Old name to new one, both without ``solo_d2.``."""


class _MovedModules(MetaPathFinder, Loader):
    """Finder and loader of the modules in `MOVED`."""

    def find_spec(
        self,
        name: str,
        path: Sequence[str] | None = None,  # noqa: ARG002
        target: ModuleType | None = None,  # noqa: ARG002
    ) -> ModuleSpec | None:
        package, _, rest = name.partition(".")
        if package != "solo_d2" or rest not in MOVED:
            return None
        return ModuleSpec(name, self, is_package=rest == "utils")

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        new = _new_name(spec.name)
        warnings.warn(f"{spec.name} is {new} now", DeprecationWarning, stacklevel=2)
        module = importlib.import_module(new)
        spec.loader_state = module.__spec__
        return module

    def exec_module(self, module: ModuleType) -> None:
        # The machinery has put the old name's spec in place of the module's own.
        assert module.__spec__ is not None
        module.__spec__ = module.__spec__.loader_state

    def get_code(self, name: str) -> CodeType:
        """Code that runs the new module, for ``python -m`` with the old name."""
        text = f"import runpy; runpy.run_module({_new_name(name)!r}, None, '__main__', True)"
        return compile(text, name, "exec")


def _new_name(old: str) -> str:
    return f"solo_d2.{MOVED[old.partition('.')[2]]}"


def install() -> None:
    """Make the old names importable."""
    if not any(isinstance(finder, _MovedModules) for finder in sys.meta_path):
        # First: solo_d2.utils is solo_d2.io, whose files must not load under a second name.
        sys.meta_path.insert(0, _MovedModules())
