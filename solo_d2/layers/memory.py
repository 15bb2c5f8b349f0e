"""What fits in memory, asked before a large tensor is made: Linux ends a process that asks late."""

from __future__ import annotations

import math
from pathlib import Path

import torch
from torch import Tensor

# Smaller tensors are not worth a question.
_LARGE = 2**28

# Part of the free memory that one tensor may take; the rest is for what is made of it.
_SHARE = 0.9


def allocate(
    shape: tuple[int, ...], dtype: torch.dtype, device: torch.device, what: str, remedy: str
) -> Tensor:
    """Make an uninitialised tensor, if there is memory for it; arguments as of `check_memory`.

    Raises:
        MemoryError: there is not.
    """
    needed = math.prod(shape) * dtype.itemsize
    check_memory(needed, device, what, remedy)
    try:
        return torch.empty(shape, dtype=dtype, device=device)
    except RuntimeError as error:  # torch's own for "out of memory", on every device
        raise no_memory(needed, device, what, remedy) from error


def check_memory(needed: int, device: torch.device, what: str, remedy: str) -> None:
    """Refuse a tensor that does not fit in memory, before it is made.

    Args:
        needed: bytes.
        device: where they are needed.
        what: begins the sentence of the error: "100 masks of 5000x5000 pixels".
        remedy: ends it.

    Raises:
        MemoryError: less is free. Nothing is checked below 256 MiB, and where this is not known.
    """
    if needed < _LARGE:
        return
    free = free_memory(device)
    if free is not None and needed > _SHARE * free:
        raise no_memory(needed, device, what, remedy)


def no_memory(needed: int, device: torch.device, what: str, remedy: str) -> MemoryError:
    """Make the one-line error of a tensor that does not fit; arguments as of `check_memory`."""
    free = free_memory(device)
    left = "" if free is None else f" ({free / 2**30:.1f} GiB are free)"
    return MemoryError(
        f"{what} need {needed / 2**30:.1f} GiB, which {device.type!r} does not have{left}; {remedy}"
    )


def free_memory(device: torch.device) -> int | None:
    """Bytes that this process can still get on a device; None if that cannot be found out.

    On a CPU the least of what the system has available, of what the process's control groups leave
    (containers, batch systems), and of what its address space may grow by.
    """
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return int(free) + unused
    if device.type != "cpu":
        return None
    known = [_available(), _address_space_left(), *_control_groups_left()]
    limits = [free for free in known if free is not None]
    return max(0, min(limits)) if limits else None


def _available() -> int | None:
    for line in _lines(Path("/proc/meminfo")):
        name, _, value = line.partition(":")
        if name == "MemAvailable":
            return int(value.split()[0]) * 1024
    return None


def _address_space_left() -> int | None:
    try:
        import resource
    except ImportError:  # not on Windows
        return None
    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    used = _lines(Path("/proc/self/statm"))
    if limit == resource.RLIM_INFINITY or not used:
        return None
    return limit - int(used[0].split()[0]) * resource.getpagesize()


# Of both versions of Linux's control groups: mount point, limit, usage, and the part of the usage
# that is given back when needed.
_VERSIONS = {
    1: (
        Path("/sys/fs/cgroup/memory"),
        "memory.limit_in_bytes",
        "memory.usage_in_bytes",
        "total_inactive_file",
    ),
    2: (Path("/sys/fs/cgroup"), "memory.max", "memory.current", "inactive_file"),
}


def _control_groups_left() -> list[int]:
    """What is left of the limit of every control group that this process is in."""
    left = []
    for line in _lines(Path("/proc/self/cgroup")):
        _, controllers, name = line.split(":", 2)
        if controllers and "memory" not in controllers.split(","):
            continue
        root, limit, usage, reclaimable = _VERSIONS[1 if controllers else 2]
        group = root / name.strip().lstrip("/")
        for folder in (group, *group.parents):
            values = _lines(folder / limit), _lines(folder / usage)
            if all(lines and lines[0].isdigit() for lines in values):
                given_back = dict(x.split(" ", 1) for x in _lines(folder / "memory.stat"))
                used = int(values[1][0]) - int(given_back.get(reclaimable, 0))
                left.append(int(values[0][0]) - used)
            if folder == root:
                break
    return left


def _lines(path: Path) -> list[str]:
    """Lines of a file of the system; none where it is missing or not for us."""
    try:
        return path.read_text().splitlines()
    except OSError:
        return []
