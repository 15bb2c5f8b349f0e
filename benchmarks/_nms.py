"""The four mask NMS of the paper's Table 5(e), each with its IoU and with the IoU given."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from functools import partial
from typing import Any
from unittest.mock import patch

import torch
from _timing import Result, Timer
from torch import Tensor

from solo_d2.layers import fast_nms, hard_nms, matrix_nms, pairwise_mask_iou, soft_nms

TYPES = {"Hard": hard_nms, "Soft": soft_nms, "Fast": fast_nms, "Matrix": matrix_nms}

_nms = importlib.import_module("solo_d2.layers.nms")


def compare_types(masks: Tensor, timer: Timer) -> Iterator[Result]:
    """Time every type on boolean masks (K, H, W) of one class, which all interact."""
    count, height, width = masks.shape
    labels = torch.zeros(count, dtype=torch.int64, device=masks.device)
    scores = torch.linspace(0.9, 0.1, count, device=masks.device)
    iou = pairwise_mask_iou(masks, labels)
    size = f"{count} masks of {height}x{width}"
    yield timer.compare(f"IoU of {size}", partial(pairwise_mask_iou, masks, labels))

    def given(function: Any) -> Tensor:
        with patch.object(_nms, "pairwise_mask_iou", lambda *_: iou):
            return function(masks, labels, scores)

    for name, function in TYPES.items():
        work = partial(function, masks, labels, scores)
        yield timer.compare(f"{name} NMS, {size}", work)
        yield timer.compare(f"{name} NMS, {size}, IoU given", partial(given, function))
