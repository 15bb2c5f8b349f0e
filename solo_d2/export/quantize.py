"""Programs of OpenVINO in int8, made by NNCF; what they lose can be kept below a limit."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from torch import Tensor, nn

from .packages import need

_NOT_QUANTIZED = (
    *("MatMul", "Multiply", "Add", "Subtract", "Divide"),  # masks, their overlaps, normalisation
    *("Interpolate", "ReduceSum", "Concat"),
)
_RANKED = 16
"""Images on which layers are ranked by what they lose; more take longer, in proportion."""


class Accuracy(NamedTuple):
    """How good a model is on some images.

    Attributes:
        total: Of all images together; more is better.
        each: Of every image by itself.

    Example:
        >>> Accuracy(40.0, [50.0, 30.0]).total
        40.0
    """

    total: float
    each: list[float]


@dataclass(frozen=True)
class DropLimit:
    """How much accuracy a model in int8 may lose.

    Attributes:
        measure: Called with a model, as evaluators take it, and with numbers of images.
        images: How many images there are; their numbers are 0 to images - 1.
        max_drop: What may be lost, in the unit of `measure`.

    Example:
        >>> limit = DropLimit(lambda model, images: Accuracy(40.0, [40.0]), images=1, max_drop=0.5)
        >>> limit.measure(None, [0]).total
        40.0
    """

    measure: Callable[[nn.Module, Sequence[int]], Accuracy]
    images: int
    max_drop: float

    def __post_init__(self) -> None:
        if self.images < 1 or not self.max_drop >= 0:
            raise ValueError(
                "a limit of the drop needs at least one image and a max_drop of at least 0, got "
                f"{self.images} images and {self.max_drop}"
            )


class Compiled:
    """Runs a program that OpenVINO has compiled, see `backends.Backend`."""

    metadata = None

    def __init__(self, program: Any) -> None:
        self._program = program

    def load(self, precision: str) -> None:
        """Nothing is left to do."""

    def __call__(self, images: np.ndarray) -> list[np.ndarray]:
        """See `backends.Backend`."""
        return [np.array(value) for value in self._program({"image": images}).values()]


def quantize(
    program: Any,
    calibration: Sequence[Tensor],
    limit: DropLimit | None = None,
    as_model: Callable[[Compiled], nn.Module] | None = None,
) -> Any:
    """Make a program whose convolutions work on int8; all else stays as it is.

    Args:
        program: Of OpenVINO, in f32.
        calibration: Inputs (N, 3, H, W), from which ranges of values follow.
        limit: Of what may be lost: layers that lose most return to f32 until it is kept.
        as_model: Makes a model as `limit` measures it of a compiled program.

    Raises:
        ValueError: NNCF is not installed.
    """
    nncf = need("nncf", "precision int8", "quantize")
    nncf.set_log_level(logging.ERROR)
    options = {
        "subset_size": len(calibration),
        "preset": nncf.QuantizationPreset.MIXED,
        "ignored_scope": nncf.IgnoredScope(types=list(_NOT_QUANTIZED), validate=False),
    }
    images = nncf.Dataset([image.numpy() for image in calibration])
    if limit is None or as_model is None:
        return nncf.quantize(program, images, **options)

    def validate(compiled: Any, numbers: Iterable[int]) -> tuple[float, list[float]]:
        return limit.measure(as_model(Compiled(compiled)), list(numbers))

    return nncf.quantize_with_accuracy_control(
        program,
        images,
        nncf.Dataset(range(limit.images)),
        validate,
        max_drop=limit.max_drop,
        drop_type=nncf.DropType.ABSOLUTE,
        advanced_accuracy_restorer_parameters=nncf.AdvancedAccuracyRestorerParameters(
            ranking_subset_size=_RANKED, num_ranking_workers=1
        ),
        **options,
    )
