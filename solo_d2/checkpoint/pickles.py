"""Pickles of arrays without running what a pickle says: neither foreign code nor numpy's own.

The names that such files use differ between numpy 1 and 2 and Python 2 and 3; all are known here.
Arrays are rebuilt from their bytes by this module, since numpy's own functions trust the sizes
and types that the file states.
"""

from __future__ import annotations

import io
import math
import pickle
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, BinaryIO

import numpy as np

from .structure import check_structure

_KINDS = "biufcSU"
"""Kinds of numpy types whose bytes are the whole value: no objects, no records."""

_NUMPY = ("numpy.core", "numpy._core")


def restricted_load(file: BinaryIO) -> Any:
    """Read a pickle of numbers, strings, arrays and containers of these.

    Text of Python 2 is taken as Latin-1, which keeps its bytes, as Detectron2 does.

    Returns:
        The object; numpy scalars become Python's.

    Raises:
        pickle.UnpicklingError: The file names anything else, which could run code, or it would
            build far more than it holds.
        Exception: of any other type, for a damaged file.
    """
    content = file.read()
    check_structure(io.BytesIO(content))
    return _plain(_Unpickler(content).load(), {})


class _Type:
    """A numpy type in the making: `numpy.dtype(name)` and then its byte order."""

    __slots__ = ("dtype",)

    def __init__(self, name: Any) -> None:
        self.dtype = np.dtype(name if isinstance(name, str) else "V0")
        if self.dtype.kind not in _KINDS:
            raise pickle.UnpicklingError(f"arrays of the type {self.dtype} are not read")

    def __setstate__(self, state: Any) -> None:
        if state[1] in ("<", ">"):
            self.dtype = self.dtype.newbyteorder(state[1])


class _Array:
    """An array in the making: shape, type and bytes come in the state."""

    __slots__ = ("_spend", "value")

    def __init__(self, spend: Callable[[int], None]) -> None:
        self.value = np.zeros(0)
        self._spend = spend

    def __setstate__(self, state: Any) -> None:
        _version, shape, dtype, fortran, data = state
        self._spend(len(data))  # bytes that many arrays share
        self.value = _array(data, dtype, shape, "F" if fortran else "C")


class _Unpickler(pickle.Unpickler):
    # Every name yields a bound method or a built-in class: a pickle can set attributes of what
    # it is given, and these have none that can be set.
    def __init__(self, content: bytes) -> None:
        super().__init__(io.BytesIO(content), encoding="latin1")
        # Bytes that may be made of the file's: texts become bytes, and bytes arrays.
        self._left = 2 * len(content)

    def find_class(self, module: str, name: str) -> Any:
        functions: dict[tuple[str, str], Callable[..., Any]] = {
            ("collections", "OrderedDict"): OrderedDict,
            ("_codecs", "encode"): self._encode,
            ("builtins", "bytes"): self._empty,
            ("__builtin__", "bytes"): self._empty,
            ("numpy", "ndarray"): self._never_called,
            ("numpy", "dtype"): self._type,
        }
        for package in _NUMPY:
            functions[f"{package}.multiarray", "_reconstruct"] = self._reconstruct
            functions[f"{package}.multiarray", "scalar"] = self._scalar
            functions[f"{package}.numeric", "_frombuffer"] = self._from_buffer
        if (module, name) not in functions:
            raise pickle.UnpicklingError(f"GLOBAL {module}.{name}")
        return functions[module, name]

    def persistent_load(self, _pid: Any) -> Any:
        raise pickle.UnpicklingError("it refers to data outside of the pickle")

    def _encode(self, text: str, encoding: str) -> bytes:
        if encoding != "latin1":
            raise pickle.UnpicklingError("bytes in another encoding than Latin-1")
        self._spend(len(text))
        return text.encode("latin1")

    def _empty(self) -> bytes:
        return b""

    def _never_called(self) -> None:
        raise pickle.UnpicklingError("a call of numpy.ndarray")

    def _type(self, name: Any, *_flags: Any) -> _Type:
        return _Type(name)

    def _reconstruct(self, *_placeholder: Any) -> _Array:
        return _Array(self._spend)

    def _spend(self, count: int) -> None:
        self._left -= count
        if self._left < 0:
            raise pickle.UnpicklingError("its arrays are larger than the file")

    def _scalar(self, dtype: Any, data: Any) -> Any:
        return _array(data, dtype, (), "C").item()

    def _from_buffer(self, data: Any, dtype: Any, shape: Any, order: str) -> _Array:
        array = _Array(self._spend)
        array.__setstate__((1, shape, dtype, order == "F", data))
        return array


def _array(data: Any, dtype: Any, shape: Any, order: str) -> np.ndarray:
    """An array of its own memory, in the machine's byte order."""
    if isinstance(data, str):  # bytes of Python 2
        data = data.encode("latin1")
    if not isinstance(dtype, _Type) or not isinstance(data, bytes | bytearray):
        raise pickle.UnpicklingError("an array without a type or without bytes")
    shape = tuple(int(size) for size in shape)
    kind = dtype.dtype
    if min(shape, default=0) < 0 or math.prod(shape) * kind.itemsize != len(data):
        raise pickle.UnpicklingError(f"{len(data)} bytes for the shape {shape} of {kind}")
    if not kind.itemsize:
        return np.zeros(shape, kind)
    array = np.frombuffer(bytearray(data), kind).reshape(shape, order=order)  # type: ignore[call-overload]
    return array.astype(kind.newbyteorder("="), order="C", copy=False)


def _plain(value: Any, done: dict[int, Any]) -> Any:
    """The value with arrays in place of `_Array`; what is shared stays so."""
    if isinstance(value, _Array):
        return value.value
    if not isinstance(value, dict | list | tuple):
        return value
    if id(value) not in done:
        plain: Any
        if isinstance(value, dict):
            plain = {_plain(key, done): _plain(item, done) for key, item in value.items()}
        else:
            plain = [_plain(item, done) for item in value]
        done[id(value)] = tuple(plain) if isinstance(value, tuple) else plain
    return done[id(value)]
