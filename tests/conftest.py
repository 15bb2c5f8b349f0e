"""Fixtures; its folder is on the path, so that tests can import `builders`."""

from __future__ import annotations

import builders
import pytest


@pytest.fixture
def tiny_cfg():
    """A config of `builders.tiny_config` of the test's own."""
    return builders.tiny_config()


@pytest.fixture
def training_batch():
    """Two pictures of one size with three objects and one."""
    return [
        builders.noise_input(
            (64, 96), [(4, 4, 20, 24), (40, 8, 88, 60), (30, 30, 38, 40)], [0, 1, 2]
        ),
        builders.noise_input((64, 96), [(8, 8, 40, 40)], [1], seed=1),
    ]
