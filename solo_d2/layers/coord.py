"""Normalised pixel coordinates as extra channels (CoordConv, paper §3.1.2)."""

from __future__ import annotations

import torch
from torch import Tensor

from .capture import exporting
from .checks import check_tensors


def append_coords(x: Tensor, axes: str = "xy") -> Tensor:
    """Append normalised coordinates as the last channels of a feature map.

    Args:
        x: feature map (N, C, H, W).
        axes: which coordinates, in channel order: ``"xy"``, ``"x"`` or ``"y"``.

    Returns:
        (N, C + len(axes), H, W); coordinates run from -1 (first column or row) to 1 (last), both
        ends included, as in the published models.

    Raises:
        ValueError: `x` is no such tensor, or an axis is none of these.

    Example:
        >>> import torch
        >>> append_coords(torch.zeros(1, 1, 2, 3))[0, 1]
        tensor([[-1.,  0.,  1.],
                [-1.,  0.,  1.]])
    """
    check_tensors("append_coords", ("x", x, "floating", "N C H W"))
    if set(axes) - set("xy"):
        raise ValueError(f'append_coords expects axes of "x" and "y", got {axes!r}')
    height, width = x.shape[-2:]
    steps = {"x": _steps(x, width).view(1, 1, 1, -1), "y": _steps(x, height).view(1, 1, -1, 1)}
    coords = [steps[axis].expand(x.shape[0], 1, height, width) for axis in axes]
    return torch.cat([x, *coords], dim=1)


def _steps(like: Tensor, count: int) -> Tensor:
    """Numbers (count,) from -1 to 1, both included; one alone is -1."""
    if exporting():  # a graph would keep the number of steps of the example that it is made from
        steps = torch.arange(count, device=like.device, dtype=torch.float32)
        return (steps * (2 / steps[-1:].clamp(min=1)) - 1).to(like.dtype)
    return torch.linspace(-1, 1, count, device=like.device, dtype=like.dtype)
