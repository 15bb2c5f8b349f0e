"""Start of one or several processes, by Detectron2 or by torchrun."""

from __future__ import annotations

import contextlib
import datetime
import multiprocessing
import os
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from detectron2.engine import launch as detectron2_launch
from detectron2.utils import comm
from torch.multiprocessing.spawn import ProcessExitedException

from ..io.errors import one_line


def launch(
    main: Callable[..., Any],
    num_gpus: int,
    *,
    num_machines: int = 1,
    machine_rank: int = 0,
    dist_url: str = "auto",
    args: tuple[Any, ...] = (),
) -> None:
    """Run `main` in as many processes as asked for.

    Under torchrun its environment decides, and the other arguments must be left alone: NCCL where
    there is CUDA, else gloo. Otherwise Detectron2 starts `num_gpus` processes.

    Args:
        main: called in every process.
        num_gpus: processes on this machine; 0 and 1 run `main` here.
        num_machines: machines that take part.
        machine_rank: index of this machine.
        dist_url: where the processes meet, e.g. ``tcp://host:port``.
        args: of `main`.

    Raises:
        ValueError: more GPUs than the machine has, or torchrun and `num_gpus` together.

    Example:
        >>> launch(print, 1, args=("here",))
        here
    """
    if "LOCAL_RANK" in os.environ and "WORLD_SIZE" in os.environ:
        if num_gpus > 1 or num_machines > 1:
            raise ValueError(
                "torchrun decides how many processes there are; leave --num-gpus and "
                "--num-machines out"
            )
        _run_under_torchrun(main, args)
        return
    available = torch.cuda.device_count()
    if num_gpus > max(available, 1):
        raise ValueError(
            f"--num-gpus is {num_gpus}, but this machine has {available}; several processes on a "
            "CPU start with: torchrun --nproc_per_node 2 train_net.py ..."
        )
    if not 0 <= machine_rank < num_machines:
        raise ValueError(
            f"--machine-rank must lie in [0, {num_machines}) for --num-machines {num_machines}, "
            f"got {machine_rank}"
        )
    if num_machines > 1 and dist_url == "auto":
        raise ValueError("several machines need a common --dist-url, e.g. tcp://host:29500")
    if num_gpus * num_machines <= 1:
        main(*args)
        return
    try:
        with _passing_signals_on():
            detectron2_launch(
                _run_spawned,
                max(num_gpus, 1),
                num_machines=num_machines,
                machine_rank=machine_rank,
                dist_url=dist_url,
                args=(main, args),
            )
    except ProcessExitedException as error:
        raise SystemExit(error.exit_code if error.exit_code > 0 else 1) from error


def exit_code(error: BaseException) -> int | None:
    """Return the exit code for an error of which one line tells everything; None for the others."""
    if isinstance(error, KeyboardInterrupt):
        return 128 + signal.SIGINT
    if isinstance(error, SystemExit):  # of SIGTERM
        return error.code if isinstance(error.code, int) else 1
    if isinstance(error, ValueError):
        return 2
    known = (OSError, FloatingPointError, MemoryError, torch.cuda.OutOfMemoryError)
    # A loading process died, or raised what cannot be raised again here.
    of_worker = isinstance(error, RuntimeError) and "DataLoader worker" in str(error)
    return 1 if of_worker or _is_of_another_process(error) or isinstance(error, known) else None


def tell(error: BaseException, program: str) -> None:
    """Write the one line of an error; a signal has been told about already."""
    if _is_of_another_process(error):
        text = f"another process of this training has died or is out of reach ({one_line(error)})"
        sys.stderr.write(f"{program}: {text}\n")
    elif isinstance(error, Exception):
        sys.stderr.write(f"{program}: {one_line(error)}\n")


def _is_of_another_process(error: BaseException) -> bool:
    """Return whether an exchange between processes failed; gloo's errors have no class."""
    lost = isinstance(error, RuntimeError) and "gloo" in str(error)
    return lost or isinstance(error, getattr(dist, "DistError", ()))


def _run_spawned(main: Callable[..., Any], args: tuple[Any, ...]) -> None:
    """Run in a process of Detectron2's: what would be a traceback there is a line."""
    try:
        main(*args)
    except BaseException as error:
        code = exit_code(error)
        if code is None:
            raise
        if comm.is_main_process():
            tell(error, Path(sys.argv[0]).name)
        sys.exit(code)


@contextlib.contextmanager
def _passing_signals_on() -> Iterator[None]:
    """Let the processes that train deal with the signals, and wait for them."""

    def pass_on(number: int, _: Any) -> None:
        for child in multiprocessing.active_children():
            if child.pid is not None:
                os.kill(child.pid, number)

    before = {x: signal.signal(x, pass_on) for x in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler or signal.SIG_DFL)


def _run_under_torchrun(main: Callable[..., Any], args: tuple[Any, ...]) -> None:
    cuda = torch.cuda.is_available()
    if cuda:
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    dist.init_process_group("nccl" if cuda else "gloo", timeout=datetime.timedelta(minutes=30))
    _create_local_group(int(os.environ["LOCAL_WORLD_SIZE"]))
    try:
        main(*args)
    finally:
        dist.destroy_process_group()


def _create_local_group(processes_per_machine: int) -> None:
    """Detectron2 asks for the group of this machine's processes; its 0.6 has no call for it."""
    if hasattr(comm, "create_local_process_group"):
        comm.create_local_process_group(processes_per_machine)
        return
    for start in range(0, dist.get_world_size(), processes_per_machine):
        ranks = list(range(start, start + processes_per_machine))
        group = dist.new_group(ranks)
        if dist.get_rank() in ranks:
            comm._LOCAL_PROCESS_GROUP = group
