"""Check and measure on a GPU: instances, whole inference, stages, parts and a training step.

    python benchmarks/gpu.py --json gpu.json
    python benchmarks/gpu.py --device cpu --quick        shows that it runs, measures nothing

    python benchmarks/gpu.py --peer ~/AdelaiDet --mmdet  beside AdelaiDet and an installed mmdet

Weights are random and calibrated, nothing is downloaded. A section that fails is reported and the
next one begins; the file is written after every section. Exit code 1: a check or a section failed.
"""

from __future__ import annotations

import argparse
import gc
import json
import platform
import sys
import time
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from _cases import QUICK, Sizes
from _gpu_checks import checks
from _gpu_peers import adelaidet, mmdetection
from _gpu_rows import Peers, inference, parts, stages
from _gpu_training import training

Section = Callable[..., Iterator[dict[str, Any]]]
SECTIONS: dict[str, Section] = {
    "checks": checks,
    "inference": inference,
    "stages": stages,
    "parts": parts,
    "training": training,
}


def make_parser() -> argparse.ArgumentParser:
    """Make the parser of all options."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("sections", nargs="*", metavar="SECTION", help=f"of {', '.join(SECTIONS)} (default: all)")
    add("--device", default="cuda", help='"cuda" (default), "cuda:1", ..., or "cpu"')
    add("--json", type=Path, metavar="FILE", help="write all rows")
    add("--seconds", type=float, default=600, help="no new row after this time (default: 600)")
    add("--peer", type=Path, metavar="DIR", help="checkout of AdelaiDet, to compare with")
    add("--mmdet", action="store_true", help="compare with the installed mmdet")
    add("--quick", action="store_true", help="tiny sizes: shows that it runs, measures nothing")
    return parser


def environment(device: torch.device) -> dict[str, str]:
    """Say where the figures come from."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor()
    return {"device": name, "torch": torch.__version__, "python": platform.python_version()}


def run_section(
    name: str, sizes: Sizes, device: torch.device, peers: Peers, end: float
) -> dict[str, Any]:
    """Rows of a section as far as they come, and what ended it early."""
    options = {"peers": peers} if name in ("inference", "training") else {}
    rows: list[dict[str, Any]] = []
    result: dict[str, Any] = {"rows": rows}
    start = time.perf_counter()
    try:
        for row in SECTIONS[name](sizes, device, **options):
            rows.append(row)
            print("  " + ", ".join(f"{k} {_text(v)}" for k, v in row.items()), flush=True)
            if time.perf_counter() > end:
                result["error"] = "out of time"
                break
    except Exception as error:
        traceback.print_exc()
        result["error"] = f"{type(error).__name__}: {error}"[:500]
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
    result["seconds"] = time.perf_counter() - start
    return result


def _text(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return the exit code."""
    args = make_parser().parse_args(argv)
    unknown = [name for name in args.sections if name not in SECTIONS]
    if unknown:
        print(f"unknown section {unknown[0]!r}; choose from {', '.join(SECTIONS)}", file=sys.stderr)
        return 2
    device = torch.device(args.device)
    if device.type == "cuda" and not torch.cuda.is_available():
        print("no CUDA device; --device cpu --quick shows that it runs", file=sys.stderr)
        return 2
    warnings.simplefilter("ignore")
    # What is compared with a CPU must not be rounded to ten bits on the way.
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    sizes, end = QUICK if args.quick else Sizes(), time.perf_counter() + args.seconds
    peers: list[Any] = []
    if args.peer:
        peers.append(partial(adelaidet, args.peer, depth=sizes.depth))
    if args.mmdet:
        peers.append(partial(mmdetection, depth=sizes.depth))
    report: dict[str, Any] = {"environment": environment(device), "sections": {}}
    for name in args.sections or SECTIONS:
        print(f"{name}:", flush=True)
        report["sections"][name] = run_section(name, sizes, device, peers, end)
        if args.json:
            args.json.write_text(json.dumps(report, indent=1))
    sections = report["sections"].values()
    rows = [row for section in sections for row in section["rows"]]
    failed = [row for row in rows if row.get("ok") is False]
    print(f"{len(rows)} rows, {len(failed)} failed checks")
    return int(bool(failed) or any("error" in section for section in sections))


if __name__ == "__main__":
    sys.exit(main())
