"""Panoptic data sets that the command line names."""

from __future__ import annotations

import argparse

from detectron2.config import CfgNode

from ..data.checks import stuff_classes
from ..data.datasets.panoptic import register_coco_panoptic
from ..data.scenes.register import register_built_panoptic

OWN_TRAIN, OWN_VAL = "own_train_panoptic", "own_val_panoptic"
"""Names under which the sets of --train-panoptic-json and --val-panoptic-json are registered."""


def add_panoptic_arguments(group: argparse._ArgumentGroup) -> None:
    """Add the arguments for COCO-panoptic files."""
    for split in ("train", "val"):
        group.add_argument(
            f"--{split}-panoptic-json",
            metavar="FILE",
            help=f"COCO-panoptic annotations, with --{split}-images (docs/panoptic.md)",
        )
        group.add_argument(
            f"--{split}-panoptic-root", metavar="DIR", help="folder of their panoptic PNGs"
        )


def names_panoptic_data(args: argparse.Namespace) -> bool:
    """Whether the command line has one of the arguments of `add_panoptic_arguments`."""
    return any(
        getattr(args, f"{split}_panoptic_{kind}")
        for split in ("train", "val")
        for kind in ("json", "root")
    )


def register_panoptic_data(args: argparse.Namespace) -> dict[str, str]:
    """Register the panoptic data sets that the command line names.

    Returns:
        Names of the data sets for "TRAIN" and "TEST", as far as given.

    Raises:
        ValueError: an argument is missing, data without stuff, or a file that cannot be used.
    """
    if args.stamps and names_panoptic_data(args):
        raise ValueError("name one data set: --stamps, or --train-panoptic-json and the like")
    if args.stamps:
        train, val = register_built_panoptic(args.stamps, "stamps", kind="stamps")
        return {"TRAIN": train, "TEST": val}
    for kind in ("shapes", "cityscapes", "matting"):
        if getattr(args, kind, None):
            raise ValueError(
                f"--{kind} has no panoptic annotations here; use --stamps, --train-panoptic-json, "
                "or a config with MODEL.META_ARCHITECTURE SOLO"
            )
    names = {}
    for key, split, name in (("TRAIN", "train", OWN_TRAIN), ("TEST", "val", OWN_VAL)):
        flags = [f"{split}_panoptic_json", f"{split}_panoptic_root", f"{split}_images"]
        file, root, images = (getattr(args, flag) for flag in flags)
        instances = getattr(args, f"{split}_json")
        if not any((file, root, images, instances)):
            continue
        if not all((file, root, images)):
            wanted = ", ".join(f"--{flag.replace('_', '-')}" for flag in flags)
            raise ValueError(f"a panoptic model needs {wanted} together; one is missing")
        register_coco_panoptic(name, file, root, images, instances)
        names[key] = name
    return names


def use_stuff(cfg: CfgNode, name: str, *, fixed: bool = False) -> None:
    """Give the semantic branch the number of classes of a registered data set.

    Args:
        cfg: changed in place.
        name: of the data set.
        fixed: the number was asked for and must not change.

    Raises:
        ValueError: `fixed`, and the number is another one; or the data set has no stuff.
    """
    classes = stuff_classes(name)
    node = cfg.MODEL.SEM_SEG_HEAD
    if fixed and node.NUM_CLASSES != len(classes):
        raise ValueError(
            f"MODEL.SEM_SEG_HEAD.NUM_CLASSES is {node.NUM_CLASSES}, the data set has "
            f"{len(classes) - 1} stuff classes, and one counts for things; leave the key out"
        )
    node.NUM_CLASSES = len(classes)
