"""The benchmark command as a user calls it, at sizes that say nothing about speed."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from commands import call, load_script

RUN = Path(__file__).parents[1] / "benchmarks" / "run.py"

# A peer with the functions that the benchmark calls: right, or with a wrong NMS.
PEER = """
def matrix_nms(labels, masks, areas, scores):
    from solo_d2.layers import matrix_nms
    return matrix_nms(masks, labels, scores) {error}

class SOLOv2:
    get_ground_truth = get_ground_truth_single = inference_single_image = lambda self: None
"""


@pytest.fixture
def run(monkeypatch):
    """Call the command in this process, where it measures on one thread of the CPU."""
    monkeypatch.syspath_prepend(str(RUN.parent))
    main = load_script("benchmarks/run.py").main
    yield lambda *words: call(main, *words, "--threads", 1, "--device", "cpu")
    for name in [name for name in sys.modules if name.partition(".")[0] == "adet"]:
        del sys.modules[name]


def make_peer(folder, error=""):
    package = folder / "adet" / "modeling" / "solov2"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "solov2.py").write_text(PEER.format(error=error))
    return folder


def test_groups_run_and_every_row_is_written_as_json(run, tmp_path):
    groups = ("targets", "nms", "nms-types", "inference", "finish", "model")
    done = run(*groups, "--quick", "--rounds", 2, "--json", tmp_path / "figures.json")
    assert done.returncode == 0, done.stderr
    figures = json.loads((tmp_path / "figures.json").read_text())
    assert figures["environment"]["threads"] == "1"
    table = [line for line in done.stdout.splitlines() if line.startswith("| ")]
    assert [line.split(" | ")[0][2:] for line in table[1:]] == [
        x["name"] for x in figures["results"]
    ]
    names = " ".join(x["name"] for x in figures["results"])
    for part in ("targets", "Matrix NMS", "Soft NMS", "IoU given", "selection", "finish"):
        assert part in names
    for part in ("backbone", "head", "backward"):
        assert part in names
    assert all(len(x["ours_ms"]) == 2 and not x["peer_ms"] for x in figures["results"])


def test_every_head_is_measured_with_100_detections(run):
    done = run("heads", "--quick", "--rounds", 1)
    assert done.returncode == 0, done.stderr
    rows = [line.split(" | ") for line in done.stdout.splitlines() if " post-processing |" in line]
    assert [row[0][2:].split(",")[0] for row in rows] == [
        *("vanilla", "decoupled", "decoupled light"),
        *("dynamic", "dynamic separate", "decoupled dynamic"),
    ]
    for row in rows:
        share, detections = row[6].split(" % of the network, ")
        assert float(share) > 0
        assert 90 <= int(detections.removesuffix(" detections")) <= 100


def test_a_peer_is_timed_in_the_same_rounds_and_compared(run, tmp_path):
    figures = tmp_path / "figures.json"
    peer = make_peer(tmp_path)
    done = run("nms", "--quick", "--rounds", 2, "--peer", peer, "--json", figures)
    assert done.returncode == 0, done.stderr
    for result in json.loads(figures.read_text())["results"]:
        assert len(result["ours_ms"]) == len(result["peer_ms"]) == 2
        assert result["agrees"].startswith("equal")


def test_a_different_result_of_the_peer_is_said_and_fails(run, tmp_path):
    done = run("nms", "--quick", "--rounds", 1, "--peer", make_peer(tmp_path, "* 0.9"))
    assert done.returncode == 1
    assert "| NO (" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["speed"], "unknown group 'speed'; choose from targets, nms"),
        (["--rounds", "0"], "must be positive"),
        (["--threads", "0"], "must be positive"),
        (["--clock", "process"], "--clock process expects --threads 1"),
        (["--peer", "."], "expects a checkout of AdelaiDet"),
        (["--device", "cuda:99"], "--device cuda:99 cannot be used"),
        (["--json", "no/such/folder/x.json"], "there is no folder"),
        (["--rounds", "many"], "invalid int value: 'many'"),
    ],
)
def test_a_wrong_argument_is_named_and_nothing_is_measured(arguments, message, monkeypatch, capsys):
    monkeypatch.syspath_prepend(str(RUN.parent))
    import run as command

    try:
        code = command.main([*arguments, "--quick"])
    except SystemExit as stop:  # argparse
        code = stop.code
    captured = capsys.readouterr()
    assert code == 2
    assert message in captured.err.splitlines()[-1]
    assert not captured.out
