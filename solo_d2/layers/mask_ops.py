"""Geometry of binary masks: counts, boxes, centroids, overlaps.

Shapes: K masks on an (H, W) grid. Boxes are XYXY in pixels with the right and bottom edge
exclusive. Everything is exact integer arithmetic, and nothing loops over masks or pixels. Where
bytes are read as other types, graphs that are being recorded get the plain operation (`capturing`).
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from .capture import capturing
from .checks import check_tensors
from .products import BLOCK_ROWS, SAFE_COLUMNS, common_ones

# Eight boolean pixels share one 64-bit word; a byte lane holds a count of at most 255.
_LANES = 8
_LANE_MAX = 255


def _lane_sums(words: Tensor, dim: int) -> Tensor:
    """Sum 64-bit words whose bytes are 0/1 along `dim`, keeping the eight byte lanes apart.

    ``torch.sum`` of a boolean tensor copies it to int64 first, an eightfold copy; adding the
    pixels eight at a time is some forty times faster on a CPU and needs no copy.
    """
    total = None
    for block in words.split(_LANE_MAX, dim):
        lanes = block.sum(dim).unsqueeze(-1).view(torch.uint8).int()  # (..., 8)
        total = lanes if total is None else total + lanes
    assert total is not None
    return total


def _words(masks: Tensor) -> Tensor:
    """The pixels of boolean (K, H, W) as words of eight, (K, H, ceil(W / 8)) int64."""
    count, height, width = masks.shape
    if width % _LANES:
        masks = F.pad(masks, (0, -width % _LANES))
    pixels = masks.reshape(-1)
    if pixels.storage_offset() % _LANES:  # a slice of another tensor that splits a word
        pixels = pixels.clone()
    return pixels.view(torch.int64).view(count, height, -1)


def mask_profiles(masks: Tensor) -> tuple[Tensor, Tensor]:
    """Count the foreground pixels of every row and every column.

    Args:
        masks: boolean (K, H, W).

    Returns:
        Row counts (K, H) and column counts (K, W), int32. Area, box and centroid follow from them.

    Example:
        >>> import torch
        >>> masks = torch.zeros(1, 3, 4, dtype=torch.bool)
        >>> masks[0, 1, 1:3] = True  # two pixels of the middle row
        >>> mask_profiles(masks)
        (tensor([[0, 2, 0]], dtype=torch.int32), tensor([[0, 1, 1, 0]], dtype=torch.int32))
    """
    check_tensors("mask_profiles", ("masks", masks, "boolean", "K H W"))
    if masks.numel() == 0 or capturing():
        return masks.sum(2, dtype=torch.int32), masks.sum(1, dtype=torch.int32)
    words = _words(masks)
    rows = _lane_sums(words, 2).sum(-1, dtype=torch.int32)
    columns = _lane_sums(words, 1).flatten(1)[:, : masks.shape[2]]
    return rows, columns


def mask_areas(masks: Tensor) -> Tensor:
    """Count the foreground pixels of boolean masks (K, H, W); returns (K,) int64.

    Example:
        >>> import torch
        >>> masks = torch.zeros(1, 3, 4, dtype=torch.bool)
        >>> masks[0, 1, 1:3] = True  # two pixels of the middle row
        >>> mask_areas(masks)
        tensor([2])
    """
    check_tensors("mask_areas", ("masks", masks, "boolean", "K H W"))
    if masks.numel() == 0 or capturing():
        return masks.sum((1, 2))
    return _lane_sums(_words(masks), 2).sum((1, 2))


def binarize(probs: Tensor, threshold: float) -> tuple[Tensor, Tensor, Tensor]:
    """Threshold soft masks and measure their confidence (paper §3.3.3, "Maskness").

    Args:
        probs: soft masks (K, h, w) in [0, 1]; overwritten.
        threshold: foreground is what exceeds it.

    Returns:
        Masks (K, h, w) boolean, areas (K,) in pixels, and maskness (K,), the mean probability of
        the foreground; 0 for an empty mask.

    Example:
        >>> import torch
        >>> masks, areas, maskness = binarize(torch.tensor([[[0.75, 1.0, 0.25]]]), 0.5)
        >>> masks, areas, maskness
        (tensor([[[ True,  True, False]]]), tensor([2]), tensor([0.8750]))
    """
    check_tensors("binarize", ("probs", probs, "floating", "K h w"))
    masks = probs > threshold
    areas = mask_areas(masks)
    wide = torch.promote_types(probs.dtype, torch.float32)  # sums of pixels exceed half precision
    foreground = F.threshold(probs, threshold, 0.0, inplace=True).sum((1, 2), dtype=wide)
    return masks, areas, foreground / areas.clamp(min=1)


def mask_occupancy(masks: Tensor) -> tuple[Tensor, Tensor]:
    """Find the rows (K, H) and columns (K, W) of boolean masks (K, H, W) that have foreground.

    Example:
        >>> import torch
        >>> masks = torch.zeros(1, 3, 4, dtype=torch.bool)
        >>> masks[0, 1, 1:3] = True  # two pixels of the middle row
        >>> mask_occupancy(masks)
        (tensor([[False,  True, False]]), tensor([[False,  True,  True, False]]))
    """
    check_tensors("mask_occupancy", ("masks", masks, "boolean", "K H W"))
    if masks.numel() == 0 or capturing():
        return masks.any(2), masks.any(1)
    pixels = masks.view(torch.uint8)  # on a CPU amax is ten times faster than any
    return pixels.amax(2) > 0, pixels.amax(1) > 0


def _extent(profile: Tensor) -> tuple[Tensor, Tensor]:
    """First and one-past-last non-zero position of each row of (K, N); (0, 0) for an empty one."""
    hit = profile > 0
    if hit.shape[1] == 0:
        zero = torch.zeros(len(hit), dtype=torch.int64, device=hit.device)
        return zero, zero
    first = hit.int().argmax(1)
    last = hit.shape[1] - hit.flip(1).int().argmax(1)
    return first, torch.where(hit.any(1), last, 0)


def profiles_to_boxes(rows: Tensor, columns: Tensor) -> Tensor:
    """Tight boxes (K, 4) from the profiles of `mask_profiles`; all zero for an empty mask.

    Example:
        >>> import torch
        >>> masks = torch.zeros(1, 3, 4, dtype=torch.bool)
        >>> masks[0, 1, 1:3] = True  # two pixels of the middle row
        >>> profiles_to_boxes(*mask_profiles(masks))
        tensor([[1., 1., 3., 2.]])
    """
    check_tensors(
        "profiles_to_boxes", ("rows", rows, "real", "K H"), ("columns", columns, "real", "K W")
    )
    y0, y1 = _extent(rows)
    x0, x1 = _extent(columns)
    return torch.stack([x0, y0, x1, y1], dim=1).float()


def masks_to_boxes(masks: Tensor) -> Tensor:
    """Tight XYXY boxes of boolean masks.

    Args:
        masks: boolean (K, H, W).

    Returns:
        (K, 4) float, pixels, right and bottom edge exclusive: a mask that is true at row 2,
        column 1 only has the box [1, 2, 2, 3]. An empty mask has [0, 0, 0, 0].

    Example:
        >>> import torch
        >>> masks = torch.zeros(1, 3, 4, dtype=torch.bool)
        >>> masks[0, 1, 1:3] = True  # two pixels of the middle row
        >>> masks_to_boxes(masks)
        tensor([[1., 1., 3., 2.]])
    """
    return profiles_to_boxes(*mask_profiles(masks))


def profiles_to_centroids(rows: Tensor, columns: Tensor) -> Tensor:
    """Centres of mass (K, 2) as (x, y) from the profiles of `mask_profiles`.

    Float64, because a quotient of integers that is itself an integer must come out exact: a
    centre on the border of two grid cells belongs to the next cell. NaN for an empty mask.

    Example:
        >>> import torch
        >>> masks = torch.zeros(1, 3, 4, dtype=torch.bool)
        >>> masks[0, 1, 1:3] = True  # two pixels of the middle row
        >>> profiles_to_centroids(*mask_profiles(masks))
        tensor([[1.5000, 1.0000]], dtype=torch.float64)
    """
    check_tensors(
        "profiles_to_centroids",
        ("rows", rows, "integer", "K H"),
        ("columns", columns, "integer", "K W"),
    )
    area = rows.sum(1).double()
    x = (columns * torch.arange(columns.shape[1], device=columns.device)).sum(1)
    y = (rows * torch.arange(rows.shape[1], device=rows.device)).sum(1)
    return torch.stack([x / area, y / area], dim=1)


def pairwise_intersection(masks: Tensor, labels: Tensor | None = None) -> Tensor:
    """Pixels that every pair of masks shares.

    Args:
        masks: boolean (K, H, W), or those of N images (N, K, H, W).
        labels: (K,) or (N, K), if only masks of equal labels matter.

    Returns:
        (K, K) or (N, K, K) float32, exact integers (up to 2**24 pixels a mask); 0 for pairs of
        different labels.

    Example:
        >>> import torch
        >>> masks = torch.tensor([[[True, True, False]], [[True, False, False]]])
        >>> pairwise_intersection(masks)
        tensor([[2., 1.],
                [1., 1.]])
    """
    _check_masks_and_labels("pairwise_intersection", masks, labels)
    if labels is None:
        return common_ones(masks.flatten(-2))
    at_once = masks.device.type != "cpu" or capturing() or len(masks) <= BLOCK_ROWS
    if at_once or masks.dim() == 4:
        # One large product is faster than many small ones.
        return common_ones(masks.flatten(-2)) * (labels[..., :, None] == labels[..., None, :])
    counts = torch.zeros((len(masks), len(masks)))
    rows = mask_occupancy(masks)[0]
    names, members, sizes = labels.unique(return_inverse=True, return_counts=True)
    # Of a class with one mask, and with many classes most have one, only the area is needed.
    single = (sizes[members] == 1).nonzero().squeeze(1)
    counts[single, single] = mask_areas(masks[single]).float()
    for label in names[sizes > 1]:
        group = (labels == label).nonzero().squeeze(1)
        used = rows[group].any(0).nonzero()
        if len(used):
            # Only the rows of the canvas in which this class occurs at all.
            pixels = masks[group, _aligned(int(used[0]), int(used[-1]) + 1, masks.shape[2])]
            counts[group[:, None], group[None, :]] = common_ones(pixels.flatten(1))
    return counts


def _aligned(first: int, end: int, width: int) -> slice:
    """Rows [first, end), and others beside them where the pixels would need padding otherwise."""
    step = SAFE_COLUMNS // math.gcd(width, SAFE_COLUMNS)
    return slice(first // step * step, -(-end // step) * step)


def pairwise_mask_iou(masks: Tensor, labels: Tensor | None = None) -> Tensor:
    """Intersection over union of every pair of masks.

    Args:
        masks: boolean (K, H, W), or those of N images (N, K, H, W).
        labels: (K,) or (N, K), if only masks of equal labels matter.

    Returns:
        (K, K) or (N, K, K) float32 in [0, 1]; 0 where both masks are empty or the labels differ.

    Example:
        >>> import torch
        >>> masks = torch.tensor([[[True, True, False]], [[True, False, False]]])
        >>> pairwise_mask_iou(masks)
        tensor([[1.0000, 0.5000],
                [0.5000, 1.0000]])
    """
    _check_masks_and_labels("pairwise_mask_iou", masks, labels)
    intersection = pairwise_intersection(masks, labels)
    area = intersection.diagonal(dim1=-2, dim2=-1)
    union = area[..., :, None] + area[..., None, :] - intersection
    return intersection / union.clamp(min=1)


def _check_masks_and_labels(function: str, masks: Tensor, labels: Tensor | None) -> None:
    images = "N " if getattr(masks, "ndim", 3) == 4 else ""
    inputs = [("masks", masks, "boolean", f"{images}K H W")]
    if labels is not None:
        inputs.append(("labels", labels, "real", f"{images}K"))
    check_tensors(function, *inputs)
