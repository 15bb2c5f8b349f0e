"""Train the rows of the paper's tables 4 to 6 at a small budget, beside the paper's numbers.

    python benchmarks/ablations.py --list
    python benchmarks/ablations.py --table 4b 5e --dry-run
    python benchmarks/ablations.py --table 4b --seeds 3 --iterations 420

Writes TABLE.md, TABLE.png and TABLE.json to --output after every run. What is finished there is
not done again, so that the same command resumes; an interrupted run starts anew. Rows that differ
at test time only, and equal rows of different tables, share their weights. A run's losses are in
runs/*/metrics.json, the log in log.txt. Exit code 2: a wrong argument; 1: a run failed.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from _ablation_report import Outcome, markdown, plot
from _ablation_rows import (
    BUDGETS,
    budget_config,
    differing,
    dropped,
    fingerprint,
    flatten,
    resolve,
)
from _ablation_tables import Row, Table, read_tables, readme_tables
from _runs import Bar, log_to, percentages
from detectron2.config import CfgNode
from detectron2.utils.env import seed_all_rng
from tqdm import tqdm

from solo_d2.checkpoint import load_weights
from solo_d2.data.scenes.register import register_built
from solo_d2.engine import SOLOTrainer, use_data
from solo_d2.inference.cli import split_overrides


def make_parser() -> argparse.ArgumentParser:
    """Make the parser of all options except the trailing config overrides."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        usage="%(prog)s [options] [KEY VALUE ...]",
        epilog="KEY VALUE ... override the budget's config, such as SOLVER.IMS_PER_BATCH 16",
    )
    add = parser.add_argument
    add("--table", nargs="+", default=[], metavar="TABLE", help="tables to run, see --list")
    add("--rows", nargs="+", default=[], metavar="ROW", help="only these rows, see --list")
    add("--list", action="store_true", help="list tables and rows, and stop")
    add("--markdown", action="store_true", help="print the tables of configs/README.md, and stop")
    add("--dry-run", action="store_true", help="print how the rows differ, and stop")
    add("--iterations", type=int, metavar="N", help="of a run (default: the budget's config)")
    add("--seeds", type=int, default=1, metavar="K", help="runs of a row (default: 1)")
    add("--data", default="datasets", metavar="DIR", help="folder of the datasets (datasets)")
    add("--data-kind", choices=sorted(BUDGETS), default="stamps", help="default: stamps")
    add("--output", type=Path, default=Path("output/ablations"), metavar="DIR")
    return parser


@dataclass
class Plan:
    """A table with the requested rows and their configs.

    Attributes:
        table: of the paper.
        rows: asked for.
        configs: of `rows`, under the budget.
        lost: keys that the paper varies and the budget does not.
        changes: what makes each of `rows`, in words.
    """

    table: Table
    rows: list[Row]
    configs: list[CfgNode]
    lost: list[str]
    changes: list[str]


def make_plans(args: argparse.Namespace, overrides: Sequence[str]) -> list[Plan]:
    """Check the arguments and resolve all rows."""
    tables = read_tables()
    if not args.table:
        raise ValueError("--table is missing; --list shows the tables")
    for key in args.table:
        if key not in tables:
            raise ValueError(f"--table {key}: no such table; choose from {', '.join(tables)}")
    for name, value in (("--iterations", args.iterations), ("--seeds", args.seeds)):
        if value is not None and value < 1:
            raise ValueError(f"{name} must be at least 1, got {value}")
    known = [row.name for key in args.table for row in tables[key].rows]
    unknown = sorted(set(args.rows) - set(known))
    if unknown:
        raise ValueError(f"--rows {unknown[0]}: no such row; choose from {', '.join(known)}")
    budget = budget_config(args.data_kind, args.iterations, overrides)
    if "MODEL.DEVICE" not in overrides[::2]:
        budget.MODEL.DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
        overrides = [*overrides, "MODEL.DEVICE", budget.MODEL.DEVICE]
    return [make_plan(tables[key], args.rows, budget, overrides) for key in args.table]


def make_plan(
    table: Table, wanted: Sequence[str], budget: CfgNode, overrides: Sequence[str]
) -> Plan:
    """Resolve one table."""
    configs, varied = resolve(table, budget, overrides)
    keys = differing(configs)
    changes = []
    for cfg in configs:
        values = flatten(cfg)
        parts = (f"{key.removeprefix('MODEL.SOLO.')}: {values[key]}" for key in keys)
        changes.append("`" + ", ".join(parts) + "`")
    chosen = [i for i, row in enumerate(table.rows) if not wanted or row.name in wanted]
    return Plan(
        table=table,
        rows=[table.rows[i] for i in chosen],
        configs=[configs[i] for i in chosen],
        lost=dropped(varied, configs),
        changes=[changes[i] for i in chosen],
    )


def describe(plan: Plan) -> str:
    """Format what `--dry-run` prints."""
    lines = [f"{plan.table.key}: {plan.table.title}"]
    for row, change in zip(plan.rows, plan.changes, strict=True):
        lines.append(f"  {row.name:22} {change.strip('`')}   (paper: {row.published})")
    if plan.lost:
        lines.append(f"  not kept by the budget: {', '.join(plan.lost)}")
    return "\n".join(lines)


def train(cfg: CfgNode, folder: Path, label: str) -> Path:
    """Train unless done; return the weights. The folder appears when training has ended."""
    weights = folder / "model_final.pth"
    if weights.is_file():
        return weights
    partial = folder.with_name(folder.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    cfg = cfg.clone()
    cfg.OUTPUT_DIR, cfg.DATASETS.TEST = str(partial), ()
    (partial / "config.yaml").write_text(cfg.dump())
    cfg.freeze()
    seed_all_rng(cfg.SEED)
    trainer = SOLOTrainer(cfg)
    trainer.register_hooks([Bar(label)])
    trainer.resume_or_load(resume=False)
    trainer.train()
    partial.rename(folder)
    return weights


def evaluate(cfg: CfgNode, weights: Path, folder: Path) -> dict[str, float | None]:
    """Compute the metrics of the validation set in percent; None if no object has that size."""
    cfg = cfg.clone()
    cfg.OUTPUT_DIR = str(folder)
    cfg.freeze()
    model = SOLOTrainer.build_model(cfg)
    load_weights(model, weights)
    with (folder / "evaluation.txt").open("w") as log, contextlib.redirect_stdout(log):
        return percentages(SOLOTrainer.test(cfg, model).get("segm", {}))


def run(cfg: CfgNode, path: Path, data: str, runs: Path, label: str) -> dict[str, float | None]:
    """Return the result of a row and seed: from its file, or by training and evaluating."""
    print_of_run = fingerprint(cfg, data)
    with contextlib.suppress(OSError, ValueError, KeyError):
        stored = json.loads(path.read_text())
        if stored["fingerprint"] == print_of_run:
            return stored["segm"]
    folder = runs / fingerprint(cfg, data, training=True)
    weights = train(cfg, folder, label)
    record = {"fingerprint": print_of_run, "weights": str(weights.relative_to(runs.parent))}
    record["segm"] = evaluate(cfg, weights, folder)
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_suffix(".partial")
    unfinished.write_text(json.dumps(record, indent=1))
    unfinished.replace(path)
    return record["segm"]


def budget_lines(plan: Plan, args: argparse.Namespace, data: Path) -> list[str]:
    """Describe the exact budget, for the reader of the table."""
    cfg = plan.configs[0]
    counts = json.loads((data / "manifest.json").read_text())["request"]["counts"]
    iterations = sorted({x.SOLVER.MAX_ITER for x in plan.configs})
    sizes = sorted({x.INPUT.MIN_SIZE_TEST for x in plan.configs})
    names = " and ".join
    lines = [
        f"Budget: `configs/{BUDGETS[args.data_kind]}` with each row's `MODEL.SOLO` (reduced); "
        f"{names(map(str, iterations))} iterations of {cfg.SOLVER.IMS_PER_BATCH} images, short "
        f"side {names(map(str, sizes))}, {cfg.MODEL.TIMM.NAME} "
        f"(weights: {cfg.MODEL.TIMM.WEIGHTS or 'none'}), {counts['train']} training and "
        f"{counts['val']} validation scenes of {args.data_kind}, seeds 0 to {args.seeds - 1}, "
        f"{cfg.MODEL.DEVICE}, torch {torch.__version__}. AP is mask AP in percent; ± is the "
        "standard deviation over seeds. The paper's AP is on COCO at full size.",
    ]
    shared = [
        f"`{key.removeprefix('MODEL.SOLO.')}: {flatten(cfg)[key]}`"
        for key in ("NUM_GRIDS", "NUM_CONVS", "CONV_DIM", "KERNEL_DIM", "MASK_FEATURE.CONV_DIM")
        for key in [f"MODEL.SOLO.{key}"]
        if key not in differing(plan.configs)
    ]
    lines += ["", f"Common to the rows: {', '.join(shared)}."]
    if plan.lost:
        lost = ", ".join(f"`{key}`" for key in plan.lost)
        lines += ["", f"Differs in the paper, but not here: {lost}."]
    return lines


def write_report(plan: Plan, args: argparse.Namespace, data: Path, found: dict) -> None:
    """Write the results of a table so far."""
    outcomes = [Outcome(row, found[row.name]) for row in plan.rows]
    stem = args.output / plan.table.key
    text = markdown(plan.table, outcomes, plan.changes, budget_lines(plan, args, data), args.seeds)
    stem.with_suffix(".md").write_text(text, encoding="utf-8")
    records = [
        {"row": row.name, "label": row.label, "paper": row.paper, "segm": found[row.name]}
        for row in plan.rows
    ]
    stem.with_suffix(".json").write_text(json.dumps(records, indent=1))
    if any(found.values()):
        plot(plan.table, outcomes, stem.with_suffix(".png"))


def run_all(args: argparse.Namespace, plans: list[Plan]) -> int:
    """Run all plans; returns the number of runs that failed."""
    data = Path(args.data) / args.data_kind
    train_set, val_set = register_built(data, args.data_kind, kind=args.data_kind)
    identity = (data / "manifest.json").read_text()
    args.output.mkdir(parents=True, exist_ok=True)
    log_to(args.output / "log.txt")
    failed = 0
    total = sum(len(plan.rows) for plan in plans) * args.seeds
    with tqdm(total=total, desc="runs") as progress:
        for plan in plans:
            found: dict[str, list[dict]] = {row.name: [] for row in plan.rows}
            for seed in range(args.seeds):  # all rows first: a table early, its spread later
                for row, cfg in zip(plan.rows, plan.configs, strict=True):
                    cfg = cfg.clone()
                    cfg.SEED = seed
                    use_data(cfg, {"TRAIN": train_set, "TEST": val_set})
                    label = f"{plan.table.key} {row.name} seed {seed}"
                    path = args.output / "results" / f"{plan.table.key}_{row.name}_{seed}.json"
                    try:
                        result = run(cfg, path, identity, args.output / "runs", label)
                        found[row.name].append(result)
                        progress.write(f"{label}: AP {result['AP']:.2f} (paper: {row.published})")
                    except FloatingPointError as error:
                        failed += 1
                        reason = " ".join(str(error).split())
                        print(f"ablations.py: {label} failed: {reason}", file=sys.stderr)
                    write_report(plan, args, data, found)
                    progress.update()
    return failed


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    try:
        arguments, overrides = split_overrides(sys.argv[1:] if argv is None else argv)
        args = make_parser().parse_args(arguments)
        if args.list:
            for table in read_tables().values():
                print(f"{table.key}: {table.title}")
                print("".join(f"  {row.name}" for row in table.rows))
            return 0
        if args.markdown:
            print(readme_tables())
            return 0
        plans = make_plans(args, overrides)
        if args.dry_run:
            print("\n".join(map(describe, plans)))
            return 0
        failed = run_all(args, plans)
    except ValueError as error:
        print(f"ablations.py: {error}", file=sys.stderr)
        return 2
    for plan in plans:
        print(f"\n{(args.output / plan.table.key).with_suffix('.md').read_text(encoding='utf-8')}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
