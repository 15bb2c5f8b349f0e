"""Convert published SOLO weights of AdelaiDet, WXinlong/SOLO or mmdetection to this package's.

    solo-d2 convert SOLOv2_R50_3x.pth solov2_R_50.pth

Project and architecture are recognised. The config that fits is printed, with what to set in it,
and goes into the file together with the input that the model wants; loading checks that.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..checkpoint.foreign.convert import ConvertedStateDict

FORMATS = (".pth", ".safetensors")
SOURCES = ("adelaidet", "solo", "mmdet")


def make_parser(prog: str = "solo-d2 convert") -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = argparse.ArgumentParser(
        prog=prog, description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("input", type=Path, metavar="IN", help="checkpoint of another project")
    add("output", type=Path, metavar="OUT", help=f"file to write: {' or '.join(FORMATS)}")
    add("--source", choices=["auto", *SOURCES], default="auto", help="default: %(default)s")
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


def words(settings: dict[str, object]) -> str:
    """Settings as KEY VALUE pairs of a command line."""
    return " ".join(f'{k} "{v}"' if " " in str(v) else f"{k} {v}" for k, v in settings.items())


def count_parameters(converted: ConvertedStateDict) -> int:
    """Values but for running statistics."""
    skipped = (".running_mean", ".running_var")
    return sum(x.numel() for key, x in converted.items() if not key.endswith(skipped))


def report(converted: ConvertedStateDict, entries: int) -> str:
    """Return what was found, in lines.

    Args:
        converted: the result.
        entries: of the checkpoint that came in.
    """
    info = converted.info
    dropped = entries - len(converted)
    lines = {
        "source": info.source,
        "architecture": info.architecture,
        "config": info.config,
        "its input": words(info.convention.settings),
        "parameters": f"{count_parameters(converted) / 1e6:.2f} million",
        "entries": f"{len(converted)}, left over 0, dropped {dropped} (counters and the like)",
    }
    if converted.overrides:
        lines["and set"] = words(converted.overrides)
    return "\n".join(f"{name + ':':14}{line}" for name, line in lines.items())


def convert(args: argparse.Namespace) -> str:
    """Read, convert, write; returns the report."""
    from ..checkpoint.files import load_checkpoint, save_checkpoint
    from ..checkpoint.foreign.convert import convert_state_dict
    from ..checkpoint.info import INFO_KEY

    check_output(args.output, args.force)
    checkpoint = load_checkpoint(args.input)
    try:
        converted = convert_state_dict(checkpoint, args.source)
    except ValueError as error:
        raise ValueError(f"{args.input}: {error}") from error
    content = {"model": dict(converted), INFO_KEY: converted.info.to_dict()}
    save_checkpoint(content, args.output)
    size = args.output.stat().st_size / 1e6
    return (
        f"{report(converted, len(checkpoint['model']))}\nwritten:      {args.output}, {size:.1f} MB"
    )


def main(argv: Sequence[str] | None = None, *, prog: str = "solo-d2 convert") -> int:
    """Run the command line; returns the exit code."""
    parser = make_parser(prog)
    args = parser.parse_args(argv)
    try:
        print(convert(args))
    except (ValueError, OSError) as error:
        print(f"{parser.prog}: {error}", file=sys.stderr)
        return 2
    return 0
