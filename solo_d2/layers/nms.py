"""Non-maximum suppression of masks: Matrix NMS and the methods that the paper compares it with.

All four mask NMS functions have one contract: boolean masks (K, H, W), labels (K,) and scores (K,)
in any order go in, and new scores (K,) in the same order come out. Suppression lowers a score,
removal sets it to 0. Masks of different labels do not interact. Of two equal scores the one that
comes first in the input counts as the higher. All raise a `ValueError` for tensors of another type,
shapes that do not fit, and options out of range; on a CPU also for scores that are not finite.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from .capture import exporting
from .checks import check_finite, check_tensors
from .mask_ops import pairwise_mask_iou

KERNELS = ("gaussian", "linear")


def point_nms(scores: Tensor) -> Tensor:
    """Keep the scores that no left, upper or upper-left neighbour exceeds; set the others to 0.

    Not in the paper, but in every published model: a 2x2 max pooling with stride 1, whose window
    ends at the cell itself.

    Args:
        scores: category probabilities (N, C, S, S).

    Returns:
        (N, C, S, S).

    Raises:
        ValueError: tensors of another type or shape.

    Example:
        >>> import torch
        >>> point_nms(torch.tensor([[[[0.9, 0.8, 0.1]]]]))
        tensor([[[[0.9000, 0.0000, 0.0000]]]])
    """
    check_tensors("point_nms", ("scores", scores, "floating", "N C S T"))
    # max_pool2d does the same, but a small window on many classes costs it 28 ms instead of 1 for
    # 3872 cells and 80 classes on one CPU core.
    outside = -float("inf")
    peaks = torch.maximum(scores, F.pad(scores[..., :-1], (1, 0), value=outside))
    peaks = torch.maximum(peaks, F.pad(peaks[..., :-1, :], (0, 0, 1, 0), value=outside))
    return scores * (peaks == scores)


def matrix_nms(
    masks: Tensor,
    labels: Tensor,
    scores: Tensor,
    *,
    kernel: str = "gaussian",
    sigma: float = 0.5,
) -> Tensor:
    """Matrix NMS (paper §3.3.4, Eq. 8 and 9), per class.

    Args:
        masks: boolean (K, H, W).
        labels: class indices (K,).
        scores: (K,) in [0, 1], in any order.
        kernel: ``"gaussian"``, f(iou) = exp(-iou² / sigma), or ``"linear"``, f(iou) = 1 - iou.
        sigma: width of the Gaussian, the paper's; ignored by the linear kernel.

    Returns:
        Decayed scores (K,), input order.

    Raises:
        ValueError: unknown kernel, sigma not positive, or tensors that do not fit.

    Example:
        >>> import torch
        >>> masks = torch.ones(2, 4, 4, dtype=torch.bool)
        >>> labels, scores = torch.tensor([0, 0]), torch.tensor([0.9, 0.8])
        >>> matrix_nms(masks, labels, scores)  # 0.8 · exp(-1 / 0.5)
        tensor([0.9000, 0.1083])
    """
    check_kernel("matrix_nms", kernel, sigma)
    overlaps = _overlaps("matrix_nms", masks, labels, scores)
    if len(scores) == 0 and not exporting():
        return scores
    return _weigh(scores, matrix_decay(overlaps, kernel=kernel, sigma=sigma))


def matrix_decay(overlaps: Tensor, *, kernel: str = "gaussian", sigma: float = 0.5) -> Tensor:
    """Factors of Matrix NMS.

    Args:
        overlaps: (..., K, K), as of `higher_overlaps`, K > 0.
        kernel: as for `matrix_nms`.
        sigma: likewise.

    Returns:
        (..., K).
    """
    # Eq. 8: how far i itself is suppressed, by its most overlapping predecessor.
    most = overlaps.amax(-2)[..., None]
    return pair_decay(overlaps, most, kernel=kernel, sigma=sigma).amin(-2)


def pair_decay(overlaps: Tensor, most: Tensor, *, kernel: str, sigma: float) -> Tensor:
    """Factors of Matrix NMS by which one mask decays another (Eq. 9, before the minimum).

    Args:
        overlaps: IoU of a mask with one that stands lower.
        most: the largest IoU of the former with one that stands higher still.
        kernel: as for `matrix_nms`.
        sigma: likewise.

    Returns:
        Of the shape that `overlaps` and `most` have together.
    """
    if kernel == "gaussian":
        return torch.exp((most.square() - overlaps.square()) / sigma)
    # Three equal masks make 0 / 0 here; the floor makes it 0, and the first of them, which
    # nothing suppresses, gives the third the factor 0 as well.
    return (1 - overlaps) / (1 - most).clamp(min=torch.finfo(overlaps.dtype).eps)


def fast_nms(masks: Tensor, labels: Tensor, scores: Tensor, *, threshold: float = 0.5) -> Tensor:
    """Fast NMS of YOLACT (paper Table 5e): remove what overlaps any higher score, kept or not.

    Args:
        masks: boolean (K, H, W).
        labels: class indices (K,).
        scores: (K,) in [0, 1], in any order.
        threshold: a mask with a larger IoU with a higher-scored one is removed.

    Returns:
        Scores (K,), input order, 0 where removed.

    Example:
        >>> import torch
        >>> masks = torch.ones(2, 4, 4, dtype=torch.bool)
        >>> labels, scores = torch.tensor([0, 0]), torch.tensor([0.9, 0.8])
        >>> fast_nms(masks, labels, scores)
        tensor([0.9000, 0.0000])
    """
    _check_threshold("fast_nms", threshold)
    overlaps = _overlaps("fast_nms", masks, labels, scores)
    if len(scores) == 0 and not exporting():
        return scores
    return _weigh(scores, fast_decay(overlaps, threshold=threshold))


def fast_decay(overlaps: Tensor, *, threshold: float = 0.5) -> Tensor:
    """Factors (..., K) of Fast NMS, 0 or 1; `overlaps` as for `matrix_decay`."""
    return (overlaps.amax(-2) <= threshold).to(overlaps.dtype)


def hard_nms(masks: Tensor, labels: Tensor, scores: Tensor, *, threshold: float = 0.5) -> Tensor:
    """Greedy NMS (paper Table 5e): remove what overlaps a higher score that was kept itself.

    Sequential by nature; the loop runs over ranks on the host, with one row operation each.

    Args:
        masks: boolean (K, H, W).
        labels: class indices (K,).
        scores: (K,) in [0, 1], in any order.
        threshold: a mask with a larger IoU with a kept one is removed.

    Returns:
        Scores (K,), input order, 0 where removed.

    Example:
        >>> import torch
        >>> masks = torch.ones(2, 4, 4, dtype=torch.bool)
        >>> labels, scores = torch.tensor([0, 0]), torch.tensor([0.9, 0.8])
        >>> hard_nms(masks, labels, scores)
        tensor([0.9000, 0.0000])
    """
    _check_threshold("hard_nms", threshold)
    order, ious = _ranked_ious("hard_nms", masks, labels, scores)
    overlaps = (ious > threshold).triu(diagonal=1).cpu().numpy()
    removed = np.zeros(len(order), dtype=bool)
    for rank, row in enumerate(overlaps):
        if not removed[rank]:
            removed |= row
    return _unrank(order, scores, torch.from_numpy(~removed).to(scores.device))


def soft_nms(masks: Tensor, labels: Tensor, scores: Tensor, *, sigma: float = 0.5) -> Tensor:
    """Soft-NMS with the Gaussian penalty (paper Table 5e).

    Repeatedly takes the highest remaining score and multiplies all others by
    ``exp(-iou² / sigma)``. Sequential by nature, on the host.

    Args:
        masks: boolean (K, H, W).
        labels: class indices (K,).
        scores: (K,) in [0, 1], in any order.
        sigma: width of the Gaussian penalty.

    Returns:
        Decayed scores (K,), input order.

    Example:
        >>> import torch
        >>> masks = torch.ones(2, 4, 4, dtype=torch.bool)
        >>> labels, scores = torch.tensor([0, 0]), torch.tensor([0.9, 0.8])
        >>> soft_nms(masks, labels, scores)  # 0.8 · exp(-1 / 0.5)
        tensor([0.9000, 0.1083])
    """
    _check_sigma("soft_nms", sigma)
    order, ious = _ranked_ious("soft_nms", masks, labels, scores)
    penalty = torch.exp(-ious.square() / sigma).cpu()
    decay = torch.ones(len(order))
    remaining = scores[order].float().cpu()
    for _ in range(len(order)):
        best = int(remaining.argmax())
        remaining[best] = -1  # taken: below every score, and never multiplied again
        factor = torch.where(remaining >= 0, penalty[best], 1.0)
        remaining *= factor
        decay *= factor
    return _unrank(order, scores, decay.to(scores.device))


MASK_NMS: dict[str, Callable[..., Tensor]] = {
    "matrix": matrix_nms,
    "fast": fast_nms,
    "soft": soft_nms,
    "hard": hard_nms,
}
"""Mask NMS by the value of `MODEL.SOLO.NMS_TYPE`; open to functions of your own.

Each is called as ``f(masks, labels, scores)``, with the tensors and the result that this module
describes. It also gets those of the keywords `kernel`, `sigma` and `threshold` that it declares,
from `MODEL.SOLO.NMS_KERNEL`, `NMS_SIGMA` and `NMS_THRESH_TEST`.
"""


DECAYS: dict[Callable[..., Tensor], Callable[..., Tensor]] = {
    matrix_nms: matrix_decay,
    fast_nms: fast_decay,
}
"""The functions of `MASK_NMS` that are one formula of all overlaps: what gives their factors.

The others take one mask after the other, for which a host has to wait on a GPU.
"""


def higher_overlaps(masks: Tensor, labels: Tensor, scores: Tensor) -> Tensor:
    """IoU of every mask j with every mask i of its label that stands higher, at [i, j]; else 0.

    Args:
        masks: boolean (K, H, W), or those of N images (N, K, H, W).
        labels: (K,) or (N, K).
        scores: likewise, in any order.

    Returns:
        (K, K) or (N, K, K) float32.
    """
    before, after = scores[..., :, None], scores[..., None, :]
    places = torch.arange(scores.shape[-1], device=scores.device)
    higher = (before > after) | ((before == after) & (places[:, None] < places))
    return pairwise_mask_iou(masks, labels) * higher


def check_kernel(function: str, kernel: str, sigma: float) -> None:
    """Raise a `ValueError` unless Matrix NMS has such a kernel."""
    if kernel not in KERNELS:
        raise ValueError(f"{function} expects a kernel of {KERNELS}, got {kernel!r}")
    _check_sigma(function, sigma)


def _check_sigma(function: str, sigma: float) -> None:
    if not sigma > 0:
        raise ValueError(f"{function} expects sigma > 0, got {sigma}")


def _check_threshold(function: str, threshold: float) -> None:
    if not 0 <= threshold <= 1:
        raise ValueError(f"{function} expects a threshold in [0, 1], got {threshold}")


def _ranked_ious(
    function: str, masks: Tensor, labels: Tensor, scores: Tensor
) -> tuple[Tensor, Tensor]:
    """Order by descending score (K,), and the IoU (K, K) of equal labels in that order."""
    _check_inputs(function, masks, labels, scores)
    order = scores.argsort(descending=True, stable=True)
    # Permuting the (K, K) result is cheaper than permuting K masks.
    return order, pairwise_mask_iou(masks, labels)[order[:, None], order[None, :]]


def _overlaps(function: str, masks: Tensor, labels: Tensor, scores: Tensor) -> Tensor:
    """`higher_overlaps` of checked inputs; in a graph, which may see no mask, with a spare one."""
    _check_inputs(function, masks, labels, scores)
    overlaps = higher_overlaps(masks, labels, scores)
    return F.pad(overlaps, (0, 1, 0, 1)) if exporting() else overlaps


def _check_inputs(function: str, masks: Tensor, labels: Tensor, scores: Tensor) -> None:
    check_tensors(
        function,
        ("masks", masks, "boolean", "K H W"),
        ("labels", labels, "real", "K"),
        ("scores", scores, "floating", "K"),
    )
    check_finite(function, "scores", scores)


def _weigh(scores: Tensor, factors: Tensor) -> Tensor:
    """Multiply `scores` (K,) by the first of `factors` (K or more,)."""
    return scores * factors[: scores.shape[0]].to(scores.dtype)


def _unrank(order: Tensor, scores: Tensor, factors: Tensor) -> Tensor:
    """Multiply `scores` (K,) by `factors` (K,), which are given in rank order."""
    return scores * torch.empty_like(scores).scatter_(0, order, factors.to(scores.dtype))
