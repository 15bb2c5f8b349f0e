"""Old module names keep working for one release, with a warning."""

from __future__ import annotations

import importlib
import subprocess
import sys

import pytest

from solo_d2._moved import MOVED


@pytest.mark.parametrize("old", sorted(MOVED))
def test_an_old_name_is_the_new_module(old):
    sys.modules.pop(f"solo_d2.{old}", None)
    new = importlib.import_module(f"solo_d2.{MOVED[old]}")
    with pytest.warns(DeprecationWarning, match=f"solo_d2.{MOVED[old]} now"):
        assert importlib.import_module(f"solo_d2.{old}") is new
    assert new.__spec__.name == f"solo_d2.{MOVED[old]}"


def test_old_functions_of_loading_are_the_new_ones():
    from solo_d2 import checkpoint, config, model_zoo

    sys.modules.pop("solo_d2.loading", None)
    with pytest.warns(DeprecationWarning, match=r"load_config is in solo_d2\.model_zoo"):
        loading = importlib.import_module("solo_d2.loading")
    assert loading.load_config is model_zoo.load_config
    assert loading.load_weights is checkpoint.load_weights
    assert loading.resolve_device is config.resolve_device


def test_an_old_name_runs_as_a_program():
    done = subprocess.run(
        [sys.executable, "-m", "solo_d2.data.datasets.shapes", "--help"],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0
    assert "python -m solo_d2.data.scenes shapes" in done.stdout


def test_a_name_that_never_was_is_still_an_error():
    with pytest.raises(ModuleNotFoundError):
        importlib.import_module("solo_d2.utils.nothing")
