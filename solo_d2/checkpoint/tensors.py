"""Which tensors can be weights of a model, and the checksum of a whole state dict."""

from __future__ import annotations

import zlib
from collections.abc import Mapping

import torch
from torch import Tensor, nn

CHECKSUM_KEY = "solo_d2_crc32"
"""Of the metadata of a safetensors file that this package writes: the format itself has none."""

_INPUT_STATISTICS = ("pixel_mean", "pixel_std")


def strange_kind(value: Tensor) -> str:
    """Say what keeps a tensor from being a weight; "" if nothing does."""
    if value.is_meta:
        return "a meta tensor, without values"
    if value.is_nested:
        return "a nested tensor"
    if value.layout is not torch.strided:
        return "a sparse tensor"
    if value.is_quantized:
        return "a quantized tensor"
    return ""


def check_values(model: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Check the values that a model would take over, before it does.

    Args:
        model: what is to be filled; entries that it does not have, or has in another shape, are
            left out.
        state: weights of a file.

    Raises:
        ValueError: An entry has another kind of numbers than the model, values that are not
            finite, or negative variances. The message lacks the name of the file, which the
            caller adds.
    """
    own = model.state_dict()
    for key, value in state.items():
        if key in own and own[key].shape == value.shape:
            _check_kind(key, value, own[key])
            _check_finite(key, value, own[key].dtype)
        elif key.rpartition(".")[2] in _INPUT_STATISTICS and value.is_floating_point():
            _check_finite(key, value, torch.float32)


def _check_kind(key: str, value: Tensor, own: Tensor) -> None:
    if _numbers(value) != _numbers(own):
        raise ValueError(
            f"is damaged or of another model: {key} has {_numbers(value)} ({value.dtype}), "
            f"expected {_numbers(own)} ({own.dtype})"
        )


def _numbers(value: Tensor) -> str:
    if value.is_complex():
        return "complex numbers"
    return "real numbers" if value.is_floating_point() else "integers"


def _check_finite(key: str, value: Tensor, dtype: torch.dtype) -> None:
    if not value.is_floating_point() or not value.numel():
        return
    # As the model will have it: a number of 64 bits may be too large for 32. Half precision, for
    # which some versions of torch have no minimum on the CPU, is widened.
    wide = dtype if dtype.itemsize > 2 else torch.float32
    low, high = (float(x) for x in torch.aminmax(value.detach().to(wide)))
    if not (-float("inf") < low and high < float("inf")):
        raise ValueError(
            f"has NaN or infinity in {key}: damaged, or of a training that diverged. Use an "
            "earlier checkpoint"
        )
    if low < 0 and key.endswith("running_var"):
        raise ValueError(f"is damaged: {key} has negative variances, down to {low:g}")


def checksum(state: Mapping[str, Tensor], info: str) -> str:
    """Return the CRC-32 of names, types, shapes and bytes of a state dict, and of a text."""
    crc = zlib.crc32(info.encode())
    for key in sorted(state):
        value = state[key].detach().contiguous()
        crc = zlib.crc32(f"{key} {value.dtype} {tuple(value.shape)}".encode(), crc)
        crc = zlib.crc32(value.reshape(-1).view(torch.uint8).numpy().data, crc)
    return f"{crc:08x}"
