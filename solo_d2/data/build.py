"""The training loader: which mapper a model needs, and how several data sets are mixed."""

from __future__ import annotations

from typing import Any

import torch
from detectron2.config import CfgNode
from detectron2.data import (
    DatasetMapper,
    build_detection_train_loader,
    get_detection_dataset_dicts,
)
from detectron2.data.samplers import RepeatFactorTrainingSampler
from torch.utils.data import DataLoader


def build_train_loader(cfg: CfgNode, mapper: DatasetMapper) -> DataLoader:
    """Detectron2's training loader, with the shares that `DATASETS.TRAIN_SHARES` asks for.

    Args:
        cfg: names the data sets.
        mapper: from a record to the model's input.

    Returns:
        An endless loader of batches.

    Raises:
        ValueError: shares that do not fit the data sets, or a data set without usable images.
    """
    if not cfg.DATASETS.TRAIN_SHARES:
        return build_detection_train_loader(cfg, mapper=mapper)
    if cfg.DATALOADER.SAMPLER_TRAIN != "TrainingSampler":
        raise ValueError(
            "DATASETS.TRAIN_SHARES says how often images are drawn, and so does "
            f"DATALOADER.SAMPLER_TRAIN {cfg.DATALOADER.SAMPLER_TRAIN!r}; leave one of them out"
        )
    records: list[dict[str, Any]] = []
    sizes = []
    for name in cfg.DATASETS.TRAIN:
        try:
            part = get_detection_dataset_dicts(
                name, filter_empty=cfg.DATALOADER.FILTER_EMPTY_ANNOTATIONS
            )
        except AssertionError as error:  # nothing is left
            raise ValueError(f"the data set {name!r} has no image with objects") from error
        sizes.append(len(part))
        records.extend(part)
    factors = repeat_factors(sizes, cfg.DATASETS.TRAIN_SHARES)
    return build_detection_train_loader(
        cfg, mapper=mapper, dataset=records, sampler=RepeatFactorTrainingSampler(factors)
    )


def repeat_factors(sizes: list[int], shares: list[float]) -> torch.Tensor:
    """How often each image must come in a pass for data sets to have their shares.

    Args:
        sizes: images of each data set, at least 1.
        shares: relative frequency of each data set, >= 0, in any unit.

    Returns:
        Float (sum(sizes),), in the order of the data sets; they sum to the number of images.

    Raises:
        ValueError: not one share per data set, a negative one, or none above 0.
    """
    if len(shares) != len(sizes) or min(shares) < 0 or sum(shares) <= 0:
        raise ValueError(
            f"DATASETS.TRAIN_SHARES needs a number >= 0 for each of the {len(sizes)} data sets of "
            f"DATASETS.TRAIN, and one above 0; got {list(shares)}"
        )
    total, unit = sum(sizes), sum(shares)
    return torch.cat(
        [
            torch.full((size,), share / unit * total / size)
            for size, share in zip(sizes, shares, strict=True)
        ]
    )
