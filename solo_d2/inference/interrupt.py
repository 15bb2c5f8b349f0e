"""Signals that end a run, as an exception that leaves time to keep what there is."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

__all__ = ["Interrupted", "signals_as_interrupts"]


class Interrupted(KeyboardInterrupt):
    """A signal has ended the run.

    Attributes:
        exit_code: as a shell has it, 128 and the signal's number.
    """

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.exit_code = 128 + number


@contextmanager
def signals_as_interrupts() -> Iterator[None]:
    """Raise `Interrupted` at the first SIGINT, SIGTERM or SIGHUP; ignore those that follow it.

    Signals that are ignored already (nohup, background jobs) stay so, and outside of the main
    thread nothing changes.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {}
    for name in ("SIGINT", "SIGTERM", "SIGHUP"):  # the last one is not on every system
        number = getattr(signal, name, None)
        if number is not None and signal.getsignal(number) not in (signal.SIG_IGN, None):
            before[number] = signal.getsignal(number)

    def interrupt(number: int, _frame: FrameType | None) -> None:
        for other in before:  # what was begun is finished in peace
            signal.signal(other, signal.SIG_IGN)
        raise Interrupted(number)

    for number in before:
        signal.signal(number, interrupt)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
