"""The file formats: what each is called, needs and cannot do."""

from __future__ import annotations

from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ..io.paths import printable
from .packages import need


@dataclass(frozen=True)
class Format:
    """A file format.

    Attributes:
        name: As `export_model` takes it.
        suffix: Of its files.
        packages: That writing and running need.
        precisions: In which it can be written; the first is the default.
        cannot: Layers that it lacks, and what to do about it.
        torch: First version of torch whose exporter is good enough.
    """

    name: str
    suffix: str
    packages: tuple[str, ...]
    precisions: tuple[str, ...]
    cannot: dict[str, str]
    torch: tuple[int, int] = (2, 4)

    def check(self, model: nn.Module, precision: str) -> None:
        """Refuse at once what would fail after minutes.

        Args:
            model: A `SOLO`.
            precision: One of `precisions`.

        Raises:
            ValueError: A package is missing, the precision is another one, or the model has a
                layer that the format lacks.
        """
        if precision not in self.precisions:
            raise ValueError(
                f"format {self.name} is written in precision {' or '.join(self.precisions)}, got "
                f"{precision!r}"
            )
        installed = tuple(int(x) for x in torch.__version__.split(".")[:2])
        if installed < self.torch:
            raise ValueError(
                f"exporting to {self.name} needs torch {'.'.join(map(str, self.torch))} or newer, "
                f"got {torch.__version__}"
            )
        for name in self.packages:
            need(name, f"format {self.name}")
        for layer in sorted(_layers(model)):
            if layer in self.cannot:
                raise ValueError(f"format {self.name} has no {layer}: {self.cannot[layer]}")


_ADAPTIVE = 'set MODEL.SOLO.ALIGN to "bilinear" or "region_grid"'
_DEFORM = (
    'choose format onnx, or a model without MODEL.SOLO.DEFORM and "deform" in MODEL.BACKBONE.NAME'
)

FORMATS = {
    x.name: x
    for x in (
        Format(
            name="onnx",
            suffix=".onnx",
            packages=("onnx", "onnxscript", "onnxruntime"),
            precisions=("f32",),
            cannot={"adaptive_max_pool": _ADAPTIVE},
            torch=(2, 7),
        ),
        Format(
            name="openvino",
            suffix=".xml",
            packages=("onnx", "onnxscript", "openvino"),
            precisions=("f32", "bf16", "f16", "int8"),
            cannot={"adaptive_max_pool": _ADAPTIVE, "DeformConv": _DEFORM},
            torch=(2, 7),
        ),
        Format(
            name="pt2",
            suffix=".pt2",
            packages=(),
            precisions=("f32",),
            cannot={},
            torch=(2, 9),
        ),
        Format(
            name="torchscript",
            suffix=".torchscript",
            packages=(),
            precisions=("f32",),
            cannot={"region_grid": "tracing would freeze the image's size; choose format pt2"},
        ),
    )
}
"""Formats by name."""


def format_of(path: str | PathLike[str], name: str | None = None) -> Format:
    """Find the format of a file, by its suffix and, if given, its name.

    Raises:
        ValueError: There is no such format, or the suffix is that of another one.
    """
    suffix = Path(path).suffix.lower()
    known = ", ".join(f"{x.name} ({x.suffix})" for x in FORMATS.values())
    if name is not None and name not in FORMATS:
        raise ValueError(f"format must be one of {known}, got {name!r}")
    for candidate in FORMATS.values():
        if candidate.suffix == suffix and name in (None, candidate.name):
            return candidate
    expected = f"end in {FORMATS[name].suffix} for format {name}" if name else f"be one of {known}"
    raise ValueError(f"{printable(path)}: the file's suffix must {expected}")


def is_exported(path: Any) -> bool:
    """Return whether a name has the suffix of an exported file.

    Example:
        >>> is_exported("model.onnx"), is_exported("model.pth")
        (True, False)
    """
    return isinstance(path, str | PathLike) and Path(path).suffix.lower() in {
        x.suffix for x in FORMATS.values()
    }


def _layers(model: nn.Module) -> set[str]:
    """Names, as in `Format.cannot`, of layers of a model that not every format has."""
    kinds = {kind.__name__ for module in model.modules() for kind in type(module).__mro__}
    deform = {"DeformConv"} if any("DeformConv" in kind for kind in kinds) else set()
    return {*deform, getattr(getattr(model, "head", None), "align_mode", "")}
