"""``solo-d2 predict --shards DIR``: millions of images, on one machine or many."""

from __future__ import annotations

import argparse
import contextlib
import functools
import sys
from collections.abc import Callable, Generator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..io.paths import printable

if TYPE_CHECKING:
    from ..inference.runner import InferenceRun
    from ..inference.shard_worker import ShardWorker
    from ..inference.shards import Record, Shard, ShardFolder

__all__ = ["add_shard_arguments", "check_shard_arguments", "predict_shards"]

SHARD_SIZE = 256
SHARD_FORMATS = ("coco", "parquet")

RunMaker = Callable[[argparse.Namespace, Sequence[str]], "InferenceRun"]


def add_shard_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    group = parser.add_argument_group(
        "shards",
        "of --input: results in many files of one folder; the same command goes on after any end. "
        "Inputs may also be lists of paths (.txt), Parquet files and tar archives",
    )
    add = group.add_argument
    add("--shards", metavar="DIR", help="folder of the results; nothing is drawn")
    size = f"files of a shard (default: {SHARD_SIZE})"
    add("--shard-size", type=int, metavar="N", help=size)
    kind = f"of the results (default: {SHARD_FORMATS[0]})"
    add("--shard-format", choices=SHARD_FORMATS, help=kind)
    add("--part", metavar="K/N", help="do the K-th of N parts: for N jobs that share DIR")
    add("--ray", type=int, metavar="N", help="N workers of a Ray cluster do the shards")


def check_shard_arguments(args: argparse.Namespace) -> None:
    """Raise a `ValueError` for options of shards where there are none."""
    for option in ("shard_size", "shard_format", "part", "ray"):
        if not args.shards and getattr(args, option) is not None:
            name = option.replace("_", "-")
            raise ValueError(f"--{name} is of --shards, which is not given: leave it out")


def predict_shards(args: argparse.Namespace, overrides: Sequence[str], make_run: RunMaker) -> int:
    """Do the shards that are left; returns the exit code.

    Raises:
        ValueError: options, inputs or the folder cannot be used.
        OSError: results cannot be written.
    """
    from ..inference.interrupt import Interrupted
    from ..inference.shards import part_of

    shards, failures, folder = _prepare(args, overrides)
    done = folder.done()
    left = [shard for shard in part_of(shards, args.part) if shard.number not in done]
    code = 0
    try:
        make = functools.partial(make_worker, args, overrides, make_run, folder)
        failures += _work(left, make, args) if left else []
    except Interrupted as stop:
        print(f"interrupted ({stop}); the same command goes on", file=sys.stderr)
        code = stop.exit_code
    totals = folder.finish()
    print(
        f"{totals.shards} of {len(shards)} shards are done: {totals.images} images, "
        f"{totals.instances} instances found, {len(totals.bad)} images left out (bad.csv)"
    )
    print(f"results: {printable(folder.root / 'results')}")
    return code or int(bool(failures or totals.bad))


def _prepare(
    args: argparse.Namespace, overrides: Sequence[str]
) -> tuple[list[Shard], list[str], ShardFolder]:
    """Check all options, plan, and open the folder: before the model is built."""
    from ..inference.dataset_ids import DatasetIds
    from ..inference.shard_files import check_format
    from ..inference.shards import ShardFolder, plan_shards

    for option in ("save_json", "save", "output", "track", "tolerance", "style", "no_draw"):
        value = getattr(args, option)
        if not (value is None or value is False or value == []):
            name = option.replace("_", "-")
            raise ValueError(f"--shards writes results of --input alone: leave --{name} out.")
    if args.batch_size < 1 or (args.ray is not None and args.ray < 1):
        raise ValueError(
            f"--batch-size and --ray must be 1 or more, got {args.batch_size} and {args.ray}."
        )
    if not args.input:
        raise ValueError("--shards goes with --input: films have no shards.")
    if args.shard_size is None:
        args.shard_size = SHARD_SIZE
    args.shard_format = args.shard_format or SHARD_FORMATS[0]
    check_format(args.shard_format)
    ids = DatasetIds(args.ids) if args.ids else None
    shards, problems = plan_shards(args.input, args.shard_size, ids)
    for problem in problems:
        print(f"skipped: {problem}", file=sys.stderr)
    folder = ShardFolder(args.shards, args.shard_format)
    folder.open(shards, _settings(args, overrides))
    return shards, problems, folder


def _settings(args: argparse.Namespace, overrides: Sequence[str]) -> dict[str, Any]:
    """On what results depend, other than the images."""
    keys = (
        *("config_file", "weights", "confidence_threshold", "tiles", "class_names", "ids"),
        *("allow_partial", "imports", "shard_size", "shard_format"),
    )
    return {
        **{key: getattr(args, key) for key in keys},
        "overrides": list(overrides),
        "contents": contents(args, overrides),
    }


def contents(args: argparse.Namespace, overrides: Sequence[str]) -> str:
    """Return a digest of the config and of the files behind the names, which may change."""
    import hashlib

    from ..export import is_exported
    from ..inference.trained import load_trained
    from ..io.download import sha256
    from ..io.plugins import import_plugins

    files = [args.class_names, args.ids]
    digest = hashlib.sha256()
    if is_exported(args.config_file):
        # The second is OpenVINO's, with the weights; others have none.
        files += [args.config_file, Path(args.config_file).with_suffix(".bin")]
    else:
        import_plugins(args.imports)
        cfg, weights = load_trained(args.config_file, overrides, args.weights)
        files.append(weights or cfg.MODEL.WEIGHTS)
        digest.update(cfg.dump().encode())
    for file in files:
        is_file = bool(file) and Path(file).is_file()
        digest.update((sha256(Path(file)) if is_file else str(file)).encode())
    return digest.hexdigest()


def _work(
    shards: Sequence[Shard], make: Callable[[], ShardWorker], args: argparse.Namespace
) -> list[str]:
    """Do shards; returns a line for each that cannot be done."""
    from tqdm import tqdm

    failures = []
    with (
        tqdm(total=len(shards), unit="shard", disable=None) as progress,
        contextlib.closing(_results(shards, make, args)) as results,
    ):
        for shard, result in results:
            if isinstance(result, str):
                failures.append(f"shard {shard.number} ({_images_of(shard)}): {result}")
                tqdm.write(f"failed: {failures[-1]}", file=sys.stderr)
            progress.update()
    return failures


def _results(
    shards: Sequence[Shard], make: Callable[[], ShardWorker], args: argparse.Namespace
) -> Generator[tuple[Shard, Record | str], None, None]:
    from ..inference.ray_driver import RayPool, run_shards
    from ..io.image_sources import SourceError

    if args.ray is not None:
        pool = RayPool(make, args.ray, 0 if args.device == "cpu" else None)
        try:
            yield from run_shards(shards, pool)
        finally:
            pool.close()
        return
    worker = make()
    for shard in shards:
        try:
            yield shard, worker.run(shard)
        except SourceError as error:
            yield shard, str(error)


def _images_of(shard: Shard) -> str:
    """Where the images of a shard are, in a few words."""
    names = shard.source.text.split("\n")
    return printable(names[0] if len(names) == 1 else f"{names[0]} to {names[-1]}")


def make_worker(
    args: argparse.Namespace,
    overrides: Sequence[str],
    make_run: RunMaker,
    folder: ShardFolder,
) -> ShardWorker:
    """Return what does shards in this process."""
    from ..inference.dataset_ids import DatasetIds
    from ..inference.shard_worker import ShardWorker

    ids = DatasetIds(args.ids) if args.ids else None
    predictor = make_run(args, overrides).predictor
    return ShardWorker(predictor, folder, batch_size=args.batch_size, ids=ids)
