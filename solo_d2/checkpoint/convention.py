"""Compare the input of a model with that of its weights. A mismatch silently degrades accuracy."""

from __future__ import annotations

import math
from typing import Any

from torch import nn

from .info import CheckpointInfo, InputConvention

OWN = "solo_d2"
"""`CheckpointInfo.source` of a model that was trained here."""

_TOLERANCE = 0.01
"""Between means and deviations, in units of [0, 255]: configs and files round differently."""


def model_convention(model: nn.Module) -> InputConvention | None:
    """Read from a model the input that it expects; None if it does not tell."""
    pixel_format = getattr(model, "input_format", None)
    mean, std = getattr(model, "pixel_mean", None), getattr(model, "pixel_std", None)
    if pixel_format is None or mean is None or std is None or mean.numel() != 3:
        return None
    resize_filter = getattr(model, "resize_filter", "pillow")
    return InputConvention(
        pixel_format, _triple(mean), _triple(std), _stride_in_1x1(model), resize_filter
    )


def own_info(model: nn.Module) -> dict[str, Any] | None:
    """Return the `CheckpointInfo`, as plain types, of a model that is trained here."""
    convention = model_convention(model)
    if convention is None:
        return None
    head = type(getattr(model, "head", model)).__name__
    keys = ("class_names", "stuff_names", "category_ids", "stuff_category_ids")
    classes = {key: tuple(getattr(model, key, ())) for key in keys}
    return CheckpointInfo(OWN, head, "", convention, **classes).to_dict()


def check_convention(info: CheckpointInfo, model: nn.Module) -> None:
    """Compare the input that weights were trained with to that of the model.

    Raises:
        ValueError: They differ; the text lists the config keys to set.
    """
    own = model_convention(model)
    if own is None:
        return
    settings = own.settings  # without the stride where there are no bottlenecks
    pairs = [
        f"{key} {_words(value)}"
        for key, value in info.convention.settings.items()
        if not _same(value, settings.get(key, value))
    ]
    if pairs:
        config = f" {info.config} with" if info.config else ""
        raise ValueError(
            f"was trained with another input than this model gets. Set{config} {' '.join(pairs)}"
        )


def _same(value: Any, other: Any) -> bool:
    if not isinstance(value, list):
        return bool(value == other)
    return all(abs(x - y) <= _TOLERANCE for x, y in zip(value, other, strict=True))


def _words(value: Any) -> str:
    """Write a value as on a command line."""
    return f'"[{", ".join(f"{x:g}" for x in value)}]"' if isinstance(value, list) else str(value)


def _triple(values: Any) -> tuple[float, float, float]:
    first, second, third = (round(x, 4) for x in values.flatten().tolist())
    return first, second, third


def _stride_in_1x1(model: nn.Module) -> bool | None:
    """Where the first bottleneck of res3 halves its input; None without bottlenecks."""
    backbone = getattr(model, "backbone", None)
    stage = getattr(getattr(backbone, "bottom_up", backbone), "res3", None)
    block = stage[0] if isinstance(stage, nn.Sequential) and len(stage) else None
    if not all(hasattr(block, name) for name in ("conv1", "conv2", "conv3")):
        return None
    strides = [math.prod(getattr(block, name).stride) for name in ("conv1", "conv2")]
    return strides[0] > strides[1] if strides[0] != strides[1] else None
