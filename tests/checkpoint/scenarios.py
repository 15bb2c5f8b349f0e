"""Saves that are killed, a full disk, and two processes, for a process of its own.

One interpreter forks for every scenario, since starting one takes longer than all of them.
"""

from __future__ import annotations

import os
import resource
import signal

import torch
import torch.distributed as dist
from detectron2.utils import comm
from torch import nn

from solo_d2.checkpoint import SOLOCheckpointer, save_checkpoint
from solo_d2.io import atomic


def die(*args):
    """As by ``kill -9``, in the middle of what calls this."""
    os.kill(os.getpid(), signal.SIGKILL)


def killed(folder, where):
    """Save once, and be killed in the second save."""
    checkpointer = SOLOCheckpointer(nn.Linear(300, 200), str(folder))
    checkpointer.save("model_0", iteration=0)
    if where == "writing":

        def half(obj, file, *args):
            file.write_record("data/0", b"x" * 100_000, 100_000)
            die()

        torch.serialization._save = half
    elif where == "renaming":
        atomic.os.replace = die
    else:
        checkpointer.tag_last_checkpoint = die
    checkpointer.save("model_1", iteration=1)


def full_disk(folder, name):
    """Overwrite a file by one that has no room; the error goes to the file "said"."""
    save_checkpoint({"model": {"a": torch.ones(3)}}, folder / name)
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
    try:
        save_checkpoint({"model": {"a": torch.zeros(1_000_000)}}, folder / name)
    except OSError as error:
        (folder / "said").write_text(str(error))


def two_processes(folder, rank, fits):
    """Resume in two processes, one of which may have another model, and save again."""
    meeting = (folder / "meeting").as_uri()
    dist.init_process_group("gloo", init_method=meeting, rank=rank, world_size=2)
    torch.manual_seed(rank)
    model = nn.Linear(3 if fits or rank == 0 else 4, 2)
    checkpointer = SOLOCheckpointer(model, str(folder / "out"))
    try:
        iteration = checkpointer.resume_or_load("")["iteration"]
        said = f"{iteration} {model.weight.sum().item():.6f}"
        checkpointer.save(f"rank_{rank}", iteration=9)
    except ValueError as error:
        said = str(error)
    (folder / f"said_{comm.get_rank()}").write_text(said)
    dist.barrier()
    dist.destroy_process_group()


def forked(function, *args):
    """Run in a new process; returns its number."""
    process = os.fork()
    if process:
        return process
    try:
        function(*args)
    finally:
        os._exit(0)


def main(root):
    """Run all scenarios, each in a folder of its own; prints how the processes ended."""
    endings = {}
    for where in ("writing", "renaming", "tagging"):
        (root / where).mkdir()
        endings[where] = os.waitpid(forked(killed, root / where, where), 0)[1]
    for name in ("a.pth", "a.safetensors"):
        (root / name).mkdir()
        endings[name] = os.waitpid(forked(full_disk, root / name, name), 0)[1]
    for name in ("fits", "differs"):
        out = root / name / "out"
        out.mkdir(parents=True)
        for i in range(2):
            SOLOCheckpointer(nn.Linear(3, 2), str(out)).save(f"model_{i}", iteration=i)
        (out / "model_1.pth").write_bytes((out / "model_1.pth").read_bytes()[:-300])
        pair = [forked(two_processes, root / name, rank, name == "fits") for rank in (0, 1)]
        endings[name] = max(os.waitpid(process, 0)[1] for process in pair)
    return endings
