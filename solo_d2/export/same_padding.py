"""Constant pads in place of those that timm computes from the size of every input."""

from __future__ import annotations

from typing import Any

from torch import nn


def with_constant_pads(model: nn.Module) -> None:
    """Replace a model's convolutions of SAME padding (TensorFlow's rule), in place.

    timm computes their pads from the input's size; with symbolic sizes, an exporter then does not
    come to an end. Where strides divide the size, as they do at every layer of an input whose
    sides the model's divisor divides, pads are constants: dilated kernel minus stride, the smaller
    half first.

    Args:
        model: changed; give it a copy.

    Raises:
        ValueError: it has another layer of SAME padding, such as pooling.
    """
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            kind = type(child)
            if not (kind.__module__.startswith("timm.") and kind.__name__.endswith("Same")):
                continue
            if kind.__name__ != "Conv2dSame":
                raise ValueError(
                    f"cannot export a backbone with timm's {kind.__name__}, whose padding follows "
                    "the image's size; choose another MODEL.TIMM.NAME"
                )
            setattr(parent, name, _with_constant_pad(child))


def _with_constant_pad(layer: Any) -> nn.Module:
    """The same convolution, with the same tensors, behind constant zeros."""
    sides = zip(layer.kernel_size, layer.stride, layer.dilation, strict=True)
    y, x = (max((kernel - 1) * dilation + 1 - stride, 0) for kernel, stride, dilation in sides)
    names = ("in_channels", "out_channels", "kernel_size", "stride", "dilation", "groups")
    options = {name: getattr(layer, name) for name in names}
    convolution = nn.Conv2d(**options, bias=layer.bias is not None)
    convolution.weight, convolution.bias = layer.weight, layer.bias
    return nn.Sequential(nn.ZeroPad2d((x // 2, x - x // 2, y // 2, y - y // 2)), convolution)
