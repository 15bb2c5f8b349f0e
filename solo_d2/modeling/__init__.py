"""Models; importing registers them with Detectron2 and does nothing else."""

from .backbone import build_timm_fpn_backbone
from .grid import GridSpec
from .heads import SOLO_HEAD_REGISTRY, DynamicSOLOHead, SOLOHead, build_solo_head
from .meta_arch import SOLO

__all__ = [
    "SOLO",
    "SOLO_HEAD_REGISTRY",
    "DynamicSOLOHead",
    "GridSpec",
    "SOLOHead",
    "build_solo_head",
    "build_timm_fpn_backbone",
]
