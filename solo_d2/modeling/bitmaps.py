"""Ground-truth masks as tensors."""

from __future__ import annotations

from detectron2.structures import BitMasks, Instances, PolygonMasks
from torch import Tensor


def lies_on_host(masks: BitMasks | PolygonMasks | Tensor) -> bool:
    """Return whether masks lie where a data loader leaves them."""
    return isinstance(masks, PolygonMasks) or masks.device.type == "cpu"


def bitmaps_of(instances: Instances) -> Tensor:
    """Ground-truth masks (I, h, w) of one image, boolean."""
    if not instances.has("gt_masks"):
        raise ValueError("objects without gt_masks; SOLO learns from masks, set MODEL.MASK_ON True")
    masks = instances.gt_masks
    if isinstance(masks, PolygonMasks):
        height, width = instances.image_size
        masks = BitMasks.from_polygon_masks(masks, height, width)
    tensor = masks.tensor if isinstance(masks, BitMasks) else masks
    return tensor.bool()
