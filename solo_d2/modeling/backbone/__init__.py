"""Backbones beyond Detectron2's own, registered in its `BACKBONE_REGISTRY`."""

from .timm import TimmBackbone, build_timm_fpn_backbone

__all__ = ["TimmBackbone", "build_timm_fpn_backbone"]
