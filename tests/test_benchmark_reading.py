"""The benchmark of reading as a user calls it, at a size that says nothing about speed."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.mark.parametrize("masks", ["polygon", "rle"])
def test_both_readers_give_the_same_records(monkeypatch, tmp_path, masks):
    monkeypatch.syspath_prepend(str(Path(__file__).parents[1] / "benchmarks"))
    import reading

    path = reading.write_file(tmp_path, 12, masks)
    theirs, ours = (reading.read(reader, path) for reader in ("detectron2", "solo_d2"))
    assert theirs["facts"] == ours["facts"]
    assert ours["facts"][0] == 12
    assert ours["facts"][1] > 30


def test_the_table(monkeypatch, capsys):
    monkeypatch.syspath_prepend(str(Path(__file__).parents[1] / "benchmarks"))
    import reading

    measured = {"seconds": 2.0, "MB": 3.0, "facts": [1]}
    monkeypatch.setattr(reading, "in_process", lambda *_: measured)
    assert reading.main(["--images", "2", "--masks", "rle"]) == 0
    assert "| 2 | rle | 2.0 | 2.0 | 1.00 | 3.0 | 3.0 | 1.00 |" in capsys.readouterr().out
