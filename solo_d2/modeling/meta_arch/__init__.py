"""Meta-architectures, registered in Detectron2's `META_ARCH_REGISTRY`."""

from .solo import SOLO

__all__ = ["SOLO"]
