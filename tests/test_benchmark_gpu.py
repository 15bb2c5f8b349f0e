"""The GPU benchmark on a CPU, at sizes that say nothing about speed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from commands import call, load_script

FOLDER = Path(__file__).parents[1] / "benchmarks"


@pytest.fixture
def gpu(monkeypatch):
    """The command as a module, in its folder."""
    monkeypatch.syspath_prepend(str(FOLDER))
    return load_script("benchmarks/gpu.py")


@pytest.fixture(autouse=True)
def _tf32_as_before():
    before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    yield
    torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = before


def test_rows_are_printed_and_written(gpu, tmp_path):
    file = tmp_path / "gpu.json"
    done = call(gpu.main, "parts", "--device", "cpu", "--quick", "--json", file)
    assert done.returncode == 0, done.stderr
    rows = json.loads(file.read_text())["sections"]["parts"]["rows"]
    assert [row["name"] for row in rows] == [
        "Matrix NMS of 20 masks",
        "5 soft masks to 60x80",
        "targets of 2 x 3 objects on the host",
        "targets of 2 x 3 objects on the device",
    ]
    assert all(row["ms"] > 0 for row in rows)
    assert "4 rows, 0 failed checks" in done.stdout


def test_a_check_compares_precisions_and_fails_where_instances_are_lost(gpu, monkeypatch):
    import _gpu_checks

    monkeypatch.setattr(_gpu_checks, "CANVAS", (64, 96))
    rows = list(_gpu_checks.check_case("dynamic", torch.device("cpu")))
    precisions = ["float32", "float16", "bfloat16", "compiled, float32", "compiled, float16"]
    assert [row["precision"] for row in rows] == precisions
    assert all(row["ok"] for row in rows)
    assert rows[0]["expected"] == rows[0]["matched"] > 0
    found = _gpu_checks.find(
        _gpu_checks.tiny_case("dynamic"), _gpu_checks.smooth_images(2, _gpu_checks.CANVAS), None
    )
    lost = _gpu_checks.compare([x[x.pred_classes > 0] for x in found], found)
    kept = sum(int((x.pred_classes > 0).sum()) for x in found)
    assert lost["matched"] == lost["found"] == kept < lost["expected"]


def test_a_section_that_fails_leaves_the_next_one(gpu, monkeypatch, tmp_path):
    def broken(sizes, device):
        yield {"name": "first", "ok": False}
        raise RuntimeError("no memory")

    def works(sizes, device):
        yield {"name": "second", "ms": 1.0}

    monkeypatch.setattr(gpu, "SECTIONS", {"broken": broken, "works": works})
    file = tmp_path / "gpu.json"
    done = call(gpu.main, "--device", "cpu", "--quick", "--json", file)
    assert done.returncode == 1
    sections = json.loads(file.read_text())["sections"]
    assert sections["broken"]["rows"] == [{"name": "first", "ok": False}]
    assert sections["broken"]["error"] == "RuntimeError: no memory"
    assert sections["works"]["rows"] == [{"name": "second", "ms": 1.0}]


def test_nothing_begins_after_the_time_is_over(gpu, monkeypatch):
    monkeypatch.setattr(gpu, "SECTIONS", {"long": lambda *_: iter([{"name": "a"}, {"name": "b"}])})
    done = call(gpu.main, "--device", "cpu", "--quick", "--seconds", "0")
    assert done.returncode == 1
    assert "name a" in done.stdout
    assert "name b" not in done.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["speed", "--device", "cpu"], "unknown section 'speed'; choose from checks, inference"),
        (["--device", "cuda:99"], "no CUDA device"),
    ],
)
def test_a_wrong_argument_is_named(gpu, monkeypatch, arguments, message):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    done = call(gpu.main, *arguments)
    assert done.returncode == 2
    assert message in done.stderr
