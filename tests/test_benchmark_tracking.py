"""Facts about the benchmark of identities."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest

FILE = Path(__file__).parents[1] / "benchmarks" / "tracking.py"


@pytest.fixture(scope="module")
def tracking():
    spec = importlib.util.spec_from_file_location("benchmark_tracking", FILE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_rows_are_those_of_the_instances_that_were_given(tracking):
    follow, crowd = tracking.ours(low=0.5), tracking.crowd(6, (96, 128), 0)
    crowd.scores[2] = 0.4
    rows, ids = follow(crowd)
    assert (rows.tolist(), ids.tolist()) == ([0, 1, 3, 4, 5], [1, 2, 3, 4, 5])
    rows, ids = follow(crowd[[4, 0]])
    assert dict(zip(rows.tolist(), ids.tolist(), strict=True)) == {0: 4, 1: 1}


def test_identities_are_numbered_from_0(tracking):
    numbered, count = tracking._numbered([np.array([7, 3]), np.zeros(0, int), np.array([7])])
    assert [x.tolist() for x in numbered] == [[1, 0], [], [1]]
    assert count == 2


def test_the_table_says_what_is_gained(tracking, capsys):
    first, *others = tracking.TRACKERS
    other = {name: [40.0, 1, 1, 1, 1] for name in others}
    tracking.show([{first: [50.0, 1, 1, 1, 1], **other}, {first: [39.0, 1, 1, 1, 1], **other}])
    lines = capsys.readouterr().out.splitlines()
    assert lines[2].startswith(f"| {first} | 44.5 ± 5.5 | ")
    assert lines[3].endswith(" | 4.5 ± 5.5, in 1 films |")


def test_perfect_identities_have_all_of_hota_and_a_switch_costs(tracking):
    pytest.importorskip("trackeval")
    perfect, switched = tracking.Sequences(), tracking.Sequences()
    for number in range(4):
        perfect.add(np.array([1, 2]), np.array([5, 6]), np.eye(2))
        swapped = np.array([5, 6]) if number < 2 else np.array([6, 5])
        switched.add(np.array([1, 2]), swapped, np.eye(2))
    assert perfect.measures() == [100, 100, 100, 100, 0]
    hota, detection, association, identity, switches = switched.measures()
    # Half of an object's frames in common with each identity: 2 of 4 + 4 - 2.
    assert (detection, association, switches) == (100, pytest.approx(100 / 3), 2)
    assert hota == pytest.approx(100 * 3**-0.5)
    assert identity == 50
