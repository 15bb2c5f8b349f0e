"""Write a page that finds instances in the browser, into a folder for any static server.

    solo-d2 web solo_d2/objects_lite0 --output web/
    python -m http.server --directory web/

MODEL is an .onnx file of solo-d2 export, or a config or checkpoint name, which is exported first.
The runtime (onnxruntime-web, 32 MiB) is fetched from the npm registry at the first time.

Exit code: 0 done; 1 a file cannot be fetched or written; 2 a wrong argument or model, or a
missing package.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from ..engine.arguments import command_parser, parse_arguments

__all__ = ["main", "make_parser"]


def make_parser(prog: str = "solo-d2 web") -> argparse.ArgumentParser:
    """Return the parser of the command line, which leaves config overrides to others."""
    example = "MODEL.SOLO.SCORE_THRESH_TEST 0.2"
    parser = command_parser(prog, __doc__, "MODEL --output DIR [options]", example)
    add = parser.add_argument
    add("model", metavar="MODEL", help=".onnx file, YAML file or model zoo name")
    add("--output", required=True, type=Path, metavar="DIR", help="folder of the page")
    add("--name", help="of the model, shown on the page (default: what MODEL is called)")
    add(
        "--runtime",
        metavar="FILE",
        help="tarball of onnxruntime-web, where there is no network (default: fetch it)",
    )
    return parser


def write(args: argparse.Namespace) -> dict[str, int]:
    """Do what the arguments ask for; returns bytes of each file by name."""
    from ..web import bundle

    name = args.name or Path(args.model).stem
    options = {"name": name, "runtime": args.runtime}
    if Path(args.model).suffix.lower() == ".onnx":
        if args.opts or args.weights is not None:
            raise ValueError(
                f"{args.model} is exported already; leave config keys and --weights out"
            )
        return bundle(args.model, args.output, **options)
    from ..export import export_model
    from .export import make_predictor

    args.config_file = args.model
    predictor = make_predictor(args)
    print("exporting the model, which takes about half a minute", file=sys.stderr)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "model.onnx")
        export_model(predictor, file)
        return bundle(file, args.output, **options)


def main(argv: Sequence[str] | None = None, *, prog: str = "solo-d2 web") -> int:
    """Run the command line; returns the exit code."""
    parser = make_parser(prog)
    args = parse_arguments(argv, parser)
    try:
        sizes = write(args)
    except (ValueError, OSError) as error:
        print(f"{parser.prog}: {' '.join(str(error).split())}", file=sys.stderr)
        return 1 if isinstance(error, OSError) else 2
    print(f"{args.output}: {sum(sizes.values()) / 2**20:.1f} MiB; to see it:")
    print(f"  {Path(sys.executable).name} -m http.server --directory {args.output}")
    return 0
