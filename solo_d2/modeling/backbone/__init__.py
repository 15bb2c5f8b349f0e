"""Backbones beyond Detectron2's own, registered in its `BACKBONE_REGISTRY`."""

from .pyramid import PathAggregationFPN
from .resnet import (
    DeformBottleneckBlock,
    MergedBackbone,
    build_deform_resnet_backbone,
    build_deform_resnet_fpn_backbone,
    build_merged_resnet_backbone,
)
from .timm import TimmBackbone, build_timm_fpn_backbone

__all__ = [
    "DeformBottleneckBlock",
    "MergedBackbone",
    "PathAggregationFPN",
    "TimmBackbone",
    "build_deform_resnet_backbone",
    "build_deform_resnet_fpn_backbone",
    "build_merged_resnet_backbone",
    "build_timm_fpn_backbone",
]
