r"""An NMS in one file: Cluster NMS (Zheng et al., 2020), hard NMS by a few matrix products.

solo-d2 predict --import examples/cluster_nms.py --config-file CONFIG --input photo.jpg \
        MODEL.SOLO.NMS_TYPE cluster MODEL.SOLO.NMS_THRESH_TEST 0.6
"""

from __future__ import annotations

import torch
from torch import Tensor

from solo_d2.layers import MASK_NMS, pairwise_mask_iou


def cluster_nms(masks: Tensor, labels: Tensor, scores: Tensor, *, threshold: float = 0.5) -> Tensor:
    """Remove what overlaps a higher score that is kept itself, for all masks at once.

    Every round lets only the masks that the round before has kept remove others. After at most as
    many rounds as the longest chain of overlaps nothing changes any more: that is greedy NMS.

    Args:
        masks: boolean (K, H, W).
        labels: class indices (K,); masks of different classes do not meet.
        scores: (K,) in [0, 1], in any order.
        threshold: IoU above which the lower score is removed; `MODEL.SOLO.NMS_THRESH_TEST`.

    Returns:
        Scores (K,), input order, 0 where removed.
    """
    order = scores.argsort(descending=True, stable=True)
    overlaps = pairwise_mask_iou(masks, labels)[order][:, order] > threshold
    removes = overlaps.triu(diagonal=1)
    kept = torch.ones(len(order), dtype=torch.bool, device=scores.device)
    for _ in range(len(order)):
        before, kept = kept, ~(removes & kept[:, None]).any(0)
        if torch.equal(before, kept):
            break
    factors = torch.zeros_like(scores)
    factors[order] = kept.to(scores.dtype)
    return scores * factors


MASK_NMS["cluster"] = cluster_nms
