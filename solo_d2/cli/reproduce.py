r"""Evaluate published models on the data of their figures, and compare.

    solo-d2 reproduce mmdet/solov2_r50_fpn_3x_coco --coco DIR
    solo-d2 reproduce all --coco DIR
    solo-d2 reproduce mmdet/solov2_r101_fpn_3x_coco --coco DIR --test-dev
    solo-d2 reproduce Cityscapes-InstanceSegmentation/solov2_R_50_FPN.yaml --cityscapes DIR \
        --weights FILE

Weights are downloaded, checked by their hash and converted. DIR is laid out as its publisher does:
annotations/ and val2017/ of COCO, lvis_v0.5_val.json and val2017/ of LVIS, leftImg8bit/ and gtFine/
of Cityscapes. OUTPUT/NAME/reproduction.json says what was measured, by what, and whether it is what
was published. The exit code is 0 only if all models are within the tolerance. KEY VALUE pairs
override the config, but for weights, data and folder; they are recorded.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ..engine.reproduction import Data
    from ..model_zoo.claims import Claim

__all__ = ["main"]

RESULTS = "results.json"
"""What the processes of an evaluation leave to the one that compares."""


_DECIDED = {
    "MODEL.WEIGHTS": "which evaluates the published file, or --weights FILE where there is none",
    "OUTPUT_DIR": "which writes to --output DIR",
    "DATASETS": "which takes the data of --coco, --lvis or --cityscapes DIR",
}
"""Keys, or first parts of keys, that other options decide, and which do."""


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = argparse.ArgumentParser(
        prog="solo-d2 reproduce",
        usage="%(prog)s NAME ... --coco DIR [options] [KEY VALUE ...]",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("names", nargs="+", metavar="NAME", help="published checkpoints, a config, or all")
    add("--coco", type=Path, metavar="DIR", help="folder of COCO")
    add("--lvis", type=Path, metavar="DIR", help="folder of LVIS v0.5")
    add("--cityscapes", type=Path, metavar="DIR", help="folder of Cityscapes")
    add("--weights", metavar="FILE", help="weights of a config that has no published ones")
    add(
        "--test-dev",
        action="store_true",
        help="make the package for COCO's evaluation server instead of measuring AP",
    )
    add("--tolerance", type=float, default=0.1, metavar="AP", help="default: %(default)s")
    add(
        "--output",
        type=Path,
        default=Path("output/reproduce"),
        metavar="DIR",
        help="default: %(default)s",
    )
    add("--num-gpus", type=int, default=1, metavar="N", help="default: 1")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns 0 if all figures are reproduced."""
    argv = sys.argv[1:] if argv is None else list(argv)
    parser = make_parser()
    if {"-h", "--help"} & set(argv):
        parser.print_help()
        return 0
    from ..config import split_overrides
    from ..engine.processes import exit_code, tell

    try:
        words, overrides = split_overrides(argv)
        args = parser.parse_args(words)
        _check_overrides(overrides)
        todo = _plan(args)
        done = [_reproduce(claim, data, args, overrides) for claim, data in todo]
    except BaseException as error:
        code = exit_code(error)
        if code is None or isinstance(error, SystemExit):
            raise
        tell(error, parser.prog)
        return code
    return 0 if all(done) else 1


def _check_overrides(overrides: Sequence[str]) -> None:
    """Refuse keys that would make the record say what is not so."""
    for key in overrides[::2]:
        reason = _DECIDED.get(key) or _DECIDED.get(key.partition(".")[0])
        if reason is not None:
            raise ValueError(f"{key} is no override of solo-d2 reproduce, {reason}: leave it out")


def _plan(args: argparse.Namespace) -> list[tuple[Claim, Data]]:
    """Find all claims and their data, before anything is downloaded."""
    from ..engine.reproduction import find_data
    from ..io.paths import not_a_file
    from ..model_zoo.claims import find_claims

    if args.weights is not None and not_a_file(args.weights) is not None:
        raise ValueError(f"--weights {args.weights}: {not_a_file(args.weights)}")
    todo = []
    for claim in find_claims(args.names):
        folder = getattr(args, claim.dataset)
        if folder is None:
            raise ValueError(
                f"{claim.name} is evaluated on --{claim.dataset} DIR, which is missing"
            )
        if args.test_dev and claim.dataset != "coco":
            raise ValueError(f"--test-dev is of COCO, and {claim.name} of {claim.dataset}")
        if bool(claim.url) == bool(args.weights):
            raise ValueError(
                f"{claim.name} has published weights; leave --weights out"
                if claim.url
                else f"{claim.name} has no published weights; name some with --weights FILE"
            )
        todo.append((claim, find_data(claim.dataset, folder, test_dev=args.test_dev)))
    return todo


def _reproduce(
    claim: Claim, data: Data, args: argparse.Namespace, overrides: Sequence[str]
) -> bool:
    """Evaluate one model, write its record, and return whether it is what is published."""
    from ..engine.prepare import choose_device
    from ..engine.reproduction import compare, make_record, pack_results
    from ..evaluation import COCOInstanceEvaluator
    from ..io.download import sha256
    from ..io.json_file import save_json
    from ..io.json_reader import read_json_object
    from ..model_zoo import load_config
    from ..model_zoo.weights import local_weights, published_digest

    device = choose_device(load_config(claim.name, overrides), overrides)
    print(f"{claim.name}: published AP {claim.ap} ({claim.source})")
    if claim.url:
        local_weights(claim.name)  # known to be there before the data are read
    digest = published_digest(claim.name) if claim.url else sha256(Path(args.weights))
    folder = args.output / claim.name.removesuffix(".yaml")
    folder /= "test-dev" if args.test_dev else ""
    (folder / RESULTS).unlink(missing_ok=True)
    _evaluate(claim, data, args, [*overrides, "OUTPUT_DIR", str(folder)])
    results = read_json_object(folder / RESULTS)
    record = make_record(claim, data, results, overrides, digest, device)
    if args.test_dev:
        file = folder / "inference" / "own_val" / COCOInstanceEvaluator.results_file
        for package in pack_results(file, folder, claim.name):
            print(f"for the evaluation server: {package}")
        done = True
    else:
        ap = record["results"].get("segm", {}).get("AP")
        record |= compare(claim, ap, args.tolerance)
        done = record["reproduced"]
        print(_line(record))
    save_json(folder / "reproduction.json", record, indent=1)
    return done


def _line(record: dict[str, Any]) -> str:
    if record["measured"] is None:
        return f"{record['model']}: NOT reproduced, there is no AP"
    word = "reproduced" if record["reproduced"] else "NOT reproduced"
    return (
        f"{record['model']}: {word}, AP {record['measured']:.2f} against {record['published']} "
        f"({record['difference']:+.2f}, tolerance {record['tolerance']:g})"
    )


def _evaluate(claim: Claim, data: Data, args: argparse.Namespace, overrides: Sequence[str]) -> None:
    """Evaluate in as many processes as asked for; results are in ``results.json``."""
    from ..engine import launch, parse_arguments

    words = ["--config-file", claim.name, "--eval-only", *data.options]
    words += ["--weights", args.weights] if args.weights else []
    launch(_run, args.num_gpus, args=(parse_arguments([*words, *overrides]),))


def _run(args: argparse.Namespace) -> None:
    from detectron2.utils import comm

    from ..io.json_file import save_json, without_nan
    from .train import run

    results = run(args)
    if comm.is_main_process():
        folder = dict(zip(args.opts[::2], args.opts[1::2], strict=True))["OUTPUT_DIR"]
        save_json(Path(folder, RESULTS), without_nan(results))
