"""Past one machine: the model on paper, and examples for clusters that a scheduler can read."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest
import yaml
from commands import call, load_script
from test_doc_commands import wrong

ROOT = Path(__file__).parents[1]
CLUSTER = ROOT / "examples" / "cluster"
scaling = load_script("benchmarks/scaling.py")


def costs(**changed):
    """One image a second, no spread, no latency."""
    values = {
        "images": 1, "step": 1.0, "backward": 0.0, "spread": 0.0, "gradients": 8.0,
        "link": 4.0, "network": 2.0, "latency": 0.0,
    }  # fmt: skip
    return scaling.Costs(**{**values, **changed})


def test_an_exchange_by_hand():
    """In a ring every one sends 2 (n - 1) / n of the bytes; a machine has eight."""
    assert costs().exchange(2, 8) == 2.0
    assert costs().exchange(8, 8) == pytest.approx(2 * 7 / 8 * 8 / 4)
    assert costs().exchange(16, 8) == pytest.approx(3.5 + 2 * 1 / 2 * 8 / 2)
    assert costs(latency=0.25).exchange(8, 0) == 2 * 3 * 0.25


def test_what_the_backward_pass_hides_costs_nothing():
    gradients = scaling.LAST_BUCKET + 8.0
    alone = costs(gradients=gradients, link=1e12, network=1e12).step_of(16)
    assert alone == pytest.approx(1.0, abs=1e-3)
    slow = costs(gradients=gradients, link=float(scaling.LAST_BUCKET))
    hidden = costs(gradients=gradients, link=float(scaling.LAST_BUCKET), backward=0.5)
    assert slow.step_of(2) == pytest.approx(2.0, abs=1e-3)  # the last bucket is never hidden
    assert hidden.step_of(2) < slow.step_of(2)


def test_the_slowest_of_many():
    assert scaling.expected_maximum(1) == pytest.approx(0)
    assert scaling.expected_maximum(2) == pytest.approx(0.5642, abs=0.03)  # 1 / sqrt(pi)
    assert costs(spread=0.1).slowest(1) == pytest.approx(1.0)


def test_the_page_has_the_tables_of_the_script():
    page = (ROOT / "docs/scaling.md").read_text()
    fast, slow = (
        [re.findall(r"[\d.]+", line) for line in call(scaling.main, *words).stdout.splitlines()[2:]]
        for words in ((), ("--network-gbps", "25"))
    )
    for (count, _, speed, share), (_, _, other, less) in zip(fast, slow, strict=True):
        assert f"| {count} | {speed} | {share} % | {other} | {less} % |" in page


def commands_in(text):
    """Words of every command of the package in a script whose lines go on with a backslash."""
    lines = text.replace("\\\n", " ").splitlines()
    for line in lines:
        match = re.search(r"(train_net\.py|solo-d2) (?!\S*\.)(.*)", line)
        if match and not line.lstrip().startswith("#"):
            words = [x.strip('"') for x in match[2].removesuffix("&").split()]
            yield words if match[1] == "solo-d2" else ["train", *words]


@pytest.mark.parametrize("script", sorted(CLUSTER.glob("*.sbatch")), ids=lambda path: path.name)
def test_slurm_scripts_have_the_syntax_of_bash_and_our_options(script):
    done = subprocess.run(["bash", "-n", script], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    found = list(commands_in(script.read_text()))
    assert found and [wrong(words) for words in found] == [[]] * len(found)


@pytest.mark.parametrize("file", sorted(CLUSTER.glob("*.yaml")), ids=lambda path: path.name)
def test_kubernetes_jobs_are_whole_and_have_our_options(file):
    parts = list(yaml.safe_load_all(file.read_text()))
    assert all({"apiVersion", "kind", "metadata", "spec"} <= set(part) for part in parts)
    job = next(part for part in parts if part["kind"] == "Job")
    pod = job["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    mounted = {x["name"] for x in container["volumeMounts"]}
    assert mounted == {x["name"] for x in pod["volumes"]}
    assert all(isinstance(word, str) for word in container["args"])
    assert all(isinstance(x["value"], str) for x in container["env"] if "value" in x)
    words = container["command"] + container["args"]
    first = words.index("train_net.py" if "train_net.py" in words else "solo-d2")
    verb = ["train"] if words[first] == "train_net.py" else []
    assert wrong([*verb, *words[first + 1 :]]) == []


def test_machines_and_batch_of_the_examples_fit():
    job = next(
        x for x in yaml.safe_load_all((CLUSTER / "train.yaml").read_text()) if x["kind"] == "Job"
    )
    args = job["spec"]["template"]["spec"]["containers"][0]["args"]
    machines = int(next(x for x in args if x.startswith("--nnodes")).partition("=")[2])
    processes = int(next(x for x in args if x.startswith("--nproc")).partition("=")[2])
    assert job["spec"]["completions"] == job["spec"]["parallelism"] == machines
    assert int(args[args.index("SOLVER.IMS_PER_BATCH") + 1]) % (machines * processes) == 0
