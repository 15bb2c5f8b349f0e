"""Shards on the workers of a Ray cluster (extra "ray"): who does what, and who does it again."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol

from ..io.errors import one_line
from .shards import Record, Shard

__all__ = ["ATTEMPTS", "RayPool", "run_shards"]

ATTEMPTS = 3
"""How often a shard may end its worker."""


class Worker(Protocol):
    """What does a shard."""

    def run(self, shard: Shard) -> Record:
        """Do it."""


class _Actor:
    """A process that holds a model."""

    def __init__(self, make: Callable[[], Worker]) -> None:
        self._worker = make()

    def run(self, shard: Shard) -> Record:
        return self._worker.run(shard)


class RayPool:
    """Actors of Ray that each do one shard at a time.

    Args:
        make: makes a worker, in its process; it is pickled.
        size: number of actors, 1 or more.
        gpus: of each; None for one where the cluster has any.

    Raises:
        ValueError: Ray is missing, or its cluster has too few GPUs or CPUs for one actor.
    """

    def __init__(self, make: Callable[[], Worker], size: int, gpus: float | None = None) -> None:
        try:
            import ray
        except ImportError as error:
            raise ValueError("--ray needs Ray; install it: pip install 'solo_d2[ray]'") from error
        self._ray, self._make = ray, make
        if not ray.is_initialized():
            ray.init(log_to_driver=False, include_dashboard=False, logging_level="error")
        there = ray.cluster_resources()
        gpus = min(there.get("GPU", 0), 1) if gpus is None else gpus
        for name, needed in (("CPU", 1), ("GPU", gpus)):
            if there.get(name, 0) < needed * size:
                raise ValueError(
                    f"--ray {size} needs {needed * size:g} {name}s, the cluster has "
                    f"{there.get(name, 0):g}; lower it, or start more nodes"
                )
        self._kind = ray.remote(num_cpus=1, num_gpus=gpus, max_restarts=0)(_Actor)
        self._idle = [self._kind.remote(make) for _ in range(size)]
        self._busy: dict[Any, tuple[Any, Shard]] = {}

    def start(self, shards: deque[Shard]) -> bool:
        """Give shards to the actors that have none; returns whether any actor works."""
        while shards and self._idle:
            actor, shard = self._idle.pop(), shards.popleft()
            self._busy[actor.run.remote(shard)] = actor, shard
        return bool(self._busy)

    def next(self) -> tuple[Shard, Record | Exception]:
        """Wait for an actor; return its shard, and what became of it.

        An actor that died, or failed with anything but a `ValueError`, is replaced.

        Raises:
            ValueError: the workers cannot even be made.
        """
        ready, _ = self._ray.wait(list(self._busy), num_returns=1)
        actor, shard = self._busy.pop(ready[0])
        try:
            result: Record | Exception = self._ray.get(ready[0])
        except ValueError as error:  # Ray raises the errors of a task as what they were, too
            result = error
        except Exception as error:
            if getattr(error, "actor_init_failed", False):
                raise ValueError(f"a worker cannot start: {_cause(error)}") from error
            result = error
            self._ray.kill(actor)
            actor = self._kind.remote(self._make)
        self._idle.append(actor)
        return shard, result

    def close(self) -> None:
        """End all actors."""
        for actor in [*self._idle, *(actor for actor, _ in self._busy.values())]:
            self._ray.kill(actor)


def run_shards(shards: Sequence[Shard], pool: RayPool) -> Iterator[tuple[Shard, Record | str]]:
    """Do all shards, each until it is done or cannot be: one that ended `ATTEMPTS` actors is left.

    Yields:
        Each shard once, with its record, or with a line that says why there is none.
    """
    waiting, deaths = deque(shards), Counter[int]()
    while pool.start(waiting):
        shard, result = pool.next()
        if isinstance(result, Record):
            yield shard, result
        elif isinstance(result, ValueError):
            yield shard, _cause(result)
        else:
            deaths[shard.number] += 1
            if deaths[shard.number] < ATTEMPTS:
                waiting.append(shard)
            else:
                yield shard, f"its worker ended {ATTEMPTS} times ({reason(result)})"


def reason(error: Exception) -> str:
    """Return in a few words why a worker ended."""
    text = f"{type(error).__name__}: {error}".lower()
    if "memory" in text:
        return "out of memory: lower --batch-size, or have fewer workers on a machine"
    if "actordied" in text or "actor died" in text:
        return "its process died"
    return _cause(error)


def _cause(error: BaseException) -> str:
    """The error of a worker without Ray's traceback around it."""
    cause = getattr(error, "cause", None)
    if isinstance(cause, BaseException):
        return one_line(cause)
    return one_line(ValueError(str(error).strip().splitlines()[-1] if str(error) else ""))
