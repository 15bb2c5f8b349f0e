"""SOLO's masks before the threshold as mattes: a baseline of soft segmentation."""

from __future__ import annotations

from functools import partial
from types import MethodType

from torch import Tensor

from solo_d2.modeling.mattes import resize_mattes
from solo_d2.modeling.meta_arch import SOLO
from solo_d2.modeling.postprocessing import Frame
from solo_d2.modeling.structures import SOLOPredictions


def keep_soft_masks(model: SOLO) -> None:
    """Make a model add ``pred_mattes`` to its instances, float32 (K, H, W) in [0, 1].

    They are its mask probabilities, enlarged to the input's size and resized to the output's; the
    other fields stay as they are.
    """
    model.resize_instances = MethodType(_resize_instances, model)


def _resize_instances(
    self: SOLO,
    predictions: SOLOPredictions,
    image: int,
    cells: Tensor,
    probs: Tensor,
    frame: Frame,
    output_size: tuple[int, int],
) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
    enlarged = partial(self.head.mask_probs, predictions, image, size=frame.canvas)
    mattes = resize_mattes(enlarged, cells, frame.image, output_size)
    masks, boxes, _ = SOLO.resize_instances(
        self, predictions, image, cells, probs, frame, output_size
    )
    return masks, boxes, {"pred_mattes": mattes}
