"""Fixtures; its folder is on the path, so that tests can import `builders`."""

from __future__ import annotations

import gc
import logging
import multiprocessing
import signal

import builders
import pytest
import torch
from detectron2.data import DatasetCatalog, MetadataCatalog

# Processes of the start method "forkserver" begin with these imported: starting them anew takes
# five seconds each.
multiprocessing.set_forkserver_preload(["solo_d2.engine", "solo_d2.evaluation"])


def pytest_collection_modifyitems(items):
    """Run the files with slow tests first, so that no process ends with one of them."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)


def pytest_collection_finish():
    """Keep what was imported and collected out of every later garbage collection."""
    gc.collect()
    gc.freeze()


def _handlers():
    names = ["", *logging.root.manager.loggerDict]
    return {(name, handler) for name in names for handler in logging.getLogger(name).handlers}


@pytest.fixture(autouse=True, scope="session")
def _signals_are_not_ignored():
    """A shell that runs the tests in the background lets them ignore SIGINT, nohup SIGHUP."""
    for number, handler in (
        (signal.SIGINT, signal.default_int_handler),
        (getattr(signal, "SIGHUP", signal.SIGTERM), signal.SIG_DFL),
    ):
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, handler)


@pytest.fixture(autouse=True)
def _no_log_handlers_left():
    """Commands add handlers that write to a stream which pytest closes after the test."""
    before = _handlers()
    yield
    for name, handler in _handlers() - before:
        if not type(handler).__module__.startswith("_pytest"):
            logging.getLogger(name).removeHandler(handler)


@pytest.fixture(autouse=True)
def _threads_as_before():
    """Benchmarks set their number, and numba's loops that of all OpenMP: waiting costs minutes."""
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


@pytest.fixture(autouse=True)
def _datasets_as_before():
    """Commands register datasets under names of their own, which the next test may take, too."""
    before = set(DatasetCatalog), set(MetadataCatalog)
    yield
    for catalog, names in zip((DatasetCatalog, MetadataCatalog), before, strict=True):
        for name in set(catalog) - names:
            catalog.remove(name)


@pytest.fixture
def tiny_cfg():
    """A config of `builders.tiny_config` of the test's own."""
    return builders.tiny_config()


@pytest.fixture
def training_batch():
    """Two images of one size with three objects and one."""
    return [
        builders.noise_input(
            (64, 96), [(4, 4, 20, 24), (40, 8, 88, 60), (30, 30, 38, 40)], [0, 1, 2]
        ),
        builders.noise_input((64, 96), [(8, 8, 40, 40)], [1], seed=1),
    ]
