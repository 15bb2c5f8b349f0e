"""Heads of the SOLO family, interchangeable by `MODEL.SOLO.HEAD`."""

from .base import SOLOHead, check_features
from .build import SOLO_HEAD_REGISTRY, build_solo_head
from .decoupled import DecoupledLightSOLOHead, DecoupledSOLOHead
from .decoupled_dynamic import DecoupledDynamicSOLOHead
from .dynamic import DynamicSOLOHead
from .mask_features import SeparateMaskFeature, UnifiedMaskFeature
from .masks import make_masks, take_cells
from .soft_dynamic import SoftDynamicSOLOHead
from .vanilla import VanillaSOLOHead

__all__ = [
    "SOLO_HEAD_REGISTRY",
    "DecoupledDynamicSOLOHead",
    "DecoupledLightSOLOHead",
    "DecoupledSOLOHead",
    "DynamicSOLOHead",
    "SOLOHead",
    "SeparateMaskFeature",
    "SoftDynamicSOLOHead",
    "UnifiedMaskFeature",
    "VanillaSOLOHead",
    "build_solo_head",
    "check_features",
    "make_masks",
    "take_cells",
]
