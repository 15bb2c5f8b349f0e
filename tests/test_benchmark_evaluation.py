"""The benchmark of evaluation as a user calls it, at sizes that say nothing about speed."""

from __future__ import annotations

from pathlib import Path

import pytest

from solo_d2.evaluation.coco import hotcoco

pytestmark = pytest.mark.skipif(hotcoco is None, reason="needs hotcoco")


@pytest.fixture
def command(monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parents[1] / "benchmarks"))
    import evaluation

    return evaluation.main


def test_random_detections_are_encoded_and_scored_both_ways(command, capsys):
    assert command(["--synthetic", "2", "--detections", "6"]) == 0
    text = capsys.readouterr().out
    assert text.startswith("2 images, 12 instances")
    assert "| encoding |" in text
    assert "| scoring |" in text
    assert "AP and its kin are equal" in text


def test_missing_arguments_are_named(command, capsys):
    assert command(["--config-file", "x.yaml"]) == 2
    assert "expected --synthetic N, or --config-file" in capsys.readouterr().err
