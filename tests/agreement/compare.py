"""How far two detectors' results are apart, and how far they may be."""

from __future__ import annotations

import torch
from torch import Tensor, nn

SCORE_TOLERANCE = 1e-5
MASK_TOLERANCE = 1e-5
"""Of all pixels of all masks."""
MAX_INSTANCES = 100


def remember(head: nn.Module) -> None:
    """Let a head in eval mode return what it returned, when it gets the same features again."""
    forward, last = head.forward, []

    def remembered(features):
        if head.training:
            return forward(features)
        levels = list(features.values() if isinstance(features, dict) else features)
        if not last or not all(map(torch.equal, last[0], levels)):
            last[:] = levels, forward(features)
        return last[1]

    head.forward = remembered


def drop_empty(found: dict[str, Tensor]) -> dict[str, Tensor]:
    """Without the instances whose mask lost its last pixel when it was resized.

    The other projects return them; ours does not, because an instance without a pixel has no box.
    """
    present = found["masks"].flatten(1).any(1)
    return {key: values[present] for key, values in found.items()}


def relative_difference(ours: Tensor, theirs: Tensor) -> float:
    """Greatest difference of two tensors of one shape, relative to their greatest value."""
    assert ours.shape == theirs.shape
    return float((ours - theirs).abs().max() / theirs.abs().max())


def align(
    ours: dict[str, Tensor], theirs: dict[str, Tensor], tolerance: float
) -> tuple[list[int], list[int]]:
    """Positions of the same instances in ours and in theirs: one order, but for ties.

    Scores closer than `tolerance` are a tie; of a tie, instances are paired by label and by mask.
    At the end of a full list a tie may be broken by leaving an instance out.
    """
    assert len(ours["scores"]) == len(theirs["scores"])
    free = list(range(len(theirs["scores"])))
    cut = float(theirs["scores"][-1]) + tolerance if len(free) == MAX_INSTANCES else 0.0
    pairs = []
    for i, (score, label) in enumerate(zip(ours["scores"], ours["labels"], strict=True)):
        ties = [
            j
            for j in free
            if abs(theirs["scores"][j] - score) <= tolerance and theirs["labels"][j] == label
        ]
        assert ties or score <= cut, f"no counterpart for a score of {score:.6f}, class {label}"
        if ties:
            best = min(ties, key=lambda j: int((theirs["masks"][j] ^ ours["masks"][i]).sum()))
            free.remove(best)
            pairs.append((i, best))
    return [i for i, _ in pairs], [j for _, j in pairs]


def differences(
    ours: dict[str, Tensor], theirs: dict[str, Tensor], tolerance: float = SCORE_TOLERANCE
) -> dict[str, float]:
    """Measure, after `drop_empty` and `align`.

    Args:
        ours: scores, labels and masks.
        theirs: likewise.
        tolerance: of a single score.

    Returns:
        ``instances``: their number, ``score`` and ``median``: greatest and middle difference of
        scores, ``pixels``: those that differ, relative to all pixels of all masks.
    """
    theirs = drop_empty(theirs)
    theirs["masks"] = theirs["masks"].bool()
    mine, other = align(ours, theirs, tolerance)
    scores = (ours["scores"][mine] - theirs["scores"][other]).abs()
    different = ours["masks"][mine] ^ theirs["masks"][other]
    return {
        "instances": len(mine),
        "score": float(scores.max()),
        "median": float(scores.median()),
        "pixels": float(different.double().mean()),
    }


def check_same(
    ours: dict[str, Tensor], theirs: dict[str, Tensor], tolerance: float = SCORE_TOLERANCE
) -> None:
    """Assert equality, on enough instances to mean something; arguments as for `differences`."""
    measured = differences(ours, theirs, tolerance)
    assert measured["instances"] >= 10
    assert ours["scores"].diff().max() <= 0
    assert measured["score"] <= tolerance
    assert measured["median"] <= SCORE_TOLERANCE
    assert measured["pixels"] <= MASK_TOLERANCE
    # Neither all foreground nor all background: masks that could not differ prove nothing.
    areas = ours["masks"].double().mean((1, 2))
    assert int(((areas > 0.01) & (areas < 0.99)).sum()) >= 5
