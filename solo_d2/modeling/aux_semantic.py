"""Auxiliary semantic loss (paper §4.3): a branch that helps in training and does nothing else."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from detectron2.layers import Conv2d
from torch import Tensor, nn

from .structures import SOLOTargets
from .towers import LayerStyle, Tower, init_convs, prior_bias


class AuxSemanticBranch(nn.Module):
    """Semantic segmentation from one feature, learnt from the union of all masks of a class.

    Three 3x3 convolutions with norm and ReLU and a 1x1 convolution to the classes. The loss is
    binary cross entropy, summed over classes and averaged over pixels, as in YOLACT, which the
    paper names as its model; the mean over C classes would be next to nothing.

    Args:
        in_feature: name of the feature.
        in_channels: its channels.
        stride: its stride; the targets must hold masks of this stride.
        num_classes: C.
        weight: of the loss.
        norm: normalisation.
        prior_prob: score of every class at the start of training.
        channels: of the layers.
    """

    def __init__(
        self,
        *,
        in_feature: str,
        in_channels: int,
        stride: int,
        num_classes: int,
        weight: float,
        norm: str,
        prior_prob: float,
        channels: int = 128,
    ) -> None:
        super().__init__()
        self.in_feature = in_feature
        self.stride = stride
        self.num_classes = num_classes
        self.weight = weight
        self.tower = Tower(in_channels, channels, 3, LayerStyle(norm))
        self.predictor = Conv2d(channels, num_classes, kernel_size=1)
        init_convs(self)
        nn.init.constant_(self.predictor.bias, prior_bias(prior_prob))

    def forward(self, features: dict[str, Tensor]) -> Tensor:
        """Logits (N, C, H / stride, W / stride)."""
        return self.predictor(self.tower(features[self.in_feature]))

    def losses(self, features: dict[str, Tensor], targets: SOLOTargets) -> dict[str, Tensor]:
        """``loss_semantic``, weighted.

        Args:
            features: of the backbone, by name.
            targets: of the same batch.
        """
        logits = self(features).float()
        expected = semantic_targets(targets, len(logits), self.num_classes, self.stride)
        loss = F.binary_cross_entropy_with_logits(logits, expected.to(logits.dtype))
        return {"loss_semantic": self.weight * self.num_classes * loss}


def semantic_targets(
    targets: SOLOTargets, num_images: int, num_classes: int, stride: int
) -> Tensor:
    """Unite the masks of each class's objects, boolean (N, C, H, W) at `stride`."""
    masks = targets.masks[stride] >= 0.5
    owner = targets.images * num_classes + targets.classes
    covered = torch.zeros(
        (num_images * num_classes, *masks.shape[1:]), dtype=torch.uint8, device=masks.device
    )
    # A maximum cannot overflow as a sum of many objects could.
    covered.index_reduce_(0, owner, masks.to(torch.uint8), "amax")
    return covered.view(num_images, num_classes, *masks.shape[1:]) > 0
