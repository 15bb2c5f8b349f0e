"""Train with and without every element of docs/recipe.md, with the same seeds, and compare.

    python benchmarks/recipe.py --list
    python benchmarks/recipe.py --data datasets/stamps --seeds 3 --iterations 1000
    python benchmarks/recipe.py --data datasets/stamps --rows base ema --seeds 5

--data is a dataset of `solo-d2 scenes stamps`. A row of recipe.yaml is compared with the row that
it builds on, seed by seed. Writes recipe.md and recipe.json to --output after every run; the log
is in log.txt. What is finished there is not done again, so that the same command resumes. Exit
code 2: a wrong argument; 1: a run failed.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import torch
import yaml
from _ablation_rows import fingerprint
from _against_report import COLUMNS, Run, differences, spread
from _runs import log_to
from _training import train, with_steps
from detectron2.config import CfgNode
from tqdm import tqdm

from solo_d2 import model_zoo
from solo_d2.config import validate_config
from solo_d2.config.merging import merge_overrides
from solo_d2.data.sources import SPLITS, register_folder
from solo_d2.engine import use_data
from solo_d2.inference.cli import split_overrides

ROWS = Path(__file__).with_name("recipe.yaml")
MILESTONES = "MILESTONES"  # shares of the iterations, in place of SOLVER.STEPS


@dataclass(frozen=True)
class Row:
    """A row of the table, see recipe.yaml."""

    name: str
    label: str
    over: str = ""
    data: str = ""
    set: Mapping[str, Any] = field(default_factory=dict)


def make_parser() -> argparse.ArgumentParser:
    """Make the parser of all options except the trailing config overrides."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        usage="%(prog)s --data DIR [options] [KEY VALUE ...]",
        epilog="KEY VALUE ... override all rows, such as SOLVER.IMS_PER_BATCH 16",
    )
    add = parser.add_argument
    add("--list", action="store_true", help="list the rows, and stop")
    add("--data", metavar="DIR", help="folder of a stamps dataset")
    add("--rows", nargs="+", default=[], metavar="ROW", help="only these, see --list")
    add("--seeds", type=int, default=3, metavar="K", help="runs of a row (default: 3)")
    add("--iterations", type=int, default=990, metavar="N", help="of a run (default: 990)")
    add("--config", default="Stamps/solov2_lite0.yaml", help="(Stamps/solov2_lite0.yaml)")
    add("--device", default="cuda" if torch.cuda.is_available() else "cpu", help="cpu, cuda, ...")
    add("--output", type=Path, default=Path("output/recipe"), metavar="DIR")
    return parser


def read_rows() -> dict[str, Row]:
    """Read all rows, by name; a row inherits data and values of the one it builds on."""
    rows: dict[str, Row] = {}
    for entry in yaml.safe_load(ROWS.read_text(encoding="utf-8")):
        row = Row(**entry)
        if row.over:
            below = rows[row.over]
            entry |= {"data": row.data or below.data, "set": {**below.set, **row.set}}
        rows[row.name] = Row(**entry)
    return rows


def make_configs(args: argparse.Namespace, overrides: Sequence[str]) -> dict[str, CfgNode]:
    """Check the arguments, register the data and make the config of every row asked for.

    Raises:
        ValueError: a wrong argument or override, or an unusable dataset.
    """
    rows = read_rows()
    for name in ("seeds", "iterations"):
        if getattr(args, name) < 1:
            raise ValueError(f"--{name} must be at least 1, got {getattr(args, name)}")
    unknown = sorted(set(args.rows) - set(rows))
    if unknown:
        raise ValueError(f"--rows {unknown[0]}: no such row; choose from {', '.join(rows)}")
    if not args.data:
        raise ValueError("--data is missing: the folder of a dataset of solo-d2 scenes stamps")
    return {
        name: make_config(row, args, overrides)
        for name, row in rows.items()
        if not args.rows or name in args.rows
    }


def make_config(row: Row, args: argparse.Namespace, overrides: Sequence[str]) -> CfgNode:
    """Make the config of a row."""
    cfg = model_zoo.get_config(args.config)
    values = dict(row.set)
    milestones = values.pop(MILESTONES, None)
    merge_overrides(cfg, [part for item in values.items() for part in item])
    merge_overrides(cfg, overrides)
    cfg = with_steps(cfg, args.iterations)
    if milestones:
        cfg.SOLVER.STEPS = tuple(round(share * args.iterations) for share in milestones)
    names = register_folder(row.data, args.data, SPLITS)
    use_data(cfg, {"TRAIN": names["train"], "TEST": names["val"]})
    cfg.MODEL.DEVICE = args.device
    cfg.TEST.BOUNDARY_AP, cfg.TEST.EVAL_PERIOD = True, 0  # evaluated once, after training
    cfg.SOLVER.CHECKPOINT_PERIOD = 10**9  # the last one is always written
    validate_config(cfg, processes=1)
    return cfg


def run(cfg: CfgNode, name: str, seed: int, folder: Path, data: str) -> Run:
    """Return the result of a row and seed: from its file, or by training and evaluating."""
    mark, path = fingerprint(cfg, data), folder / "result.json"
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        stored = json.loads(path.read_text(encoding="utf-8"))
        if stored["fingerprint"] == mark:
            return Run(**stored["run"])
    done = train(cfg, name, seed, folder)
    path.write_text(json.dumps({"fingerprint": mark, "run": asdict(done)}, indent=1))
    return done


def markdown(rows: Mapping[str, Row], runs: Sequence[Run]) -> str:
    """Format the table: AP, and differences from the row that each row builds on."""
    of = {name: [run for run in runs if run.model == name] for name in rows}
    heads = (
        "element",
        "over",
        "seeds",
        "AP",
        *(f"Δ {metric}" for metric in COLUMNS),
        "step",
        "shown",
    )
    lines = [f"| {' | '.join(heads)} |", f"|{'---|' * len(heads)}"]
    for name, row in rows.items():
        done, below = of[name], of.get(row.over, [])
        if not done:
            continue
        gains = [differences(done, below, metric) for metric in COLUMNS]
        aps = [run.metrics["AP"] for run in done if run.metrics["AP"] is not None]
        cells = [row.label, row.over or "–", str(len(done)), spread(aps)]
        cells += [spread(gain, sign="+") for gain in gains]
        cells += [time_ratio(done, below), verdict(gains[0])]
        lines.append(f"| {' | '.join(cells)} |")
    lines += ["", "Δ is the mean difference of the runs with equal seeds; ± is the sample standard"]
    lines[-1] += " deviation over the seeds. Shown: |Δ AP| is above twice its standard error."
    return "\n".join(lines) + "\n"


def verdict(gains: Sequence[float]) -> str:
    """Say whether the mean of paired differences is above twice its standard error."""
    if len(gains) < 3:
        return "–"
    shown = abs(mean(gains)) > 2 * stdev(gains) / len(gains) ** 0.5
    return ("gain" if mean(gains) > 0 else "loss") if shown else "no"


def time_ratio(runs: Sequence[Run], below: Sequence[Run]) -> str:
    """Format the time of a step relative to that of the row below."""
    if not below:
        return "–"
    return f"x {mean(run.train_speed for run in below) / mean(run.train_speed for run in runs):.2f}"


def compare(args: argparse.Namespace, configs: Mapping[str, CfgNode]) -> int:
    """Run all rows, seed after seed; returns the number of runs that failed."""
    args.output.mkdir(parents=True, exist_ok=True)
    log_to(args.output / "log.txt")
    rows, runs, failed = read_rows(), [], 0
    data = (Path(args.data) / "manifest.json").read_text(encoding="utf-8")
    for seed in range(args.seeds):  # all rows first: a table early, its spread later
        for name, cfg in configs.items():
            try:
                runs.append(run(cfg, name, seed, args.output / f"{name}_{seed}", data))
            except FloatingPointError as error:
                failed += 1
                reason = " ".join(str(error).split())
                print(f"recipe.py: {name}, seed {seed} failed: {reason}", file=sys.stderr)
                continue
            tqdm.write(f"{name}, seed {seed}: AP {runs[-1].metrics['AP']:.2f}")
            write_report(args, configs, rows, runs)
    return failed


def write_report(
    args: argparse.Namespace,
    configs: Mapping[str, CfgNode],
    rows: Mapping[str, Row],
    runs: Sequence[Run],
) -> None:
    """Write recipe.json and recipe.md."""
    record = {
        "data": args.data,
        "device": args.device,
        "torch": torch.__version__,
        "configs": {name: cfg.dump() for name, cfg in configs.items()},
        "runs": [asdict(run) for run in runs],
    }
    (args.output / "recipe.json").write_text(json.dumps(record, indent=1), encoding="utf-8")
    (args.output / "recipe.md").write_text(markdown(rows, runs), encoding="utf-8")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    try:
        arguments, overrides = split_overrides(sys.argv[1:] if argv is None else argv)
        args = make_parser().parse_args(arguments)
        if args.list:
            print("\n".join(f"{row.name:12} {row.label}" for row in read_rows().values()))
            return 0
        failed = compare(args, make_configs(args, overrides))
    except ValueError as error:
        print(f"recipe.py: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        print(f"recipe.py: {' '.join(str(error).split())}", file=sys.stderr)
        return 1
    print((args.output / "recipe.md").read_text(encoding="utf-8"))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
