"""Steps towards soft masks that several heads take."""

from __future__ import annotations

import torch
from torch import Tensor

from ...layers import resize_bilinear


def take_cells(values: Tensor, cells: Tensor) -> Tensor:
    """Pick what belongs to cells (N, K) from values (N, T, ...) of all cells: (N, K, ...)."""
    if cells.shape[0] == 1:  # in training: the gradient of this is one sum, of the other a sort
        return values[0].index_select(0, cells[0])[None]
    images = torch.arange(cells.shape[0], device=cells.device)[:, None]
    return values[images, cells]


def make_masks(
    logits: Tensor, *, upsample: int = 1, size: tuple[int, int] | None, overwrite: bool = False
) -> Tensor:
    """Soft masks from logits.

    Args:
        logits: (..., h, w), e.g. (K, h, w) or (N, K, h, w).
        upsample: factor by which the logits are enlarged, bilinearly.
        size: to which the probabilities are resized, if given.
        overwrite: the logits are nobody else's, and may be overwritten.

    Returns:
        (..., *size) or (..., h * upsample, w * upsample) float32.
    """
    # Masks as the batch, which may be empty; channels may not.
    masks = logits.float().flatten(0, -3)[:, None]
    fresh = overwrite or upsample > 1 or logits.dtype != torch.float32
    if upsample > 1:
        masks = resize_bilinear(masks, (masks.shape[2] * upsample, masks.shape[3] * upsample))
    # In place saves a CPU the page faults of another large tensor.
    masks = masks.sigmoid_() if fresh and not masks.requires_grad else masks.sigmoid()
    if size is not None and size != masks.shape[2:]:
        masks = resize_bilinear(masks, size)
    return masks.reshape(*logits.shape[:-2], *masks.shape[-2:])
