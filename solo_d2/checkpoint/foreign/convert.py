"""Convert the state dicts of AdelaiDet, WXinlong/SOLO and mmdetection to this package's."""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

from torch import Tensor

from ..info import INFO_KEY, MSRA, TORCHVISION, CheckpointInfo, InputConvention
from .architectures import Architecture, recognise
from .classes import find_classes
from .configs import closest_config, model_shapes
from .key_maps import SIGNATURES, describe_other, find_head, find_source, rename

SOURCES = tuple(SIGNATURES)
"""What `convert_state_dict` takes as source, besides "auto"."""

_CONVENTIONS = {"adelaidet": MSRA, "solo": TORCHVISION, "mmdet": TORCHVISION}
# Of BatchNorm, which ours are frozen; and the input's statistics, which ours keeps in the config.
_DROPPED = re.compile(r"num_batches_tracked$|(data_preprocessor\.|pixel_)(mean|std)$")
_LISTED = 5


class ConvertedStateDict(OrderedDict[str, Tensor]):
    """Tensors by this package's names. Convert it to a plain ``dict`` before saving.

    Attributes:
        info: where they come from, the config that fits, and the input that they want.
        overrides: config keys that this config needs in addition, such as
            ``MODEL.SOLO.NUM_CLASSES``, with their values; mostly none.
    """

    info: CheckpointInfo
    overrides: dict[str, Any]


def convert_state_dict(state_dict: Mapping[str, Any], source: str = "auto") -> ConvertedStateDict:
    """Rename a published SOLO's parameters to those of this package's model.

    Supported are SOLO, Decoupled SOLO, SOLOv2 and the light models of the latter two, on ResNets
    and ResNeXts, with or without deformable convolutions. Names and shapes decide which one it is.

    Args:
        state_dict: tensors by name, or a checkpoint with them under "state_dict" or "model".
        source: "adelaidet", "solo" (WXinlong/SOLO), "mmdet" (2.x, 3.x), or "auto" to find out.

    Returns:
        The same tensors: exactly those of the model that the config in `info` builds.

    Raises:
        ValueError: it is not from that source or from none of them, of another kind of model, or
            incomplete: keys are missing, left over, or of a wrong shape.

    Example:
        >>> convert_state_dict({})
        Traceback (most recent call last):
            ...
        ValueError: the state dict is empty
    """
    if source not in (*SOURCES, "auto"):
        raise ValueError(f"source must be one of {(*SOURCES, 'auto')}, got {source!r}")
    tensors = _unwrap(state_dict)
    source, head = _identify(tensors, source)
    statistics = {key: tensors.pop(key) for key in list(tensors) if _DROPPED.search(key)}
    _check_tensors(tensors)
    origin: dict[str, str] = {}  # our key -> the source's
    for key in tensors:
        ours = rename(key, source, head)
        if ours in origin:
            raise ValueError(f"{key} and {origin[ours]} are the same parameter of the model")
        origin[ours] = key
    shapes = {ours: tuple(tensors[key].shape) for ours, key in origin.items()}
    try:
        architecture = recognise(head, shapes)
    except ValueError as error:
        raise ValueError(f"a SOLO of {source!r}, but {error}") from error
    order = _check_complete(source, architecture, shapes, origin)
    result = ConvertedStateDict((ours, tensors[origin[ours]]) for ours in order)
    config, result.overrides = closest_config(architecture)
    convention = _convention(source, architecture, statistics)
    names, ids = find_classes(state_dict, architecture.num_classes)
    result.info = CheckpointInfo(
        source, str(architecture), config, convention, class_names=names, category_ids=ids
    )
    return result


def _unwrap(checkpoint: Mapping[str, Any]) -> dict[str, Any]:
    """Return the entries alone, without the prefix of `DataParallel`."""
    if isinstance(checkpoint, Mapping) and INFO_KEY in checkpoint:
        raise ValueError(
            "the checkpoint is a model of this package already (converted before): load it as it is"
        )
    found: Any = checkpoint
    for key in ("state_dict", "model"):
        if isinstance(found, Mapping) and isinstance(found.get(key), Mapping):
            found = found[key]
    if not isinstance(found, Mapping) or not all(isinstance(key, str) for key in found):
        raise ValueError(f"expected a state dict: tensors by name, got a {type(found).__name__}")
    if not found:
        raise ValueError("the state dict is empty")
    prefix = "module."
    if all(key.startswith(prefix) for key in found):
        return {key[len(prefix) :]: value for key, value in found.items()}
    return dict(found)


def _identify(keys: Mapping[str, Any], source: str) -> tuple[str, str]:
    """Return source and head, or raise an error that says what the checkpoint is instead."""
    ours = any(key.startswith("head.category_predictor.") for key in keys)
    found = None if ours else find_source(keys)
    if found is None:
        other = describe_other(keys)
        if other is not None:
            raise ValueError(f"not a SOLO of {', '.join(SOURCES)}, but {other}")
        raise ValueError(
            f"not a SOLO of {', '.join(SOURCES)}; the keys are {_list(list(keys))}. Expected a "
            "checkpoint as these projects publish it"
        )
    if source not in ("auto", found):
        raise ValueError(f'the source is {found!r}, not {source!r}; leave it at "auto"')
    head = find_head(keys)
    if head is None:
        raise ValueError(f"a SOLO of {found!r}, but without the parameters of its mask branch")
    return found, head


def _check_tensors(values: Mapping[str, Any]) -> None:
    wrong = [key for key, value in values.items() if not isinstance(value, Tensor)]
    if wrong:
        raise ValueError(
            f"expected tensors by name, but {wrong[0]} is a {type(values[wrong[0]]).__name__}"
        )


def _check_complete(
    source: str,
    architecture: Architecture,
    shapes: Mapping[str, tuple[int, ...]],
    origin: Mapping[str, str],
) -> list[str]:
    """Return the model's keys in order, after checking that names and shapes match."""
    what = f"the checkpoint looks like {architecture} of {source!r}, but"
    try:
        expected = model_shapes(architecture)
    except ValueError as error:
        raise ValueError(f"{what} {error}") from error
    missing = [key for key in expected if key not in shapes]
    left = [origin[key] for key in shapes if key not in expected]
    wrong = [
        f"{origin[key]} {shapes[key]} instead of {shape}"
        for key, shape in expected.items()
        if key in shapes and shapes[key] != shape
    ]
    groups = (("missing", missing), ("left over", left), ("of a wrong shape", wrong))
    problems = [f"{len(keys)} keys {what} ({_list(keys)})" for what, keys in groups if keys]
    if problems:
        raise ValueError(f"{what} does not fit it: {'; '.join(problems)}")
    return list(expected)


def _list(keys: Sequence[str]) -> str:
    more = [f"and {len(keys) - _LISTED} more"] if len(keys) > _LISTED else []
    return ", ".join([*keys[:_LISTED], *more])


def _convention(
    source: str, architecture: Architecture, statistics: Mapping[str, Any]
) -> InputConvention:
    """Return the source's convention, with the mean and deviation that the checkpoint states."""
    convention = _CONVENTIONS[source]
    if not architecture.bottlenecks:
        convention = replace(convention, stride_in_1x1=None)
    stated: dict[str, Any] = {}
    for key, value in statistics.items():
        name = f"pixel_{re.split('[._]', key)[-1]}"
        if name in ("pixel_mean", "pixel_std") and isinstance(value, Tensor):
            if value.numel() != 3:
                raise ValueError(f"{key} must hold three values, got the shape {value.shape}")
            stated[name] = tuple(round(x, 4) for x in value.flatten().tolist())
    return InputConvention.from_dict(asdict(replace(convention, **stated)))
