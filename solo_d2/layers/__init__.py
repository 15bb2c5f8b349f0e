"""Pure tensor functions: no config, no `Instances`, no state."""

from .coord import append_coords
from .deform_conv import DeformConv2d, deform_conv
from .losses import binary_mask_loss, dice_loss, focal_mask_loss
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
from .resize import align_to_grid, resize_bilinear

__all__ = [
    "DeformConv2d",
    "align_to_grid",
    "append_coords",
    "binary_mask_loss",
    "deform_conv",
    "dice_loss",
    "downsample_masks",
    "fast_nms",
    "focal_mask_loss",
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
    "resize_bilinear",
    "soft_nms",
]
