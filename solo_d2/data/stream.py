"""The endless order of training images: the same for any number of workers, and resumable."""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Iterator, Sequence
from itertools import chain
from typing import NamedTuple

import torch
from torch import Tensor

Draw = tuple[int, int]
"""An image that was drawn: how many were drawn before it in all, and its index in the data."""


class Position(NamedTuple):
    """Where a stream is; plain integers.

    Attributes:
        epoch: passes over the data that are finished.
        taken: images of the current pass that were drawn.
        drawn: images that were drawn in all.
        waiting: those of them that are not in a batch yet, oldest first.
    """

    epoch: int = 0
    taken: int = 0
    drawn: int = 0
    waiting: tuple[Draw, ...] = ()


def derive_seed(seed: int, *purpose: object) -> int:
    """Return a seed in [0, 2**63) of its own for every purpose."""
    text = ":".join(map(str, (seed, *purpose)))
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") >> 1


class ImageStream:
    """Batches of image indices in random order, one pass over the data after the other.

    The order depends on the seed and the number of the pass alone, so that going on somewhere
    costs one permutation. A batch holds images of one group.

    Args:
        indices: of the images to draw, int64 (N,).
        seed: of the order.
        factors: how often each comes in a pass, float (N,), >= 0; fractions are rounded up or
            down at random, anew in every pass. None for once.
        groups: group of every image by its index; None for a single group.

    Raises:
        ValueError: There is no image to draw.
    """

    def __init__(
        self,
        indices: Tensor,
        seed: int,
        factors: Tensor | None = None,
        groups: Sequence[int] | None = None,
    ) -> None:
        if len(indices) == 0 or (factors is not None and not float(factors.sum()) > 0):
            raise ValueError("there is no image to draw")
        self.indices = indices
        self.seed = seed
        self.factors = factors
        self.groups = groups

    def order(self, epoch: int) -> list[int]:
        """Return the indices that a pass draws, in order."""
        generator = torch.Generator().manual_seed(derive_seed(self.seed, "order", epoch))
        indices = self.indices
        if self.factors is not None:
            up = torch.rand(len(indices), generator=generator) < self.factors.frac()
            indices = indices.repeat_interleave(self.factors.long() + up.long())
        return indices[torch.randperm(len(indices), generator=generator)].tolist()

    def steps(
        self, start: Position, batch_size: int, processes: int
    ) -> Iterator[tuple[list[list[Draw]], Position]]:
        """Yield without end the batches of one training step, and where the stream is after it.

        Args:
            start: where to go on.
            batch_size: images of a process in a step.
            processes: batches of a step.
        """
        groups: dict[int, list[Draw]] = {}
        ready: deque[list[Draw]] = deque()

        def put(draw: Draw) -> None:
            group = groups.setdefault(0 if self.groups is None else self.groups[draw[1]], [])
            group.append(draw)
            if len(group) == batch_size:
                ready.append(group[:])
                group.clear()

        for draw in start.waiting:
            put(draw)
        epoch, taken, drawn, _ = start
        order = self.order(epoch)
        while True:
            while len(ready) >= processes:
                step = [ready.popleft() for _ in range(processes)]
                waiting = tuple(sorted(chain(*ready, *groups.values())))
                yield step, Position(epoch, taken, drawn, waiting)
            if taken >= len(order):
                epoch, taken = epoch + 1, 0
                order = self.order(epoch)
                continue
            put((drawn, order[taken]))
            taken += 1
            drawn += 1
