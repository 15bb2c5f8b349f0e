"""Colours of instances: one per number, and ones that follow the objects of a video.

Shapes: K instances of this frame, P of earlier ones, (H, W) frame. Colours are BGR.
"""

from __future__ import annotations

import colorsys
from collections.abc import Sequence

import numpy as np
import torch
from detectron2.structures import Instances

from ..layers import dense_masks

__all__ = ["InstanceColors", "instance_colors", "stuff_colors"]

_GOLDEN = 0.618033988749895  # steps of the hue circle that stay far from one another


def instance_colors(ids: Sequence[int] | np.ndarray) -> np.ndarray:
    """Return a vivid colour for each number, the same in every call.

    Args:
        ids: K whole numbers, 0 or more.

    Returns:
        BGR in [0, 255], shape (K, 3), uint8.
    """
    colors = np.zeros((len(ids), 3), dtype=np.uint8)
    for row, number in enumerate(ids):
        value = (1.0, 0.8)[int(number) // 7 % 2]  # hues come close again after some steps
        rgb = colorsys.hsv_to_rgb(int(number) * _GOLDEN % 1.0, 0.85, value)
        colors[row] = np.round(np.array(rgb[::-1]) * 255)
    return colors


def stuff_colors(labels: Sequence[int]) -> np.ndarray:
    """Return a pale colour for each label of a background, the same in every call.

    Args:
        labels: K whole numbers, 0 or more.

    Returns:
        BGR in [0, 255], shape (K, 3), uint8.
    """
    return instance_colors(labels) // 3 + 112


class InstanceColors:
    """Colours that follow the objects of a video.

    An instance takes over the colour of the instance of the same class in earlier frames whose
    mask it covers best, if the two are each other's best match; otherwise it gets a new colour.

    Args:
        min_iou: Smallest mask IoU, in [0, 1], at which two masks can be one object.
        memory: Number of frames for which an object that is not seen keeps its colour.
    """

    def __init__(self, min_iou: float = 0.3, memory: int = 5) -> None:
        self.min_iou = min_iou
        self.memory = memory
        self.reset()

    def reset(self) -> None:
        """Forget all objects, as before a new video."""
        self._next_id = 0
        self._size: tuple[int, int] | None = None
        self._masks = torch.zeros(0, 0)  # (P, cells), 0 or 1
        self._classes = torch.zeros(0, dtype=torch.long)
        self._ids = torch.zeros(0, dtype=torch.long)
        self._ages = torch.zeros(0, dtype=torch.long)  # frames since the object was seen

    def __call__(self, instances: Instances) -> np.ndarray:
        """Colours of the instances of the next frame.

        Args:
            instances: With `pred_masks` (K, H, W) and `pred_classes` (K,), on any device.

        Returns:
            BGR in [0, 255], shape (K, 3), uint8.
        """
        if tuple(instances.image_size) != self._size:
            self._forget_objects()
            self._size = tuple(instances.image_size)
        masks = _coarse(dense_masks(instances.pred_masks))
        classes = instances.pred_classes.cpu()
        ids = torch.full((len(classes),), -1)
        seen = torch.zeros(len(self._ids), dtype=torch.bool)
        if len(classes) and len(self._ids):
            same_class = classes[:, None] == self._classes[None, :]
            current, previous = _mutual_best(_iou(masks, self._masks) * same_class, self.min_iou)
            ids[current] = self._ids[previous]
            seen[previous] = True
        new = ids < 0
        ids[new] = torch.arange(self._next_id, self._next_id + int(new.sum()))
        self._next_id += int(new.sum())
        keep = ~seen & (self._ages < self.memory)
        self._masks = torch.cat([masks, self._masks[keep]]) if keep.any() else masks
        self._classes = torch.cat([classes, self._classes[keep]])
        self._ages = torch.cat([torch.zeros_like(ids), self._ages[keep] + 1])
        self._ids = torch.cat([ids, self._ids[keep]])
        return instance_colors(ids.numpy())

    def _forget_objects(self) -> None:
        next_id = self._next_id
        self.reset()
        self._next_id = next_id


def _coarse(masks: torch.Tensor, cells: int = 192) -> torch.Tensor:
    """Masks (K, H, W) on a grid of at most `cells` per side, flat (K, cells), as 0 and 1."""
    height, width = masks.shape[1:]
    step = max(1, -(-max(height, width) // cells))
    rows, columns = -(-height // step), -(-width // step)
    padding = (0, columns * step - width, 0, rows * step - height)
    padded = torch.nn.functional.pad(masks.to(torch.uint8), padding)
    # A maximum, not a sample: a thin object does not vanish between the grid points. Rows first:
    # four times as fast as a pooling layer, which knows no bytes on every torch and device.
    pooled = padded.view(len(masks), rows, step, columns * step).amax(dim=2)
    pooled = pooled.view(len(masks), rows, columns, step).amax(dim=3)
    return pooled.flatten(1).float().cpu()


def _iou(masks: torch.Tensor, others: torch.Tensor) -> torch.Tensor:
    """IoU (K, P) of flat masks (K, cells) and (P, cells)."""
    common = masks @ others.T
    union = masks.sum(1)[:, None] + others.sum(1)[None, :] - common
    return common / union.clamp(min=1)


def _mutual_best(iou: torch.Tensor, min_iou: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Rows and columns of the entries of at least `min_iou` that lead their row and column."""
    value, column = iou.max(dim=1)
    rows = torch.arange(len(iou))
    best = (value >= min_iou) & (value > 0) & (iou.argmax(dim=0)[column] == rows)
    return rows[best], column[best]
