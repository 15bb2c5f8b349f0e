"""Check the keys of losses, of their targets, and of what assigns these."""

from __future__ import annotations

from detectron2.config import CfgNode

from ..config.rules import Rule, choice
from ..config.unused import Choice
from .criterion import BINARY_MASK_LOSSES, CATEGORY_LOSSES, MASK_LOSSES
from .targets import MASK_TARGETS

LOSS_NAMES: dict[str, Rule] = {
    "MODEL.SOLO.MASK_LOSS": choice(lambda: MASK_LOSSES),
    "MODEL.SOLO.MASK_TARGETS": choice(MASK_TARGETS),
    "MODEL.SOLO.CATEGORY_LOSS": choice(CATEGORY_LOSSES),
    "MODEL.SOLO.ASSIGNER": choice(("center", "dynamic_soft")),
}
"""What the names of losses may be."""

LOSS_CHOICES = (
    Choice(
        "MODEL.SOLO.CATEGORY_LOSS",
        lambda: {
            "focal": ("MODEL.SOLO.FOCAL_LOSS_ALPHA", "MODEL.SOLO.FOCAL_LOSS_GAMMA"),
            "quality_focal": ("MODEL.SOLO.FOCAL_LOSS_GAMMA",),
            "rank_sort": (),
        },
    ),
    # Every config sets SCALE_RANGES; that they have no effect would not be worth an error.
    Choice(
        "MODEL.SOLO.ASSIGNER",
        lambda: {"center": ("MODEL.SOLO.CENTER_REGION",), "dynamic_soft": ()},
    ),
)
"""Keys that one loss uses and another does not."""


def check_losses(cfg: CfgNode) -> None:
    """Raise a `ValueError` for losses and targets that do not go together."""
    node = cfg.MODEL.SOLO
    if node.MASK_TARGETS == "coverage" and node.MASK_LOSS in BINARY_MASK_LOSSES:
        raise ValueError(
            f"MODEL.SOLO.MASK_TARGETS coverage needs a MODEL.SOLO.MASK_LOSS of soft targets, such "
            f"as dice or bce, got {node.MASK_LOSS!r}"
        )
