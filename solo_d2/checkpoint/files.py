"""Checkpoint files in and out: `.pth`, `.pkl` and `.safetensors`. No file can run code here."""

from __future__ import annotations

import json
from collections.abc import Mapping
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..io.atomic import atomic_write
from ..io.errors import printable
from .formats import FORMATS, Inert, import_safetensors, read_content
from .info import INFO_KEY
from .tensors import CHECKSUM_KEY, checksum, strange_kind

_STATE_KEYS = ("model", "state_dict", "model_state")
"""Where Detectron2, mmdetection and torchvision, and pycls put the weights."""
EMA_KEY = "model_ema"
"""Where this package puts the moving average (EMA) of the weights, a whole state of the model."""
_LONGEST = 500
"""Letters in the name of an entry."""


def load_checkpoint(
    path: str | PathLike[str], *, mmap: bool = False, verify: bool = True
) -> dict[str, Any]:
    """Read a checkpoint to the CPU without running code from it.

    Args:
        path: a local file: of `torch.save` (old and new format), a pickle of numpy arrays
            (Detectron2's, MSRA's and Caffe2's .pkl), or safetensors.
        mmap: leave tensors in the file until they are used, where the format allows it. Only for
            weights that are copied at once: the file must not be written to as long as they live.
        verify: compare the checksums of a file of `torch.save` with its content, which takes
            about 0.1 s for 100 MB.

    Returns:
        "model": dict from names to tensors, as named in the file; the other entries of the file
        as they are. Pickles of backbones without more get Detectron2's "matching_heuristics" and
        "__author__". "solo_d2" has a `CheckpointInfo` as plain types, where the file has one, and
        "model_ema" the moving average of the weights.

    Raises:
        ValueError: The file is missing, damaged, of another kind, without weights, or it would
            run code or take far more memory than it has bytes.

    Example:
        >>> import torch
        >>> save_checkpoint({"model": {"bias": torch.ones(2)}, "iteration": 7}, "mine.pth")
        >>> load_checkpoint("mine.pth")["iteration"]
        7
    """
    path = Path(path)
    content = read_content(path, mmap=mmap, verify=verify)
    if not isinstance(content, Mapping):
        raise ValueError(f"{path}: holds a {type(content).__name__}, not weights. {FORMATS}")
    checkpoint = _arrange({k: v for k, v in content.items() if not isinstance(v, Inert)})
    model = checkpoint["model"]
    if not isinstance(model, Mapping) or not any(_is_weight(x) for x in model.values()):
        keys = _names(model) if isinstance(model, Mapping) else "no dict"
        raise ValueError(f"{path}: holds no weights, but {keys or 'an empty dict'}. {FORMATS}")
    checkpoint["model"] = {key: _to_weight(path, key, value) for key, value in model.items()}
    average = checkpoint.get(EMA_KEY)
    if INFO_KEY in checkpoint and isinstance(average, Mapping):
        checkpoint[EMA_KEY] = {k: _to_weight(path, k, value) for k, value in average.items()}
    return checkpoint


def load_state_dict(path: str | PathLike[str]) -> dict[str, Tensor]:
    """Read only the weights of a checkpoint; see `load_checkpoint`.

    Example:
        >>> import torch
        >>> save_checkpoint({"model": {"bias": torch.ones(2)}}, "mine.pth")
        >>> load_state_dict("mine.pth")
        {'bias': tensor([1., 1.])}
    """
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

    Example:
        >>> import torch
        >>> save_checkpoint({"model": {"bias": torch.ones(2)}}, "mine.safetensors")
        >>> load_state_dict("mine.safetensors")
        {'bias': tensor([1., 1.])}
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


def _safetensors_bytes(checkpoint: Mapping[str, Any], path: Path) -> bytes:
    left = set(checkpoint) - {"model", INFO_KEY}
    if left:
        raise ValueError(f"{path}: .safetensors cannot hold {sorted(left)}. Use .pth.")
    import_safetensors(path)
    from safetensors.torch import save

    # Copies, since the format knows no shared memory.
    tensors = {k: v.detach().clone().contiguous().cpu() for k, v in checkpoint["model"].items()}
    info = json.dumps(checkpoint[INFO_KEY]) if INFO_KEY in checkpoint else ""
    metadata = {"format": "pt", CHECKSUM_KEY: checksum(tensors, info)}
    if info:
        metadata[INFO_KEY] = info
    return save(tensors, metadata)


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


def _to_weight(path: Path, key: Any, value: Any) -> Tensor:
    name = printable(repr(key), 100) if isinstance(key, str) else f"a {type(key).__name__}"
    odd = not isinstance(key, str) or not key.isprintable() or len(key) > _LONGEST
    if odd or not _is_weight(value):
        kind = "no name of a weight" if odd else f"a {type(value).__name__}, not a tensor"
        raise ValueError(f"{path}: the entry {name} is {kind}. {FORMATS}")
    if isinstance(value, np.ndarray):
        try:
            return torch.from_numpy(value)
        except TypeError as error:
            raise ValueError(f"{path}: the entry {name} is an array of {value.dtype}.") from error
    kind = strange_kind(value)
    if kind:
        raise ValueError(f"{path}: the entry {name} is {kind}. Save the weights as dense tensors.")
    return value


def _names(model: Mapping[Any, Any]) -> str:
    return printable(", ".join(key for key in list(model)[:5] if isinstance(key, str)))
