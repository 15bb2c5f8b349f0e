"""Work that overlaps: items made ahead of their use, and items finished behind it, in threads.

Both hold a bounded number of items, so that memory does not grow with a film.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Generator, Iterable
from types import TracebackType
from typing import Any, Generic, TypeVar

__all__ = ["Behind", "ahead"]

Item = TypeVar("Item")

_END = object()
_WAIT = 0.1  # seconds between two looks at whether the other side is still there


def ahead(items: Iterable[Item], size: int, *, newest: bool = False) -> Generator[Item, None, None]:
    """Yield items that a thread takes from their iterator before they are asked for.

    Args:
        items: Iterated in the thread; what it raises is raised here.
        size: Items that wait at most, 1 or more.
        newest: Drop the oldest that waits where there is no place for one more, as of a camera
            that is faster than its frames are looked at; otherwise the thread waits.
    """
    taker = _Taker(items, size, newest)
    taker.thread.start()
    try:
        while True:
            item, error = taker.waiting.get()
            if error is not None:
                raise error
            if item is _END:
                return
            yield item
    finally:
        taker.stop.set()
        taker.thread.join()


class _Taker(Generic[Item]):
    """Takes items in a thread; each waits with None, the end with what was raised, if anything."""

    def __init__(self, items: Iterable[Item], size: int, newest: bool) -> None:
        self.waiting: queue.Queue[tuple[Any, BaseException | None]] = queue.Queue(size)
        self.stop = threading.Event()
        self.thread = threading.Thread(target=self._take, args=(items, newest), daemon=True)

    def _take(self, items: Iterable[Item], newest: bool) -> None:
        error: BaseException | None = None
        try:
            for item in items:
                self._put((item, None), newest)
                if self.stop.is_set():
                    return
        except BaseException as raised:  # of any kind: it belongs to the other thread
            error = raised
        self._put((_END, error), newest=False)

    def _put(self, entry: tuple[Any, BaseException | None], newest: bool) -> None:
        while not self.stop.is_set():
            try:
                return self.waiting.put(entry, timeout=0 if newest else _WAIT)
            except queue.Full:
                if newest:
                    self._drop()

    def _drop(self) -> None:
        try:
            self.waiting.get_nowait()
        except queue.Empty:  # it was taken in the meantime
            return


class Behind(Generic[Item]):
    """Call a function with one item after the other in a thread; a context manager.

    Leaving the block waits for all items, also where an exception leaves it: what was handed over
    is finished. What the function raises is raised by the next `put`, or at the end of the block;
    items behind it are not worked on.

    Args:
        function: Called with every item.
        size: Items that wait at most, 1 or more; `put` waits for a place.
    """

    def __init__(self, function: Callable[[Item], object], size: int) -> None:
        self._function = function
        self._waiting: queue.Queue[Any] = queue.Queue(size)
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._work, daemon=True)

    def put(self, item: Item) -> None:
        """Hand over an item.

        Raises:
            BaseException: What the function raised of an earlier item.
        """
        self._raise()
        self._waiting.put(item)

    def _work(self) -> None:
        while (item := self._waiting.get()) is not _END:
            if self._error is None:
                try:
                    self._function(item)
                except BaseException as error:  # of any kind: it belongs to the other thread
                    self._error = error

    def _raise(self) -> None:
        if self._error is not None:
            raise self._error

    def __enter__(self) -> Behind[Item]:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._waiting.put(_END)
        self._thread.join()
        if kind is None:
            self._raise()
