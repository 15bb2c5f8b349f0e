"""Alpha mattes as ground truth, through the same augmentations as their picture."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from detectron2.data import detection_utils
from detectron2.data import transforms as T
from detectron2.structures import BitMasks, Instances
from detectron2.structures.masks import polygons_to_bitmask
from pycocotools import mask as mask_util

from ..io.alpha import read_matte
from .dataset_mapper import SOLODatasetMapper


class MattingDatasetMapper(SOLODatasetMapper):
    """`SOLODatasetMapper` whose instances have mattes.

    ``gt_mattes``, uint8 (I, H, W) with 255 for opaque, is the annotation's "alpha" at the size of
    the picture, or else its mask, and takes every geometric augmentation as the picture takes it,
    with the same interpolation. ``gt_masks`` is where it is at least one half.
    """

    def _instances(
        self,
        annotations: list[dict[str, Any]],
        transforms: T.TransformList,
        size: tuple[int, int],
        record: dict[str, Any],
    ) -> Instances:
        native = (int(record["height"]), int(record["width"]))
        mattes = np.zeros((len(annotations), *size), dtype=np.uint8)
        for matte, annotation in zip(mattes, annotations, strict=True):
            matte[:] = transform_matte(
                annotation_matte(annotation, native, record["file_name"]), transforms
            )
        instances = Instances(size)
        instances.gt_classes = torch.tensor(
            [annotation["category_id"] for annotation in annotations], dtype=torch.int64
        )
        instances.gt_mattes = torch.from_numpy(mattes)
        instances.gt_masks = BitMasks(instances.gt_mattes >= 128)
        instances.gt_boxes = instances.gt_masks.get_bounding_boxes()
        return detection_utils.filter_empty_instances(instances)


def annotation_matte(
    annotation: dict[str, Any], size: tuple[int, int], file_name: str
) -> np.ndarray:
    """The matte of an annotation, before any augmentation.

    Args:
        annotation: Detectron2's, with "alpha" (see `read_matte`), or with a mask.
        size: (height, width) of the picture as stored.
        file_name: of the picture, for errors.

    Returns:
        (height, width) uint8, 255 for opaque.

    Raises:
        ValueError: neither alpha nor mask, or one that does not fit the picture.
    """
    if "alpha" in annotation:
        return read_matte(annotation["alpha"], size)
    if "segmentation" not in annotation:
        raise ValueError(
            f"an annotation of {file_name} has neither 'alpha' nor 'segmentation'; give each "
            "object a matte or a mask"
        )
    segmentation = annotation["segmentation"]
    if isinstance(segmentation, list):
        mask = polygons_to_bitmask(segmentation, *size) if segmentation else np.zeros(size, bool)
    elif isinstance(segmentation, dict):
        runs = isinstance(segmentation["counts"], list)
        mask = mask_util.decode(
            mask_util.frPyObjects(segmentation, *size) if runs else segmentation
        )
    else:
        mask = np.asarray(segmentation)
    if mask.shape != size:
        raise ValueError(
            f"a mask of {file_name} has {mask.shape[1]}x{mask.shape[0]} pixels, the picture "
            f"{size[1]}x{size[0]}"
        )
    return (mask != 0).astype(np.uint8) * np.uint8(255)


def transform_matte(matte: np.ndarray, transforms: T.TransformList) -> np.ndarray:
    """Apply the geometry of a picture's augmentations to a matte.

    Args:
        matte: (h, w) uint8.
        transforms: as the picture took them. Those of colours leave the matte as it is, and what
            they pad is transparent.

    Returns:
        (H, W) uint8, resampled as the picture.
    """
    for transform in transforms.transforms:
        if isinstance(transform, T.PadTransform):
            around = ((transform.y0, transform.y1), (transform.x0, transform.x1))
            matte = np.pad(matte, around)
        # A transform of colours is one that moves no label. One that moves labels, but none of
        # this matte's, as a flip of a symmetric one, changes nothing either way.
        elif not np.array_equal(transform.apply_segmentation(matte), matte):
            matte = transform.apply_image(matte)
    return matte
