"""Convolutional layers and stacks of them, of which all branches of the heads are made."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from detectron2.layers import Conv2d, get_norm
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from ..layers import DeformConv2d, append_coords

DEFORM_TYPES = ("none", "all", "last")


@dataclass(frozen=True)
class LayerStyle:
    """What the layers of a head have in common.

    Attributes:
        norm: normalisation, as for `detectron2.layers.get_norm`.
        deform: which layers are deformable: "none", "all", or the "last" of every tower.
        modulated: deformable convolution v2, otherwise v1.
        recompute: keep no more than a tower's input for the backward pass, and run its layers
            again there.
    """

    norm: str
    deform: str = "none"
    modulated: bool = True
    recompute: bool = False

    def __post_init__(self) -> None:
        if self.deform not in DEFORM_TYPES:
            raise ValueError(
                f"MODEL.SOLO.DEFORM must be one of {DEFORM_TYPES}, got {self.deform!r}"
            )

    def inner(self) -> LayerStyle:
        """Return the style of a layer that is not the last of a tower."""
        return replace(self, deform="none") if self.deform == "last" else self


class _DeformLayer(DeformConv2d):
    """Deformable convolution, normalisation, ReLU; named as Detectron2's `Conv2d` names them."""

    def __init__(self, *args: int, norm: nn.Module | None, padding: int, modulated: bool) -> None:
        super().__init__(*args, padding=padding, bias=norm is None, modulated=modulated)
        self.norm = norm

    def forward(self, x: Tensor) -> Tensor:
        return _norm_relu(super().forward(x), self.norm)


class _Layer(Conv2d):
    """Detectron2's convolution, normalisation, ReLU, whose result has the convolution's type."""

    def forward(self, x: Tensor) -> Tensor:
        return _norm_relu(self._conv_forward(x, self.weight, self.bias), self.norm)


def _norm_relu(x: Tensor, norm: nn.Module | None) -> Tensor:
    # Autocast on CUDA normalises to float32; what follows would take twice the time and memory.
    return F.relu(x if norm is None else norm(x).to(x.dtype))


def conv_norm_relu(
    in_channels: int, out_channels: int, style: LayerStyle, kernel_size: int = 3
) -> nn.Module:
    """Build a layer of a tower: same-size convolution, normalisation, ReLU; no bias before a norm.

    Deformable unless `style.deform` is "none".
    """
    if style.norm == "GN" and out_channels % 32:
        raise ValueError(
            f"GN has 32 groups, so that {out_channels} channels cannot be normalised; MODEL.SOLO's "
            "CONV_DIM, KERNEL_DIM / NUM_KERNEL_GROUPS, MASK_FEATURE.CONV_DIM and DETAILS.CONV_DIM "
            "must be multiples of 32"
        )
    norm, padding = get_norm(style.norm, out_channels), kernel_size // 2
    if style.deform != "none":
        return _DeformLayer(
            in_channels,
            out_channels,
            kernel_size,
            norm=norm,
            padding=padding,
            modulated=style.modulated,
        )
    return _Layer(
        in_channels,
        out_channels,
        kernel_size=kernel_size,
        padding=padding,
        bias=norm is None,
        norm=norm,
        activation=F.relu,
    )


def init_convs(*modules: nn.Module) -> None:
    """Initialise convolutions as the published models do: normal, std 0.01, zero bias.

    The predictors of deformable convolutions' offsets stay at zero.
    """
    for module in modules:
        for name, layer in module.named_modules():
            if isinstance(layer, nn.Conv2d) and not name.endswith("conv_offset"):
                nn.init.normal_(layer.weight, std=0.01)
                if layer.bias is not None:
                    nn.init.zeros_(layer.bias)


def prior_bias(prob: float) -> float:
    """Return the bias of logits whose sigmoid starts at `prob` (focal loss, RetinaNet §4.1)."""
    return -math.log((1 - prob) / prob)


class Tower(nn.Sequential):
    """A stack of 3x3 layers, of which the first ones see pixel coordinates (CoordConv).

    Args:
        in_channels: channels of the input, coordinates not counted.
        channels: channels of every layer.
        num_convs: layers; with none, the tower hands its input on.
        style: of the layers.
        axes: the coordinates, as for `append_coords`.
        num_coord_convs: layers that see them.

    Raises:
        ValueError: `num_coord_convs` is negative or more than `num_convs`.
    """

    def __init__(
        self,
        in_channels: int,
        channels: int,
        num_convs: int,
        style: LayerStyle,
        *,
        axes: str = "xy",
        num_coord_convs: int = 0,
    ) -> None:
        if not 0 <= num_coord_convs <= num_convs:
            raise ValueError(
                f"MODEL.SOLO.NUM_COORD_CONVS must lie between 0 and the number of layers, "
                f"{num_convs} (NUM_CONVS), got {num_coord_convs}"
            )
        layers = []
        for i in range(num_convs):
            width = (channels if i else in_channels) + (len(axes) if i < num_coord_convs else 0)
            last = i == num_convs - 1
            layers.append(conv_norm_relu(width, channels, style if last else style.inner()))
        super().__init__(*layers)
        self.out_channels = channels if num_convs else in_channels
        self.axes = axes
        self.num_coord_convs = num_coord_convs
        self.recompute = style.recompute

    def layer_input(self, x: Tensor, index: int) -> Tensor:
        """Return what a layer sees of (N, C, H, W): with coordinates, or not."""
        return append_coords(x, self.axes) if index < self.num_coord_convs else x

    def forward(self, input: Tensor, align: Callable[[Tensor], Tensor] | None = None) -> Tensor:
        """Run all layers on (N, in_channels, H, W).

        Args:
            input: of the first layer.
            align: resizes that input, coordinates included.
        """
        if not (self.recompute and self.training and torch.is_grad_enabled()):
            return self.run(input, align)
        # Nothing in a tower is random.
        return checkpoint(self.run, input, align, use_reentrant=False, preserve_rng_state=False)

    def run(self, x: Tensor, align: Callable[[Tensor], Tensor] | None) -> Tensor:
        """Run all layers, whatever is kept of them."""
        x = self.layer_input(x, 0)
        if align is not None:
            x = align(x)
        for i, layer in enumerate(self):
            x = layer(self.layer_input(x, i) if i else x)
        return x
