"""Pure tensor functions: no config, no `Instances`, no state."""

from .coord import append_coords
from .losses import dice_loss
from .mask_ops import (
    downsample_masks,
    mask_areas,
    mask_occupancy,
    mask_profiles,
    masks_to_boxes,
    pairwise_intersection,
    pairwise_mask_iou,
    profiles_to_boxes,
    profiles_to_centroids,
)
from .nms import fast_nms, hard_nms, matrix_nms, point_nms, soft_nms

__all__ = [
    "append_coords",
    "dice_loss",
    "downsample_masks",
    "fast_nms",
    "hard_nms",
    "mask_areas",
    "mask_occupancy",
    "mask_profiles",
    "masks_to_boxes",
    "matrix_nms",
    "pairwise_intersection",
    "pairwise_mask_iou",
    "point_nms",
    "profiles_to_boxes",
    "profiles_to_centroids",
    "soft_nms",
]
