"""Registry of heads."""

from __future__ import annotations

from typing import TYPE_CHECKING

from detectron2.config import CfgNode
from detectron2.layers import ShapeSpec
from detectron2.utils.registry import Registry

from ..grid import GridSpec

if TYPE_CHECKING:
    from .base import SOLOHead

SOLO_HEAD_REGISTRY = Registry("SOLO_HEAD")
SOLO_HEAD_REGISTRY.__doc__ = """
Heads of SOLO: everything between the feature pyramid and soft masks.

A registered class is called as ``cls(cfg, input_shape, grid)`` with the config, the shapes of the
backbone's features by name, and the grid pyramid. It must be a `SOLOHead`: its forward takes the
dict of features and returns `SOLOPredictions`, and its `mask_probs` turns cells into soft masks;
a subclass sets `mask_strides` and defines `mask_inputs` and `level_probs`, from which they follow.
Training, inference, boxes, panoptic merging and export need nothing else of it.
"""


def build_solo_head(cfg: CfgNode, input_shape: dict[str, ShapeSpec], grid: GridSpec) -> SOLOHead:
    """Build the head that `MODEL.SOLO.HEAD` names.

    Raises:
        ValueError: no head of that name is registered.

    Example:
        >>> from detectron2.layers import ShapeSpec
        >>> from solo_d2.testing import tiny_config
        >>> cfg = tiny_config()
        >>> shapes = {f"p{k}": ShapeSpec(channels=32, stride=2**k) for k in range(2, 7)}
        >>> node = cfg.MODEL.SOLO
        >>> grid = GridSpec.build(node.NUM_GRIDS, node.SCALE_RANGES, [8, 8, 16, 32, 32])
        >>> build_solo_head(cfg, shapes, grid).num_classes
        3
    """
    name = cfg.MODEL.SOLO.HEAD
    if name not in SOLO_HEAD_REGISTRY:
        known = ", ".join(sorted(known for known, _ in SOLO_HEAD_REGISTRY))
        raise ValueError(f"MODEL.SOLO.HEAD is {name!r}, which is not registered; known: {known}")
    return SOLO_HEAD_REGISTRY.get(name)(cfg, input_shape, grid)
