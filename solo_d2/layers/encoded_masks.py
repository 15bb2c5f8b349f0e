"""Binary masks of a large image in little memory, where a tensor (K, H, W) would not fit."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from .checks import check_tensors
from .memory import check_memory
from .rle import decode_crop, encode_crop, encode_masks

Crop = tuple[int, int, np.ndarray]
"""Left and top edge of a mask's box in the image, and the mask in the box, boolean (h, w)."""


class EncodedMasks:
    """K binary masks of one image as COCO's run-length encoding: some hundred bytes each.

    They stand for a tensor (K, H, W) in a field of Detectron2's `Instances`: they have a length and
    a shape, are indexed like the first dimension of a tensor, and joined by `cat`. They live on
    the CPU, whatever device the other fields are on.

    Args:
        size: (H, W) of the image.
        counts: the runs of every mask, compressed, as of `encode_masks`.
        boxes: (K, 4) whole numbers, XYXY, right and bottom edge exclusive: the masks' tight boxes.

    Raises:
        ValueError: an image of 2**32 pixels or more, which COCO's encoding cannot count.

    Example:
        >>> import numpy as np
        >>> corner = np.ones((2, 3), bool)
        >>> masks = EncodedMasks.from_crops([(0, 0, corner), (5, 4, corner)], (8, 9))
        >>> masks.shape, masks.boxes.tolist()
        (torch.Size([2, 8, 9]), [[0, 0, 3, 2], [5, 4, 8, 6]])
        >>> masks[1:].tensor().sum()
        tensor(6)
    """

    def __init__(self, size: tuple[int, int], counts: Sequence[str], boxes: ArrayLike) -> None:
        self.size = (int(size[0]), int(size[1]))
        if self.size[0] * self.size[1] >= 2**32:
            raise ValueError(f"masks are encoded of images below 2**32 pixels, got {self.size}")
        self.counts = list(counts)
        self.boxes: np.ndarray = np.asarray(boxes, np.int64).reshape(len(self.counts), 4)

    @classmethod
    def from_crops(cls, crops: Sequence[Crop], size: tuple[int, int]) -> EncodedMasks:
        """Encode masks that are given in their tight boxes, as `mask_crops` returns them."""
        counts = [encode_crop(crop, (x, y), size) for x, y, crop in crops]
        boxes = [(x, y, x + crop.shape[1], y + crop.shape[0]) for x, y, crop in crops]
        return cls(size, counts, boxes)

    @property
    def shape(self) -> torch.Size:
        """(K, H, W)."""
        return torch.Size((len(self), *self.size))

    def __len__(self) -> int:
        return len(self.counts)

    def __getitem__(self, item: slice | Tensor | np.ndarray | Sequence[int]) -> EncodedMasks:
        """Masks by a slice, whole numbers, or one True or False for each."""
        if isinstance(item, Tensor):
            item = item.cpu().numpy()
        chosen = np.arange(len(self))[item].reshape(-1)
        counts = [self.counts[index] for index in chosen.tolist()]
        return EncodedMasks(self.size, counts, self.boxes[chosen])

    def to(self, *_args: Any, **_options: Any) -> EncodedMasks:
        """Return the masks as they are, for `Instances.to`."""
        return self

    @staticmethod
    def cat(parts: Sequence[EncodedMasks]) -> EncodedMasks:
        """Join masks of one image, at least one part.

        Raises:
            ValueError: they are of images of other sizes.
        """
        sizes = {part.size for part in parts}
        if len(sizes) > 1:
            raise ValueError(f"EncodedMasks.cat expects masks of one size, got {sorted(sizes)}")
        counts = [text for part in parts for text in part.counts]
        return EncodedMasks(sizes.pop(), counts, np.concatenate([part.boxes for part in parts]))

    def rles(self) -> list[dict[str, Any]]:
        """Return what `encode_masks` makes of masks."""
        return [{"size": list(self.size), "counts": counts} for counts in self.counts]

    def crops(self) -> Iterator[Crop]:
        """Decode one mask after the other, each within its box."""
        for counts, box in zip(self.counts, self.boxes.tolist(), strict=True):
            x0, y0, x1, y1 = box
            yield x0, y0, decode_crop(counts, (x0, y0, x1, y1), self.size)

    def tensor(self) -> Tensor:
        """Return the masks as a boolean tensor (K, H, W), on the CPU.

        Raises:
            MemoryError: it does not fit in memory.
        """
        count, height, width = self.shape
        what = f"{count} masks of {height}x{width} pixels as one tensor"
        check_memory(count * height * width, torch.device("cpu"), what, _REMEDY)
        masks = torch.zeros(self.shape, dtype=torch.bool)
        for mask, (x, y, crop) in zip(masks, self.crops(), strict=True):
            mask[y : y + crop.shape[0], x : x + crop.shape[1]] = torch.from_numpy(crop)
        return masks


_REMEDY = "take fewer of them, by score, or work with their crops"


def mask_crops(masks: Tensor | EncodedMasks) -> Iterator[Crop]:
    """Yield every mask within its tight box, one after the other.

    Args:
        masks: boolean (K, H, W), on any device, or encoded.

    Yields:
        Left and top edge of the box, and the mask in it, boolean (h, w); of an empty mask
        (0, 0) and an array without pixels.

    Example:
        >>> import torch
        >>> masks = torch.zeros(1, 3, 4, dtype=torch.bool)
        >>> masks[0, 1, 1:3] = True  # two pixels of the middle row
        >>> list(mask_crops(masks))
        [(1, 1, array([[ True,  True]]))]
    """
    if isinstance(masks, EncodedMasks):
        yield from masks.crops()
        return
    check_tensors("mask_crops", ("masks", masks, "boolean", "K H W"))
    for mask in masks.cpu().numpy():
        x, y, width, height = cv2.boundingRect(mask.view(np.uint8))
        yield x, y, mask[y : y + height, x : x + width]


def dense_masks(masks: Tensor | EncodedMasks) -> Tensor:
    """Return masks as a tensor (K, H, W), which they are unless they are encoded.

    Raises:
        MemoryError: it does not fit in memory.

    Example:
        >>> dense_masks(EncodedMasks((3, 4), ["41202"], [[1, 1, 3, 2]])).int()
        tensor([[[0, 0, 0, 0],
                 [0, 1, 1, 0],
                 [0, 0, 0, 0]]], dtype=torch.int32)
    """
    return masks.tensor() if isinstance(masks, EncodedMasks) else masks


def rle_of_masks(masks: Tensor | EncodedMasks) -> list[dict[str, Any]]:
    """Return what `encode_masks` makes of masks, which may be encoded already."""
    return masks.rles() if isinstance(masks, EncodedMasks) else encode_masks(masks)
