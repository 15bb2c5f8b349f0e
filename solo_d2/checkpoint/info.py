"""What a checkpoint says of itself: whose model it is, how its input must look, and its classes."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from ..io.errors import one_line, printable

INFO_KEY = "solo_d2"
"""Key of a `CheckpointInfo`, as plain types, beside "model" in a checkpoint file."""

_LONGEST = 1000
"""Letters of a text that is believed to be a name."""

_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class InputConvention:
    """How a backbone wants its input; a wrong one costs AP and raises no error by itself.

    Attributes:
        pixel_format: order of the channels, "BGR" or "RGB" (``INPUT.FORMAT``).
        pixel_mean: subtracted, in that order, for values in [0, 255] (``MODEL.PIXEL_MEAN``).
        pixel_std: divided by, above 0 (``MODEL.PIXEL_STD``).
        stride_in_1x1: a bottleneck's stride is in its first 1x1 convolution instead of in the 3x3
            (``MODEL.RESNETS.STRIDE_IN_1X1``); None for a backbone without bottlenecks.
        resize_filter: what images are resized with, "pillow" or "opencv"
            (``INPUT.RESIZE_FILTER``); Pillow's in files that do not say.

    Example:
        >>> convention = InputConvention("RGB", (123.7, 116.3, 103.5), (58.4, 57.1, 57.4), False)
        >>> convention.settings["INPUT.FORMAT"]
        'RGB'
    """

    pixel_format: str
    pixel_mean: tuple[float, float, float]
    pixel_std: tuple[float, float, float]
    stride_in_1x1: bool | None
    resize_filter: str = "pillow"

    @property
    def settings(self) -> dict[str, Any]:
        """Values of the config keys, by their full names, that give a model this input."""
        settings: dict[str, Any] = {
            "INPUT.FORMAT": self.pixel_format,
            "INPUT.RESIZE_FILTER": self.resize_filter,
            "MODEL.PIXEL_MEAN": list(self.pixel_mean),
            "MODEL.PIXEL_STD": list(self.pixel_std),
        }
        if self.stride_in_1x1 is not None:
            settings["MODEL.RESNETS.STRIDE_IN_1X1"] = self.stride_in_1x1
        return settings

    @classmethod
    def from_dict(cls, values: Any) -> InputConvention:
        """Read plain types, leaving out keys that are not known.

        Raises:
            ValueError: A value is missing or none that an input can have.
        """
        values = {"resize_filter": "pillow", **_known(cls, values)}
        stride = values.get("stride_in_1x1")
        if not isinstance(stride, bool | None):
            raise ValueError("stride_in_1x1 is neither true nor false")
        std = _triple(values, "pixel_std")
        if min(std) <= 0:
            raise ValueError(f"pixel_std is {std}, expected values above 0")
        mean = _triple(values, "pixel_mean")
        order, resize_filter = _text(values, "pixel_format"), _text(values, "resize_filter")
        return cls(order, mean, std, stride, resize_filter)


MSRA = InputConvention("BGR", (103.53, 116.28, 123.675), (1.0, 1.0, 1.0), True)
"""Of Detectron2's default weights, and of AdelaiDet's models."""

TORCHVISION = InputConvention(
    "RGB", (123.675, 116.28, 103.53), (58.395, 57.12, 57.375), False, "opencv"
)
"""Of the models of WXinlong/SOLO and mmdetection, which are made of torchvision's weights."""


@dataclass(frozen=True)
class CheckpointInfo:
    """Where a checkpoint comes from and what it fits.

    Attributes:
        source: "adelaidet", "solo" (WXinlong/SOLO) or "mmdet"; "solo_d2" of a training here.
        architecture: for people, e.g. "SOLOv2-light R50".
        config: the config of `solo_d2.model_zoo` that fits, without its input convention.
        convention: of the input that the model was trained with.
        class_names: in the order of the labels; () if unknown.
        stuff_names: likewise, of the classes of a semantic branch, "things" first.
        category_ids: of the annotations that it was trained on, in the order of the labels; ()
            if unknown.
        stuff_category_ids: likewise, of the semantic branch.

    Example:
        >>> convention = InputConvention("BGR", (103.5, 116.3, 123.7), (1.0, 1.0, 1.0), True)
        >>> info = CheckpointInfo("solo_d2", "SOLOv2", "solov2.yaml", convention, ("cup", "fork"))
        >>> info.class_names
        ('cup', 'fork')
    """

    source: str
    architecture: str
    config: str
    convention: InputConvention
    class_names: tuple[str, ...] = ()
    stuff_names: tuple[str, ...] = ()
    category_ids: tuple[int, ...] = ()
    stuff_category_ids: tuple[int, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Plain types, which safe loading accepts."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Any) -> CheckpointInfo:
        """Read plain types, as of `to_dict`; what a later version may add is left out.

        Raises:
            ValueError: A value is missing, of a wrong type, or does not go with another.
        """
        try:
            values = _known(cls, values)
            names, stuff = _names(values, "class_names"), _names(values, "stuff_names")
            return cls(
                source=_text(values, "source"),
                architecture=_text(values, "architecture"),
                config=_text(values, "config"),
                convention=InputConvention.from_dict(values.get("convention")),
                class_names=names,
                stuff_names=stuff,
                category_ids=_ids(values, "category_ids", names),
                stuff_category_ids=_ids(values, "stuff_category_ids", stuff),
            )
        except (TypeError, ValueError, OverflowError) as error:
            raise ValueError(
                f"the entry {INFO_KEY!r} of this checkpoint is damaged: {one_line(error)}"
            ) from error


def _known(cls: type, values: Any) -> dict[str, Any]:
    if not isinstance(values, Mapping):
        raise ValueError(f"expected values by name for a {cls.__name__}, got {_kind(values)}")
    known = {field.name for field in fields(cls)}
    other = [key for key in values if key not in known]
    if other:
        _logger.debug("Left out of a %s, of a later version: %d keys", cls.__name__, len(other))
    return {key: values[key] for key in known if key in values}


def _text(values: Mapping[str, Any], key: str) -> str:
    value = values.get(key)
    if not isinstance(value, str) or len(value) > _LONGEST:
        raise ValueError(f"{key} must be a text, got {_kind(value)}")
    return value


def _triple(values: Mapping[str, Any], key: str) -> tuple[float, float, float]:
    found = values.get(key)
    if not isinstance(found, list | tuple) or len(found) != 3:
        raise ValueError(f"{key} must hold three numbers, got {_kind(found)}")
    first, second, third = (float(x) if type(x) in (int, float) else math.nan for x in found)
    if not all(map(math.isfinite, (first, second, third))):
        raise ValueError(f"{key} has a value that is no number")
    return first, second, third


def _names(values: Mapping[str, Any], key: str) -> tuple[str, ...]:
    names = values.get(key, ())
    if not isinstance(names, list | tuple):
        raise ValueError(f"{key} must be a list of names, got {_kind(names)}")
    for name in names:
        if not isinstance(name, str) or len(name) > _LONGEST:
            raise ValueError(f"{key} must hold names, got {_kind(name)}")
    return tuple(names)


def _ids(values: Mapping[str, Any], key: str, names: tuple[str, ...]) -> tuple[int, ...]:
    ids = values.get(key, ())
    if not isinstance(ids, list | tuple) or not all(type(x) is int for x in ids):
        raise ValueError(f"{key} must be a list of whole numbers")
    if ids and (len(ids) != len(names) or len(set(ids)) != len(ids)):
        raise ValueError(f"{key} has {len(set(ids))} different ids for {len(names)} names")
    return tuple(ids)


def _kind(value: Any) -> str:
    """A value of a file for people: a number or a text, else its type alone."""
    if isinstance(value, str):
        return f"the text {printable(value, 40)!r}" if len(value) <= _LONGEST else "a long text"
    return repr(value) if isinstance(value, int | float | None) else f"a {type(value).__name__}"
