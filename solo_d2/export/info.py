"""What an exported file says of itself: everything that is needed to run it, as JSON.

The text is data: it is checked value by value when it is read, and nothing in it is executed.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from ..io.errors import shown

METADATA_KEY = "solo_d2"
"""Name of the JSON text inside an exported file."""

LAYOUT = 1
"""Version of the metadata and of the outputs' meaning."""

KINDS = ("full", "raw")
MOST = 2**31
LONGEST = 2**20


@dataclass(frozen=True)
class ExportInfo:
    """Metadata of an exported model.

    Attributes:
        layout: Version of this metadata.
        solo_d2: Version of the package that wrote it.
        kind: "full" (instances) or "raw" (the network alone).
        precision: In which the file is meant to be run, see `FORMATS`.
        outputs: Names of the outputs, in their order.
        config: The config as YAML.
        class_names: By label; () if unknown.
        stuff_names: Likewise, of a semantic branch.
        category_ids: Of the dataset, in the order of the labels; () if unknown.
        stuff_category_ids: Likewise, of a semantic branch.
        input_format: Order of the input's channels, "BGR" or "RGB".
        resize_filter: What images are resized with, "pillow" or "opencv".
        min_size: Short side to resize to, in pixels; 0 for none.
        max_size: Limit of the long side.
        pixel_mean: With which padding is filled, per channel.
        divisor: Of height and width of the input.
        size: (height, width) of the input; None for any multiple of `divisor`.
        batch: Images at once; None for any number.
        mask_thresh: Probability above which a pixel is foreground.
        max_candidates: K, see `num_candidates`.
        max_instances: Slots for instances; those with score 0 are empty.
        weights_sha256: Of the weights that were exported.
        parity: What the check at export has found, for each size.
        tools: Versions of the packages that made the file.
    """

    layout: int
    solo_d2: str
    kind: str
    precision: str
    outputs: tuple[str, ...]
    config: str
    class_names: tuple[str, ...]
    stuff_names: tuple[str, ...]
    category_ids: tuple[int, ...]
    stuff_category_ids: tuple[int, ...]
    input_format: str
    resize_filter: str
    min_size: int
    max_size: int
    pixel_mean: tuple[float, ...]
    divisor: int
    size: tuple[int, int] | None
    batch: int | None
    mask_thresh: float
    max_candidates: int
    max_instances: int
    weights_sha256: str
    parity: tuple[dict[str, Any], ...] = ()
    tools: dict[str, str] = field(default_factory=dict)

    def to_json(self) -> str:
        """Write the metadata, with a checksum of its own that shows later changes."""
        values = asdict(self)
        return json.dumps({**values, "sha256": _checksum(values)}, sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> ExportInfo:
        """Read what `to_json` wrote.

        Raises:
            ValueError: It is no JSON of this layout, lacks a value, has one that is out of range,
                or was changed after it was written.
        """
        values = _parse(text)
        layout = values.get("layout")
        if layout != LAYOUT:
            raise ValueError(
                f"has metadata of layout {shown(layout)}, this version of solo_d2 reads layout "
                f"{LAYOUT}; export the model again, or install the version that wrote it"
            )
        checksum = values.pop("sha256", None)
        for name, (allowed, is_allowed) in _RULES.items():
            if name not in values:
                raise ValueError(f"has metadata without {name!r}; export the model again")
            if not is_allowed(values[name]):
                raise ValueError(
                    f"has damaged metadata: {name!r} must be {allowed}, got {shown(values[name])}"
                )
        if checksum != _checksum(values):
            raise ValueError("has metadata that was changed after export; export the model again")
        known = {x.name for x in fields(cls)}
        return cls(**{k: _frozen(v) for k, v in values.items() if k in known})


def _parse(text: str) -> dict[str, Any]:
    if len(text) > LONGEST:
        raise ValueError(f"has metadata of more than {LONGEST} characters")
    try:
        values = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError("has damaged metadata: it is no JSON") from error
    if not isinstance(values, dict):
        raise ValueError("has damaged metadata: expected a JSON object")
    return values


def _checksum(values: Mapping[str, Any]) -> str:
    text = json.dumps(values, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def _frozen(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _text(value: Any) -> bool:
    return isinstance(value, str)


def _whole(low: int) -> Callable[[Any], bool]:
    return lambda value: type(value) is int and low <= value < MOST


def _list(allowed: Callable[[Any], bool], *lengths: int) -> Callable[[Any], bool]:
    def is_allowed(value: Any) -> bool:
        fits = isinstance(value, list | tuple) and (not lengths or len(value) in lengths)
        return fits and all(map(allowed, value))

    return is_allowed


def _number(low: float, high: float) -> Callable[[Any], bool]:
    return lambda value: type(value) in (int, float) and low <= value <= high


def _or_none(allowed: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: value is None or allowed(value)


_Rule = tuple[str, Callable[[Any], bool]]
_TEXTS: _Rule = ("a list of texts", _list(_text))
_IDS: _Rule = ("a list of whole numbers", _list(_whole(-MOST)))
_TEXT: _Rule = ("a text", _text)
_COUNT: _Rule = ("a whole number from 1 on", _whole(1))
_SIZE: _Rule = ("a whole number from 0 on", _whole(0))

_RULES: dict[str, _Rule] = {
    "solo_d2": _TEXT,
    "kind": (f"one of {KINDS}", lambda value: value in KINDS),
    "precision": _TEXT,
    "outputs": _TEXTS,
    "config": _TEXT,
    "class_names": _TEXTS,
    "stuff_names": _TEXTS,
    "category_ids": _IDS,
    "stuff_category_ids": _IDS,
    "input_format": ('"BGR" or "RGB"', lambda value: value in ("BGR", "RGB")),
    "resize_filter": ('"pillow" or "opencv"', lambda value: value in ("pillow", "opencv")),
    "min_size": _SIZE,
    "max_size": _SIZE,
    "pixel_mean": ("three numbers", _list(_number(-1e6, 1e6), 3)),
    "divisor": _COUNT,
    "size": ("height and width, or null", _or_none(_list(_whole(1), 2))),
    "batch": ("a whole number from 1 on, or null", _or_none(_whole(1))),
    "mask_thresh": ("a number in [0, 1]", _number(0, 1)),
    "max_candidates": _COUNT,
    "max_instances": _COUNT,
    "weights_sha256": _TEXT,
    "parity": ("a list of objects", _list(lambda value: isinstance(value, dict))),
    "tools": ("an object", lambda value: isinstance(value, dict)),
}
