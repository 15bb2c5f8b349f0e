"""Several machines under torchrun: one that loses its process, and a training that goes on."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import training_runs as runs

from solo_d2.engine.processes import exit_code, tell

ROOT = Path(__file__).parents[2]

KILLER = """
import os, signal
from solo_d2.engine import SOLOTrainer

plain = SOLOTrainer.before_step

def before_step(trainer):
    first = os.environ["TORCHELASTIC_RESTART_COUNT"] == "0"
    if first and trainer.iter == 3 and os.environ["RANK"] == "1":
        open(os.environ["KILLED"], "x").close()
        os.kill(os.getpid(), signal.SIGKILL)
    plain(trainer)

SOLOTrainer.before_step = before_step
"""


def free_port():
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return server.getsockname()[1]


@pytest.mark.slow
def test_two_machines_go_on_after_one_lost_its_process(tmp_path):
    """Iterations 0 to 2 were done; checkpoints are of every second one."""
    images = runs.write_images(tmp_path / "images")
    cfg = runs.config(
        tmp_path / "out", "SOLVER.MAX_ITER", 6, "SOLVER.STEPS", (),
        "SOLVER.CHECKPOINT_PERIOD", 2, "DATASETS.TRAIN", (),
    )  # fmt: skip
    (tmp_path / "tiny.yaml").write_text(cfg.dump())
    (tmp_path / "killer.py").write_text(KILLER)
    command = [
        sys.executable, "-m", "torch.distributed.run", "--nnodes", "2", "--nproc_per_node", "1",
        "--rdzv_backend", "c10d", "--rdzv_endpoint", f"127.0.0.1:{free_port()}",
        "--rdzv_id", "elastic", "--local_addr", "127.0.0.1", "--max_restarts", "2",
        "--monitor_interval", "0.1", str(ROOT / "train_net.py"), "--resume",
        "--config-file", str(tmp_path / "tiny.yaml"), "--import", str(tmp_path / "killer.py"),
        "--train-json", str(images), "--train-images", str(images.parent),
    ]  # fmt: skip
    # Otherwise processes find addresses of before the restart, which nobody listens at any more.
    shared = {"TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1", "KILLED": str(tmp_path / "killed")}
    environment = {**os.environ, **shared, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    logs = [tmp_path / f"machine_{k}.txt" for k in range(2)]
    machines = []
    for log in logs:
        with log.open("wb") as file:
            machines.append(
                subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT, env=environment)
            )
    try:
        codes = [machine.wait(timeout=280) for machine in machines]
    finally:
        for machine in machines:
            machine.kill()
    said = "".join(log.read_text(errors="replace") for log in logs)
    assert codes == [0, 0], said[-6000:]
    assert (tmp_path / "killed").exists()
    starts = [line.rpartition(" ")[2] for line in said.splitlines() if "from iteration" in line]
    assert starts[0] == "0" and starts[-1] in ("2", "3")  # 3: the other one could still save
    final = torch.load(tmp_path / "out/model_final.pth", weights_only=True)
    assert final["iteration"] == 5
    lines = (tmp_path / "out/metrics.json").read_text().splitlines()
    assert json.loads(lines[-1])["iteration"] == 5


@pytest.mark.parametrize(
    "error",
    [
        torch.distributed.DistBackendError("NCCL timeout\nmore"),
        RuntimeError("[/x/gloo/transport/tcp/pair.cc:547] Connection closed by peer [10.0.0.2]"),
    ],
)
def test_the_death_of_another_process_is_one_line(capsys, error):
    assert exit_code(error) == 1
    tell(error, "train_net.py")
    said = capsys.readouterr().err
    assert said.startswith("train_net.py: another process of this training has died or is out of ")
    assert said.count("\n") == 1


def test_other_errors_keep_their_traceback():
    assert exit_code(RuntimeError("shapes do not match")) is None
