"""What is published of models: AP on which data, to be compared with what they have here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from .checkpoints import CHECKPOINTS, find_checkpoint, is_checkpoint_name

__all__ = ["ALL", "PAPER", "Claim", "find_claims"]

ALL = "all"
"""Stands for all published checkpoints."""

_LVIS = "LVIS-InstanceSegmentation/solov2_R_{}_FPN_3x_v0.5.yaml"
_CITYSCAPES = "Cityscapes-InstanceSegmentation/solov2_R_{}_FPN.yaml"


@dataclass(frozen=True)
class Claim:
    """A published figure.

    Attributes:
        name: of a checkpoint, or of a config without one.
        dataset: "coco" (val2017), "lvis" (v0.5) or "cityscapes" (val).
        ap: mask AP in percent, with the digits that are published.
        source: who says so.
        url: of the published file; "" where there is none.
    """

    name: str
    dataset: str
    ap: float
    source: str
    url: str = ""


PAPER: tuple[Claim, ...] = (
    Claim(_LVIS.format(50), "lvis", 25.5, "the paper, Table 2"),
    Claim(_LVIS.format(101), "lvis", 26.8, "the paper, Table 2"),
    Claim(_CITYSCAPES.format(50), "cityscapes", 37.4, "the paper, Table 3"),
    Claim(_CITYSCAPES.format(101), "cityscapes", 38.0, "the paper, Table 3"),
)
"""Figures of configs whose weights nobody has published."""


def find_claims(names: Sequence[str]) -> list[Claim]:
    """Return what is published of models.

    Args:
        names: of published checkpoints, of configs of `PAPER`, or `ALL`.

    Raises:
        ValueError: Nothing is published of a name.

    Example:
        >>> [claim.ap for claim in find_claims(["mmdet/solov2_r50_fpn_3x_coco"])]
        [37.5]
    """
    wanted = [
        x for name in names for x in ([y.name for y in CHECKPOINTS] if name == ALL else [name])
    ]
    return [_find(name) for name in dict.fromkeys(wanted)]


def _find(name: str) -> Claim:
    for claim in PAPER:
        if claim.name == name:
            return claim
    if not is_checkpoint_name(name):
        known = ", ".join(claim.name for claim in PAPER)
        raise ValueError(
            f"{name}: no AP is published of it; name a checkpoint of `solo-d2 zoo`, or one of "
            f"{known}"
        )
    checkpoint = find_checkpoint(name)
    if checkpoint.shipped:
        raise ValueError(
            f"{name} comes with this package and was made from scenes of its own; docs/models.md "
            "has its figures"
        )
    return Claim(checkpoint.name, "coco", checkpoint.ap, checkpoint.project, checkpoint.url)
