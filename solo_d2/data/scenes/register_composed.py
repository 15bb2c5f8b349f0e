"""Register datasets whose training images are composed while training goes on."""

from __future__ import annotations

import os
from collections.abc import Sequence

from detectron2.data import DatasetCatalog, MetadataCatalog

from .composed import ComposedScenes, composer, read_manifest
from .register import register_panoptic_split, register_split

__all__ = ["register_composed"]


def register_composed(
    root: str | os.PathLike[str],
    splits: Sequence[str],
    *,
    panoptic: bool = False,
    matting: bool = False,
) -> dict[str, str]:
    """Register a built dataset, with composed images in place of its training images.

    Validation is on its written images, whose cut-outs training never sees.

    Args:
        root: Folder of the dataset.
        splits: Wanted, of "train" and "val".
        panoptic: For panoptic segmentation.
        matting: Let the evaluation measure mattes, too.

    Returns:
        Registered names by split. A pass over the training images has as many as were written.

    Raises:
        ValueError: There is no dataset, or its scenes cannot be composed.
        OSError: The images of its scenes cannot be had on this machine.
    """
    root = os.path.abspath(root)
    request, _ = read_manifest(root)
    prefix = "composed_matting" if matting else "composed"
    if panoptic:
        val = register_panoptic_split(root, prefix, "val", kind=request["kind"])
    else:
        val = register_split(root, prefix, "val", kind=request["kind"], matting=matting)
    names = {"val": val}
    if "train" in splits:
        composer(root)  # what is wrong is told now, and processes that are forked share it
        names["train"] = val.replace(f"{prefix}_val", f"{prefix}_train")
        _register_training(names["train"], val, ComposedScenes(root, request["counts"]["train"]))
    return {split: names[split] for split in splits}


def _register_training(name: str, val: str, scenes: ComposedScenes) -> None:
    """Register scenes with the metadata of the validation set, unless they are registered."""
    if name in DatasetCatalog.list():
        return
    DatasetCatalog.register(name, lambda: scenes)
    metadata = {k: v for k, v in MetadataCatalog.get(val).as_dict().items() if k != "name"}
    MetadataCatalog.get(name).set(**metadata)
