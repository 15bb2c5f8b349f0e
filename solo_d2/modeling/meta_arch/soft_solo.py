"""Soft SOLO, the paper's SOSO: instance-level matting (paper §4.7 and Appendix A)."""

from __future__ import annotations

from functools import partial
from typing import ClassVar

from detectron2.config import CfgNode
from detectron2.modeling import META_ARCH_REGISTRY
from detectron2.structures import ImageList
from torch import Tensor

from ...layers import masks_to_boxes
from ..heads import SOLO_HEAD_REGISTRY
from ..heads.soft_dynamic import IMAGE_KEY, SoftDynamicSOLOHead
from ..mattes import MatteTargetAssigner, resize_mattes
from ..postprocessing import Frame
from ..structures import SOLOPredictions
from .solo import SOLO


@META_ARCH_REGISTRY.register()
class SoftSOLO(SOLO):
    """SOLO whose instances are soft mattes at the image's resolution.

    Cells are selected and suppressed by their masks at stride 4, as in SOLO; mattes are made of
    those that remain. Arguments as for `SOLO`; the head is a `SoftDynamicSOLOHead`.

    Example:
        >>> import torch
        >>> from solo_d2.testing import tiny_config
        >>> cfg = tiny_config(
        ...     "MODEL.META_ARCHITECTURE", "SoftSOLO", "MODEL.SOLO.HEAD", "SoftDynamicSOLOHead",
        ...     "MODEL.SOLO.MASK_LOSS", "matte", "MODEL.SOLO.MASK_LOSS_WEIGHT", 1.0,
        ... )
        >>> outputs = SoftSOLO(cfg).eval()([{"image": torch.zeros(3, 64, 96)}])
        >>> outputs[0]["instances"].pred_mattes.shape[1:]
        torch.Size([64, 96])
    """

    assigner_class: ClassVar = MatteTargetAssigner
    supports_tta: ClassVar[bool] = False  # mattes would have to be joined as well
    provides_image = True

    @classmethod
    def check_config(cls, cfg: CfgNode) -> None:
        """Check also that the head makes mattes and that the mask loss is one for mattes."""
        super().check_config(cfg)
        head = SOLO_HEAD_REGISTRY.get(cfg.MODEL.SOLO.HEAD)
        if not (isinstance(head, type) and issubclass(head, SoftDynamicSOLOHead)):
            raise ValueError(
                f'SoftSOLO needs MODEL.SOLO.HEAD "SoftDynamicSOLOHead", got {cfg.MODEL.SOLO.HEAD!r}'
            )
        if cfg.MODEL.SOLO.MASK_LOSS not in MATTE_LOSSES:
            raise ValueError(
                f"SoftSOLO needs MODEL.SOLO.MASK_LOSS among {sorted(MATTE_LOSSES)}, "
                f"got {cfg.MODEL.SOLO.MASK_LOSS!r}"
            )
        for key, default in (("MASK_TARGETS", "binary"), ("MASK_LOSS_POINTS", 0)):
            if cfg.MODEL.SOLO[key] != default:
                raise ValueError(
                    f"MODEL.SOLO.{key} is {cfg.MODEL.SOLO[key]!r}, but the targets of SoftSOLO are "
                    f"whole mattes; leave it at {default!r}"
                )

    def predict(self, features: dict[str, Tensor], images: ImageList) -> SOLOPredictions:
        """Run the head on features and images; padding is the mean colour, as for the network."""
        pixels = images.tensor * (self.pixel_std / 255)  # in about [-0.5, 0.5] for any weights
        return super().predict({**features, IMAGE_KEY: pixels}, images)

    def resize_instances(
        self,
        predictions: SOLOPredictions,
        image: int,
        cells: Tensor,
        probs: Tensor,  # noqa: ARG002 - mattes have detail of their own
        frame: Frame,
        output_size: tuple[int, int],
    ) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        """As in `SOLO`, and ``pred_mattes``, float32 (K, height, width) in [0, 1].

        ``pred_masks`` is where the matte exceeds `MODEL.SOLO.MASK_THRESH_TEST`.
        """
        cell_mattes = partial(self.head.mask_probs, predictions, image)
        mattes = resize_mattes(cell_mattes, cells, frame.image, output_size)
        masks = mattes > self.settings.mask_thresh
        return masks, masks_to_boxes(masks), {"pred_mattes": mattes}


MATTE_LOSSES = {"matte", "mae", "dice"}
"""Values of `MODEL.SOLO.MASK_LOSS` that are defined for soft targets; others can be added."""
