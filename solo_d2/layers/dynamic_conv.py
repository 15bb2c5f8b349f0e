"""Convolution of one map with many kernels: where predicted kernels meet the mask feature."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def dynamic_conv(
    feature: Tensor, kernels: Tensor, kernel_size: int = 1, bias: Tensor | None = None
) -> Tensor:
    """Convolve one map with many kernels at once.

    Args:
        feature: (E, H, W).
        kernels: (K, E · kernel_size²), K may be 0.
        kernel_size: odd; zeros are padded to keep the size.
        bias: (K,), added to the result; of 1x1 kernels only.

    Returns:
        (K, H, W), in the type that `in_one_type` gives to the arguments.
    """
    feature, kernels = in_one_type(feature, kernels)
    channels, height, width = feature.shape
    if kernel_size == 1 or len(kernels) == 0:  # no kernels are no kernels of any size
        kernels, flat = kernels[:, :channels], feature.flatten(1)
        if bias is None:
            logits = kernels @ flat
        else:
            logits = torch.addmm(bias[:, None].to(flat.dtype), kernels, flat)
        return logits.view(-1, height, width)
    weight = kernels.unflatten(1, (channels, kernel_size, kernel_size))
    return F.conv2d(feature[None], weight, padding=kernel_size // 2)[0]


def in_one_type(*tensors: Tensor) -> list[Tensor]:
    """Cast to one floating type, as autocast does where it is on.

    Under autocast some layers return half precision and others float32: on CUDA a convolution does
    the former and group normalisation the latter, on a CPU both do the former. What was made under
    autocast is used after it, so that the types must be made equal by hand.

    Returns:
        The tensors in half precision if any of them is; in float32 if there are both kinds of half
        precision; otherwise in the widest type.
    """
    types = {x.dtype for x in tensors}
    half = types & {torch.float16, torch.bfloat16}
    dtype = half.pop() if len(half) == 1 else _widest(types)
    return [x.to(dtype) for x in tensors]


def _widest(types: set[torch.dtype]) -> torch.dtype:
    dtype, *others = types
    for other in others:
        dtype = torch.promote_types(dtype, other)
    return dtype
