"""Meta-architectures, registered in Detectron2's `META_ARCH_REGISTRY`."""

from .panoptic_solo import PanopticSOLO, is_panoptic
from .soft_solo import SoftSOLO
from .solo import SOLO

__all__ = ["SOLO", "PanopticSOLO", "SoftSOLO", "is_panoptic"]
