"""The training loader of a config: which images are drawn, how often, and from which datasets."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Callable, Sequence
from typing import Any

import torch
from detectron2.config import CfgNode
from detectron2.data import DatasetFromList
from detectron2.data.samplers import RepeatFactorTrainingSampler
from detectron2.utils import comm
from torch import Tensor

from .copy_paste import CopyPaste
from .loader import TrainLoader
from .records import training_records
from .seeded import SeededImages
from .stream import ImageStream, derive_seed

_SAMPLERS = ("TrainingSampler", "RepeatFactorTrainingSampler", "RandomSubsetTrainingSampler")


def build_train_loader(
    cfg: CfgNode, mapper: Callable[[dict[str, Any]], dict[str, Any] | None]
) -> TrainLoader:
    """Build the endless training loader of a config.

    It obeys `DATASETS.TRAIN_SHARES`, `INPUT.COPY_PASTE` and Detectron2's keys of the training
    loader. The seed is `SEED`, or drawn where that is negative, and the same for all processes.

    Args:
        cfg: names the datasets.
        mapper: from a record to the model's input; None for a record that is not to be used.

    Returns:
        An endless loader of batches.

    Raises:
        ValueError: keys that contradict each other, a dataset without usable images, or with a
            class that the model lacks.
    """
    classes, filter_empty = cfg.MODEL.SOLO.NUM_CLASSES, cfg.DATALOADER.FILTER_EMPTY_ANNOTATIONS
    parts = [
        training_records(name, classes, filter_empty=filter_empty) for name in cfg.DATASETS.TRAIN
    ]
    records = list(itertools.chain.from_iterable(parts)) if len(parts) > 1 else parts[0]
    seed = cfg.SEED if cfg.SEED >= 0 else comm.shared_random_seed()
    indices, factors = _draws(cfg, records, [len(part) for part in parts], seed)
    groups = None
    if cfg.DATALOADER.ASPECT_RATIO_GROUPING:
        groups = [int(x.get("width", 0) <= x.get("height", 0)) for x in records]
    fingerprint = _fingerprint(records, factors)
    if isinstance(records, list):
        records = DatasetFromList(records, copy=False)
    if cfg.INPUT.COPY_PASTE.ENABLED:
        mapper = CopyPaste.from_config(cfg, mapper, records)
    return TrainLoader(
        SeededImages(records, mapper, seed, skip=cfg.DATALOADER.SKIP_UNREADABLE),
        ImageStream(indices, seed, factors, groups),
        batch_size=cfg.SOLVER.IMS_PER_BATCH,
        parts=cfg.SOLVER.ACCUMULATE_STEPS,
        workers=cfg.DATALOADER.NUM_WORKERS,
        fingerprint=fingerprint,
    )


def repeat_factors(sizes: list[int], shares: list[float]) -> Tensor:
    """Compute how often each image must come in a pass for datasets to have their shares.

    Args:
        sizes: images of each dataset, at least 1.
        shares: relative frequency of each dataset, >= 0, in any unit.

    Returns:
        Float (sum(sizes),), in the order of the datasets; they sum to the number of images.

    Raises:
        ValueError: not one share per dataset, a negative one, or none above 0.
    """
    if len(shares) != len(sizes) or min(shares) < 0 or sum(shares) <= 0:
        raise ValueError(
            f"DATASETS.TRAIN_SHARES needs a number >= 0 for each of the {len(sizes)} datasets of "
            f"DATASETS.TRAIN, and one above 0; got {list(shares)}"
        )
    total, unit = sum(sizes), sum(shares)
    return torch.cat(
        [
            torch.full((size,), share / unit * total / size)
            for size, share in zip(sizes, shares, strict=True)
        ]
    )


def _draws(
    cfg: CfgNode, records: Sequence[dict[str, Any]], sizes: list[int], seed: int
) -> tuple[Tensor, Tensor | None]:
    """Indices (N,) of the images to draw, and how often each comes in a pass; None for once."""
    name, everything = cfg.DATALOADER.SAMPLER_TRAIN, torch.arange(len(records))
    if name not in _SAMPLERS:
        raise ValueError(
            f"DATALOADER.SAMPLER_TRAIN must be one of {', '.join(_SAMPLERS)}, got {name!r}"
        )
    if cfg.DATASETS.TRAIN_SHARES:
        if name != "TrainingSampler":
            raise ValueError(
                "DATASETS.TRAIN_SHARES says how often images are drawn, and so does "
                f"DATALOADER.SAMPLER_TRAIN {name!r}; leave one of them out"
            )
        return everything, repeat_factors(sizes, cfg.DATASETS.TRAIN_SHARES)
    if name == "RandomSubsetTrainingSampler":
        # Like the one below, a key of newer versions of Detectron2.
        share = cfg.DATALOADER.get("RANDOM_SUBSET_RATIO", 0)
        if not 0 < share <= 1 or int(share * len(records)) < 1:
            raise ValueError(
                "DATALOADER.RANDOM_SUBSET_RATIO must lie in (0, 1] and leave an image of "
                f"{len(records)}, got {share}"
            )
        generator = torch.Generator().manual_seed(derive_seed(seed, "subset"))
        chosen = torch.randperm(len(records), generator=generator)[: int(share * len(records))]
        return chosen, None
    if name == "RepeatFactorTrainingSampler":
        more = {"sqrt": cfg.DATALOADER.REPEAT_SQRT} if "REPEAT_SQRT" in cfg.DATALOADER else {}
        return everything, RepeatFactorTrainingSampler.repeat_factors_from_category_frequency(
            records, cfg.DATALOADER.REPEAT_THRESHOLD, **more
        )
    return everything, None


def _fingerprint(records: Sequence[dict[str, Any]], factors: Tensor | None) -> str:
    """Text that differs where the same position in the order would mean other images."""
    digest = hashlib.sha256()
    for record in records:
        digest.update(f"{record.get('file_name')}\n".encode(errors="surrogateescape"))
    if factors is not None:
        digest.update(factors.numpy().tobytes())
    return digest.hexdigest()[:16]
