"""Convolution of one map with many kernels: where predicted kernels meet the mask feature."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from .capture import capturing
from .checks import check_tensors


def dynamic_conv(
    feature: Tensor, kernels: Tensor, kernel_size: int = 1, bias: Tensor | None = None
) -> Tensor:
    """Convolve one map with many kernels at once.

    Args:
        feature: (E, H, W), or those of N images (N, E, H, W).
        kernels: (K, E · kernel_size²) or (N, K, E · kernel_size²), K may be 0.
        kernel_size: odd; zeros are padded to keep the size.
        bias: (K,) or (N, K), added to the result; of 1x1 kernels only.

    Returns:
        (K, H, W) or (N, K, H, W), in the type that `in_one_type` gives to the arguments.

    Raises:
        ValueError: tensors of another type, or sizes that do not fit.

    Example:
        >>> import torch
        >>> feature, kernels = torch.ones(2, 1, 3), torch.tensor([[1.0, 2.0]])
        >>> dynamic_conv(feature, kernels)
        tensor([[[3., 3., 3.]]])
    """
    _check(feature, kernels, kernel_size, bias)
    if feature.dim() == 3:
        biases = None if bias is None else bias[None]
        return dynamic_conv(feature[None], kernels[None], kernel_size, biases)[0]
    feature, kernels = in_one_type(feature, kernels)
    images, channels, height, width = feature.shape
    count = kernels.shape[1]
    if kernel_size == 1 or count == 0:  # no kernels are no kernels of any size
        kernels, flat = kernels[..., :channels], feature.flatten(2)
        if bias is None:
            logits = kernels @ flat
        else:
            logits = torch.baddbmm(bias[..., None].to(flat.dtype), kernels, flat)
        return logits.view(images, count, height, width)
    # One group of channels per image.
    weight = kernels.reshape(images * count, channels, kernel_size, kernel_size)
    x = feature.reshape(1, images * channels, height, width)
    logits = F.conv2d(x, weight, padding=kernel_size // 2, groups=images)
    return logits.view(images, count, height, width)


def _check(feature: Tensor, kernels: Tensor, kernel_size: int, bias: Tensor | None) -> None:
    images = "N " if getattr(kernels, "ndim", 2) == 3 else ""
    inputs = [
        ("feature", feature, "floating", f"{images}E H W"),
        ("kernels", kernels, "floating", f"{images}K D"),
    ]
    if bias is not None:
        inputs.append(("bias", bias, "floating", f"{images}K"))
    check_tensors("dynamic_conv", *inputs)
    if capturing():
        return
    channels = feature.shape[-3]
    weights = channels * kernel_size**2
    if kernel_size % 2 == 0 or (bias is not None and kernel_size > 1) or kernel_size < 1:
        raise ValueError(
            f"dynamic_conv expects an odd kernel size, 1 where there is a bias, got {kernel_size}"
        )
    if kernels.shape[-1] != weights:
        raise ValueError(
            f"dynamic_conv expects kernels of {weights} weights for {channels} channels and a side "
            f"of {kernel_size}, got {kernels.shape[-1]}"
        )


def in_one_type(*tensors: Tensor) -> list[Tensor]:
    """Cast to one floating type, as autocast does where it is on.

    Under autocast some layers return half precision and others float32: on CUDA a convolution does
    the former and group normalisation the latter, on a CPU both do the former. What was made under
    autocast is used after it, so that the types must be made equal by hand.

    Returns:
        The tensors in half precision if any of them is; in float32 if there are both kinds of half
        precision; otherwise in the widest type.

    Example:
        >>> import torch
        >>> single, half = torch.zeros(1), torch.zeros(1, dtype=torch.float16)
        >>> [x.dtype for x in in_one_type(single, half)]
        [torch.float16, torch.float16]
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
