"""The training loader: equal data for any number of workers, and a position that can be saved."""

from __future__ import annotations

import contextlib
import logging
import math
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from itertools import chain
from typing import Any

from detectron2.utils import comm
from torch.utils.data import DataLoader

from ..io.errors import one_line
from .seeded import Failure, Sample, SeededImages, seed_all
from .stream import Draw, ImageStream, Position, derive_seed

_logger = logging.getLogger(__name__)


class LoadingError(OSError):
    """Training data that cannot be loaded; one line that names the file."""


class TrainLoader:
    """Batches of images without end.

    What a step sees depends on the seed and on the images that were drawn before, and not on the
    number of workers. The random numbers of the step itself are seeded with its batch.

    Args:
        images: loads them.
        stream: draws them.
        batch_size: images of a step over all processes, a multiple of their number times `parts`.
        parts: in which a process computes its images; each holds images of one group.
        workers: processes that load images; 0 loads them here.
        fingerprint: of the data, by which a saved position is known to fit.

    Attributes:
        position: of the stream behind the batch that was handed out last.
        first_sample: of the batch that was handed out last, to be drawn; None before.
        check: is called before every batch with the error of loading it, or None, and may raise.
        waiting: makes a context in which the loader waits for its images.
    """

    def __init__(
        self,
        images: SeededImages,
        stream: ImageStream,
        *,
        batch_size: int,
        parts: int = 1,
        workers: int = 0,
        fingerprint: str = "",
    ) -> None:
        processes = comm.get_world_size()
        if batch_size < 1 or batch_size % (processes * parts):
            raise ValueError(
                f"SOLVER.IMS_PER_BATCH must be a positive multiple of the {processes} processes "
                f"times {parts} parts, got {batch_size}"
            )
        self.images = images
        self.stream = stream
        self.batch_size = batch_size // processes
        self.parts = parts
        self.workers = workers
        self.fingerprint = fingerprint
        self.position = Position()
        self.first_sample: Sample | None = None
        self.check: Callable[[LoadingError | None], None] = _raise
        self.waiting: Callable[[], contextlib.AbstractContextManager[Any]] = contextlib.nullcontext
        self._left_out: dict[str, int] = {}
        self._items: Iterator[tuple[Sample | None, list[Failure]]] | None = None
        self._behind: deque[Position] = deque()

    def __iter__(self) -> TrainLoader:
        """Return the loader itself, which goes on behind `position`."""
        self.close()
        return self

    def __next__(self) -> list[Sample]:
        """Return the next batch; after an error or `close` it is loaded anew."""
        with self.waiting():
            batch, error = self._load()
        self.check(error)
        self.position = self._behind.popleft()
        self.first_sample = batch[0]
        rank = comm.get_rank()
        seed_all(derive_seed(self.images.seed, "step", self.position.drawn, rank))
        return batch

    def close(self) -> None:
        """End the processes that load images; the next batch starts others."""
        self._items = None

    def _load(self) -> tuple[list[Sample], LoadingError | None]:
        """The images of the next batch, or why there are none."""
        if self._items is None:
            self._items = _start(self._loader())
        try:
            return [self._accept(*next(self._items)) for _ in range(self.batch_size)], None
        except LoadingError as error:
            return [], error
        except (RuntimeError, OSError, EOFError) as error:
            if not self.workers:
                raise
            # Of torch, whose worker is no more; errors of images come out as failures.
            return [], LoadingError(
                f"a loading process has died ({one_line(error)}); if memory was short, lower "
                "DATALOADER.NUM_WORKERS"
            )

    def _loader(self) -> DataLoader[Any]:
        own = slice(comm.get_rank() * self.parts, (comm.get_rank() + 1) * self.parts)
        behind = self._behind = deque()
        steps = self.stream.steps(
            self.position, self.batch_size // self.parts, comm.get_world_size() * self.parts
        )

        # Without `self`: of a cycle, torch ends the processes too late, and waits 5 s for each.
        def draws() -> Iterator[Draw]:
            for batches, position in steps:
                behind.append(position)
                yield from chain.from_iterable(batches[own])

        # Two batches are in flight, however few workers there are.
        ahead = math.ceil(2 * self.batch_size / max(self.workers, 1))
        return DataLoader(
            self.images,
            sampler=_Once(draws()),
            batch_size=None,
            collate_fn=_unchanged,
            num_workers=self.workers,
            prefetch_factor=max(ahead, 2) if self.workers else None,
            worker_init_fn=_start_worker,
        )

    def _accept(self, sample: Sample | None, failures: list[Failure]) -> Sample:
        """Count what was left out, and stop where too much was."""
        for failure in failures:
            _logger.debug("%s", failure.details)
            if not failure.unreadable:
                raise LoadingError(failure.reason)
            if not self.images.skip:
                raise LoadingError(
                    f"{failure.reason}. (DATALOADER.SKIP_UNREADABLE True leaves such images out.)"
                )
            if failure.file not in self._left_out:
                _logger.warning("Left out: %s", failure.reason)
            self._left_out[failure.file] = self._left_out.get(failure.file, 0) + 1
        bad, total = len(self._left_out), len(self.images)
        if sample is None or 2 * bad > total:
            last = failures[-1].file if failures else "not one came out of the mapper"
            raise LoadingError(
                f"{bad} of {total} images cannot be read, too many to leave out; the last: {last}"
            )
        return sample

    def summary(self) -> str:
        """Return a line about the images that were left out; "" if there were none."""
        if not self._left_out:
            return ""
        return (
            f"{len(self._left_out)} of {len(self.images)} images could not be read and were left "
            f"out, {sum(self._left_out.values())} times in all"
        )

    def state_dict(self, position: Position | None = None) -> dict[str, Any]:
        """Return the seed and the position, or an earlier one, as plain types."""
        return {
            "seed": self.images.seed,
            "data": self.fingerprint,
            "position": (position or self.position)._asdict(),
        }

    def load_state_dict(self, state: Mapping[str, Any], *, keep_seed: bool = False) -> bool:
        """Go on where another loader was; before the first batch.

        Args:
            state: of `state_dict`.
            keep_seed: use the own seed instead of the saved one.

        Returns:
            Whether the order of the images goes on. With other data, or another seed, a new pass
            over them begins.

        Raises:
            ValueError: It is no such state.
        """
        try:
            saved = dict(state["position"])
            waiting = tuple((int(number), int(index)) for number, index in saved.pop("waiting"))
            counts = {key: int(value) for key, value in saved.items()}
            position = Position(**counts, waiting=waiting)
            seed, data = int(state["seed"]), str(state["data"])
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"the position in the data is damaged ({one_line(error)})") from error
        seed = self.images.seed if keep_seed else seed
        goes_on = data == self.fingerprint and seed == int(state["seed"])
        if not goes_on:
            position = Position(position.epoch + 1, 0, position.drawn, ())
        self.images.seed = self.stream.seed = seed
        self.position = position
        return goes_on


class _Once:
    """An iterator as a sampler; a loader asks for it once."""

    def __init__(self, draws: Iterator[Draw]) -> None:
        self.draws = draws

    def __iter__(self) -> Iterator[Draw]:
        return self.draws


def _raise(error: LoadingError | None) -> None:
    if error is not None:
        raise error


def _unchanged(sample: Any) -> Any:
    return sample


def _start_worker(_: int) -> None:
    # Ctrl-C reaches all processes; the main one ends its workers when it has saved.
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _start(loader: DataLoader[Any]) -> Iterator[tuple[Sample | None, list[Failure]]]:
    """Start the workers, without torch's handler that raises their death at any point.

    It could do so between the updates of two parameters. The death is seen when the next image is
    asked for, within five seconds.
    """
    if not loader.num_workers or threading.current_thread() is not threading.main_thread():
        return iter(loader)
    number = getattr(signal, "SIGCHLD", None)
    before = number and signal.getsignal(number)
    items = iter(loader)
    if number and _is_torchs(signal.getsignal(number)):
        signal.signal(number, signal.SIG_DFL if _is_torchs(before) else before or signal.SIG_DFL)
    return items


def _is_torchs(handler: Any) -> bool:
    return getattr(handler, "__module__", None) == "torch.utils.data._utils.signal_handling"
