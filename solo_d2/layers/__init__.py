"""Pure tensor functions: no config, no `Instances`, no state."""

from .capture import capturing, exporting
from .coord import append_coords
from .deform_conv import DeformConv2d, deform_conv
from .downsampling import downsample_masks, mask_coverage
from .dynamic_conv import dynamic_conv, in_one_type
from .encoded_masks import EncodedMasks, dense_masks, mask_crops
from .focal import category_focal_loss, quality_focal_loss
from .losses import (
    binary_mask_loss,
    dice_bce_loss,
    dice_loss,
    focal_mask_loss,
    mae_loss,
    matte_loss,
)
from .mask_ops import (
    binarize,
    mask_areas,
    mask_occupancy,
    mask_profiles,
    masks_to_boxes,
    pairwise_intersection,
    pairwise_mask_iou,
    profiles_to_boxes,
    profiles_to_centroids,
)
from .nms import MASK_NMS, fast_nms, hard_nms, matrix_nms, point_nms, soft_nms
from .points import sample_points
from .ranking import rank_sort_loss
from .resize import align_to_grid, resize_bilinear
from .rle import encode_masks
from .sparse_nms import encoded_matrix_nms

__all__ = [
    "MASK_NMS",
    "DeformConv2d",
    "EncodedMasks",
    "align_to_grid",
    "append_coords",
    "binarize",
    "binary_mask_loss",
    "capturing",
    "category_focal_loss",
    "deform_conv",
    "dense_masks",
    "dice_bce_loss",
    "dice_loss",
    "downsample_masks",
    "dynamic_conv",
    "encode_masks",
    "encoded_matrix_nms",
    "exporting",
    "fast_nms",
    "focal_mask_loss",
    "hard_nms",
    "in_one_type",
    "mae_loss",
    "mask_areas",
    "mask_coverage",
    "mask_crops",
    "mask_occupancy",
    "mask_profiles",
    "masks_to_boxes",
    "matrix_nms",
    "matte_loss",
    "pairwise_intersection",
    "pairwise_mask_iou",
    "point_nms",
    "profiles_to_boxes",
    "profiles_to_centroids",
    "quality_focal_loss",
    "rank_sort_loss",
    "resize_bilinear",
    "sample_points",
    "soft_nms",
]
