"""What the functions of this package ask of their tensors, told in one line where it is not so."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from torch import Tensor

from .capture import capturing

_KINDS: dict[str, Callable[[torch.dtype], bool]] = {
    "boolean": lambda dtype: dtype == torch.bool,
    "floating": lambda dtype: dtype.is_floating_point,
    "integer": lambda dtype: (
        not (dtype.is_floating_point or dtype.is_complex or dtype == torch.bool)
    ),
    "real": lambda dtype: not dtype.is_complex,
}

# What to do where a kind is asked for and another one came.
_REMEDIES = {"boolean": "; threshold soft masks first", "floating": "; call .float() on it"}


def check_tensors(function: str, *inputs: tuple[str, Any, str, str]) -> None:
    """Check the arguments of a function.

    Only types, shapes and devices are looked at, which nobody has to wait for on a GPU, and nothing
    while a graph is recorded.

    Args:
        function: named in the error.
        inputs: name, value, kind ("boolean", "integer", "floating" or "real") and shape of every
            argument. A shape names its dimensions, "K H W"; a name that occurs again, also in
            another argument, stands for the same size. "..." at the end stands for any others.

    Raises:
        ValueError: an argument is no tensor, or of another type or shape, or they do not fit.
    """
    if capturing():
        return
    sizes: dict[str, int] = {}
    devices = set()
    for name, value, kind, shape in inputs:
        fixed, open_end = _dims(shape)
        if not (
            isinstance(value, Tensor)
            and _KINDS[kind](value.dtype)
            and (value.dim() >= len(fixed) if open_end else value.dim() == len(fixed))
        ):
            raise ValueError(f"{function} expects {_wanted(name, kind, shape, value)}")
        devices.add(value.device)
        for dim, size in zip(fixed, value.shape, strict=False):
            if sizes.setdefault(dim, size) != size:
                raise ValueError(f"{function} expects {_misfit(inputs)}")
    if len(devices) > 1:
        places = ", ".join(f"{name} on {value.device}" for name, value, _, _ in inputs)
        raise ValueError(f"{function} expects its tensors on one device, got {places}")


def check_finite(function: str, name: str, values: Tensor) -> None:
    """Check that a tensor on a CPU has no NaN and no infinity; one on a GPU is not waited for.

    Raises:
        ValueError: it has; the first such value is named.
    """
    if values.device.type != "cpu" or capturing():
        return
    if math.isfinite(float(values.sum())):
        return  # one operation tells; what follows is for the message, and for sums too large
    wrong = ~values.isfinite()
    if bool(wrong.any()):
        index = int(wrong.flatten().nonzero()[0])
        value = float(values.flatten()[index])
        raise ValueError(f"{function} expects finite {name}, got {value} at index {index}")


@cache
def _dims(shape: str) -> tuple[tuple[str, ...], bool]:
    """Named dimensions of a shape, and whether others may follow."""
    dims = tuple(shape.split())
    return (dims[:-1], True) if dims[-1] == "..." else (dims, False)


def _wanted(name: str, kind: str, shape: str, value: Any) -> str:
    wanted = f"{kind} {name} ({', '.join(shape.split())})"
    if not isinstance(value, Tensor):
        remedy = "; torch.from_numpy makes one" if type(value).__module__ == "numpy" else ""
        return f"a tensor, {wanted}, got {type(value).__name__}{remedy}"
    remedy = "" if _KINDS[kind](value.dtype) else _REMEDIES.get(kind, "")
    return f"{wanted}, got {value.dtype} of shape {tuple(value.shape)}{remedy}"


def _misfit(inputs: tuple[tuple[str, Any, str, str], ...]) -> str:
    wanted = ", ".join(f"{name} ({', '.join(shape.split())})" for name, _, _, shape in inputs)
    got = ", ".join(str(tuple(getattr(value, "shape", ()))) for _, value, _, _ in inputs)
    return f"sizes that fit each other, {wanted}; got {got}"
