"""Levels of the backbone's features, and who reads them."""

from __future__ import annotations

from detectron2.config import CfgNode

from ..config.unused import covers
from .model_config import feature_names, head_uses

__all__ = ["has_unread_levels"]


def has_unread_levels(cfg: CfgNode) -> bool:
    """Return whether the backbone yields features that nothing reads, so that layers are idle."""
    node, uses = cfg.MODEL.SOLO, set(head_uses(cfg.MODEL.SOLO.HEAD) or ())
    read = set(node.IN_FEATURES)
    if covers(uses, "MODEL.SOLO.MASK_FEATURE.IN_FEATURES") and node.MASK_FEATURE.TYPE == "unified":
        read.update(node.MASK_FEATURE.IN_FEATURES)
    if cfg.MODEL.META_ARCHITECTURE == "PanopticSOLO":
        read.update(cfg.MODEL.SEM_SEG_HEAD.IN_FEATURES)
    return not read.issuperset(feature_names(cfg) or ())
