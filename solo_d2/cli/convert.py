"""Convert published or trained weights to a file of this package, or a dataset to another format.

    solo-d2 convert SOLOv2_R50_3x.pth solov2_R_50.pth
    solo-d2 convert output/train/model_best.pth mine.safetensors --half
    solo-d2 convert photos/ photos_yolo/ --to yolo

Project and architecture of weights of AdelaiDet, WXinlong/SOLO or mmdetection are recognised. The
config that fits is printed, with what to set in it, and goes into the file together with the
input that the model wants; loading checks that. Of a training of this package the file keeps what
prediction needs: the weights (the average of SOLVER.EMA where there is one), the input and the
class names.

With --to IN is a dataset as --data takes it: a folder, a COCO json, or KIND:DIR. OUT is a new
folder with copies of the images. What the format cannot hold is counted.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..data.datasets.formats import WRITERS

if TYPE_CHECKING:
    from torch import Tensor

    from ..checkpoint.info import CheckpointInfo

FORMATS = (".pth", ".safetensors")
SOURCES = ("adelaidet", "solo", "mmdet")


def make_parser(prog: str = "solo-d2 convert") -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = argparse.ArgumentParser(
        prog=prog, description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("input", metavar="IN", help="checkpoint of another project or of a training, or a dataset")
    add("output", type=Path, metavar="OUT", help=f"{' or '.join(FORMATS)} file, or a new folder")
    add("--to", choices=list(WRITERS), help="convert a dataset to this format")
    add(
        "--tolerance",
        type=float,
        default=0.0,
        metavar="PX",
        help="of --to: simplify outlines of masks by so many pixels at most (default: exact)",
    )
    add("--source", choices=["auto", *SOURCES], default="auto", help="default: %(default)s")
    add("--half", action="store_true", help="weights in float16: half the size")
    add("--force", action="store_true", help="replace OUT if it exists")
    return parser


def check_output(path: Path, force: bool) -> None:
    """Find out before any work that `path` cannot be written."""
    if path.suffix not in FORMATS:
        raise ValueError(f"{path}: the output must end in {' or '.join(FORMATS)}")
    if path.is_dir() or not path.absolute().parent.is_dir():
        raise ValueError(f"{path}: is a folder, or its folder does not exist")
    if path.exists() and not force:
        raise ValueError(f"{path}: exists; name another file, or replace it with --force")


def words(settings: Mapping[str, object]) -> str:
    """Settings as KEY VALUE pairs of a command line."""
    return " ".join(f'{k} "{v}"' if " " in str(v) else f"{k} {v}" for k, v in settings.items())


def count_parameters(weights: Mapping[str, Tensor]) -> int:
    """Values but for running statistics."""
    skipped = (".running_mean", ".running_var")
    return sum(x.numel() for key, x in weights.items() if not key.endswith(skipped))


def report(info: CheckpointInfo, parameters: int) -> dict[str, str]:
    """Return what was found, by name.

    Args:
        info: of the checkpoint.
        parameters: how many it has.
    """
    return {
        "source": info.source,
        "architecture": info.architecture,
        "config": info.config,
        "its input": words(info.convention.settings),
        "parameters": f"{parameters / 1e6:.2f} million",
    }


def convert_data(args: argparse.Namespace) -> str:
    """Convert a dataset; returns the report."""
    from ..data.conversion import convert_dataset

    if args.half or args.force or args.source != "auto":
        raise ValueError("--half, --force and --source are of weights, --to is of datasets")
    if not args.tolerance >= 0:
        raise ValueError(f"--tolerance must be 0 or more pixels, got {args.tolerance}")
    return convert_dataset(args.input, args.output, args.to, tolerance=args.tolerance)


def _content(
    checkpoint: Mapping[str, Any], args: argparse.Namespace
) -> tuple[dict[str, Any], CheckpointInfo, Mapping[str, object]]:
    """What is to be written, what it is, and what its config has to be set to."""
    from ..checkpoint.foreign.convert import convert_state_dict
    from ..checkpoint.info import INFO_KEY, CheckpointInfo
    from ..checkpoint.slim import slim_checkpoint

    if INFO_KEY not in checkpoint:
        converted = convert_state_dict(checkpoint, args.source)
        info = converted.info
        return {"model": dict(converted), INFO_KEY: info.to_dict()}, info, converted.overrides
    if args.source != "auto":
        raise ValueError(
            f"its weights are named as this package names them, not {args.source}; leave out "
            "--source"
        )
    content = slim_checkpoint(checkpoint)
    return content, CheckpointInfo.from_dict(content[INFO_KEY]), {}


def convert(args: argparse.Namespace) -> str:
    """Read weights, convert, write; returns the report."""
    from ..checkpoint.files import load_checkpoint, save_checkpoint
    from ..checkpoint.slim import halve

    if Path(args.input).is_dir():
        raise ValueError(f"{args.input}: is a folder; say the format of a dataset: --to FORMAT")
    if args.tolerance:
        raise ValueError("--tolerance is of datasets, with --to; leave it out for weights")
    check_output(args.output, args.force)
    checkpoint = load_checkpoint(args.input)
    before = len(checkpoint["model"])
    try:
        content, info, overrides = _content(checkpoint, args)
        if args.half:
            content["model"] = halve(content["model"])
    except ValueError as error:
        raise ValueError(f"{args.input}: {error}") from error
    save_checkpoint(content, args.output)
    weights = content["model"]
    lines = report(info, count_parameters(weights))
    dropped = before - len(weights)
    lines["entries"] = f"{len(weights)}, left over 0, dropped {dropped} (counters and the like)"
    if overrides:
        lines["and set"] = words(overrides)
    lines["written"] = f"{args.output}, {args.output.stat().st_size / 1e6:.1f} MB"
    return "\n".join(f"{name + ':':14}{line}" for name, line in lines.items() if line)


def main(argv: Sequence[str] | None = None, *, prog: str = "solo-d2 convert") -> int:
    """Run the command line; returns the exit code."""
    parser = make_parser(prog)
    args = parser.parse_args(argv)
    try:
        print(convert_data(args) if args.to else convert(args))
    except (ValueError, OSError) as error:
        print(f"{parser.prog}: {error}", file=sys.stderr)
        return 2
    return 0
