"""Points of soft masks that a loss is computed on, instead of all pixels."""

from __future__ import annotations

import torch
from torch import Tensor

from .checks import check_tensors
from .mask_ops import mask_occupancy, profiles_to_boxes

# As in PointRend: of three times as many random points the most uncertain become three quarters.
OVERSAMPLE = 3
UNCERTAIN_SHARE = 0.75

# Greater than any distance of a probability to 1/2.
_REPEATED = 1.0

# By how much of its size a box is larger on every side, where points lie around it.
BOX_MARGIN = 0.25


def sample_points(probs: Tensor, targets: Tensor, count: int) -> Tensor:
    """Choose pixels of masks, mostly where these are uncertain (PointRend; Mask2Former).

    Three quarters are the most uncertain (nearest to 1/2) of `OVERSAMPLE` times as many random
    ones, the rest is random. Every other random pixel lies in or next to the target's box: of a
    small object on a large canvas, uniform ones would hit nothing. The uncertain ones are different
    pixels as long as there are enough: those of a small object would come again and again.

    Args:
        probs: soft masks (K, H, W) in [0, 1].
        targets: masks (K, H, W), boolean or in [0, 1].
        count: how many pixels of every mask.

    Returns:
        Indices (K, count) int64 of the flattened pixels, drawn with torch's random numbers.

    Example:
        >>> import torch
        >>> probs = torch.zeros(1, 8, 8)
        >>> probs[0, 3, 4] = 0.5
        >>> points = sample_points(probs, probs > 0.4, 40)
        >>> points.shape, int(points.min()) >= 0, int(points.max()) < 64
        (torch.Size([1, 40]), True, True)
    """
    check_tensors(
        "sample_points",
        ("probs", probs, "floating", "K H W"),
        ("targets", targets, "real", "K H W"),
    )
    occupied = mask_occupancy(targets > 0)
    boxes = profiles_to_boxes(*(x.int() for x in occupied))
    uncertain = int(UNCERTAIN_SHARE * count)
    points = _random_points(boxes, probs.shape[1:], OVERSAMPLE * uncertain).sort(dim=1).values
    doubt = (probs.detach().flatten(1).gather(1, points) - 0.5).abs()
    doubt[:, 1:].masked_fill_(points[:, 1:] == points[:, :-1], _REPEATED)
    points = points.gather(1, doubt.topk(uncertain, dim=1, largest=False, sorted=False).indices)
    rest = _random_points(boxes, probs.shape[1:], count - uncertain)
    return torch.cat([points, rest], dim=1)


def _random_points(boxes: Tensor, size: torch.Size, count: int) -> Tensor:
    """Indices (K, count) of pixels, by turns anywhere and around boxes (K, 4)."""
    height, width = size
    half = (count + 1) // 2
    anywhere = torch.randint(height * width, (len(boxes), half), device=boxes.device)
    low, high = boxes.split(2, dim=1)
    margin = BOX_MARGIN * (high - low) + 1
    last = boxes.new_tensor([width, height]) - 1
    low, high = (low - margin).clamp(min=0), (high + margin).minimum(last + 1)
    shares = torch.rand((len(boxes), half, 2), device=boxes.device)
    places = low[:, None] + shares * (high - low)[:, None]
    x, y = places.minimum(last).long().unbind(2)  # rounding may reach the end
    return torch.stack([anywhere, y * width + x], dim=2).flatten(1)[:, :count]
