"""Edges of an image for soft masks of half its resolution (guided filter, He et al., 2013)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from .checks import check_tensors

RADIUS = 2
"""Of a neighbourhood, in pixels of the masks."""

RIDGE = 1e-4
"""Variance of colours, relative to their range, below which a neighbourhood counts as flat."""


class GuidedFilter:
    """Double the resolution of soft masks along the edges of an image.

    In every neighbourhood of 5 x 5 pixels the mask is taken for a linear function of the colours
    (r, g, b, 1), found by ridge regression. A pixel gets the mean of the functions of the
    neighbourhoods that it lies in, applied to its own colour in the finer image. Where the image
    is flat or the mask constant, that is a smoothed mask; where both have an edge nearby, the
    mask's edge moves to that of the image.

    Args:
        image: (3, 2h, 2w), values in a range of about 1.

    Example:
        >>> import torch
        >>> image = torch.zeros(3, 32, 32)
        >>> image[:, :, 15:] = 1.0  # its edge lies between the pixels of the mask
        >>> mask = torch.zeros(1, 16, 16)
        >>> mask[:, :, 7:] = 1.0
        >>> whole = slice(0, 16)
        >>> fine = GuidedFilter(image)(mask, whole, whole) > 0.5
        >>> int(fine[0, 16].int().argmax())
        15
    """

    def __init__(self, image: Tensor) -> None:
        check_tensors("GuidedFilter", ("image", image, "floating", "C H W"))
        image = image.float()
        fine = torch.cat([torch.ones_like(image[:1]), image])
        # The four pixels in one of the masks: (4, channels, h, w).
        self._fine = F.pixel_unshuffle(fine, 2).unflatten(0, (4, 4)).transpose(0, 1).contiguous()
        self._coarse = self._fine.mean(0)
        products = (self._coarse[:, None] * self._coarse[None]).flatten(0, 1)
        moments = _local_mean(products[None])[0].unflatten(0, (4, 4))
        ridge = torch.full_like(image[0, 0, :1], RIDGE).expand(4).diag()
        ridge[0, 0] = 0.0  # the constant is free
        moments = moments.permute(2, 3, 0, 1) + ridge
        inverse = torch.linalg.inv_ex(moments).inverse  # which a GPU is not waited for
        self._solve = inverse.permute(2, 3, 0, 1).contiguous()

    def __call__(self, masks: Tensor, rows: slice, columns: slice) -> Tensor:
        """Compute a window of the filtered masks.

        Args:
            masks: float32 (K, h, w).
            rows: of the masks, with a start and a stop in [0, h].
            columns: likewise.

        Returns:
            (K, 2 · rows, 2 · columns); not limited to [0, 1].
        """
        # What a window depends on: two neighbourhoods.
        y, x = (
            slice(max(0, window.start - 2 * RADIUS), window.stop + 2 * RADIUS)
            for window in (rows, columns)
        )
        seen = _local_mean(masks[:, None, y, x] * self._coarse[:, y, x])
        functions = _local_mean((self._solve[:, :, y, x] * seen[:, None]).sum(2))
        functions = functions[:, :, rows.start - y.start :, columns.start - x.start :]
        functions = functions[:, :, : rows.stop - rows.start, : columns.stop - columns.start]
        values = (functions[:, None] * self._fine[:, :, rows, columns]).sum(2)
        return F.pixel_shuffle(values, 2)[:, 0]


def _local_mean(x: Tensor) -> Tensor:
    """Mean of the neighbourhood of every pixel (N, C, h, w); the border is repeated outside."""
    side = 2 * RADIUS + 1
    x = F.pad(x, (RADIUS,) * 4, mode="replicate")
    for axis in (2, 3):  # sums of shifted maps: several times faster than pooling on a CPU
        length = x.shape[axis] - 2 * RADIUS
        total = x.narrow(axis, 0, length) + x.narrow(axis, 1, length)
        for start in range(2, side):
            total += x.narrow(axis, start, length)
        x = total
    return x / side**2
