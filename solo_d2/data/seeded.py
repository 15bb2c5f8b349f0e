"""Images of a training set, each draw of one with random numbers of its own."""

from __future__ import annotations

import random
import traceback
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from detectron2.data import DatasetFromList
from detectron2.utils.serialize import PicklableWrapper
from torch.utils.data import Dataset

from ..io.errors import one_line, printable
from .stream import Draw, derive_seed

Sample = dict[str, Any]
"""A record of a dataset, or the model's input that a mapper makes of it."""

_UNREADABLE = (ValueError, OSError, MemoryError)
_TRIES = 100


class Failure(NamedTuple):
    """Why an image could not be loaded; plain, so that it comes out of a worker as it is."""

    file: str
    reason: str
    unreadable: bool
    details: str


class SeededImages(Dataset[Any]):
    """Images by (number of the draw, index); every draw has random numbers of its own.

    Args:
        records: of the images, in Detectron2's format.
        mapper: from a record to the model's input.
        seed: of the random numbers.
        skip: whether another image takes the place of one that cannot be read.
    """

    def __init__(
        self,
        records: Sequence[Sample],
        mapper: Callable[[Sample], Sample | None],
        seed: int,
        *,
        skip: bool = False,
    ) -> None:
        is_list = isinstance(records, list)  # other kinds keep their content in a way of their own
        self.records = DatasetFromList(records, copy=False) if is_list else records
        self.mapper = PicklableWrapper(mapper)
        self.seed = seed
        self.skip = skip

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, draw: Draw) -> tuple[Sample | None, list[Failure]]:
        """Load an image, or what takes its place; None where that fails, too."""
        number, index = draw
        failures = []
        for attempt in range(_TRIES):
            seed_all(derive_seed(self.seed, "image", number, attempt), cuda=False)
            loaded = self._load(index)
            if isinstance(loaded, Failure):
                failures.append(loaded)
                if not (self.skip and loaded.unreadable):
                    break
            elif loaded is not None:  # so mappers ask for another image
                return loaded, failures
            index = derive_seed(self.seed, "instead", number, attempt) % len(self)
        return None, failures

    def _load(self, index: int) -> Sample | Failure | None:
        record = self.records[index]
        file = printable(str(record.get("file_name", f"image {index}")))
        try:
            return self.mapper(record)
        except Exception as error:  # whatever it is, the main process is told, in one line
            unreadable = isinstance(error, _UNREADABLE)
            reason = one_line(error) if unreadable else f"{type(error).__name__}: {one_line(error)}"
            reason = reason if file in reason else f"{file}: {reason}"
            return Failure(file, reason, unreadable, traceback.format_exc())


def seed_all(seed: int, *, cuda: bool = True) -> None:
    """Seed the random numbers of Python, NumPy and torch, of the current GPU where `cuda`."""
    random.seed(seed)
    np.random.seed(seed % 2**32)  # noqa: NPY002 - the generator that augmentations use
    # torch.manual_seed looks for all kinds of devices, which takes as long as loading an image.
    torch.default_generator.manual_seed(seed)
    if cuda and torch.cuda.is_initialized():
        torch.cuda.manual_seed(seed)


def new_generator() -> np.random.Generator:
    """Return a generator that follows from NumPy's random numbers, which a draw has seeded."""
    return np.random.default_rng(np.random.randint(2**32, size=4, dtype=np.uint32))  # noqa: NPY002
