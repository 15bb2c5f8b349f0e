"""Models; importing registers them with Detectron2 and does nothing else."""

from .backbone import (
    build_deform_resnet_backbone,
    build_deform_resnet_fpn_backbone,
    build_merged_resnet_backbone,
    build_timm_fpn_backbone,
)
from .criterion import MASK_LOSSES
from .cuda_graphs import compile
from .grid import GridSpec
from .heads import (
    SOLO_HEAD_REGISTRY,
    DecoupledDynamicSOLOHead,
    DecoupledLightSOLOHead,
    DecoupledSOLOHead,
    DynamicSOLOHead,
    SoftDynamicSOLOHead,
    SOLOHead,
    VanillaSOLOHead,
    build_solo_head,
)
from .meta_arch import SOLO, PanopticSOLO, SoftSOLO
from .semantic import SOLOSemSegHead

__all__ = [
    "MASK_LOSSES",
    "SOLO",
    "SOLO_HEAD_REGISTRY",
    "DecoupledDynamicSOLOHead",
    "DecoupledLightSOLOHead",
    "DecoupledSOLOHead",
    "DynamicSOLOHead",
    "GridSpec",
    "PanopticSOLO",
    "SOLOHead",
    "SOLOSemSegHead",
    "SoftDynamicSOLOHead",
    "SoftSOLO",
    "VanillaSOLOHead",
    "build_deform_resnet_backbone",
    "build_deform_resnet_fpn_backbone",
    "build_merged_resnet_backbone",
    "build_solo_head",
    "build_timm_fpn_backbone",
    "compile",
]
