"""Calls in a process of their own, which may crash or hang."""

from __future__ import annotations

import multiprocessing
import signal
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool


def _limited(seconds, function, arguments):
    signal.alarm(seconds)
    try:
        return "value", function(*arguments)
    except Exception as error:
        return type(error).__name__, str(error)
    finally:
        signal.alarm(0)


class FreshProcess:
    """Call functions of importable modules in another process.

    It is not forked from this one: a fork has the locks of threads that it does not have, so that
    a thread pool used before (hotcoco's) would hang. The process is kept from call to call and
    replaced when it died.

    Args:
        seconds: after which a call is killed.
    """

    def __init__(self, seconds=120):
        self._seconds, self._pool = seconds, None

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.close()

    def __call__(self, function, *arguments):
        """Return ("value", result), an error's name and text, or ("died", "")."""
        if self._pool is None:
            self._pool = ProcessPoolExecutor(1, multiprocessing.get_context("forkserver"))
        try:
            return self._pool.submit(_limited, self._seconds, function, arguments).result()
        except BrokenProcessPool:
            self.close()
            return "died", ""

    def close(self):
        """End the process."""
        if self._pool is not None:
            self._pool.shutdown()
            self._pool = None
