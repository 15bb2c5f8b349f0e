"""Speed and memory of the parts of SOLOv2, alone or alternating with AdelaiDet's.

    python benchmarks/run.py                                   everything but a peer
    python benchmarks/run.py targets nms --peer ~/AdelaiDet    with a checkout of the peer
    python benchmarks/run.py model --device cuda --json figures.json

Prints a Markdown table. Exit code 2: a wrong argument; 1: a result differs from the peer's.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import platform
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import median

import torch
from _cases import GRID, GROUPS, NUM_CLASSES, QUICK, Sizes
from _model import model_cases
from _peer import AdelaiDet
from _timing import Result, measure

HEADER = (
    "| what | ms | peer ms | peer / ours | MiB | peer MiB | result | rounds | foreign cores |\n"
    "|---|---|---|---|---|---|---|---|---|"
)


def make_parser() -> argparse.ArgumentParser:
    """All options."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    groups = [*GROUPS, "model"]
    add("groups", nargs="*", metavar="GROUP", help=f"of {', '.join(groups)} (default: all)")
    add("--peer", type=Path, metavar="DIR", help="a checkout of AdelaiDet to compare with")
    add("--device", default="auto", help='"auto" (default), "cpu", "cuda", "cuda:1", ...')
    add("--threads", type=int, metavar="N", help="CPU threads (default: torch's)")
    add("--rounds", type=int, default=9, metavar="N", help="at most N of each (default: 9)")
    add("--seconds", type=float, default=60, help="no new round after this time (default: 60)")
    add("--json", type=Path, metavar="FILE", help="write every single time as well")
    add("--quick", action="store_true", help="small sizes: checks that it runs, measures nothing")
    return parser


def check(args: argparse.Namespace) -> torch.device:
    """Refuse what cannot work; returns the device."""
    unknown = sorted(set(args.groups) - {*GROUPS, "model"})
    if unknown:
        raise ValueError(f"unknown group {unknown[0]!r}; choose from {', '.join(GROUPS)}, model")
    if args.rounds < 1 or args.seconds <= 0 or (args.threads is not None and args.threads < 1):
        raise ValueError("--rounds, --seconds and --threads must be positive")
    if args.json and not args.json.absolute().parent.is_dir():
        raise ValueError(f"--json: no folder {args.json.absolute().parent}; create it first")
    name = args.device
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).split("\n", 1)[0]
        raise ValueError(f"--device {name} cannot be used: {reason}") from error
    return device


def environment(device: torch.device) -> dict[str, str]:
    """What a reader needs to judge the figures."""
    cpu = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        models = [x.split(":")[1] for x in info.read_text().splitlines() if "model name" in x]
        cpu = f"{len(models)} x {models[0].strip()}" if models else cpu
    git = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty"]
    commit = subprocess.run(git, capture_output=True, text=True, check=False).stdout.strip()
    return {
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        "cpu": cpu,
        "threads": str(torch.get_num_threads()),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "commit": commit or "unknown",
    }


def row(result: Result) -> str:
    """One line of the table."""

    def number(value: float | None, digits: int = 0) -> str:
        return "" if value is None else f"{value:.{digits if value < 100 else 0}f}"

    cells = [
        result.name,
        number(median(result.ours_ms), 1),
        number(median(result.peer_ms), 1) if result.peer_ms else "",
        f"x{result.ratio:.1f}" if result.ratio else "",
        number(result.ours_mib),
        number(result.peer_mib),
        result.agrees,
        str(len(result.ours_ms)),
        number(result.foreign_cores, 1),
    ]
    return f"| {' | '.join(cells)} |"


def measure_all(args: argparse.Namespace, device: torch.device) -> Iterator[Result]:
    """Results in the order of the groups asked for."""
    sizes = QUICK if args.quick else Sizes()
    peer = AdelaiDet(args.peer, GRID, NUM_CLASSES) if args.peer else None
    limits = {"rounds": args.rounds, "seconds": args.seconds}
    for group in args.groups or [*GROUPS, "model"]:
        if group == "model":
            yield from model_cases(sizes, device, **limits)
            continue
        for case in GROUPS[group](sizes, device, peer):
            yield measure(case.name, case.ours, case.peer, case.agree, device=device, **limits)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line `argv`; returns the exit code."""
    args = make_parser().parse_args(argv)
    results = []
    try:
        device = check(args)
        if args.threads:
            torch.set_num_threads(args.threads)
        facts = environment(device)
        measured = measure_all(args, device)
        for result in measured:
            if not results:
                print(", ".join(f"{key}: {value}" for key, value in facts.items()))
                print(HEADER)
            print(row(result), flush=True)
            results.append(result)
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    if args.json:
        records = [dataclasses.asdict(result) for result in results]
        args.json.write_text(json.dumps({"environment": facts, "results": records}, indent=1))
    return int(any(result.agrees.startswith("NO") for result in results))


if __name__ == "__main__":
    sys.exit(main())
