"""Semantic segmentation beside instances (paper §4.6): the branch, and its output's resizing.

Shapes: N images, C classes (0 stands for all things), (H, W) the padded network input.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from detectron2.config import CfgNode, configurable
from detectron2.layers import Conv2d, ShapeSpec
from detectron2.modeling.meta_arch import SEM_SEG_HEADS_REGISTRY
from torch import Tensor, nn

from ..layers import resize_bilinear
from .heads.base import check_features
from .heads.mask_features import UnifiedMaskFeature
from .towers import LayerStyle, init_convs


@SEM_SEG_HEADS_REGISTRY.register()
class SOLOSemSegHead(nn.Module):
    """The mask feature branch without coordinates, and a 1x1 convolution to the classes.

    Works wherever Detectron2's `SemSegFPNHead` does, with the same keys of `MODEL.SEM_SEG_HEAD`.

    Args:
        input_shape: of the backbone's features.
        in_features: names of the features, finest first; each twice as coarse as the one before.
        num_classes: C.
        conv_dims: channels of the layers.
        common_stride: stride of the finest feature, at which logits are made.
        loss_weight: of the cross entropy; 0.5 as in Panoptic FPN.
        norm: normalisation.
        ignore_value: label of pixels without a class.

    Raises:
        ValueError: unknown features, or a `common_stride` that is not the finest's stride.

    Example:
        >>> import torch
        >>> from detectron2.layers import ShapeSpec
        >>> from solo_d2.testing import tiny_config
        >>> shapes = {f"p{k}": ShapeSpec(channels=32, stride=2**k) for k in (2, 3, 4, 5)}
        >>> head = SOLOSemSegHead(tiny_config(), shapes).eval()
        >>> features = {f"p{k}": torch.zeros(1, 32, 256 >> k, 256 >> k) for k in (2, 3, 4, 5)}
        >>> head(features)[0].shape
        torch.Size([1, 54, 256, 256])
    """

    @configurable
    def __init__(
        self,
        input_shape: dict[str, ShapeSpec],
        *,
        in_features: list[str],
        num_classes: int,
        conv_dims: int,
        common_stride: int,
        loss_weight: float,
        norm: str,
        ignore_value: int,
    ) -> None:
        super().__init__()
        check_features("SEM_SEG_HEAD.IN_FEATURES", in_features, list(input_shape))
        finest = input_shape[in_features[0]]
        if finest.stride != common_stride:
            raise ValueError(
                f"MODEL.SEM_SEG_HEAD.COMMON_STRIDE is {common_stride}, but {in_features[0]}, the "
                f"first of IN_FEATURES, has the stride {finest.stride}; they must be equal"
            )
        self.common_stride = common_stride
        self.loss_weight = loss_weight
        self.ignore_value = ignore_value
        self.feature = UnifiedMaskFeature(
            in_channels=finest.channels,
            in_features=in_features,
            channels=conv_dims,
            out_channels=conv_dims,
            style=LayerStyle(norm),
            coords=False,
        )
        self.predictor = Conv2d(conv_dims, num_classes, kernel_size=1)
        init_convs(self.predictor)

    @classmethod
    def from_config(cls, cfg: CfgNode, input_shape: dict[str, ShapeSpec]) -> dict[str, Any]:
        """Read `cfg.MODEL.SEM_SEG_HEAD`."""
        node = cfg.MODEL.SEM_SEG_HEAD
        return {
            "input_shape": input_shape,
            "in_features": node.IN_FEATURES,
            "num_classes": node.NUM_CLASSES,
            "conv_dims": node.CONVS_DIM,
            "common_stride": node.COMMON_STRIDE,
            "loss_weight": node.LOSS_WEIGHT,
            "norm": node.NORM,
            "ignore_value": node.IGNORE_VALUE,
        }

    def forward(
        self, features: dict[str, Tensor], targets: Tensor | None = None
    ) -> tuple[Tensor | None, dict[str, Tensor]]:
        """Losses or logits, as Detectron2's semantic heads return them.

        Args:
            features: of the backbone, by name.
            targets: labels (N, H, W), int64; in training only.

        Returns:
            In training None and ``loss_sem_seg``, weighted; else logits (N, C, H, W) and {}.
        """
        logits = self.layers(features)
        if self.training:
            return None, self.losses(logits, targets)
        return self._enlarge(logits), {}

    def layers(self, features: dict[str, Tensor]) -> Tensor:
        """Logits (N, C, H / common_stride, W / common_stride)."""
        return self.predictor(self.feature(features, [features[self.feature.in_features[0]]])[0])

    def losses(self, logits: Tensor, targets: Tensor | None) -> dict[str, Tensor]:
        """Cross entropy, averaged over the pixels with a class; 0 where there is none.

        Args:
            logits: of `layers`.
            targets: labels (N, H, W), int64.
        """
        if targets is None:
            raise ValueError('training expects the labels "sem_seg" in every input')
        logits = self._enlarge(logits.float())
        loss = F.cross_entropy(logits, targets, reduction="sum", ignore_index=self.ignore_value)
        # The mean of torch is 0 / 0 for a batch without any label.
        count = (targets != self.ignore_value).sum().clamp(min=1)
        return {"loss_sem_seg": self.loss_weight * loss / count}

    def _enlarge(self, logits: Tensor) -> Tensor:
        height, width = logits.shape[-2:]
        return resize_bilinear(logits, (height * self.common_stride, width * self.common_stride))


def pad_labels(labels: list[Tensor], canvas: tuple[int, int], ignore_value: int) -> Tensor:
    """Labels (height, width) of every image in the top left of (N, *canvas), else ignored."""
    size = (len(labels), *canvas)
    padded = labels[0].new_full(size, ignore_value, dtype=torch.int64)
    for row, label in zip(padded, labels, strict=True):
        row[: label.shape[0], : label.shape[1]] = label
    return padded


def best_classes(logits: Tensor, size: tuple[int, int]) -> Tensor:
    """Find the class of every pixel after bilinear resizing, in bounded memory.

    Args:
        logits: (C, h, w).
        size: (height, width) wanted.

    Returns:
        int64 (height, width): `resize_bilinear` and argmax over classes give the same.
    """
    highest = resize_bilinear(logits[None, :1], size)[0, 0]
    labels = torch.zeros(size, dtype=torch.int64, device=logits.device)
    for label in range(1, len(logits)):
        values = resize_bilinear(logits[None, label : label + 1], size)[0, 0]
        labels.masked_fill_(values > highest, label)
        torch.maximum(highest, values, out=highest)
    return labels


class ResizedLogits:
    """Stand-in for logits (C, height, width) that are too large to materialise.

    Has what Detectron2's `SemSegEvaluator` and demo ask of the tensor: `argmax(dim=0)`.

    Attributes:
        logits: (C, h, w) on the network's grid, padding cut off.
        shape: (C, height, width).
    """

    def __init__(self, logits: Tensor, size: tuple[int, int]) -> None:
        self.logits = logits
        self.shape = torch.Size((len(logits), *size))

    def argmax(self, dim: int = 0) -> Tensor:
        """Labels, int64 (height, width).

        Raises:
            ValueError: `dim` is not 0.
        """
        if dim != 0:
            raise ValueError(f"only the classes, dim=0, can be compared, got dim={dim}")
        return best_classes(self.logits, (self.shape[1], self.shape[2]))

    def to(self, *args: Any, **kwargs: Any) -> ResizedLogits:
        """Move to another device, as `Tensor.to`."""
        return ResizedLogits(self.logits.to(*args, **kwargs), (self.shape[1], self.shape[2]))
