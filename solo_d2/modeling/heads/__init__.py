"""Heads of the SOLO family, interchangeable by `MODEL.SOLO.HEAD`."""

from .base import SOLOHead
from .build import SOLO_HEAD_REGISTRY, build_solo_head
from .dynamic import DynamicSOLOHead

__all__ = ["SOLO_HEAD_REGISTRY", "DynamicSOLOHead", "SOLOHead", "build_solo_head"]
