"""Alternating timing, peak memory and foreign load of small pieces of work."""

from __future__ import annotations

import ctypes
import gc
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import torch

Work = Callable[[], Any]


@dataclass
class Result:
    """What was measured of one piece of work.

    Attributes:
        name: of the piece of work.
        ours_ms: milliseconds of every round.
        peer_ms: likewise of the peer, in the same rounds; empty without a peer.
        ours_mib: memory above the level before the call, result included; None if unknown.
        peer_mib: likewise.
        agrees: whether both results are equal, in words; "" without a peer.
        foreign_cores: CPU cores that other processes kept busy meanwhile; None if unknown.
    """

    name: str
    ours_ms: list[float] = field(default_factory=list)
    peer_ms: list[float] = field(default_factory=list)
    ours_mib: float | None = None
    peer_mib: float | None = None
    agrees: str = ""
    foreign_cores: float | None = None

    @property
    def ratio(self) -> float | None:
        """Median over the rounds of peer / ours."""
        if not self.peer_ms:
            return None
        return median(p / o for o, p in zip(self.ours_ms, self.peer_ms, strict=True))


class ForeignLoad:
    """Average number of cores busy with other processes since creation (Linux; else None)."""

    def __init__(self) -> None:
        self.start = self._read()

    @staticmethod
    def _read() -> tuple[float, float, float] | None:
        try:
            fields = Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]
        except OSError:
            return None
        # user, nice, system, idle, iowait, irq, softirq, steal
        busy = sum(int(x) for i, x in enumerate(fields) if i not in (3, 4))
        return time.perf_counter(), busy / os.sysconf("SC_CLK_TCK"), time.process_time()

    def cores(self) -> float | None:
        """The average so far."""
        now = self._read()
        if now is None or self.start is None:
            return None
        wall, busy, own = (b - a for a, b in zip(self.start, now, strict=True))
        return max(0.0, busy - own) / max(wall, 1e-9)


def synchronize(device: torch.device) -> None:
    """Wait for the device."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def stopwatch(work: Work, device: torch.device) -> float:
    """Milliseconds of one call."""
    synchronize(device)
    start = time.perf_counter()
    work()
    synchronize(device)
    return (time.perf_counter() - start) * 1e3


def peak_memory(work: Work, device: torch.device) -> float | None:
    """MiB that one call needs above the level before it, result included.

    On CUDA the allocator's own count; on Linux the resident set, whose high-water mark is reset
    before the call; otherwise None.
    """
    gc.collect()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        result = work()  # kept, so that it counts
        torch.cuda.synchronize(device)
        peak = torch.cuda.max_memory_allocated(device) - before
        del result
        return peak / 2**20
    try:
        ctypes.CDLL("libc.so.6").malloc_trim(0)
        Path("/proc/self/clear_refs").write_text("5")
        before = _status_kib("VmRSS")
        result = work()
        peak = _status_kib("VmHWM") - before
        del result
    except (OSError, AttributeError):
        return None
    return max(peak, 0) / 1024


def _status_kib(key: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(key):
            return int(line.split()[1])
    raise OSError(f"no {key} in /proc/self/status")


def measure(
    name: str,
    ours: Work,
    peer: Work | None,
    agree: Callable[[Any, Any], str],
    *,
    rounds: int,
    seconds: float,
    device: torch.device,
) -> Result:
    """Run both sides alternately; the first call of each warms up and is not timed.

    Args:
        name: of the piece of work.
        ours: our side.
        peer: the other side, if any.
        agree: says in words whether two results are equal.
        rounds: at most this many.
        seconds: no new round starts after this time.
        device: what to synchronise.
    """
    result = Result(name)
    if peer is None:
        ours()
    else:
        result.agrees = agree(ours(), peer())
    load, start = ForeignLoad(), time.perf_counter()
    for done in range(rounds):
        if done and time.perf_counter() - start > seconds:
            break
        result.ours_ms.append(stopwatch(ours, device))
        if peer is not None:
            result.peer_ms.append(stopwatch(peer, device))
    result.foreign_cores = load.cores()
    result.ours_mib = peak_memory(ours, device)
    if peer is not None:
        result.peer_mib = peak_memory(peer, device)
    return result
