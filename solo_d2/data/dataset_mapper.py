"""From a dataset dict to the model's input."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import torch
from detectron2.data import DatasetMapper, detection_utils
from detectron2.data import transforms as T
from detectron2.structures import Instances

from .image import read_image


class SOLODatasetMapper(DatasetMapper):
    """Detectron2's mapper for images and instance masks, with a reader that names bad files.

    It differs in three points: every kind of picture is read as `read_image` says (16-bit pictures
    are scaled and not clipped), boxes are always those of the transformed masks, and an image
    without objects yields empty instances, which training accepts. Crowds are dropped.
    """

    def __call__(self, dataset_dict: dict[str, Any]) -> dict[str, Any]:
        """Read, augment and annotate one image.

        Args:
            dataset_dict: in Detectron2's standard format; not changed.

        Returns:
            The dict with ``image``, (3, H, W) uint8, and, in training, ``instances``.

        Raises:
            ValueError: the image cannot be read, or annotations have no masks.
        """
        dataset_dict = copy.deepcopy(dataset_dict)
        image = read_image(dataset_dict["file_name"], self.image_format)
        detection_utils.check_image_size(dataset_dict, image)
        augmented = T.AugInput(image)
        transforms = self.augmentations(augmented)
        image = augmented.image
        dataset_dict["image"] = torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1)))
        annotations = dataset_dict.pop("annotations", [])
        dataset_dict.pop("sem_seg_file_name", None)
        if self.is_train:
            dataset_dict["instances"] = self._instances(
                [x for x in annotations if not x.get("iscrowd", 0)],
                transforms,
                image.shape[:2],
                dataset_dict["file_name"],
            )
        return dataset_dict

    def _instances(
        self,
        annotations: list[dict[str, Any]],
        transforms: T.TransformList,
        size: tuple[int, int],
        file_name: str,
    ) -> Instances:
        if not annotations:
            instances = Instances(size)
            instances.gt_classes = torch.zeros(0, dtype=torch.int64)
            return instances
        bare = sum("segmentation" not in x for x in annotations)
        if bare:
            raise ValueError(
                f"{bare} of {len(annotations)} annotations of {file_name} have no segmentation; "
                "SOLO learns from masks"
            )
        objects = [
            detection_utils.transform_instance_annotations(x, transforms, size) for x in annotations
        ]
        instances = detection_utils.annotations_to_instances(
            objects, size, mask_format=self.instance_mask_format
        )
        instances.gt_boxes = instances.gt_masks.get_bounding_boxes()
        return detection_utils.filter_empty_instances(instances)
