"""Large scale jitter (Ghiasi et al., 2021): one canvas, images from a tenth to twice its size."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from detectron2.config import CfgNode
from detectron2.data import transforms as T
from fvcore.transforms.transform import PadTransform

__all__ = ["PadTo", "jitter_scale", "pad_empty"]

GREY = 128
"""Value of padded pixels, Detectron2's."""


class PadTo(T.Augmentation):
    """Pad on the right and below.

    Args:
        size: (height, width) of what comes out; larger images stay as they are.
        label: of padded pixels in a semantic segmentation.
    """

    def __init__(self, size: tuple[int, int], label: int) -> None:
        super().__init__()
        self.size = size
        self.label = label

    def get_transform(self, image: np.ndarray) -> PadTransform:
        """Return the padding of an image (h, w, 3)."""
        h, w = image.shape[:2]
        below, right = max(0, self.size[0] - h), max(0, self.size[1] - w)
        return PadTransform(0, 0, right, below, w, h, GREY, self.label)


def jitter_scale(cfg: CfgNode, augmentations: Sequence[Any]) -> list[Any]:
    """Put `INPUT.LSJ` in the place of resizing.

    Args:
        cfg: of the training.
        augmentations: Detectron2's of this config.

    Returns:
        Augmentations: the others, and those that resize an image, and crop or pad it to a square.
    """
    node = cfg.INPUT.LSJ
    size = (node.SIZE, node.SIZE)
    others = [x for x in augmentations if not isinstance(x, T.ResizeShortestEdge)]
    return [
        *others,
        T.ResizeScale(node.MIN_SCALE, node.MAX_SCALE, *size),
        T.FixedSizeCrop(size, pad=False),
        PadTo(size, cfg.MODEL.SEM_SEG_HEAD.IGNORE_VALUE),
    ]


def pad_empty(pixels: np.ndarray, transform: PadTransform) -> np.ndarray:
    """Pad a mask or matte (h, w) with nothing, whatever labels are padded with."""
    around = ((transform.y0, transform.y1), (transform.x0, transform.x1))
    return np.pad(pixels, around)
