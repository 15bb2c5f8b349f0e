"""Facts about work that overlaps: order, bounds, ends and errors."""

from __future__ import annotations

import threading
import time

import pytest

from solo_d2.io.pipeline import Behind, ahead


def counted(count, taken, error=None):
    for number in range(count):
        taken.append(number)
        yield number
    if error is not None:
        raise error


def test_items_come_in_their_order_and_no_more_than_size_wait():
    taken, most = [], 0
    for number in ahead(counted(3000, taken), 3):
        most = max(most, len(taken) - number)
        assert taken[number] == number
    assert len(taken) == 3000
    assert most <= 5  # three that wait, one that does not fit yet, one that is here


def test_what_the_items_raise_comes_behind_them():
    found = ahead(counted(2, [], KeyError("end")), 8)
    assert [next(found), next(found)] == [0, 1]
    with pytest.raises(KeyError, match="end"):
        next(found)


def test_closing_ends_the_thread():
    before, taken = threading.active_count(), []
    found = ahead(counted(10**9, taken), 2)
    next(found)
    assert threading.active_count() == before + 1
    found.close()
    assert threading.active_count() == before


def test_of_what_is_live_the_newest_wait():
    go, taken = threading.Event(), []

    def live():
        yield from counted(50, taken)
        go.set()

    found = ahead(live(), 4, newest=True)
    first = next(found)
    assert go.wait(5)
    rest = list(found)
    assert rest[-1] == 49
    assert len(rest) <= 4
    assert first < rest[0]


def test_what_is_handed_over_is_done_in_order_and_bounded():
    done, handed, most = [], 0, 0
    with Behind(done.append, 3) as behind:
        for number in range(2000):
            behind.put(number)
            handed += 1
            most = max(most, handed - len(done))
    assert done == list(range(2000))
    assert most <= 5


def test_an_exception_leaves_when_all_is_done():
    done = []

    def slow(item):
        time.sleep(0.01)
        done.append(item)

    with pytest.raises(KeyboardInterrupt), Behind(slow, 8) as behind:
        for number in range(5):
            behind.put(number)
        raise KeyboardInterrupt
    assert done == [0, 1, 2, 3, 4]


def test_an_error_of_the_thread_comes_with_the_next_item_or_at_the_end():
    done = []

    def fail(item):
        if item == 1:
            raise OSError("disk full")
        done.append(item)

    with pytest.raises(OSError, match="disk full"), Behind(fail, 8) as behind:
        for number in range(1000):
            behind.put(number)
            time.sleep(0.001)
    assert done == [0]
    with pytest.raises(OSError, match="disk full"), Behind(fail, 8) as behind:
        behind.put(1)
