"""SOLO's masks before the threshold as mattes: a baseline of soft segmentation."""

from __future__ import annotations

from functools import partial
from types import MethodType

from detectron2.structures import Instances
from torch import Tensor

from solo_d2.modeling.mattes import resize_mattes
from solo_d2.modeling.meta_arch import SOLO
from solo_d2.modeling.output import make_instances, resize_masks
from solo_d2.modeling.postprocessing import Frame, suppress
from solo_d2.modeling.structures import SOLOPredictions


def keep_soft_masks(model: SOLO) -> None:
    """Make a model add ``pred_mattes`` to its instances, float32 (K, H, W) in [0, 1].

    They are its mask probabilities, enlarged to the input's size and resized to the output's; the
    other fields stay as they are.
    """
    model.fixed = False
    model.inference_single_image = MethodType(_inference_single_image, model)


def _inference_single_image(
    self: SOLO,
    predictions: SOLOPredictions,
    image: int,
    scores: Tensor,
    frame: Frame,
    output_size: tuple[int, int],
) -> Instances:
    view = self.view(predictions, image, scores, frame)
    scores, labels, cells = suppress(view.candidates, self.settings)
    probs = view.cell_masks(cells)
    masks, boxes = resize_masks(probs, *frame, output_size, self.settings.mask_thresh)
    enlarged = partial(self.head.mask_probs, predictions, image, size=frame.canvas)
    mattes = resize_mattes(enlarged, cells, frame.image, output_size)
    return make_instances(scores, labels, masks, boxes, pred_mattes=mattes)
