"""Detectron2's ResNets, with deformable convolutions that also run on the CPU, under two necks."""

from __future__ import annotations

import math

import fvcore.nn.weight_init as weight_init
import torch
import torch.nn.functional as F
from detectron2.config import CfgNode
from detectron2.layers import CNNBlockBase, Conv2d, ShapeSpec, get_norm
from detectron2.modeling import BACKBONE_REGISTRY, FPN, Backbone, ResNet
from detectron2.modeling.backbone.resnet import BottleneckBlock
from detectron2.modeling.backbone.resnet import build_resnet_backbone as build_plain_resnet
from torch import Tensor, nn

from ...layers.deform_conv import deform_conv, offset_channels
from .pyramid import build_pyramid

_DEPTHS = (18, 34, 50, 101, 152)
_STAGES = ("res2", "res3", "res4", "res5")


class EvalBatchNorm2d(nn.BatchNorm2d):
    """Batch norm with the statistics of its weights, also in training; scale and shift are trained.

    Entries of its state dict are those of Detectron2's `FrozenBatchNorm2d`.

    Args:
        num_features: channels.
    """

    def __init__(self, num_features: int) -> None:
        super().__init__(num_features, track_running_stats=False)  # adds no counter of batches
        self.running_mean = torch.zeros(num_features)
        self.running_var = torch.ones(num_features)
        self.eval()

    def train(self, mode: bool = True) -> EvalBatchNorm2d:  # noqa: ARG002 - of every module
        """Stay in evaluation mode."""
        return super().train(False)


class DeformBottleneckBlock(CNNBlockBase):
    """A bottleneck block whose 3x3 convolution is deformable.

    Twin of Detectron2's block of the same name, with its parameters' names and its results, but
    by torchvision, so that it needs neither a GPU nor compiled code.

    Args:
        block: the plain block, whose layers this one takes over.
        modulated: deformable convolution v2, otherwise v1.
        num_groups: groups of channels with offsets of their own.

    Raises:
        ValueError: `num_groups` does not divide the channels of the 3x3 convolution.
    """

    def __init__(self, block: BottleneckBlock, *, modulated: bool, num_groups: int = 1) -> None:
        super().__init__(block.in_channels, block.out_channels, block.stride)
        conv = block.conv2
        if num_groups < 1 or conv.in_channels % num_groups:
            raise ValueError(
                f"MODEL.RESNETS.DEFORM_NUM_GROUPS is {num_groups}, which does not divide "
                f"{conv.in_channels} channels"
            )
        self.modulated = modulated
        self.shortcut = block.shortcut
        self.conv1 = block.conv1
        self.conv2_offset = Conv2d(
            conv.in_channels,
            offset_channels(3, num_groups, modulated),
            kernel_size=3,
            stride=conv.stride,
            padding=conv.padding,
            dilation=conv.dilation,
        )
        for parameter in self.conv2_offset.parameters():
            nn.init.zeros_(parameter)
        self.conv2 = conv
        self.conv3 = block.conv3

    def forward(self, x: Tensor) -> Tensor:
        """Compute (N, out_channels, h / stride, w / stride) of (N, in_channels, h, w)."""
        out = F.relu_(self.conv1(x))
        out = deform_conv(out, self.conv2_offset(out), self.conv2, modulated=self.modulated)
        if self.conv2.norm is not None:
            out = self.conv2.norm(out)
        out = self.conv3(F.relu_(out))
        out += x if self.shortcut is None else self.shortcut(x)
        return F.relu_(out)


class MergedBackbone(Backbone):
    """One map made of several: the neck of single-level SOLO (paper §4.2.1, Table 4a).

    The paper says that C3, C4 and C5 are merged at stride 8. Here a 1x1 convolution brings each to
    the same width, the coarser ones are enlarged (bilinear), and their sum goes through a 3x3
    convolution, as in the FPN's finest level.

    Args:
        bottom_up: backbone with the features to merge.
        in_features: their names, finest first.
        out_channels: channels of the result, which is named after the stride of the finest
            feature: "p3" is stride 8.
        norm: normalisation, as for `detectron2.layers.get_norm`.
    """

    def __init__(
        self, bottom_up: Backbone, in_features: list[str], out_channels: int, norm: str = ""
    ) -> None:
        super().__init__()
        shapes = bottom_up.output_shape()
        unknown = [name for name in in_features if name not in shapes]
        if unknown or not in_features:
            raise ValueError(
                f"MODEL.FPN.IN_FEATURES is {list(in_features)}, but the ResNet yields "
                f"{list(shapes)} (MODEL.RESNETS.OUT_FEATURES)"
            )
        self.bottom_up = bottom_up
        self.in_features = list(in_features)
        self.laterals = nn.ModuleList(
            _conv(shapes[name].channels, out_channels, 1, norm) for name in in_features
        )
        self.output = _conv(out_channels, out_channels, 3, norm)
        self._stride = shapes[in_features[0]].stride
        self._size_divisibility = max(shapes[name].stride for name in in_features)
        self._out_channels = out_channels
        self._out_feature = f"p{int(math.log2(self._stride))}"

    @property
    def size_divisibility(self) -> int:
        """What the sides of the input must be divisible by."""
        return self._size_divisibility

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """Merge the features of a batch (N, 3, H, W) into one map, by its name."""
        features = self.bottom_up(x)
        merged, *coarser = (
            lateral(features[name])
            for name, lateral in zip(self.in_features, self.laterals, strict=True)
        )
        for level in coarser:
            merged = merged + F.interpolate(
                level, size=merged.shape[-2:], mode="bilinear", align_corners=False
            )
        return {self._out_feature: self.output(merged)}

    def output_shape(self) -> dict[str, ShapeSpec]:
        """Channels and stride of the one feature."""
        return {self._out_feature: ShapeSpec(channels=self._out_channels, stride=self._stride)}


def _conv(in_channels: int, out_channels: int, kernel_size: int, norm: str) -> Conv2d:
    conv = Conv2d(
        in_channels,
        out_channels,
        kernel_size=kernel_size,
        padding=kernel_size // 2,
        bias=not norm,
        norm=get_norm(norm, out_channels),
    )
    weight_init.c2_xavier_fill(conv)
    return conv


@BACKBONE_REGISTRY.register()
def build_deform_resnet_backbone(cfg: CfgNode, input_shape: ShapeSpec) -> ResNet:
    """Build Detectron2's ResNet; `MODEL.RESNETS.DEFORM_*` work on every device.

    Without deformable stages and `MODEL.RESNETS.NORM_EVAL` it is Detectron2's own.

    Raises:
        ValueError: unknown depth, or deformable stages where there can be none.

    Example:
        >>> from detectron2.layers import ShapeSpec
        >>> from solo_d2.testing import tiny_config
        >>> backbone = build_deform_resnet_backbone(tiny_config(), ShapeSpec(channels=3))
        >>> {name: shape.stride for name, shape in backbone.output_shape().items()}
        {'res2': 4, 'res3': 8, 'res4': 16, 'res5': 32}
    """
    node = cfg.MODEL.RESNETS
    if node.DEPTH not in _DEPTHS:
        raise ValueError(f"MODEL.RESNETS.DEPTH must be one of {_DEPTHS}, got {node.DEPTH}")
    if len(node.DEFORM_ON_PER_STAGE) != len(_STAGES):
        raise ValueError(
            f"MODEL.RESNETS.DEFORM_ON_PER_STAGE expects a value for each of {_STAGES}, got "
            f"{node.DEFORM_ON_PER_STAGE}"
        )
    if any(node.DEFORM_ON_PER_STAGE) and node.DEPTH < 50:
        raise ValueError(
            f"MODEL.RESNETS.DEFORM_ON_PER_STAGE needs bottleneck blocks, but ResNet-{node.DEPTH} "
            "has none; use depth 50 or more, or set it to [False, False, False, False]"
        )
    plain = cfg.clone()
    plain.defrost()
    plain.MODEL.RESNETS.DEFORM_ON_PER_STAGE = [False] * len(_STAGES)
    plain.MODEL.BACKBONE.FREEZE_AT = 0
    resnet = build_plain_resnet(plain, input_shape)
    for name, deform in zip(_STAGES, node.DEFORM_ON_PER_STAGE, strict=True):
        if not deform or name not in resnet.stage_names:
            continue  # stages behind the last wanted feature do not exist
        stage = getattr(resnet, name)
        for i, block in enumerate(stage):
            stage[i] = DeformBottleneckBlock(
                block, modulated=node.DEFORM_MODULATED, num_groups=node.DEFORM_NUM_GROUPS
            )
    if node.get("NORM_EVAL", False):
        _keep_statistics(resnet)
    return resnet.freeze(cfg.MODEL.BACKBONE.FREEZE_AT)


def _keep_statistics(module: nn.Module) -> None:
    for name, child in module.named_children():
        if isinstance(child, nn.BatchNorm2d):
            setattr(module, name, EvalBatchNorm2d(child.num_features))
        else:
            _keep_statistics(child)


@BACKBONE_REGISTRY.register()
def build_deform_resnet_fpn_backbone(cfg: CfgNode, input_shape: ShapeSpec) -> FPN:
    """Build the ResNet of `build_deform_resnet_backbone` under an FPN with P2 to P6.

    Example:
        >>> from detectron2.layers import ShapeSpec
        >>> from solo_d2.testing import tiny_config
        >>> cfg = tiny_config("MODEL.BACKBONE.NAME", "build_deform_resnet_fpn_backbone")
        >>> backbone = build_deform_resnet_fpn_backbone(cfg, ShapeSpec(channels=3))
        >>> {name: shape.stride for name, shape in backbone.output_shape().items()}
        {'p2': 4, 'p3': 8, 'p4': 16, 'p5': 32, 'p6': 64}
    """
    return build_pyramid(cfg, build_deform_resnet_backbone(cfg, input_shape))


@BACKBONE_REGISTRY.register()
def build_merged_resnet_backbone(cfg: CfgNode, input_shape: ShapeSpec) -> MergedBackbone:
    """Build the ResNet of `build_deform_resnet_backbone` under a `MergedBackbone`.

    `MODEL.FPN.IN_FEATURES`, `OUT_CHANNELS` and `NORM` apply.

    Raises:
        ValueError: `MODEL.FPN.FUSE_TYPE` is not "sum".

    Example:
        >>> from detectron2.layers import ShapeSpec
        >>> from solo_d2.testing import tiny_config
        >>> cfg = tiny_config("MODEL.BACKBONE.NAME", "build_merged_resnet_backbone")
        >>> backbone = build_merged_resnet_backbone(cfg, ShapeSpec(channels=3))
        >>> {name: shape.stride for name, shape in backbone.output_shape().items()}
        {'p2': 4}
    """
    node = cfg.MODEL.FPN
    if node.FUSE_TYPE != "sum":
        raise ValueError(
            f'MODEL.FPN.FUSE_TYPE must be "sum" for the merged backbone, got {node.FUSE_TYPE!r}'
        )
    return MergedBackbone(
        build_deform_resnet_backbone(cfg, input_shape),
        node.IN_FEATURES,
        node.OUT_CHANNELS,
        node.NORM,
    )
