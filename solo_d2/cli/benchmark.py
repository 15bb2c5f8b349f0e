"""Compare the ways to run a model here: time, size, parity, and AP on a dataset.

    solo-d2 benchmark solo_d2/objects_lite0
    solo-d2 benchmark output/mine/config.yaml --data my_photos/ --json table.json

Every runtime and precision that is installed gets a file, as solo-d2 export writes it; all of them
and PyTorch take turns on the same images. Times are from an array to masks at the image's size.

Exit code: 0 done; 1 a file cannot be written; 2 a wrong argument, config or weights file.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..engine.arguments import command_parser, parse_arguments
from .accuracy import config_with_data
from .export import make_predictor, read_size

if TYPE_CHECKING:
    import numpy as np
    from detectron2.config import CfgNode

    from .runtimes import Row

__all__ = ["main", "make_parser"]

RUNTIMES = (
    *("pytorch", "cuda-graph", "cuda-fused"),
    *("onnx", "openvino", "pt2", "torchscript", "tensorrt"),
)
SIZE = (480, 640)
"""(height, width) of the generated image, where there are no others."""


def make_parser(prog: str = "solo-d2 benchmark") -> argparse.ArgumentParser:
    """Return the parser of the command line, which leaves config overrides to others."""
    parser = command_parser(prog, __doc__, "MODEL [options]", "MODEL.SOLO.SCORE_THRESH_TEST 0.2")
    add = parser.add_argument
    add("config_file", metavar="MODEL", help="YAML file or model zoo name")
    add(
        "--runtime",
        nargs="+",
        default=["all"],
        choices=("all", *RUNTIMES),
        metavar="NAME",
        help=f"all (default), or some of {', '.join(RUNTIMES)}",
    )
    add("--data", metavar="DIR", help="a dataset as of solo-d2 eval; its first images are timed")
    add("--size", metavar="HxW", help="one size of the input, for all files")
    add("--max-candidates", type=int, default=200, metavar="K", help="default: %(default)s")
    add("--rounds", type=int, default=7, metavar="N", help="default: %(default)s")
    add("--images", type=int, default=4, metavar="N", help="of --data to time (default: 4)")
    add("--threads", type=int, metavar="N", help="of every runtime (default: torch's)")
    add("--clock", choices=("wall", "process"), default="wall", help="process: CPU time")
    add("--json", type=Path, metavar="FILE", help="write the table as JSON, too")
    add("--keep", type=Path, metavar="DIR", help="keep the files")
    return parser


def benchmark(args: argparse.Namespace) -> list[Row]:
    """Do what the arguments ask for; returns the rows of the table."""
    import torch

    from ..io.growing import check_output
    from .runtimes import make_rows, time_rows

    if min(args.rounds, args.images, args.threads or 1, args.max_candidates) < 1:
        raise ValueError("--rounds, --images, --threads and --max-candidates must be at least 1")
    if args.json is not None:
        check_output(args.json)
    if args.threads is not None:
        torch.set_num_threads(args.threads)
    size = read_size(args.size)
    predictor = make_predictor(args)
    cfg = None if args.data is None else config_with_data(predictor, args.data)
    images = [_generated(size)] if cfg is None else _images(cfg, args.images)
    runtimes = RUNTIMES if "all" in args.runtime else args.runtime
    options = {"size": size, "max_candidates": args.max_candidates}
    with tempfile.TemporaryDirectory() as folder:
        rows = make_rows(predictor, runtimes, args.keep or Path(folder), _tell, **options)
        _tell(f"timing, {args.rounds} rounds of {len(images)} images")
        time_rows(rows, images, args.rounds, args.clock)
        if cfg is not None:
            _evaluate(rows, cfg, folder)
    return rows


def _tell(text: str) -> None:
    print(f"{text} ...", file=sys.stderr, flush=True)


def _generated(size: tuple[int, int] | None) -> np.ndarray:
    import numpy as np

    from ..export.graph import example

    image = example(size or SIZE, 1)[0].permute(1, 2, 0).byte().numpy()
    return np.ascontiguousarray(image)


def _images(cfg: CfgNode, count: int) -> list[np.ndarray]:
    from detectron2.data import DatasetCatalog

    from ..io.image import read_image

    records = DatasetCatalog.get(cfg.DATASETS.TEST[0])[:count]
    white = cfg.INPUT.MAX_VALUE
    return [read_image(record["file_name"], max_value=white) for record in records]


def _evaluate(rows: Sequence[Row], cfg: CfgNode, folder: str) -> None:
    """Fill in the AP."""
    from ..engine.progress import EvaluationWithProgress

    cfg.OUTPUT_DIR = folder
    for row in rows:
        if row.predictor is not None:
            _tell(f"evaluating {row.runtime} {row.precision}")
            row.ap = float(EvaluationWithProgress.test(cfg, row.predictor.model)["segm"]["AP"])


def table(rows: Sequence[Row]) -> str:
    """Write rows as a table of Markdown."""
    base = next((row.ms for row in rows if row.runtime == "pytorch"), None)
    lines = [
        "| runtime | precision | ms | images/s | times | MiB | parity: scores, pixels | AP |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        if row.ms is None:
            lines.append(f"| {row.runtime} | {row.precision} | {row.reason} | | | | | |")
            continue
        parity = row.parity and f"{row.parity['score']:.1e}, {row.parity['pixels']:.1e}"
        cells: list[Any] = [
            *(row.runtime, row.precision, f"{row.ms:.1f}", f"{1000 / row.ms:.1f}"),
            *("" if base is None else f"{base / row.ms:.2f}", _number(row.mib), parity or ""),
            _number(row.ap),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.1f}"


def main(argv: Sequence[str] | None = None, *, prog: str = "solo-d2 benchmark") -> int:
    """Run the command line; returns the exit code."""
    parser = make_parser(prog)
    try:
        args = parse_arguments(argv, parser)
        rows = benchmark(args)
        print(table(rows))
        if args.json is not None:
            _write(args.json, rows)
    except (ValueError, OSError) as error:
        print(f"{parser.prog}: {' '.join(str(error).split())}", file=sys.stderr)
        return 1 if isinstance(error, OSError) else 2
    return 0


def _write(path: Path, rows: Sequence[Row]) -> None:
    from ..io.atomic import atomic_write

    names = [x.name for x in fields(rows[0]) if x.name != "predictor"]
    values = [{name: getattr(row, name) for name in names} for row in rows]
    with atomic_write(path) as file:
        file.write(json.dumps(values, indent=1).encode())
