"""Classes of registered datasets and of models: what travels with weights, and where both meet."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from detectron2.config import CfgNode
from detectron2.data import MetadataCatalog
from torch import nn

from ..checkpoint import read_info
from ..checkpoint.classes import describe_difference
from ..data.checks import shown_name, stuff_classes, thing_classes
from ..data.classes import align_classes
from ..export import is_exported, open_exported
from ..io.results import coco_category_ids


def name_classes(model: Any, dataset: str) -> None:
    """Give a model the class names and category ids of a registered dataset.

    Weights that are loaded afterwards must be of these classes, and what is saved keeps them.

    Args:
        model: A `SOLO`. Its attributes `class_names`, `category_ids`, `stuff_names` and
            `stuff_category_ids` (with a semantic branch) are set; () for ids that the dataset
            does not declare.
        dataset: Name of the dataset.

    Raises:
        ValueError: The dataset is not registered, its files are missing, or a semantic branch
            finds no stuff in it.

    Example:
        >>> from solo_d2 import SOLO
        >>> from solo_d2.testing import tiny_config, tiny_dataset
        >>> model = SOLO(tiny_config())
        >>> name_classes(model, tiny_dataset())
        >>> model.class_names
        ('cup', 'fork', 'spoon')
    """
    names = thing_classes(dataset) or []
    metadata = MetadataCatalog.get(dataset)
    ids = metadata.get("thing_dataset_id_to_contiguous_id")
    if ids is None and metadata.get("evaluator_type") == "lvis":
        ids = {k + 1: k for k in range(len(names))}  # as Detectron2 reads it
    model.class_names, model.category_ids = tuple(names), _ids(ids, len(names))
    if hasattr(model, "sem_seg_head"):
        names, ids = stuff_classes(dataset), metadata.stuff_dataset_id_to_contiguous_id
        model.stuff_names, model.stuff_category_ids = tuple(names), _ids(ids, len(names))


def align_datasets(cfg: CfgNode) -> None:
    """Number the classes of all datasets as the first one to train on, by their names.

    Raises:
        ValueError: A dataset has classes that the first one lacks, or cannot be read.
    """
    names: list[str] = [*cfg.DATASETS.TRAIN, *cfg.DATASETS.TEST]
    classes = thing_classes(names[0])
    for name in names[1:]:
        if classes is not None:
            align_classes(name, classes)


def align_with_weights(name: str, weights: str) -> None:
    """Number the classes of a dataset as weights do, if these know its classes and more.

    Args:
        name: Of the dataset.
        weights: As `MODEL.WEIGHTS`. If they do not know their classes, nothing happens.

    Raises:
        ValueError: The weights cannot be read.
    """
    own = thing_classes(name)
    if own is None:
        return
    exported = is_exported(weights)
    info = open_exported(Path(weights))[1] if exported else read_info(weights)
    known = () if info is None else info.class_names
    # The same classes in another order are for `match_classes`, which moves weights where it can.
    if (exported or len(known) > len(own)) and set(own) <= set(known):
        align_classes(name, known)


def check_names(model: nn.Module, dataset: str) -> None:
    """Check that the labels of a model mean what those of a dataset do.

    Args:
        model: A `SOLO`, also wrapped for several processes or sizes; others are not checked.
        dataset: Name of a registered dataset.

    Raises:
        ValueError: Both have class names, and these are others or in another order.
    """
    inner: Any = model
    while not hasattr(inner, "class_names") and isinstance(inner, nn.Module):
        inner = getattr(inner, "module", getattr(inner, "model", None))
    own = list(getattr(inner, "class_names", ()))
    expected = thing_classes(dataset)
    if own and expected and own != expected:
        raise ValueError(
            f"the model cannot be evaluated on {shown_name(dataset)}: it "
            f"{describe_difference(expected, own)}. Call solo_d2.engine.name_classes before "
            "loading its weights, which then brings them to the order of the dataset"
        )


def _ids(contiguous: Any, count: int) -> tuple[int, ...]:
    ids = tuple(coco_category_ids(contiguous) or ())
    return ids if len(ids) == count and all(type(x) is int for x in ids) else ()
