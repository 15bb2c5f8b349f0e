"""Check a dataset before training: what a model can learn of it, what looks wrong, what to set.

    solo-d2 check my_photos/
    solo-d2 check my_photos/ --config-file CONFIG --json report.json --html report/

No image is opened but those that a page shows, and nothing is trained.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from detectron2.config import CfgNode

from ..data.arguments import add_data_arguments
from ..engine.arguments import add_import_argument, parse_arguments
from .train import default_config

__all__ = ["main"]


def make_parser(prog: str = "solo-d2 check") -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = argparse.ArgumentParser(
        prog=prog,
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        usage="%(prog)s DATA [options] [KEY VALUE ...]",
    )
    add = parser.add_argument
    add("location", nargs="?", metavar="DATA", help="as --data")
    add("--config-file", default="", metavar="CONFIG", help="YAML file or model zoo name")
    add("--json", metavar="FILE", help="write all figures to a file")
    add("--html", metavar="DIR", help="write a page with histograms and the worst images")
    add_import_argument(parser)
    add_data_arguments(parser)
    return parser


def make_config(args: argparse.Namespace) -> tuple[CfgNode, dict[str, str]]:
    """Return the config, and the datasets by "train" and "val".

    Raises:
        ValueError: no data, data named twice, several datasets, or a bad config.
    """
    from ..config import validate_config
    from ..data.arguments import register_named_data
    from ..engine.prepare import use_data
    from ..engine.trainer import check_data
    from ..io.plugins import import_plugins
    from ..model_zoo.model_zoo import load_config
    from ..modeling.meta_arch import is_panoptic

    import_plugins(args.imports)
    if args.location and args.data:
        raise ValueError("name the data once: as DATA or as --data")
    args.data = args.data or args.location
    cfg = load_config(args.config_file, args.opts)
    cfg.MODEL.DEVICE, cfg.MODEL.WEIGHTS = "cpu", ""
    own = register_named_data(args, panoptic=is_panoptic(cfg))
    if own:
        use_data(cfg, own, fixed="MODEL.SOLO.NUM_CLASSES" in args.opts[::2])
    found: dict[str, str] = {}
    for split, key in (("train", "TRAIN"), ("val", "TEST")):
        names = cfg.DATASETS[key]
        if len(names) > 1:
            raise ValueError(
                f"one dataset of each kind is checked, DATASETS.{key} has {', '.join(names)}; name "
                f"one: DATASETS.{key} \"('{names[0]}',)\""
            )
        if names:
            found[split] = names[0]
    if not found:
        raise ValueError("no data to check: name a folder or file, as in solo-d2 check photos/")
    validate_config(cfg)
    check_data(cfg, list(found.values()))
    return cfg, found


def run(args: argparse.Namespace) -> None:
    """Check, print, and write what is asked for.

    Raises:
        ValueError: the data, the config or an output cannot be used.
        OSError: a file cannot be read or written.
    """
    args.config_file = args.config_file or default_config()
    cfg, names = make_config(args)
    from ..check.run import check_datasets
    from ..check.text import as_text

    if args.html:
        os.makedirs(args.html, exist_ok=True)  # known now, not after minutes
    checked = check_datasets(cfg, names)
    report: dict[str, Any] = {"config": args.config_file, "datasets": names, **checked.report}
    print(as_text(report, args.config_file))
    if args.json:
        from ..io.json_file import save_json

        save_json(args.json, report, indent=1)
    if args.html:
        from ..check.page import write_page

        page = write_page(args.html, report, checked.splits, max_value=cfg.INPUT.MAX_VALUE)
        print(f"page: {page}")


def main(argv: Sequence[str] | None = None, *, prog: str = "solo-d2 check") -> int:
    """Run the command line; returns the exit code."""
    try:
        run(parse_arguments(argv, make_parser(prog)))
    except (ValueError, OSError) as error:
        from ..io.errors import one_line

        print(f"{prog}: {one_line(error)}", file=sys.stderr)
        return 2 if isinstance(error, ValueError) else 1
    return 0
