"""Details Refinement (paper §A.3.1): low-level detail of the raw image for the mask feature."""

from __future__ import annotations

import torch
from detectron2.layers import Conv2d
from fvcore.nn import weight_init
from torch import Tensor, nn

from ...layers import in_one_type, resize_bilinear
from ..towers import LayerStyle, conv_norm_relu


class DetailsRefinement(nn.Module):
    """A few channels at full resolution, from the mask feature at stride 4 and the raw image.

    1x1 convolution, bilinear enlargement, concatenation with the image, 3x3 convolutions with
    norm and ReLU, all of few channels; then a 1x1 convolution to the mask feature's E channels, to
    which the paper adds the enlarged mask feature. Both that last convolution and the kernels of
    the instances are linear in every pixel, so that the E channels are never made at full
    resolution: `project_kernels` gives what a kernel amounts to on the few channels.

    The paper names no norm; it is that of the rest of the head. Without one, fine-tuning left 17 of
    32 channels at zero in 98 % of the pixels. The last convolution starts at zero: at first the
    mattes are the enlarged masks of the model that the weights come from.

    Args:
        in_channels: E, channels of the mask feature.
        channels: of all layers in between; 32 in the paper.
        num_convs: 3x3 layers; 3 in the paper.
        use_image: whether the image is an input (paper Table S4a).
        norm: of the 3x3 layers, as for `detectron2.layers.get_norm`.
    """

    def __init__(
        self,
        *,
        in_channels: int,
        channels: int,
        num_convs: int,
        use_image: bool = True,
        norm: str = "GN",
    ) -> None:
        super().__init__()
        if channels < 1 or num_convs < 1:
            raise ValueError(
                "MODEL.SOLO.DETAILS.CONV_DIM and MODEL.SOLO.DETAILS.NUM_CONVS must be at least 1, "
                f"got {channels} and {num_convs}"
            )
        self.use_image = use_image
        self.reduce = Conv2d(in_channels, channels, kernel_size=1)
        widths = [channels + 3 * use_image] + [channels] * (num_convs - 1)
        self.convs = nn.Sequential(
            *(conv_norm_relu(width, channels, LayerStyle(norm)) for width in widths)
        )
        self.expand = Conv2d(channels, in_channels, kernel_size=1)
        for layer in (self.reduce, *self.convs):
            weight_init.c2_msra_fill(layer)
        nn.init.zeros_(self.expand.weight)
        nn.init.zeros_(self.expand.bias)

    def forward(self, feature: Tensor, image: Tensor) -> Tensor:
        """Everything but the last 1x1 convolution.

        Args:
            feature: mask feature (N, E, H / 4, W / 4).
            image: the image (N, 3, H, W), zero mean, in about [-0.5, 0.5].

        Returns:
            (N, channels, H, W).
        """
        x = resize_bilinear(self.reduce(feature), (image.shape[-2], image.shape[-1]))
        if self.use_image:
            x = torch.cat([x, image.to(x.dtype)], dim=1)
        return self.convs(x)

    def project_kernels(self, kernels: Tensor) -> tuple[Tensor, Tensor]:
        """Turn kernels on the E channels into kernels on the few channels.

        Args:
            kernels: 1x1 kernels (N, K, E).

        Returns:
            Weights (N, K, channels) and biases (N, K).
        """
        kernels, weight, bias = in_one_type(
            kernels, self.expand.weight.flatten(1), self.expand.bias
        )
        # A product of matrices, since fvcore cannot count one with a vector.
        return kernels @ weight, (kernels @ bias[:, None]).squeeze(-1)
