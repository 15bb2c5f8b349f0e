"""What a training can learn of its data, in the one line that it begins with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from detectron2.config import CfgNode

from ..modeling.meta_arch import SOLO
from .claims import claim, network_frames
from .measure import measure_objects

__all__ = ["learnable"]

_IMAGES = 1000
"""Drawn at random, so that no training waits for it."""


def learnable(cfg: CfgNode, network: SOLO, records: Sequence[Mapping[str, Any]]) -> str:
    """Return how many objects there are, and the shares that own no cell or no mask pixel.

    Args:
        cfg: of the network.
        network: the model.
        records: of the images that are trained on.

    Returns:
        A line; nothing where the records have no objects or sizes, as those of images that are
        composed while training.
    """
    order = np.random.default_rng(0).permutation(len(records))[:_IMAGES]
    chosen = [records[i] for i in np.sort(order).tolist()]
    if not all(x.get("height") and x.get("width") for x in chosen):
        return ""
    objects = measure_objects(chosen, workers=0)
    if not len(objects):
        return ""
    short, longest = cfg.INPUT.MIN_SIZE_TEST, cfg.INPUT.MAX_SIZE_TEST
    frames = network_frames(objects.sizes, short, longest, network.size_divisibility)
    found = claim(objects, frames, network.assigner)
    drawn = f" drawn of {len(records)}" if len(chosen) < len(records) else ""
    return (
        f"{len(objects)} objects in {len(chosen)} images{drawn}: {100 * found.lost.mean():.1f} % "
        f"own no cell, {100 * found.tiny.mean():.1f} % are smaller than a pixel of their mask "
        "(solo-d2 check)"
    )
