"""Segmentations that others wrote: what each means, checked before any C code sees it."""

from .check import Segmentations, check_segmentations, decode_mask, mask_box
from .encode import encode_mask, to_rle
from .forms import read_form
from .measures import MaskMeasures, measure_masks
from .reasons import Problem, Reason

__all__ = [
    "MaskMeasures",
    "Problem",
    "Reason",
    "Segmentations",
    "check_segmentations",
    "decode_mask",
    "encode_mask",
    "mask_box",
    "measure_masks",
    "read_form",
    "to_rle",
]
