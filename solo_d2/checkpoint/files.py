"""Checkpoint files in and out: `.pth`, `.pkl` and `.safetensors`. No file can run code here.

What a file is, its content decides; names of downloads are not reliable.
"""

from __future__ import annotations

import contextlib
import json
import pickle
import re
import zipfile
from collections.abc import Iterator, Mapping
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..io.atomic import atomic_write
from ..io.errors import one_line
from .info import INFO_KEY
from .pickles import restricted_load

_ZIP = b"PK\x03\x04"
_OLD_TORCH = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19"
_OTHERS = (
    (b"\x89PNG", "a PNG picture"),
    (b"\xff\xd8\xff", "a JPEG picture"),
    (b"\x89HDF", "an HDF5 file"),
    (b"\x1f\x8b", "a gzip archive (unpack it first)"),
    (b"version https://git-lfs", "a Git LFS pointer (run: git lfs pull)"),
    (b"<", "a web page or XML (a failed download?)"),
    (b"{", "a JSON file"),
    (b"[", "a JSON file"),
)
_INERT = ("mmengine.", "mmcv.", "mmdet.", "numpy.")
"""Packages whose objects are left out of a checkpoint; nothing of them is imported."""
_AGAIN = "Download, copy or save it again."
_FORMATS = "Expected a .pth, .pkl or .safetensors file with weights."
_STATE_KEYS = ("model", "state_dict", "model_state")
"""Where Detectron2, mmdetection and torchvision, and pycls put the weights."""


def load_checkpoint(path: str | PathLike[str], *, mmap: bool = False) -> dict[str, Any]:
    """Read a checkpoint to the CPU without running code from it.

    Args:
        path: a local file: of `torch.save` (old and new format), a pickle of numpy arrays
            (Detectron2's, MSRA's and Caffe2's .pkl), or safetensors.
        mmap: leave tensors in the file until they are used, where the format allows it. Only for
            weights that are copied at once: the file must not be written to as long as they live.

    Returns:
        "model": dict from names to tensors, as named in the file; the other entries of the file
        as they are. Pickles of backbones without more get Detectron2's "matching_heuristics" and
        "__author__". "solo_d2" has a `CheckpointInfo` as plain types, where the file has one.

    Raises:
        ValueError: The file is missing, damaged, of another kind, without weights, or it would
            run code.
    """
    path = Path(path)
    content = _read(path, mmap)
    if not isinstance(content, Mapping):
        raise ValueError(f"{path}: holds a {type(content).__name__}, not weights. {_FORMATS}")
    checkpoint = _arrange({k: v for k, v in content.items() if not isinstance(v, _Inert)})
    model = checkpoint["model"]
    if not isinstance(model, Mapping) or not any(_is_weight(x) for x in model.values()):
        keys = ", ".join(map(str, list(model)[:5])) if isinstance(model, Mapping) else "no dict"
        raise ValueError(f"{path}: holds no weights, but {keys or 'an empty dict'}. {_FORMATS}")
    weights: Any = model
    for key, value in list(model.items()):
        if not isinstance(key, str) or not _is_weight(value):
            kind = type(value).__name__
            raise ValueError(f"{path}: the entry {key!r} is a {kind}, not a tensor. {_FORMATS}")
        if isinstance(value, np.ndarray):
            weights[key] = _to_tensor(path, key, value)
    return checkpoint


def load_state_dict(path: str | PathLike[str]) -> dict[str, Tensor]:
    """Read only the weights of a checkpoint; see `load_checkpoint`."""
    return load_checkpoint(path)["model"]


def save_checkpoint(checkpoint: Mapping[str, Any], path: str | PathLike[str]) -> None:
    """Write a checkpoint, atomically: on any failure the file stays what it was.

    Args:
        checkpoint: tensors, plain types and containers of these, which are all that safe loading
            accepts; "model" has the weights.
        path: ends in ".safetensors", which holds "model" and "solo_d2" alone, or in any other
            name for `torch.save`.

    Raises:
        ValueError: The format cannot hold the checkpoint, or safetensors is not installed.
        OSError: It cannot be written, e.g. since the disk is full.
    """
    path = Path(path)
    content = _safetensors_bytes(checkpoint, path) if path.suffix == ".safetensors" else None
    try:
        with atomic_write(path) as file:
            if content is None:
                torch.save(checkpoint, file)
            else:
                file.write(content)
    except (OSError, RuntimeError) as error:
        # torch's writer hides the system's error behind one of its own.
        cause = error if isinstance(error, OSError) else error.__context__
        if not isinstance(cause, OSError):
            raise
        raise OSError(cause.errno, f"not saved: {cause.strerror}", str(path)) from error


def check_whole(path: str | PathLike[str]) -> None:
    """Read all of a file of `torch.save` and compare its checksums, which loading does not.

    Raises:
        ValueError: The file is missing, damaged or of another kind.
    """
    path = Path(path)
    if _read_head(path)[:4] != _ZIP:
        raise ValueError(f"{path}: is not a checkpoint of this package.")
    try:
        with zipfile.ZipFile(path) as archive:
            bad = archive.testzip()
    except (OSError, zipfile.BadZipFile, EOFError, NotImplementedError) as error:
        raise ValueError(f"{path}: is damaged or cut off ({one_line(error)}).") from error
    if bad is not None:
        raise ValueError(f"{path}: is damaged ({bad}).")


def _read(path: Path, mmap: bool) -> Any:
    head = _read_head(path)
    if head.startswith(_ZIP):
        return _read_zip(path, mmap)
    if head.startswith(_OLD_TORCH):
        return _read_torch(path, False, zipped=False)
    if head[8:9] == b"{" and int.from_bytes(head[:8], "little") <= path.stat().st_size - 8:
        return _read_safetensors(path)
    for magic, name in _OTHERS:
        if head.startswith(magic):
            raise ValueError(f"{path}: is {name}, not a checkpoint. {_FORMATS}")
    if head[:1] == b"\x80" or path.suffix == ".pkl":
        return _read_pickle(path)
    raise ValueError(f"{path}: is no checkpoint, or its start is damaged. {_FORMATS} {_AGAIN}")


def _read_head(path: Path) -> bytes:
    if path.is_dir():
        raise ValueError(f"{path}: is a folder. Name a file in it, such as model_final.pth.")
    try:
        with open(path, "rb") as file:
            head = file.read(32)
    except FileNotFoundError as error:
        raise ValueError(f"{path}: no such file. Check the path of the weights.") from error
    except OSError as error:
        raise ValueError(f"{path}: cannot be read: {one_line(error)}.") from error
    if not head:
        raise ValueError(f"{path}: is empty (0 bytes). {_AGAIN}")
    return head


def _read_zip(path: Path, mmap: bool) -> Any:
    try:
        with zipfile.ZipFile(path) as archive:
            names = {name.rpartition("/")[2] for name in archive.namelist()}
    except (OSError, zipfile.BadZipFile) as error:
        raise ValueError(f"{path}: is damaged or cut off ({one_line(error)}). {_AGAIN}") from error
    if "constants.pkl" in names:
        raise ValueError(f"{path}: is a TorchScript program, not a checkpoint. {_FORMATS}")
    if "data.pkl" not in names:
        raise ValueError(f"{path}: is a zip archive, not a checkpoint. {_FORMATS}")
    return _read_torch(path, mmap)


class _Inert:
    """In place of an object that is not needed, such as the log that mmengine saves."""

    def __init__(self, *_args: Any) -> None:
        pass

    def __setstate__(self, _state: Any) -> None:
        pass


@contextlib.contextmanager
def _inert_globals(path: Path) -> Iterator[None]:
    """Let `torch.load` make `_Inert` of what mmdetection saves beside the weights."""
    if not hasattr(torch.serialization, "get_unsafe_globals_in_checkpoint"):  # torch < 2.6
        yield
        return
    names = torch.serialization.get_unsafe_globals_in_checkpoint(str(path))
    inert: list[Any] = [(_Inert, name) for name in names if name.startswith(_INERT)]
    with torch.serialization.safe_globals(inert):
        yield


def _read_torch(path: Path, mmap: bool, zipped: bool = True) -> Any:
    # torch.load with weights_only is safe for what comes here. The tar files of 2017, through
    # which torch before 2.6 would run code, do not.
    try:
        with _inert_globals(path) if zipped else contextlib.nullcontext():
            return torch.load(str(path), map_location="cpu", weights_only=True, mmap=mmap)
    except pickle.UnpicklingError as error:
        raise _refusal(path, error) from error
    except Exception as error:  # of the zip reader, of wrong sizes, of any misuse of the format
        if mmap and isinstance(error, OSError):  # some file systems cannot map files
            return _read_torch(path, False, zipped)
        raise ValueError(f"{path}: is damaged or cut off ({one_line(error)}). {_AGAIN}") from error


def _read_pickle(path: Path) -> Any:
    try:
        with open(path, "rb") as file:
            return restricted_load(file)
    except pickle.UnpicklingError as error:
        raise _refusal(path, error) from error
    except Exception as error:  # a damaged pickle raises nearly everything
        raise ValueError(f"{path}: is damaged or cut off ({one_line(error)}). {_AGAIN}") from error


def _refusal(path: Path, error: Exception) -> ValueError:
    found = re.search(r"GLOBAL (\w[\w.]*)", str(error))
    if found is None:
        text = one_line(error).split(". ")[-1]
        return ValueError(f"{path}: is damaged, or not a checkpoint ({text}). {_AGAIN}")
    return ValueError(
        f"{path}: refused, reading it would run code ({found[1]}). Only tensors and plain types "
        "are read: save the state dict alone where you trust the file."
    )


def _read_safetensors(path: Path) -> dict[str, Any]:
    safetensors = _import_safetensors(path)
    try:
        with safetensors.safe_open(str(path), framework="pt") as file:
            checkpoint: dict[str, Any] = {
                "model": {key: file.get_tensor(key) for key in file.keys()}
            }
            info = (file.metadata() or {}).get(INFO_KEY)
        if info is not None:
            checkpoint[INFO_KEY] = json.loads(info)
    except Exception as error:  # safetensors' own types, OSError, JSON
        raise ValueError(f"{path}: is damaged or cut off ({one_line(error)}). {_AGAIN}") from error
    return checkpoint


def _safetensors_bytes(checkpoint: Mapping[str, Any], path: Path) -> bytes:
    left = set(checkpoint) - {"model", INFO_KEY}
    if left:
        raise ValueError(f"{path}: .safetensors cannot hold {sorted(left)}. Use .pth.")
    _import_safetensors(path)
    from safetensors.torch import save

    metadata = {"format": "pt"}
    if INFO_KEY in checkpoint:
        metadata[INFO_KEY] = json.dumps(checkpoint[INFO_KEY])
    # Copies, since the format knows no shared memory.
    tensors = {k: v.detach().clone().contiguous() for k, v in checkpoint["model"].items()}
    return save(tensors, metadata)


def _import_safetensors(path: Path) -> Any:
    try:
        import safetensors
    except ModuleNotFoundError as error:
        raise ValueError(f"{path}: needs a package. Run: pip install safetensors") from error
    return safetensors


def _arrange(content: dict[str, Any]) -> dict[str, Any]:
    """Put the weights under "model", and mark files whose names are not Detectron2's."""
    key = next((key for key in _STATE_KEYS if isinstance(content.get(key), Mapping)), None)
    if key is not None:
        content["model"] = content.pop(key)
    if key == "model_state":
        content.update(__author__="pycls", matching_heuristics=True)
    if key is not None:
        return content
    blobs = content.get("blobs", content)  # Detectron1's detectors have it, its backbones not
    if isinstance(blobs, Mapping) and any(isinstance(x, np.ndarray) for x in blobs.values()):
        model = {k: v for k, v in blobs.items() if not str(k).endswith("_momentum")}
        return {"model": model, "__author__": "Caffe2", "matching_heuristics": True}
    return {"model": content}


def _is_weight(value: Any) -> bool:
    return isinstance(value, Tensor | np.ndarray)


def _to_tensor(path: Path, key: str, value: np.ndarray) -> Tensor:
    try:
        return torch.from_numpy(value)
    except TypeError as error:
        raise ValueError(f"{path}: the entry {key!r} is an array of {value.dtype}.") from error
