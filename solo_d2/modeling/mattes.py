"""Soft mattes around the head: their training targets, and bringing them to the output's size."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import ClassVar

import torch
import torch.nn.functional as F
from detectron2.structures import Instances
from torch import Tensor

from ..layers import budgets
from ..layers.memory import allocate
from .output import MEMORY_REMEDY
from .targets import SOLOTargetAssigner


class MatteTargetAssigner(SOLOTargetAssigner):
    """Assigns cells as for masks; the targets at stride 1 are mattes (paper §A.3.2).

    An image may have ``gt_mattes``, uint8 (I, h, w) with 255 for opaque, beside its binary
    ``gt_masks``, from which centre and size of the objects are taken. Without it the masks are the
    mattes: that is the instance segmentation data of the paper's mixed training.
    """

    mask_dtypes: Mapping[int, torch.dtype] = {1: torch.float32}
    on_host: ClassVar[bool] = False

    def mask_targets(self, objects: Instances, bitmaps: Tensor, stride: int) -> Tensor:
        """Float mattes (I, h, w) in [0, 1] at stride 1, boolean masks at any other.

        Raises:
            ValueError: ``gt_mattes`` of another size or type.
        """
        if stride != 1:
            return super().mask_targets(objects, bitmaps, stride)
        if not objects.has("gt_mattes"):
            return bitmaps.float()
        mattes = objects.gt_mattes
        expected = (len(objects), *objects.image_size)
        if tuple(mattes.shape) != expected or mattes.dtype != torch.uint8:
            raise ValueError(
                f"gt_mattes must be uint8 of shape {expected}, as many as gt_masks and of the "
                f"image's size; got {mattes.dtype} {tuple(mattes.shape)}"
            )
        height, width = bitmaps.shape[-2:]
        mattes = mattes.to(bitmaps.device).float().div_(255)
        return F.pad(mattes, (0, width - mattes.shape[2], 0, height - mattes.shape[1]))


def resize_mattes(
    cell_mattes: Callable[[Tensor], Tensor],
    cells: Tensor,
    image_size: tuple[int, int],
    output_size: tuple[int, int],
) -> Tensor:
    """Mattes of cells, without the canvas's padding, at the output's size.

    Args:
        cell_mattes: mattes (K, H, W) of cells (K,), at the resolution of the network's input.
        cells: flat cell indices (K,), K may be 0.
        image_size: (height, width) of the image in the canvas's top left corner.
        output_size: (height, width) wanted; reached bilinearly, averaging where it is smaller.

    Returns:
        (K, *output_size) float32 in [0, 1]. Beyond it, memory holds a few mattes at a time.

    Raises:
        MemoryError: they do not fit in memory; nothing has been allocated.
    """
    what = f"{len(cells)} mattes of {output_size[0]}x{output_size[1]} pixels"
    shape = (len(cells), *output_size)
    mattes = allocate(shape, torch.float32, cells.device, what, MEMORY_REMEDY)
    length = max(1, budgets.MATTE_PIXELS // max(1, image_size[0] * image_size[1]))
    for start in range(0, len(cells), length):
        chunk = slice(start, start + length)
        probs = cell_mattes(cells[chunk])[:, : image_size[0], : image_size[1]]
        if image_size != output_size:
            probs = F.interpolate(
                probs[:, None], output_size, mode="bilinear", align_corners=False, antialias=True
            )[:, 0]
        mattes[chunk] = probs
    return mattes.clamp_(0, 1)  # the weights of a resize add up to 1 only to rounding
