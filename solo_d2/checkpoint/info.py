"""What a checkpoint says of itself: whose model it is, and how its input must look."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

INFO_KEY = "solo_d2"
"""Key of a `CheckpointInfo`, as plain types, beside "model" in a checkpoint file."""


@dataclass(frozen=True)
class InputConvention:
    """How a backbone wants its input; a wrong one costs AP and raises no error by itself.

    Attributes:
        pixel_format: order of the channels, "BGR" or "RGB" (``INPUT.FORMAT``).
        pixel_mean: subtracted, in that order, for values in [0, 255] (``MODEL.PIXEL_MEAN``).
        pixel_std: divided by (``MODEL.PIXEL_STD``).
        stride_in_1x1: a bottleneck's stride is in its first 1x1 convolution instead of in the 3x3
            (``MODEL.RESNETS.STRIDE_IN_1X1``); None for a backbone without bottlenecks.
    """

    pixel_format: str
    pixel_mean: tuple[float, float, float]
    pixel_std: tuple[float, float, float]
    stride_in_1x1: bool | None


MSRA = InputConvention("BGR", (103.53, 116.28, 123.675), (1.0, 1.0, 1.0), True)
"""Of Detectron2's default weights, and of AdelaiDet's models."""

TORCHVISION = InputConvention("RGB", (123.675, 116.28, 103.53), (58.395, 57.12, 57.375), False)
"""Of torchvision's weights, and of the models of WXinlong/SOLO and mmdetection."""


@dataclass(frozen=True)
class CheckpointInfo:
    """Where a converted checkpoint comes from and what it fits.

    Attributes:
        source: "adelaidet", "solo" (WXinlong/SOLO) or "mmdet".
        architecture: for people, e.g. "SOLOv2-light R50".
        config: the config of `solo_d2.model_zoo` that fits, without its input convention.
        convention: of the input that the model was trained with.
        class_names: of a model that was trained here, in the order of its labels; () if unknown.
        stuff_names: likewise, of the classes of a semantic branch.
    """

    source: str
    architecture: str
    config: str
    convention: InputConvention
    class_names: tuple[str, ...] = ()
    stuff_names: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Plain types, which safe loading accepts."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> CheckpointInfo:
        """Inverse of `to_dict`.

        Raises:
            ValueError: a key is missing, unknown or has a wrong type.
        """
        try:
            convention = dict(values["convention"])
            for key in ("pixel_mean", "pixel_std"):
                convention[key] = tuple(float(x) for x in convention[key])
            names = {key: tuple(values.get(key, ())) for key in ("class_names", "stuff_names")}
            return cls(**{**values, **names, "convention": InputConvention(**convention)})
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"the entry {INFO_KEY!r} of this checkpoint is damaged") from error
