#!/usr/bin/env python
"""Curves of losses or metrics of several runs in one plot (paper Fig. S7; Fig. 6 over epochs).

    python tools/plot_losses.py vanilla=output/solo decoupled=output/dsolo --output losses.png
    python tools/plot_losses.py output/mine --keys segm/AP --iterations-per-epoch 7330

A run is an output folder (its metrics_log.json or metrics.json is read) or such a file, with the
name for the legend in front if wanted. One panel per loss.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

import matplotlib
import numpy as np
from _drawing import check_output

matplotlib.use("Agg")
from matplotlib import pyplot as plt

DEFAULT_KEYS = ["loss_category", "loss_mask"]
FEW = 20
FILES = ("metrics_log.json", "metrics.json")  # the quick start renames the log


def make_parser() -> argparse.ArgumentParser:
    """All options."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("runs", nargs="+", metavar="[NAME=]RUN", help="output folders or metrics files")
    add("--keys", nargs="+", default=DEFAULT_KEYS, metavar="KEY", help="default: %(default)s")
    add("--smooth", type=int, default=1, metavar="N", help="mean over N records (default: 1)")
    add(
        "--iterations-per-epoch",
        type=float,
        metavar="N",
        help="epochs on the axis instead of iterations: images / SOLVER.IMS_PER_BATCH",
    )
    add("--log-scale", action="store_true", help="logarithmic loss axis")
    add("--output", default="losses.png", metavar="FILE", help="default: losses.png")
    return parser


def find_log(word: str) -> tuple[str, Path]:
    """Name and metrics file of a run."""
    name, equals, path = word.rpartition("=")
    if not equals or Path(word).exists():
        name, path = "", word
    folder = Path(path)
    candidates = [folder / file for file in FILES] if folder.is_dir() else [folder]
    for candidate in candidates:
        if candidate.is_file():
            inside = candidate.name in FILES and candidate.absolute().parent.name
            return name or inside or candidate.stem, candidate
    raise ValueError(f"{path}: no such file, and no folder with {' or '.join(FILES)}")


def read_curves(path: Path, keys: Sequence[str]) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Iterations and values per key; what a resumed run did again replaces what it did before."""
    values: dict[str, dict[int, float]] = {key: {} for key in keys}
    try:
        for line in path.read_text(encoding="utf-8").splitlines():
            record = dict(json.loads(line))
            for key in keys:
                if key in record:
                    values[key][int(record["iteration"])] = float(record[key])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"{path}: expected a JSON object with an iteration in every line, as Detectron2's "
            f"metrics.json has ({type(error).__name__})"
        ) from error
    missing = [key for key in keys if not values[key]]
    if missing:
        raise ValueError(f"{path}: has no {missing[0]}; name others with --keys")
    return {
        key: (np.array(sorted(points)), np.array([points[i] for i in sorted(points)]))
        for key, points in values.items()
    }


def smooth(values: np.ndarray, count: int) -> np.ndarray:
    """Mean of every value with those before it, `count` in all, fewer at the start."""
    sums = np.cumsum(np.concatenate([[0.0], values]))
    ends = np.arange(1, len(values) + 1)
    starts = np.maximum(ends - count, 0)
    return (sums[ends] - sums[starts]) / (ends - starts)


def draw(args: argparse.Namespace) -> str:
    """Plot; returns what was written."""
    check_output(args.output)
    if args.smooth < 1:
        raise ValueError(f"--smooth must be at least 1, got {args.smooth}")
    epoch = 1.0 if args.iterations_per_epoch is None else args.iterations_per_epoch
    if not epoch > 0:
        raise ValueError(f"--iterations-per-epoch must be above 0, got {epoch}")
    runs = [find_log(word) for word in args.runs]
    curves = [(name, read_curves(path, args.keys)) for name, path in runs]
    width = 5 * len(args.keys) + 0.5
    figure, axes = plt.subplots(1, len(args.keys), figsize=(width, 3.8), squeeze=False)
    for axis, key in zip(axes[0], args.keys, strict=True):
        for name, values in curves:
            iterations, losses = values[key]
            # A line through one point is no line; few points, as of evaluations, are shown.
            marker = "o" if len(losses) <= FEW else None
            curve = smooth(losses, args.smooth)
            axis.plot(iterations / epoch, curve, label=name, linewidth=1.4, marker=marker)
        axis.set(xlabel="iteration" if epoch == 1 else "epoch", ylabel=key)
        if args.log_scale:
            axis.set_yscale("log")
        else:
            axis.set_ylim(bottom=0)
        axis.grid(alpha=0.3)
        axis.legend()
    figure.tight_layout()
    Path(args.output).parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(args.output, dpi=120)
    plt.close(figure)
    return f"{args.output}: {len(runs)} runs, {', '.join(args.keys)}"


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    args = make_parser().parse_args(argv)
    try:
        print(draw(args))
    except (ValueError, OSError) as error:
        print(f"plot_losses.py: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
