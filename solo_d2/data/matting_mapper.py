"""Alpha mattes as ground truth, through the same augmentations as their image."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from detectron2.data import detection_utils
from detectron2.data import transforms as T
from detectron2.structures import BitMasks, Instances

from ..io.alpha import annotation_matte
from .dataset_mapper import SOLODatasetMapper, labels_of
from .jitter import pad_empty
from .masks import checked_masks


class MattingDatasetMapper(SOLODatasetMapper):
    """`SOLODatasetMapper` whose instances have mattes.

    ``gt_mattes``, uint8 (I, H, W) with 255 for opaque, is the annotation's "alpha" at the size of
    the image, or else its mask, and takes every geometric augmentation as the image takes it,
    with the same interpolation. ``gt_masks`` is where it is at least one half.
    """

    def _instances(
        self,
        annotations: list[dict[str, Any]],
        transforms: T.TransformList,
        size: tuple[int, int],
        record: dict[str, Any],
    ) -> Instances:
        native, name = (record["height"], record["width"]), record["file_name"]
        mattes = np.zeros((len(annotations), *size), dtype=np.uint8)
        for i, matte in enumerate(native_mattes(annotations, native, name)):
            mattes[i] = transform_matte(matte, transforms)
        instances = Instances(size)
        instances.gt_classes = labels_of(annotations, name)
        instances.gt_mattes = torch.from_numpy(mattes)
        instances.gt_masks = BitMasks(instances.gt_mattes >= 128)
        instances.gt_boxes = instances.gt_masks.get_bounding_boxes()
        return detection_utils.filter_empty_instances(instances)


def native_mattes(
    annotations: Sequence[dict[str, Any]], size: tuple[int, int], file_name: str
) -> Iterator[np.ndarray]:
    """Yield the matte of each annotation of an image: its "alpha", or else its mask.

    Args:
        annotations: Detectron2's.
        size: (height, width) of the image as stored.
        file_name: of the image, for messages.

    Yields:
        (height, width) uint8, 255 for opaque.

    Raises:
        ValueError: neither alpha nor mask, or one that does not fit the image.
    """
    flat = [
        i
        for i, x in enumerate(annotations)
        if "alpha" not in x and x.get("segmentation") is not None
    ]
    checked = checked_masks([annotations[i] for i in flat], size, file_name)
    masks = dict(zip(flat, checked, strict=True))
    for i, annotation in enumerate(annotations):
        if i in masks:
            mask = [] if masks[i] is None else masks[i]
            annotation = {**annotation, "segmentation": mask}
        yield annotation_matte(annotation, size, file_name)


def transform_matte(matte: np.ndarray, transforms: T.TransformList) -> np.ndarray:
    """Apply the geometry of an image's augmentations to a matte.

    Args:
        matte: (h, w) uint8.
        transforms: as the image took them. Those of colours leave the matte as it is, and what
            they pad is transparent.

    Returns:
        (H, W) uint8, resampled as the image.
    """
    for transform in transforms.transforms:
        if isinstance(transform, T.PadTransform):
            matte = pad_empty(matte, transform)
        # A transform of colours is one that moves no label. One that moves labels, but none of
        # this matte's, as a flip of a symmetric one, changes nothing either way.
        elif not np.array_equal(transform.apply_segmentation(matte), matte):
            matte = transform.apply_image(matte)
    return matte
