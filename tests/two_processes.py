"""Trainings in two processes that a signal, a bad image or a death ends.

One process of its own forks for every training, since starting one takes longer than all.
"""

from __future__ import annotations

import json
import os
import shutil
import signal

import torch
import torch.distributed as dist
import training_runs as runs
from detectron2.utils import comm

from solo_d2.engine import SOLOTrainer


def prepare(root, rank, world):
    """Join the other process."""
    signal.alarm(100)  # a process that waits for ever fails the test
    meeting = (root / "meeting").as_uri()
    dist.init_process_group("gloo", init_method=meeting, rank=rank, world_size=world)
    comm._LOCAL_PROCESS_GROUP = dist.group.WORLD


def run(root, name, rank, world, hooks, overrides, resume):
    """Train; returns the exit code, or the name of the error."""
    if world > 1:
        prepare(root / name, rank, world)
    small = ("SOLVER.MAX_ITER", 6, "SOLVER.STEPS", ())
    cfg = runs.config(root / name, *small, *overrides)
    torch.manual_seed(0)
    trainer = SOLOTrainer(cfg)
    trainer.register_hooks(hooks if rank == world - 1 else [])
    trainer.resume_or_load(resume=resume)
    try:
        trainer.train()
    except SystemExit as error:
        return error.code
    except Exception as error:
        return type(error).__name__
    return 0


def train(root, name, hooks=(), overrides=(), world=2, resume=False):
    """Train in processes of their own; their exit codes, or the names of their errors."""
    (root / name).mkdir(exist_ok=True)
    (root / name / "meeting").unlink(missing_ok=True)
    processes = []
    for rank in range(world):
        process = os.fork()
        if not process:
            try:
                said = run(root, name, rank, world, list(hooks), overrides, resume)
                (root / name / f"said_{rank}").write_text(json.dumps(said))
            finally:
                os._exit(0)
        processes.append(process)
    endings = []
    for rank, process in enumerate(processes):
        status = os.waitpid(process, 0)[1]
        file = root / name / f"said_{rank}"
        said = json.loads(file.read_text()) if file.is_file() else None
        endings.append(-os.WTERMSIG(status) if os.WIFSIGNALED(status) else said)
        file.unlink(missing_ok=True)
    return endings


def main(root):
    """Run all; how the processes ended, by the name of the training."""
    runs.register(root / "data")
    endings = {"whole": train(root, "whole")}
    stop = [runs.At(3, runs.send(signal.SIGTERM))]
    endings["stopped"] = train(root, "stopped", stop)
    endings["resumed"] = train(root, "stopped", resume=True)
    broken = runs.write_images(root / "broken").parent
    runs.register(broken, name="broken")
    spoil = [runs.At(2, lambda: [(broken / f"{i}.png").write_bytes(b"") for i in range(7)])]
    keys = ("DATASETS.TRAIN", ("broken",))
    endings["unreadable"] = train(root, "unreadable", spoil, keys)
    endings["killed"] = train(root, "killed", [runs.At(2, runs.send(signal.SIGKILL))])
    shutil.copytree(root / "whole", root / "alone")
    keys = ("SOLVER.MAX_ITER", 8)
    endings["alone"] = train(root, "alone", overrides=keys, world=1, resume=True)
    parts = ("SOLVER.IMS_PER_BATCH", 4, "SOLVER.ACCUMULATE_STEPS")
    endings["accumulated"] = train(root, "accumulated", overrides=(*parts, 2))
    endings["parts"] = train(root, "parts", overrides=(*parts, 4), world=1)
    return endings
