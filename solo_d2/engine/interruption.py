"""Signals end a training between two iterations, in all of its processes at once."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections.abc import Iterator
from types import FrameType
from typing import Any

import torch
import torch.distributed as dist
from detectron2.utils import comm

from ..data.loader import LoadingError

_FAILED = 1000
_TWICE = 2.0
"""Launchers pass a Ctrl-C on that their processes got already: seconds in which it counts once."""


class Interruption:
    """Handlers of SIGINT, SIGTERM and SIGHUP for the time of a training.

    The first signal is remembered until it does no harm. A second Ctrl-C ends the process at once.
    Where handlers cannot be set, outside of the main thread, nothing is changed.

    Attributes:
        signal: that came, or None.
    """

    def __init__(self) -> None:
        self.signal: int | None = None
        self._since = 0.0
        self._open = False
        self._process = os.getpid()
        self._before: dict[int, Any] = {}
        self._group: Any = None

    def __enter__(self) -> Interruption:
        self.signal, self._open = None, False
        if threading.current_thread() is threading.main_thread():
            self._before = {x: signal.signal(x, self._handle) for x in _signals()}
        if comm.get_world_size() > 1:
            self._group = dist.new_group(backend="gloo")
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler or signal.SIG_DFL)

    def check(self) -> None:
        """Raise what Python raises for the signal that came, if one came.

        Raises:
            KeyboardInterrupt: SIGINT came.
            SystemExit: another one came; with the code that shells use.
        """
        if self.signal == signal.SIGINT:
            raise KeyboardInterrupt
        if self.signal is not None:
            raise SystemExit(128 + self.signal)

    @contextlib.contextmanager
    def allowed(self) -> Iterator[None]:
        """Let a signal end the block at any point, such as a long evaluation."""
        self._open = True
        try:
            self.check()
            yield
        finally:
            self._open = False

    def agree(self, error: LoadingError | None) -> None:
        """Stop all processes before the same iteration if one got a signal or has no data.

        One number goes round, between the machines' CPUs; a single process asks nobody.

        Args:
            error: of loading the data of this process, or None.

        Raises:
            LoadingError: `error`, or another process had one.
            KeyboardInterrupt: see `check`.
            SystemExit: see `check`.
        """
        code = _FAILED if error is not None else (self.signal or 0)
        if self._group is not None:
            number = torch.tensor(code)
            dist.all_reduce(number, op=dist.ReduceOp.MAX, group=self._group)
            code = int(number)
        if error is not None:
            raise error
        if code == _FAILED:
            raise LoadingError("another process of this training could not load its data")
        if code:
            self.signal = code
        self.check()

    def _handle(self, number: int, _: FrameType | None) -> None:
        if os.getpid() != self._process:  # forked, and nothing of the training
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
            return
        now = time.monotonic()
        if self.signal is not None and now - self._since < _TWICE and self._group is not None:
            return
        if self.signal is not None and number == signal.SIGINT:
            os._exit(128 + number)
        if self.signal is None:
            self.signal, self._since = number, now
            name = signal.Signals(number).name
            # Not through logging, which the signal may have interrupted.
            os.write(2, f"{name}: training saves and stops after this iteration\n".encode())
            if self._group is None:
                signal.signal(signal.SIGINT, signal.SIG_DFL)
        if self._open:
            self.check()


def _signals() -> list[int]:
    """The signals that end a training; nohup asks for that of a closed terminal to be ignored."""
    numbers: list[int] = [signal.SIGINT, signal.SIGTERM]
    if hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:
        numbers.append(signal.SIGHUP)
    return numbers
