"""Which processes are alive, as far as it can be known from here."""

from __future__ import annotations

import os
import socket
from pathlib import Path
from typing import NamedTuple

from .atomic import is_running


class Owner(NamedTuple):
    """A process, so that it can be found again; "" where the system does not tell.

    Attributes:
        host: name of its machine.
        boot: of the machine's last start.
        space: of process numbers, which containers have of their own.
        pid: number of the process.
        start: when it started, as the system counts; numbers are given again.
    """

    host: str
    boot: str
    space: str
    pid: int
    start: str


def this_process() -> Owner:
    """Return the process that runs this."""
    boot, space = "", ""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        space = os.readlink("/proc/self/ns/pid")
    except OSError:  # not Linux
        pass
    return Owner(socket.gethostname(), boot, space, os.getpid(), _start(os.getpid()))


def is_alive(owner: Owner) -> bool | None:
    """Return whether a process lives; None where that cannot be known from here."""
    here = this_process()
    if owner.host != here.host:
        return None
    if owner.boot != here.boot:
        return False
    if owner.space != here.space:
        return None
    return is_running(owner.pid) and owner.start in ("", _start(owner.pid))


def _start(pid: int) -> str:
    """Return when a process started; "" where the system does not tell."""
    try:
        # The name, in parentheses, may hold anything; the start is the 20th field behind it.
        return Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        return ""
