"""Measure time in alternating rounds, peak memory, and the load of other processes."""

from __future__ import annotations

import ctypes
import gc
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

Phases = Callable[[Callable[[str], None]], Any]
"""Work that calls its argument with a name at the end of every phase."""


@dataclass
class Result:
    """One row of the table: times in ms per round, peak memory in MiB, None where unknown."""

    name: str
    ours_ms: list[float] = field(default_factory=list)
    peer_ms: list[float] = field(default_factory=list)
    ours_mib: float | None = None
    peer_mib: float | None = None
    agrees: str = ""
    foreign_cores: float | None = None


@dataclass
class Timer:
    """How to measure.

    Attributes:
        device: to wait for.
        rounds: of every piece of work, at most.
        seconds: no new round begins after this time.
        process_clock: count this process's CPU time, which a busy machine disturbs less than wall
            time; of one thread only.
    """

    device: torch.device
    rounds: int
    seconds: float
    process_clock: bool = False

    def now(self) -> float:
        """Return the time in milliseconds, after synchronising the device."""
        if self.process_clock:
            return time.process_time() * 1e3
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return time.perf_counter() * 1e3

    def alternate(self, works: Sequence[Callable[[], Any]]) -> tuple[list[list[float]], Any]:
        """Time functions in alternating rounds; return times and the load of other processes."""
        times: list[list[float]] = [[] for _ in works]
        start, busy = time.perf_counter(), _busy_seconds()
        for done in range(self.rounds):
            if done and time.perf_counter() - start > self.seconds:
                break
            for work, record in zip(works, times, strict=True):
                before = self.now()
                work()
                record.append(self.now() - before)
        wall = time.perf_counter() - start
        # The kernel counts in hundredths of a second.
        known = busy is not None and wall > 0.5
        return times, max(0.0, _busy_seconds() - busy) / wall if known else None

    def compare(
        self,
        name: str,
        ours: Callable[[], Any],
        peer: Callable[[], Any] | None = None,
        agree: Callable[[Any, Any], str] = lambda _ours, _peer: "",
    ) -> Result:
        """Measure our side and the peer's, if any; the first call of each is not timed."""
        works = [ours] if peer is None else [ours, peer]
        firsts = [work() for work in works]
        result = Result(name, agrees=agree(*firsts) if peer else "")
        del firsts
        times, result.foreign_cores = self.alternate(works)
        memory = [peak_memory(work, self.device) for work in works]
        result.ours_ms, result.ours_mib = times[0], memory[0]
        if peer:
            result.peer_ms, result.peer_mib = times[1], memory[1]
        return result

    def split(self, name: str, work: Phases) -> list[Result]:
        """Measure work in phases: one result for all of it, then one for every phase."""
        phases: dict[str, list[float]] = {}

        def run() -> None:
            last = self.now()

            def lap(phase: str) -> None:
                nonlocal last
                now = self.now()
                phases.setdefault(phase, []).append(now - last)
                last = now

            work(lap)

        whole = self.compare(f"{name}, total", run)
        # Neither the first call nor the one that measures memory counts.
        parts = [Result(f"{name}, {phase}", times[1:-1]) for phase, times in phases.items()]
        return [whole, *parts]


def _busy_seconds() -> float | None:
    """Return the CPU time of all other processes since boot; None without /proc."""
    try:
        fields = Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]
    except OSError:
        return None
    # user, nice, system, idle, iowait, irq, softirq, steal
    ticks = sum(int(x) for i, x in enumerate(fields) if i not in (3, 4))
    return ticks / os.sysconf("SC_CLK_TCK") - time.process_time()


def peak_memory(work: Callable[[], Any], device: torch.device) -> float | None:
    """MiB that one call needs above the level before it, its result included.

    On CUDA the allocator's count; on Linux the resident set, whose high-water mark is reset before
    the call; elsewhere None.
    """
    gc.collect()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        _result = work()
        torch.cuda.synchronize(device)
        return (torch.cuda.max_memory_allocated(device) - before) / 2**20
    try:
        ctypes.CDLL("libc.so.6").malloc_trim(0)
        Path("/proc/self/clear_refs").write_text("5")
    except (OSError, AttributeError):
        return None
    before = _status_mib("VmRSS")
    _result = work()
    return max(0.0, _status_mib("VmHWM") - before)


def _status_mib(key: str) -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(key)) / 1024
