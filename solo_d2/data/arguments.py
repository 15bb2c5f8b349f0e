"""Options of commands that name datasets, and their registration."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

from .sources import (
    DATA_SOURCES,
    JSON_FORMATS,
    SPLITS,
    recognise,
    register_folder,
    split_location,
)

__all__ = ["add_data_arguments", "names_data", "register_named_data"]

_KEYS = {"train": "TRAIN", "val": "TEST"}


def add_data_arguments(parser: argparse.ArgumentParser, *, more: bool = False) -> None:
    """Add the options that name datasets; kinds of data add theirs by `DataSource.flag`.

    Args:
        parser: Of a command that calls `register_named_data`.
        more: Also those of a second dataset to train on, which the command registers by itself.
    """
    group = parser.add_argument_group(
        "your own data", "class count and names are taken from the data"
    )
    add = group.add_argument
    add(
        "--data",
        metavar="PATH",
        help="a dataset's folder, whose format is found out, or a COCO json; or KIND:DIR with KIND "
        f"one of {', '.join(DATA_SOURCES)}",
    )
    add(
        "--no-hold-out",
        action="store_true",
        help="where --data has no validation set, set no image aside: train, or evaluate, on all",
    )
    for split, use in (("train", "training"), ("val", "evaluation")):
        add(f"--{split}-json", metavar="FILE", help=f"annotations for {use}")
        add(f"--{split}-images", metavar="DIR", help=f"folder of the {use} images")
    add(
        "--data-format",
        choices=sorted(JSON_FORMATS),
        default="coco",
        help="format of --train-json and --val-json (default: coco)",
    )
    _add_panoptic_arguments(add)
    for kind, source in DATA_SOURCES.items():
        if source.flag:
            add(f"--{kind}", metavar="DIR", help=source.contents)
    if more:
        add(
            "--more-json",
            metavar="FILE",
            help="COCO annotations to train on besides (see DATASETS.TRAIN_SHARES)",
        )
        add("--more-images", metavar="DIR", help="folder of their images")


def _add_panoptic_arguments(add: Callable[..., Any]) -> None:
    for split in SPLITS:
        add(
            f"--{split}-panoptic-json",
            metavar="FILE",
            help=f"COCO-panoptic annotations, with --{split}-images (docs/panoptic.md)",
        )
        add(f"--{split}-panoptic-root", metavar="DIR", help="folder of their panoptic PNGs")


def register_named_data(args: argparse.Namespace, *, panoptic: bool) -> dict[str, str]:
    """Register the datasets that the command line names.

    Every process registers for itself, since Detectron2's catalogues are per process.

    Args:
        args: Of a parser with `add_data_arguments`.
        panoptic: For a panoptic model.

    Returns:
        Names of the datasets for "TRAIN" and "TEST", as far as given.

    Raises:
        ValueError: Several datasets, a part of one is missing, or a file cannot be used.
    """
    given = _given(args)
    if len(given) > 1:
        raise ValueError(f"name one dataset, not {' and '.join(given)}")
    if _panoptic_files(args) and not panoptic:
        raise ValueError(
            "--train-panoptic-json and the like need a config with MODEL.META_ARCHITECTURE "
            "PanopticSOLO"
        )
    if args.data_format != "coco" and (panoptic or not (args.train_json or args.val_json)):
        raise ValueError(
            f"--data-format {args.data_format} is that of --train-json and --val-json of a model "
            "for instances; leave it out"
        )
    splits = ("val",) if getattr(args, "eval_only", False) else SPLITS
    if args.data:
        return _register_data(args.data, splits, panoptic, hold_out=not args.no_hold_out)
    if args.no_hold_out:
        raise ValueError("--no-hold-out is about the images of --data; leave it out")
    for kind in _flags(args):
        return _by_key(register_folder(kind, getattr(args, kind), splits, panoptic=panoptic))
    return _register_panoptic_files(args) if panoptic else _register_files(args)


def names_data(args: argparse.Namespace) -> bool:
    """Return whether a command line names a dataset."""
    return bool(_given(args))


def _flags(args: argparse.Namespace) -> list[str]:
    return [kind for kind in DATA_SOURCES if getattr(args, kind, None)]


def _given(args: argparse.Namespace) -> list[str]:
    """Return the options by which datasets are named."""
    given = [f"--{kind}" for kind in _flags(args)]
    if args.data:
        given.append("--data")
    if any((args.train_json, args.val_json, _panoptic_files(args))):
        given.append("--train-json, --val-json and the like")
    return given


def _panoptic_files(args: argparse.Namespace) -> bool:
    kinds = ("json", "root")
    return any(getattr(args, f"{split}_panoptic_{kind}") for split in SPLITS for kind in kinds)


def _by_key(names: dict[str, str]) -> dict[str, str]:
    return {_KEYS[split]: name for split, name in names.items()}


def _register_data(
    location: str, splits: tuple[str, ...], panoptic: bool, *, hold_out: bool
) -> dict[str, str]:
    """Register ``--data``; of a dataset of one split some images are set aside, or none."""
    kind, folder = split_location(location)
    if not kind and panoptic:
        raise ValueError(
            "--data finds no panoptic annotations; name them with --train-panoptic-json, "
            "--train-panoptic-root and --train-images, or write --data KIND:DIR"
        )
    kind = kind or recognise(folder)
    names = register_folder(kind, folder, splits, panoptic=panoptic)
    if len(names) == len(splits):
        if not hold_out:
            raise ValueError(f"{folder} has a validation set; leave --no-hold-out out")
        return _by_key(names)
    if not names:  # no validation set
        names = register_folder(kind, folder, ("train",), panoptic=panoptic)
    (name,) = names.values()
    parts = {splits[0]: name}
    if hold_out:
        from .holdout import hold_out as divide

        parts = dict(zip(SPLITS, divide(name), strict=True))
    return _by_key({split: name for split, name in parts.items() if split in splits})


def _register_files(args: argparse.Namespace) -> dict[str, str]:
    """Register ``--train-json`` and ``--val-json``."""
    names = {}
    for split in SPLITS:
        file, images = getattr(args, f"{split}_json"), getattr(args, f"{split}_images")
        if bool(file) != bool(images):
            raise ValueError(f"--{split}-json and --{split}-images go together; one is missing")
        if file:
            names[split] = f"own_{split}"
            JSON_FORMATS[args.data_format](names[split], file, images)
    return _by_key(names)


def _register_panoptic_files(args: argparse.Namespace) -> dict[str, str]:
    """Register ``--train-panoptic-json`` and ``--val-panoptic-json``."""
    from .datasets.panoptic import register_coco_panoptic

    names = {}
    for split in SPLITS:
        flags = [f"{split}_panoptic_json", f"{split}_panoptic_root", f"{split}_images"]
        file, root, images = (getattr(args, flag) for flag in flags)
        instances = getattr(args, f"{split}_json")
        if not any((file, root, images, instances)):
            continue
        if not all((file, root, images)):
            wanted = ", ".join(f"--{flag.replace('_', '-')}" for flag in flags)
            raise ValueError(f"a panoptic model needs {wanted} together; one is missing")
        names[split] = f"own_{split}_panoptic"
        register_coco_panoptic(names[split], file, root, images, instances)
    return _by_key(names)
