"""Reads checkpoint files of all formats. None runs code here, and no size in one is believed.

What a file is, its content decides; names of downloads are not reliable.
"""

from __future__ import annotations

import contextlib
import copy
import io
import json
import pickle
import re
import stat
import tarfile
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..io.errors import one_line, printable
from .info import INFO_KEY
from .pickles import restricted_load
from .structure import check_structure
from .tensors import CHECKSUM_KEY, checksum

AGAIN = "Download, copy or save it again."
FORMATS = "Expected a .pth, .pkl or .safetensors file with weights."

_ZIP = b"PK\x03\x04"
_OLD_TORCH = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19"
_OLD_TORCH_PICKLES = 5
"""Number, version, machine, content and names of the storages, before their bytes."""
_OTHERS = (
    (b"\x89PNG", "a PNG image"),
    (b"\xff\xd8\xff", "a JPEG image"),
    (b"\x89HDF", "an HDF5 file"),
    (b"\x1f\x8b", "a gzip archive (unpack it first)"),
    (b"version https://git-lfs", "a Git LFS pointer (run: git lfs pull)"),
    (b"<", "a web page or XML (a failed download?)"),
    (b"{", "a JSON file"),
    (b"[", "a JSON file"),
)
_INERT = ("mmengine.", "mmcv.", "mmdet.", "numpy.")
"""Packages whose objects are left out of a checkpoint; nothing of them is imported."""
_EXPANSION = 8
"""Bytes of all tensors for a byte of the file: weights can be shared, but not without end."""
_HARMLESS = 512 << 20
"""Bytes that all tensors may have in any case."""


class Inert:
    """In place of an object that is not needed, such as the log that mmengine saves."""

    def __init__(self, *_args: Any) -> None:
        pass

    def __setstate__(self, _state: Any) -> None:
        pass


def read_content(path: Path, *, mmap: bool, verify: bool) -> Any:
    """Read what is in a file, tensors on the CPU; see `solo_d2.checkpoint.files.load_checkpoint`.

    Raises:
        ValueError: The file is missing, damaged, of another kind, would run code, or would need
            far more memory than it has bytes.
    """
    head = _read_head(path)
    if head.startswith(_ZIP):
        return _read_zip(path, mmap, verify)
    if head.startswith(_OLD_TORCH):
        return _read_old_torch(path)
    if head[8:9] == b"{" and int.from_bytes(head[:8], "little") <= path.stat().st_size - 8:
        return _read_safetensors(path)
    for magic, name in _OTHERS:
        if head.startswith(magic):
            raise ValueError(f"{path}: is {name}, not a checkpoint. {FORMATS}")
    if head[:1] == b"\x80" or path.suffix == ".pkl":
        return _read_pickle(path)
    raise ValueError(f"{path}: is no checkpoint, or its start is damaged. {FORMATS} {AGAIN}")


def check_whole(path: Path) -> None:
    """Read all of a file of `torch.save` and compare its checksums.

    Raises:
        ValueError: The file is missing, damaged or of another kind.
    """
    if _read_head(path)[:4] != _ZIP:
        raise ValueError(f"{path}: is not a checkpoint of this package.")
    with _archive(path) as archive:
        _check_members(path, archive)
        _check_checksums(path, archive)


def _read_head(path: Path) -> bytes:
    try:
        kind = path.stat().st_mode
        if stat.S_ISDIR(kind):
            raise _Told(f"{path}: is a folder. Name a file in it, such as model_final.pth.")
        if not stat.S_ISREG(kind):  # reading from a pipe or a device may never end
            raise _Told(f"{path}: is a pipe or a device, not a file. {FORMATS}")
        with open(path, "rb") as file:
            head = file.read(32)
    except _Told:
        raise
    except FileNotFoundError as error:
        raise ValueError(f"{path}: no such file. Check the path of the weights.") from error
    except (OSError, ValueError) as error:  # ValueError: of zero bytes in the name
        raise ValueError(f"{printable(str(path))}: cannot be read: {one_line(error)}.") from error
    if not head:
        raise ValueError(f"{path}: is empty (0 bytes). {AGAIN}")
    return head


# Zip archives, as torch.save writes them


@contextlib.contextmanager
def _archive(path: Path) -> Iterator[zipfile.ZipFile]:
    """An open archive; its errors, which are of all types, become one."""
    try:
        with zipfile.ZipFile(path) as archive:
            yield archive
    except _Told:
        raise
    except Exception as error:
        raise ValueError(f"{path}: is damaged or cut off ({one_line(error)}). {AGAIN}") from error


class _Told(ValueError):
    """An error that names the file already."""


def _check_members(path: Path, archive: zipfile.ZipFile) -> str:
    """Name of the pickle in an archive that `torch.save` could have written."""
    members = archive.infolist()
    by_name = {info.filename.rpartition("/")[2]: info.filename for info in members}
    if "constants.pkl" in by_name:
        raise _Told(f"{path}: is a TorchScript program, not a checkpoint. {FORMATS}")
    if "data.pkl" not in by_name:
        raise _Told(f"{path}: is a zip archive, not a checkpoint. {FORMATS}")
    if any(info.compress_type != zipfile.ZIP_STORED for info in members):
        raise _Told(f"{path}: is compressed, which torch.save never does. Save it again.")
    names = {info.filename for info in members}
    total = sum(info.file_size for info in members)
    if len(names) < len(members) or total > path.stat().st_size:
        raise _Told(f"{path}: is damaged (parts overlap or have one name). {AGAIN}")
    return by_name["data.pkl"]


def _check_checksums(path: Path, archive: zipfile.ZipFile) -> None:
    bad = archive.testzip()
    if bad is not None:
        raise _Told(f"{path}: is damaged ({printable(bad)} has another checksum). {AGAIN}")


def _read_zip(path: Path, mmap: bool, verify: bool) -> Any:
    with _archive(path) as archive:
        name = _check_members(path, archive)
        if verify:
            _check_checksums(path, archive)
        content = archive.read(name)
    with _pickle_errors(path):
        check_structure(io.BytesIO(content))
        loaded = _load_mapped(path)
        _check_sizes(path, loaded)
        # Mapped in any case: otherwise older versions of torch believe the sizes in the pickle.
        return loaded if mmap else copy.deepcopy(loaded)


def _load_mapped(path: Path) -> Any:
    with _inert_globals(path):
        try:
            return torch.load(str(path), map_location="cpu", weights_only=True, mmap=True)
        except OSError:  # some file systems cannot map files
            return torch.load(str(path), map_location="cpu", weights_only=True)


@contextlib.contextmanager
def _inert_globals(path: Path) -> Iterator[None]:
    """Let `torch.load` make `Inert` of what mmdetection saves beside the weights."""
    if not hasattr(torch.serialization, "get_unsafe_globals_in_checkpoint"):  # torch < 2.6
        yield
        return
    names = torch.serialization.get_unsafe_globals_in_checkpoint(str(path))
    inert: list[Any] = [(Inert, name) for name in names if name.startswith(_INERT)]
    with torch.serialization.safe_globals(inert):
        yield


# Other formats


def _read_old_torch(path: Path) -> Any:
    # torch before 2.6 runs code from the tar files of 2017. One can begin like any other file.
    with contextlib.suppress(tarfile.TarError), tarfile.open(path, "r:"):
        raise ValueError(f"{path}: is a tar archive, of torch before 1.0. Save it again.")
    with _pickle_errors(path):
        with open(path, "rb") as file:
            for _ in range(_OLD_TORCH_PICKLES):
                check_structure(file)
        loaded = torch.load(str(path), map_location="cpu", weights_only=True)
        _check_sizes(path, loaded)
    return loaded


def _read_pickle(path: Path) -> Any:
    with _pickle_errors(path), open(path, "rb") as file:
        return restricted_load(file)


@contextlib.contextmanager
def _pickle_errors(path: Path) -> Iterator[None]:
    """Damaged files raise nearly everything, which becomes one error."""
    try:
        yield
    except _Told:
        raise
    except pickle.UnpicklingError as error:
        raise _refusal(path, error) from error
    except Exception as error:
        raise ValueError(f"{path}: is damaged or cut off ({one_line(error)}). {AGAIN}") from error


def _refusal(path: Path, error: Exception) -> ValueError:
    found = re.search(r"GLOBAL (\w[\w.]*)", str(error))
    if found is None:
        text = one_line(error).split(". ")[-1]
        return ValueError(f"{path}: is damaged, or not a checkpoint ({text}). {AGAIN}")
    return ValueError(
        f"{path}: refused, reading it would run code ({found[1]}). Only tensors and plain types "
        "are read: save the state dict alone where you trust the file."
    )


def _read_safetensors(path: Path) -> dict[str, Any]:
    safetensors = import_safetensors(path)
    try:
        with safetensors.safe_open(str(path), framework="pt") as file:
            model = {key: file.get_tensor(key) for key in file.keys()}
            metadata = file.metadata() or {}
        checkpoint: dict[str, Any] = {"model": model}
        if INFO_KEY in metadata:
            checkpoint[INFO_KEY] = json.loads(metadata[INFO_KEY])
    except Exception as error:  # safetensors' own types, OSError, JSON
        raise ValueError(f"{path}: is damaged or cut off ({one_line(error)}). {AGAIN}") from error
    expected = metadata.get(CHECKSUM_KEY)
    if expected is not None and expected != checksum(model, metadata.get(INFO_KEY, "")):
        raise ValueError(f"{path}: is damaged (it has another checksum). {AGAIN}")
    return checkpoint


def import_safetensors(path: Path) -> Any:
    """Import safetensors, or say that `path` needs it."""
    try:
        import safetensors
    except ModuleNotFoundError as error:
        raise ValueError(f"{path}: needs a package. Run: pip install safetensors") from error
    return safetensors


def _check_sizes(path: Path, content: Any) -> None:
    """Refuse tensors that repeat a few bytes of the file, or have none there."""
    size = path.stat().st_size
    tensors = [x for x in _tensors(content, set()) if x.layout is torch.strided and not x.is_meta]
    memory = {x.untyped_storage().data_ptr(): x.untyped_storage().nbytes() for x in tensors}
    total = sum(x.numel() * x.element_size() for x in tensors)
    if sum(memory.values()) > size or total > max(_EXPANSION * size, _HARMLESS):
        raise _Told(f"{path}: its tensors need {total} bytes, the file has {size}. {AGAIN}")


def _tensors(value: Any, seen: set[int]) -> Iterator[Tensor]:
    if id(value) in seen:
        return
    seen.add(id(value))
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from _tensors(item, seen)
    elif isinstance(value, list | tuple | set | frozenset):
        for item in value:
            yield from _tensors(item, seen)
