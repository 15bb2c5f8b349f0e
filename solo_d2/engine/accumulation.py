"""Steps whose batch is computed in parts, one after the other, for cards that cannot hold it."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from typing import Any

import torch
from detectron2.engine import AMPTrainer, SimpleTrainer
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

__all__ = ["AccumulatingTrainer"]


class AccumulatingTrainer(SimpleTrainer):
    """Detectron2's loop of one step, with the gradient of a batch summed over its parts.

    Losses of a SOLO are sums divided by the number of positive cells. A part weighs as much as it
    has of these, so that the gradient is that of the sums of the whole batch, divided once. Losses
    with another divisor, the semantic ones, become a mean with the same weights. Several processes
    exchange their gradients once a step.

    Args:
        plain: the trainer to replace; of its kind are optimizer, scaler and precision.
        parts: in which a batch is computed, all of one length.
    """

    def __init__(self, plain: SimpleTrainer, parts: int) -> None:
        super().__init__(plain.model, plain.data_loader, plain.optimizer)
        self.parts = parts
        mixed = isinstance(plain, AMPTrainer)
        self.grad_scaler = plain.grad_scaler if mixed else torch.amp.GradScaler(enabled=False)
        # Detectron2 0.6 has no other precision.
        precision = getattr(plain, "precision", torch.float16)
        self._autocast = torch.autocast("cuda", precision, enabled=mixed)

    def run_step(self) -> None:
        """Run all parts of one batch, and step once."""
        assert self.model.training, "the model was changed to eval mode"
        start = time.perf_counter()
        batch = next(self._data_loader_iter)
        data_time = time.perf_counter() - start
        self.optimizer.zero_grad()
        size = len(batch) // self.parts
        losses: list[dict[str, Tensor]] = []
        counts: list[Tensor] = []
        for k in range(self.parts):
            with self._exchanging(k == self.parts - 1):
                found, count = self._forward(batch[k * size : (k + 1) * size])
                counts.append(count)
                weight = _weight(count, counts[0])
                losses.append({key: value * weight for key, value in found.items()})
                self.grad_scaler.scale(torch.stack([*losses[-1].values()]).sum()).backward()
            losses[-1] = {key: value.detach() for key, value in losses[-1].items()}
        factor = 1 / _weight(torch.stack(counts).sum(), counts[0])
        self._scale_gradients(factor)
        total = {key: factor * torch.stack([x[key] for x in losses]).sum() for key in losses[0]}
        self._write_metrics(total, data_time)  # raises where they are not finite
        self.grad_scaler.step(self.optimizer)
        self.grad_scaler.update()

    def _forward(self, part: list[dict[str, Any]]) -> tuple[dict[str, Tensor], Tensor]:
        """Losses of a part, and what they would have been divided by without a lower limit."""
        with self._autocast:
            losses = self.model(part)
        if isinstance(losses, Tensor):
            losses = {"total_loss": losses}
        wrapped = isinstance(self.model, DistributedDataParallel)
        network = self.model.module if wrapped else self.model
        # A model of another kind divides by what is the same for every part.
        count = getattr(getattr(network, "criterion", None), "num_positives", None)
        return losses, next(iter(losses.values())).new_ones(()) if count is None else count

    @contextlib.contextmanager
    def _exchanging(self, last: bool) -> Iterator[None]:
        """Let processes add up their gradients in the last part alone."""
        waits = isinstance(self.model, DistributedDataParallel) and not last
        with self.model.no_sync() if waits else contextlib.nullcontext():
            yield

    def _scale_gradients(self, factor: Tensor) -> None:
        parameters = (p for group in self.optimizer.param_groups for p in group["params"])
        for parameter in parameters:
            if parameter.grad is not None:
                parameter.grad.mul_(factor)

    def state_dict(self) -> dict[str, Any]:
        """Return the state as that of the trainer which is replaced."""
        state: dict[str, Any] = super().state_dict()
        if self.grad_scaler.is_enabled():
            state["grad_scaler"] = self.grad_scaler.state_dict()
        return state


def _weight(count: Tensor, first: Tensor) -> Tensor:
    """Weight of a loss, relative to the first so that float16 gradients keep their size."""
    return count.clamp(min=1) / first.clamp(min=1)
