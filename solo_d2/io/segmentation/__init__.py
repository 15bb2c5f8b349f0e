"""Segmentations that others wrote: what each means, checked before any C code sees it."""

from .check import Segmentations, check_segmentations, decode_mask, mask_box
from .encode import encode_mask, to_rle
from .reasons import Problem, Reason

__all__ = [
    "Problem",
    "Reason",
    "Segmentations",
    "check_segmentations",
    "decode_mask",
    "encode_mask",
    "mask_box",
    "to_rle",
]
