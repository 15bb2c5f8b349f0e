"""An exponential moving average (EMA) of the weights, kept beside those that are trained."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from detectron2.engine import HookBase
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

__all__ = ["AverageWeights", "WeightAverage", "decay_at"]

_logger = logging.getLogger(__name__)


def decay_at(iteration: int, decay: float) -> float:
    """Return the share of the old average that an iteration keeps.

    It grows from 0.1 to `decay`, so that a short training does not average its random start.
    """
    return min(decay, (1 + iteration) / (10 + iteration))


class WeightAverage:
    """The average of a model's trained parameters.

    Buffers and frozen parameters are those of the model. `torch.optim.swa_utils.AveragedModel`
    asks the device for its count in every step; this one never waits.

    Args:
        model: Not wrapped for several processes.
        decay: Of the average, in [0, 1); see `decay_at`.

    Attributes:
        started: Whether there is an average yet.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self._model = model
        self._decay = decay
        self._parameters = [p for p in model.parameters() if p.requires_grad]
        self._averages: list[Tensor] = []

    @property
    def started(self) -> bool:
        """Whether there is an average yet."""
        return bool(self._averages)

    def start(self) -> None:
        """Start from the parameters as they are."""
        self._averages = [p.detach().clone() for p in self._parameters]

    def update(self, iteration: int) -> None:
        """Move the average towards the parameters after an iteration, counted from 0."""
        average = get_ema_multi_avg_fn(decay_at(iteration, self._decay))
        average(self._averages, [p.detach() for p in self._parameters], 0)  # 0 is not read

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Give the model the averages for the time of a block. Nothing is copied."""
        self._swap()
        try:
            yield
        finally:
            self._swap()

    def state_dict(self) -> dict[str, Tensor]:
        """Return a state of the whole model, with the averages."""
        average = {id(p): a for p, a in zip(self._parameters, self._averages, strict=True)}
        named = self._model.named_parameters(remove_duplicate=False)
        averages = {name: average[id(p)] for name, p in named if id(p) in average}
        return {**self._model.state_dict(), **averages}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Go on with the averages of a state.

        Raises:
            ValueError: A parameter is missing, or has another shape.
        """
        names = {id(p): name for name, p in self._model.named_parameters()}
        averages = []
        for p in self._parameters:
            name = names[id(p)]
            value = state_dict.get(name)
            if not isinstance(value, Tensor) or value.shape != p.shape:
                raise ValueError(f"no average of {name} with the shape {tuple(p.shape)}")
            averages.append(value.to(p.device, p.dtype, copy=True))
        self._averages = averages

    def _swap(self) -> None:
        for i, parameter in enumerate(self._parameters):
            self._averages[i], parameter.data = parameter.data, self._averages[i]


class AverageWeights(HookBase):
    """Updates an average after every iteration; comes before what evaluates or saves it."""

    def __init__(self, average: WeightAverage) -> None:
        self._average = average

    def before_train(self) -> None:
        """Start the average, unless it goes on with that of a checkpoint."""
        if not self._average.started:
            self._average.start()
        _logger.info("Evaluations use the EMA weights (SOLVER.EMA)")

    def after_step(self) -> None:
        """Update the average."""
        self._average.update(self.trainer.iter)
