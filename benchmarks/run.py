"""Measure speed and peak memory of the parts of SOLOv2, alone or alternating with AdelaiDet's.

    python benchmarks/run.py                                   everything
    python benchmarks/run.py targets nms --peer ~/AdelaiDet    two groups, and the peer
    python benchmarks/run.py model --device cuda --json figures.json

Prints a Markdown table. Exit code 1: a result differs from the peer's; 2: a wrong argument.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import platform
import subprocess
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from statistics import median

import torch
from _cases import GROUPS, QUICK, Sizes, make_model
from _peer import AdelaiDet
from _timing import Result, Timer

COLUMNS = "what|ms|peer ms|peer / ours|MiB|peer MiB|result|rounds|foreign cores".split("|")


def make_parser() -> argparse.ArgumentParser:
    """Make the parser of all options."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("groups", nargs="*", metavar="GROUP", help=f"of {', '.join(GROUPS)} (default: all)")
    add("--peer", type=Path, metavar="DIR", help="a checkout of AdelaiDet to compare with")
    add("--device", default="auto", help='"auto" (default), "cpu", "cuda", "cuda:1", ...')
    add("--threads", type=int, metavar="N", help="CPU threads (default: torch's choice)")
    clock = "process: CPU time, for a busy machine; with --threads 1 (default: wall)"
    add("--clock", choices=("wall", "process"), default="wall", help=clock)
    add("--rounds", type=int, default=9, metavar="N", help="at most N of each (default: 9)")
    add("--seconds", type=float, default=60, help="no new round after this time (default: 60)")
    add("--json", type=Path, metavar="FILE", help="write every single time as well")
    add("--quick", action="store_true", help="tiny sizes: shows that it runs, measures nothing")
    return parser


def check(args: argparse.Namespace) -> torch.device:
    """Check the arguments and return the device."""
    unknown = [group for group in args.groups if group not in GROUPS]
    if unknown:
        raise ValueError(f"unknown group {unknown[0]!r}; choose from {', '.join(GROUPS)}")
    if args.rounds < 1 or args.seconds <= 0 or (args.threads is not None and args.threads < 1):
        raise ValueError("--rounds, --seconds and --threads must be positive")
    if args.json and not args.json.absolute().parent.is_dir():
        raise ValueError(f"--json: there is no folder {args.json.absolute().parent}")
    name = args.device
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if args.clock == "process" and (args.threads != 1 or name != "cpu"):
        raise ValueError("--clock process expects --threads 1 and --device cpu")
    try:
        return torch.zeros(1, device=name).device
    except (RuntimeError, AssertionError) as error:
        reason = str(error).split("\n", 1)[0]
        raise ValueError(f"--device {name} cannot be used: {reason}") from error


def environment(device: torch.device) -> dict[str, str]:
    """Describe the machine and the software."""
    cpu = platform.processor() or platform.machine()
    if Path("/proc/cpuinfo").exists():
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        names = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
        cpu = f"{len(names)} x {names[0]}" if names else cpu
    git = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty"]
    commit = subprocess.run(git, capture_output=True, text=True, check=False).stdout.strip()
    return {
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        "cpu": cpu,
        "threads": str(torch.get_num_threads()),
        "torch": torch.__version__,
        "commit": commit or "unknown",
    }


def row(result: Result) -> str:
    """Format a row of the table: medians, and the median of the per-round ratios."""

    def number(value: float | None, digits: int = 0) -> str:
        return "" if value is None else f"{value:.{digits if value < 100 else 0}f}"

    ratios = [p / o for p, o in zip(result.peer_ms, result.ours_ms, strict=bool(result.peer_ms))]
    cells = [
        result.name,
        number(median(result.ours_ms), 1),
        number(median(result.peer_ms), 1) if ratios else "",
        f"x{median(ratios):.1f}" if ratios else "",
        number(result.ours_mib),
        number(result.peer_mib),
        result.agrees,
        str(len(result.ours_ms)),
        number(result.foreign_cores, 1),
    ]
    return f"| {' | '.join(cells)} |"


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line `argv`; returns the exit code."""
    args = make_parser().parse_args(argv)
    sizes = QUICK if args.quick else Sizes()
    try:
        device = check(args)
        if args.threads:
            torch.set_num_threads(args.threads)
        model = make_model(sizes, device)
        peer = args.peer and AdelaiDet(args.peer, model.head.grid, model.head.num_classes)
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    facts = environment(device) | {"clock": args.clock}
    print(", ".join(f"{key}: {value}" for key, value in facts.items()), end="\n\n")
    print(f"| {' | '.join(COLUMNS)} |\n|{'---|' * len(COLUMNS)}")
    timer = Timer(device, args.rounds, args.seconds, args.clock == "process")
    results = []
    for group in args.groups or GROUPS:
        for result in GROUPS[group](sizes, timer, peer, model):
            print(row(result), flush=True)
            results.append(result)
    if args.json:
        records = [dataclasses.asdict(result) for result in results]
        args.json.write_text(json.dumps({"environment": facts, "results": records}, indent=1))
    return int(any(result.agrees.startswith("NO") for result in results))


if __name__ == "__main__":
    warnings.filterwarnings("ignore")  # deprecations inside torch and Detectron2
    sys.exit(main())
