"""Matrix NMS of any number of encoded masks: only masks whose boxes meet are compared."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pycocotools.mask as mask_util
import torch
from torch import Tensor

from .checks import check_finite, check_tensors
from .encoded_masks import EncodedMasks
from .nms import check_kernel, pair_decay

_ROWS = 256
"""Masks that are compared with others at a time: memory is this times their number."""


def encoded_matrix_nms(
    masks: EncodedMasks,
    labels: Tensor,
    scores: Tensor,
    groups: Tensor | None = None,
    *,
    kernel: str = "gaussian",
    sigma: float = 0.5,
) -> Tensor:
    """Matrix NMS as `matrix_nms`, of masks that are never decoded.

    Args:
        masks: K encoded masks.
        labels: class indices (K,).
        scores: (K,) in [0, 1], in any order.
        groups: (K,) whole numbers; masks of the same group do not decay each other.
        kernel: as for `matrix_nms`.
        sigma: likewise.

    Returns:
        Decayed scores (K,), input order, on the CPU.

    Raises:
        ValueError: unknown kernel, sigma not positive, or tensors that do not fit.

    Example:
        >>> import numpy as np, torch
        >>> square = np.ones((4, 4), bool)
        >>> masks = EncodedMasks.from_crops([(2, 2, square), (2, 2, square)], (90, 90))
        >>> encoded_matrix_nms(masks, torch.tensor([0, 0]), torch.tensor([0.9, 0.8]))
        tensor([0.9000, 0.1083])
    """
    check_kernel("encoded_matrix_nms", kernel, sigma)
    count = torch.empty((len(masks), 0))
    alone = torch.arange(len(masks)) if groups is None else groups.cpu()
    check_tensors(
        "encoded_matrix_nms",
        ("masks", count, "real", "K N"),
        ("labels", labels.cpu(), "real", "K"),
        ("scores", scores.cpu(), "floating", "K"),
        ("groups", alone, "integer", "K"),
    )
    scores, labels = scores.cpu(), labels.cpu()
    check_finite("encoded_matrix_nms", "scores", scores)
    higher, lower, ious = overlapping_pairs(masks, labels, scores, alone)
    nothing = ious.new_zeros(len(masks))
    # As in `matrix_decay`, without the pairs of IoU 0: they decay nothing, and a factor is at
    # most 1, since nothing stands above the highest score.
    most = nothing.scatter_reduce(0, lower, ious, "amax")
    factors = pair_decay(ious, most[higher], kernel=kernel, sigma=sigma)
    return scores * (nothing + 1).scatter_reduce(0, lower, factors, "amin").to(scores.dtype)


def overlapping_pairs(
    masks: EncodedMasks, labels: Tensor, scores: Tensor, groups: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Pairs of masks that overlap, of one label and of two groups.

    Args:
        masks: K encoded masks.
        labels: (K,), on the CPU, as what follows.
        scores: (K,), in any order; of two equal ones the first is the higher.
        groups: (K,).

    Returns:
        Of P pairs the mask with the higher score and that with the lower, (P,), and their IoU (P,).
    """
    rank = torch.empty(len(masks), dtype=torch.int64)
    rank[scores.argsort(descending=True, stable=True)] = torch.arange(len(masks))
    found = [torch.zeros((2, 0), dtype=torch.int64)]
    values = [torch.zeros(0)]
    for rows, columns in _neighbours(masks.boxes, labels.numpy()):
        rles = [masks[rows].rles(), masks[columns].rles()]
        ious = torch.from_numpy(mask_util.iou(rles[0], rles[1], [0] * len(columns)))
        one, other = (torch.from_numpy(x) for x in (rows, columns))
        meets = (ious > 0) & (labels[one][:, None] == labels[other])
        meets &= (groups[one][:, None] != groups[other]) & (rank[one][:, None] < rank[other])
        places = meets.nonzero(as_tuple=True)
        found.append(torch.stack([one[places[0]], other[places[1]]]))
        values.append(ious[places].float())
    higher, lower = torch.cat(found, dim=1)
    return higher, lower, torch.cat(values)


def _neighbours(boxes: np.ndarray, labels: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield some masks at a time, and those of their labels whose boxes may meet theirs."""
    order = np.lexsort((boxes[:, 1], labels))  # from top to bottom, so that few boxes may
    for start in range(0, len(order), _ROWS):
        rows = order[start : start + _ROWS]
        top, bottom = boxes[rows, 1].min(), boxes[rows, 3].max()
        near = (boxes[:, 1] < bottom) & (boxes[:, 3] > top)
        near &= (labels >= labels[rows[0]]) & (labels <= labels[rows[-1]])
        yield rows, np.flatnonzero(near)
