#!/usr/bin/env python
"""Accuracy against speed of several models (paper Figs. 5a and 8).

    python tools/plot_speed_accuracy.py results.csv more.json --output speed.png
    python tools/plot_speed_accuracy.py results.csv --metric bbox/AP --output boxes.png

A CSV file has a header, a JSON file is a list of objects. Every entry has `name`, an accuracy in
percent and `ms` or `fps` (of one image); entries of one `group`, if there is any, are joined.
The accuracy is `AP`, or what `--metric` names: "segm/AP" for masks (Fig. 5a) and "bbox/AP" for
boxes (Fig. 8), as in the `metrics.json` of a training, or in JSON {"bbox": {"AP": ...}} as an
evaluation returns it.
"""

from __future__ import annotations

import argparse
import csv
import json
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib
from _drawing import check_output

matplotlib.use("Agg")
from matplotlib import pyplot as plt


class Entry(NamedTuple):
    """A model: name, AP in percent, milliseconds per image, and the line that it belongs to."""

    name: str
    accuracy: float
    ms: float
    group: str


def make_parser() -> argparse.ArgumentParser:
    """All options."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("files", nargs="+", type=Path, metavar="FILE", help="results, .csv or .json")
    add("--x", choices=["ms", "fps"], default="ms", help="horizontal axis (default: ms)")
    add("--metric", default="AP", metavar="KEY", help='e.g. "bbox/AP" (default: %(default)s)')
    add("--title", default="", help="above the plot, e.g. dataset and hardware")
    add("--output", default="speed_accuracy.png", metavar="FILE", help="%(default)s")
    return parser


def read_records(path: Path) -> list[dict[str, Any]]:
    """Entries of a file as they are."""
    try:
        text = path.read_text(encoding="utf-8-sig")
        if path.suffix.lower() == ".csv":
            return list(csv.DictReader(text.splitlines(), skipinitialspace=True))
        records = json.loads(text)
    except (OSError, ValueError, csv.Error) as error:
        raise ValueError(f"{path}: cannot be read ({error})") from error
    if not isinstance(records, list) or not all(isinstance(x, dict) for x in records):
        raise ValueError(f"{path}: expected a list of objects with name, AP and ms or fps")
    return records


def read_entries(path: Path, metric: str = "AP") -> list[Entry]:
    """Checked entries of a file; `metric` is the key of the accuracy."""
    entries = []
    for number, record in enumerate(read_records(path), start=1):
        where = f"{path}, entry {number}"
        task, _, key = metric.partition("/")
        if isinstance(record.get(task), dict) and key in record[task]:
            record = {**record, metric: record[task][key]}
        if not record.get("name") or metric not in record:
            got = ", ".join(map(str, record))
            raise ValueError(f"{where}: expected name and {metric}, got {got}")
        unit = "ms" if record.get("ms") not in (None, "") else "fps"
        accuracy, speed = (_number(record, key, where) for key in (metric, unit))
        if speed <= 0:
            raise ValueError(f"{where}: {unit} must be positive, got {speed}")
        ms = speed if unit == "ms" else 1000 / speed
        entries.append(Entry(record["name"], accuracy, ms, record.get("group") or ""))
    if not entries:
        raise ValueError(f"{path}: has no entries")
    return entries


_TASKS = {"bbox": "box", "segm": "mask"}


def label_of(metric: str) -> str:
    """What a metric is called on the axis: "bbox/AP50" is "box AP50"."""
    task, _, key = metric.rpartition("/")
    return f"{_TASKS.get(task, task)} {key}".strip()


def _number(record: dict[str, Any], key: str, where: str) -> float:
    try:
        value = float(record[key])
    except (KeyError, TypeError, ValueError):
        raise ValueError(f"{where}: {key} is not a number: {record.get(key)!r}") from None
    if not math.isfinite(value):
        raise ValueError(f"{where}: {key} must be finite, got {value}")
    return value


def draw(args: argparse.Namespace) -> str:
    """Plot; returns what was written."""
    check_output(args.output)
    entries = [entry for path in args.files for entry in read_entries(path, args.metric)]
    figure, axis = plt.subplots(figsize=(7, 4.6))
    groups = dict.fromkeys(entry.group for entry in entries)
    for group in groups:
        members = sorted((e for e in entries if e.group == group), key=lambda e: e.ms)
        xs = [entry.ms if args.x == "ms" else 1000 / entry.ms for entry in members]
        line = "o-" if group else "o"
        (drawn,) = axis.plot(xs, [e.accuracy for e in members], line, label=group or None)
        for x, entry in zip(xs, members, strict=True):
            axis.annotate(
                entry.name,
                (x, entry.accuracy),
                xytext=(6, -10),
                textcoords="offset points",
                fontsize=8,
                color=drawn.get_color(),
            )
    unit = "time per image (ms)" if args.x == "ms" else "images per second"
    axis.set(xlabel=unit, ylabel=f"{label_of(args.metric)} (%)", title=args.title)
    axis.margins(x=0.18, y=0.12)
    axis.grid(alpha=0.3)
    if any(groups):
        axis.legend(loc="lower right")
    figure.tight_layout()
    Path(args.output).parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(args.output, dpi=120)
    plt.close(figure)
    return f"{args.output}: {len(entries)} models"


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    args = make_parser().parse_args(argv)
    try:
        print(draw(args))
    except (ValueError, OSError) as error:
        print(f"plot_speed_accuracy.py: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
