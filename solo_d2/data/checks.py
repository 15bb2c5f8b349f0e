"""Checks of datasets against the config, before a training starts."""

from __future__ import annotations

from collections.abc import Sequence

from detectron2.data import DatasetCatalog, MetadataCatalog


def check_classes(names: Sequence[str], num_classes: int) -> None:
    """Check that datasets have the number of classes that the model has, and all the same.

    Detectron2 itself would train on silently with too few classes.

    Args:
        names: registered datasets.
        num_classes: of the model.

    Raises:
        ValueError: an unregistered dataset, missing files, or classes that do not agree.
    """
    first: tuple[str, list[str]] | None = None
    for name in names:
        classes = thing_classes(name)
        if classes is None:
            continue
        if len(classes) != num_classes:
            raise ValueError(
                f"the dataset {shown_name(name)} has {len(classes)} classes, the model has "
                f"{num_classes}; "
                f"set MODEL.SOLO.NUM_CLASSES {len(classes)}"
            )
        if first is not None and classes != first[1]:
            raise ValueError(
                f"the datasets {shown_name(first[0])} and {shown_name(name)} have different "
                f"classes: {first[1]} against {classes}"
            )
        first = first or (name, classes)


def check_stuff(names: Sequence[str], num_classes: int) -> None:
    """Check that datasets have the stuff classes that the semantic branch has.

    Args:
        names: registered datasets, of which `check_classes` approves.
        num_classes: of the semantic branch: all stuff classes, and one for things.

    Raises:
        ValueError: a dataset without stuff, or with another number of classes.
    """
    for name in names:
        classes = stuff_classes(name)
        if len(classes) != num_classes:
            raise ValueError(
                f"the dataset {shown_name(name)} has {len(classes) - 1} stuff classes, the "
                f"model {num_classes - 1}; set MODEL.SEM_SEG_HEAD.NUM_CLASSES {len(classes)}"
            )


def stuff_classes(name: str) -> list[str]:
    """Return the names of the classes of the semantic branch: "things", and all of stuff.

    Raises:
        ValueError: the dataset has none.
    """
    classes = MetadataCatalog.get(name).get("stuff_dataset_id_to_contiguous_id")
    if not classes or min(classes.values()) != 0:
        raise ValueError(
            f"the dataset {shown_name(name)} is not one for panoptic segmentation; use --stamps, "
            "--train-panoptic-json (docs/panoptic.md), or one of Detectron2's sets named "
            "..._panoptic_separated"
        )
    return list(MetadataCatalog.get(name).stuff_classes)


def thing_classes(name: str) -> list[str] | None:
    """Return the class names of a registered dataset; None if it does not declare any.

    Raises:
        ValueError: the dataset is not registered, or its files are missing.
    """
    if name not in DatasetCatalog:
        known = ", ".join(sorted(DatasetCatalog.list())) or "none"
        raise ValueError(
            f"the dataset {name!r} in DATASETS is not registered; registered are: {known}. For a "
            "COCO-format set of your own use --train-json, --train-images, --val-json, --val-images"
        )
    metadata = MetadataCatalog.get(name)
    if metadata.get("thing_classes") is None:
        # Many sets fill their metadata when they are read for the first time.
        try:
            DatasetCatalog.get(name)
        except FileNotFoundError as error:
            raise ValueError(
                f"the dataset {name!r} is registered, but {error.filename} does not exist; "
                "DETECTRON2_DATASETS names the folder of Detectron2's built-in datasets"
            ) from error
    classes = metadata.get("thing_classes")
    return None if classes is None else list(classes)


def shown_name(name: str) -> str:
    """Return how messages name a dataset: by its file where the command line named one."""
    source = MetadataCatalog.get(name).get("source") if name in DatasetCatalog else None
    return str(source[0]) if source and name.startswith("own_") else name
