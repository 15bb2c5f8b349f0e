"""Recognise the architecture of a SOLO by the names and shapes of its parameters.

All names are this package's; `key_maps` translates those of other projects.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

Shapes = Mapping[str, tuple[int, ...]]

DEPTHS = {
    18: (2, 2, 2, 2),
    34: (3, 4, 6, 3),
    50: (3, 4, 6, 3),
    101: (3, 4, 23, 3),
    152: (3, 8, 36, 3),
}
"""Depth of a ResNet -> blocks per stage; from 50 on they are bottlenecks."""

_STEM = "backbone.bottom_up."
_PLAIN = (False, False, False, False)

_NAMES = {
    "VanillaSOLOHead": "SOLO",
    "DecoupledSOLOHead": "Decoupled SOLO",
    "DecoupledLightSOLOHead": "Decoupled SOLO light",
}


@dataclass(frozen=True)
class Architecture:
    """Properties of a SOLO model that determine its parameters.

    Attributes:
        head: class of the head.
        num_convs: layers of every tower.
        conv_dim: their channels.
        kernel_dim: input channels of a kernel; 0 for a head without kernels.
        feature_conv_dim: channels of the mask feature's layers; likewise.
        num_grids: cells per side; () for dynamic heads, whose parameters do not depend on them.
        deform: deformable layers of the head, "none", "last" or "all".
        modulated: these are deformable convolutions v2, otherwise v1.
        depth: of the ResNet.
        stem_dim: channels of its first layer.
        res2_dim: channels of its first stage's output.
        num_groups: of its 3x3 convolutions.
        width_per_group: channels of every group in the first stage.
        deform_stages: which of res2 to res5 are deformable.
        stages_modulated: like `modulated`.
        fpn_dim: channels of the feature pyramid.
        num_classes: number of classes.
    """

    head: str
    num_convs: int
    conv_dim: int
    kernel_dim: int = 0
    feature_conv_dim: int = 0
    num_grids: tuple[int, ...] = ()
    deform: str = "none"
    modulated: bool = True
    depth: int = 50
    stem_dim: int = 64
    res2_dim: int = 256
    num_groups: int = 1
    width_per_group: int = 64
    deform_stages: tuple[bool, ...] = _PLAIN
    stages_modulated: bool = True
    fpn_dim: int = 256
    num_classes: int = 80

    @property
    def bottlenecks(self) -> bool:
        """Whether the blocks of the ResNet are bottlenecks."""
        return self.depth >= 50

    def settings(self) -> dict[str, Any]:
        """Return the config keys that build it, without those that its head does not use."""
        node = {
            "HEAD": self.head,
            "NUM_CLASSES": self.num_classes,
            "NUM_CONVS": self.num_convs,
            "CONV_DIM": self.conv_dim,
            "DEFORM": self.deform,
        }
        if self.deform != "none":
            node["DEFORM_MODULATED"] = self.modulated
        if self.num_grids:
            node["NUM_GRIDS"] = list(self.num_grids)
        if self.kernel_dim:
            node["KERNEL_DIM"] = self.kernel_dim
            node["MASK_FEATURE.CONV_DIM"] = self.feature_conv_dim
        resnet = {
            "DEPTH": self.depth,
            "NUM_GROUPS": self.num_groups,
            "WIDTH_PER_GROUP": self.width_per_group,
            "STEM_OUT_CHANNELS": self.stem_dim,
            "RES2_OUT_CHANNELS": self.res2_dim,
            "DEFORM_ON_PER_STAGE": list(self.deform_stages),
        }
        deformable = any(self.deform_stages)
        if deformable:
            resnet["DEFORM_MODULATED"] = self.stages_modulated
        backbone = f"build_{'deform_' if deformable else ''}resnet_fpn_backbone"
        return {
            **{f"MODEL.SOLO.{key}": value for key, value in node.items()},
            **{f"MODEL.RESNETS.{key}": value for key, value in resnet.items()},
            "MODEL.FPN.OUT_CHANNELS": self.fpn_dim,
            "MODEL.BACKBONE.NAME": backbone,
        }

    def __str__(self) -> str:
        """Return a readable name, e.g. "SOLOv2-light R50-DCNv2"."""
        name = _NAMES.get(self.head, self.head)
        if self.head == "DynamicSOLOHead":
            name = "SOLOv2" if self.conv_dim >= 512 else "SOLOv2-light"
        body = f"R{self.depth}"
        if self.num_groups > 1:
            body = f"X{self.depth}-{self.num_groups}x{self.width_per_group}d"
        if any(self.deform_stages):
            body += f"-DCNv{2 if self.stages_modulated else 1}"
        return f"{name} {body}"


def recognise(head: str, shapes: Shapes) -> Architecture:
    """Derive the architecture from the shapes of a complete state dict.

    Args:
        head: class of the head.
        shapes: by this package's names. Only some of them are looked at.

    Raises:
        ValueError: one of those is missing, or no config of this package could build the model.
    """
    depth = _depth(shapes)
    conv1, conv2 = (_shape(shapes, f"{_STEM}res2.0.conv{i}.weight") for i in (1, 2))
    num_groups = conv1[0] // conv2[1] if depth >= 50 else 1
    offsets = [shapes.get(f"{_STEM}res{i}.0.conv2_offset.weight") for i in range(2, 6)]
    num_convs = _count(shapes, r"head\.category_tower\.(\d+)\.")
    tower = [shapes.get(f"head.category_tower.{i}.conv_offset.weight") for i in range(num_convs)]
    deform = "none"
    if num_convs and tower[-1] is not None:
        deform = "last" if tower[0] is None else "all"
    dynamic = any(key.startswith("head.kernel_predictor.") for key in shapes)
    stage = "head.mask_feature.stages.0.0.weight"
    return Architecture(
        head=head,
        num_convs=num_convs,
        conv_dim=_shape(shapes, "head.category_tower.0.weight")[0],
        kernel_dim=_shape(shapes, "head.kernel_predictor.weight")[0] if dynamic else 0,
        feature_conv_dim=_shape(shapes, stage)[0] if dynamic else 0,
        num_grids=_grids(shapes),
        deform=deform,
        modulated=_modulated(tower[-1:]),
        depth=depth,
        stem_dim=_shape(shapes, f"{_STEM}stem.conv1.weight")[0],
        res2_dim=_shape(shapes, f"{_STEM}res2.0.conv{3 if depth >= 50 else 2}.weight")[0],
        num_groups=num_groups,
        width_per_group=conv1[0] // num_groups,
        deform_stages=tuple(shape is not None for shape in offsets),
        stages_modulated=_modulated(offsets),
        fpn_dim=_shape(shapes, "backbone.fpn_lateral2.weight")[0],
        num_classes=_shape(shapes, "head.category_predictor.weight")[0],
    )


def _shape(shapes: Shapes, key: str) -> tuple[int, ...]:
    """Return the shape of a convolution's weight: four dimensions, none of them 0."""
    if key not in shapes:
        raise ValueError(f"the state dict is incomplete: {key} is missing")
    shape = shapes[key]
    if len(shape) != 4 or 0 in shape:
        raise ValueError(f"{key} must be the weight of a convolution, got the shape {shape}")
    return shape


def _count(shapes: Shapes, pattern: str) -> int:
    found = (re.match(pattern, key) for key in shapes)
    return len({match[1] for match in found if match})


def _depth(shapes: Shapes) -> int:
    stem = re.escape(_STEM)
    blocks = tuple(_count(shapes, rf"{stem}res{i}\.(\d+)\.") for i in range(2, 6))
    bottlenecks = f"{_STEM}res2.0.conv3.weight" in shapes
    for depth, known in DEPTHS.items():
        if blocks == known and bottlenecks == (depth >= 50):
            return depth
    raise ValueError(
        f"the backbone is none of the ResNets {sorted(DEPTHS)}: its stages have {blocks} "
        f"{'bottleneck' if bottlenecks else 'basic'} blocks"
    )


def _modulated(offsets: list[tuple[int, ...] | None]) -> bool:
    """Return whether deformable convolutions are v2, by the shapes of their offset predictors."""
    channels = {shape[0] for shape in offsets if shape}
    if channels <= {27}:
        return True
    if channels == {18}:
        return False
    raise ValueError(
        f"deformable convolutions with {sorted(channels)} offset channels are not known; expected "
        "18 (v1) or 27 (v2), the same in all"
    )


def _grids(shapes: Shapes) -> tuple[int, ...]:
    """Derive the cells per side of every level from the mask predictors; () without any."""
    for name, squared in (("mask_predictors", True), ("x_predictors", False)):
        levels = _count(shapes, rf"head\.{name}\.(\d+)\.")
        channels = [_shape(shapes, f"head.{name}.{i}.weight")[0] for i in range(levels)]
        if channels:
            return tuple(math.isqrt(n) if squared else n for n in channels)
    return ()
