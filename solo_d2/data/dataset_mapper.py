"""From a dataset dict to the model's input."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from detectron2.config import CfgNode, configurable
from detectron2.data import DatasetMapper, detection_utils
from detectron2.data import transforms as T
from detectron2.structures import Instances

from ..io.errors import shown
from ..io.image import ImageError, open_image, read_image
from ..io.panoptic_png import read_panoptic_png, semantic_labels
from ..io.paths import printable
from .datasets.image_sizes import size_mismatch
from .jitter import jitter_scale
from .masks import checked_masks, transform_masks
from .records import is_crowd
from .resize import use_resize_filter
from .scenes.composed import SCENE, STUFF, compose_record


class SOLODatasetMapper(DatasetMapper):
    """Detectron2's mapper for images and instance masks, with a reader that names bad files.

    It differs in five points: every kind of image is read as `read_image` says (16-bit images are
    scaled and not clipped), the filter of resizing can be chosen, boxes are always those of the
    transformed masks and need not be in the record, crops need no shapely, and an image without
    objects yields empty instances, which training accepts. Crowds are dropped.

    Args:
        augmentations: as for Detectron2's `DatasetMapper`.
        max_value: the value of images with more than 8 bits that becomes 255, see `read_image`.
        resize_filter: of the augmentations that resize, see `resize_image`.
        **kwargs: as for Detectron2's `DatasetMapper`.
    """

    @configurable
    def __init__(
        self,
        *,
        augmentations: Sequence[T.Augmentation | T.Transform],
        max_value: float = 0,
        resize_filter: str = "pillow",
        **kwargs: Any,
    ) -> None:
        super().__init__(augmentations=use_resize_filter(augmentations, resize_filter), **kwargs)
        self.max_value = max_value

    @classmethod
    def from_config(cls, cfg: CfgNode, is_train: bool = True) -> dict[str, Any]:
        """Detectron2's arguments, `INPUT.LSJ`, `INPUT.MAX_VALUE` and `INPUT.RESIZE_FILTER`."""
        arguments = super().from_config(cfg, is_train)
        if is_train and cfg.INPUT.LSJ.ENABLED:
            arguments["augmentations"] = jitter_scale(cfg, arguments["augmentations"])
        return {
            **arguments,
            "max_value": cfg.INPUT.MAX_VALUE,
            "resize_filter": cfg.INPUT.RESIZE_FILTER,
        }

    def __call__(self, dataset_dict: dict[str, Any]) -> dict[str, Any]:
        """Read, augment and annotate one image.

        Args:
            dataset_dict: in Detectron2's standard format, or as of `ComposedScenes`; not changed.

        Returns:
            The dict with ``image``, (3, H, W) uint8, and, in training, ``instances``.

        Raises:
            ValueError: the image cannot be read or has another size than its record says, or
                annotations have no masks or impossible ones.
        """
        return self.augment(self.read(dataset_dict))

    def read(self, dataset_dict: dict[str, Any]) -> dict[str, Any]:
        """Read one image and its labels.

        Args:
            dataset_dict: as for a call; not changed.

        Returns:
            A copy with ``image``, (H, W, 3) uint8 in the format of the model, and ``sem_seg``,
            labels (H, W), or None where the model needs none.

        Raises:
            ValueError: see a call.
        """
        if SCENE in dataset_dict:
            record = compose_record(dataset_dict, self.image_format)
        else:
            record = copy.deepcopy(dataset_dict)
            name = record["file_name"]
            image = read_image(name, self.image_format, max_value=self.max_value)
            _check_size(record, (image.shape[0], image.shape[1]))
            record["image"] = image
        record["sem_seg"] = self._labels(record)
        return record

    def augment(self, dataset_dict: dict[str, Any]) -> dict[str, Any]:
        """Augment and annotate one image.

        Args:
            dataset_dict: of `read`; changed.

        Returns:
            See a call.

        Raises:
            ValueError: annotations have no masks or impossible ones.
        """
        augmented = T.AugInput(dataset_dict["image"], sem_seg=dataset_dict.pop("sem_seg"))
        transforms = self.augmentations(augmented)
        image = augmented.image
        dataset_dict["image"] = torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1)))
        annotations = dataset_dict.pop("annotations", None) or []
        if augmented.sem_seg is not None:
            labels = np.ascontiguousarray(augmented.sem_seg, np.int64)
            dataset_dict["sem_seg"] = torch.from_numpy(labels)
        if self.is_train:
            dataset_dict["instances"] = self._instances(
                [x for x in annotations if not is_crowd(x)],
                transforms,
                image.shape[:2],
                dataset_dict,
            )
        return dataset_dict

    def _labels(self, dataset_dict: dict[str, Any]) -> np.ndarray | None:
        """Labels (H, W) of a semantic segmentation; instances need none."""
        for key in ("sem_seg_file_name", "pan_seg_file_name", "segments_info", STUFF):
            dataset_dict.pop(key, None)
        return None

    def _instances(
        self,
        annotations: list[dict[str, Any]],
        transforms: T.TransformList,
        size: tuple[int, int],
        record: dict[str, Any],
    ) -> Instances:
        """Ground truth of an augmented image of `size`; `record` is the image's."""
        masks = checked_masks(annotations, (record["height"], record["width"]), record["file_name"])
        used = [i for i, mask in enumerate(masks) if mask is not None]
        instances = Instances(size)
        instances.gt_classes = labels_of([annotations[i] for i in used], record["file_name"])
        if not used:
            return instances
        instances.gt_masks = transform_masks(
            [masks[i] for i in used],
            transforms,
            size,
            as_polygons=self.instance_mask_format == "polygon",
        )
        instances.gt_boxes = instances.gt_masks.get_bounding_boxes()
        return detection_utils.filter_empty_instances(instances)


def labels_of(annotations: Sequence[dict[str, Any]], file_name: str) -> torch.Tensor:
    """Return the classes of annotations, int64 (I,).

    Raises:
        ValueError: a class that is no whole number.
    """
    labels = [x.get("category_id") for x in annotations]
    wrong = [x for x in labels if isinstance(x, bool) or not isinstance(x, (int, np.integer))]
    if wrong:
        raise ValueError(
            f"an annotation of {printable(file_name)} has the class {shown(wrong[0])}; expected a "
            "whole number from 0"
        )
    return torch.tensor(labels, dtype=torch.int64)


def _check_size(record: dict[str, Any], size: tuple[int, int]) -> None:
    """Compare the size of an image with that of its record, and fill in what the record lacks.

    Raises:
        ValueError: they differ.
    """
    stated = (record.setdefault("height", size[0]), record.setdefault("width", size[1]))
    if stated != size:
        raise ValueError(size_mismatch(record, size))


class PanopticDatasetMapper(SOLODatasetMapper):
    """`SOLODatasetMapper` that adds the labels of a semantic segmentation in training.

    They come from a prepared image of labels (``sem_seg_file_name``, as in Detectron2's own
    panoptic sets), or are made of the panoptic PNG (``pan_seg_file_name`` and ``segments_info``,
    as in `solo_d2.data.datasets.panoptic`), and go through the same augmentations as the image.

    Args:
        ignore_value: label of pixels without a class.
        **kwargs: as for Detectron2's `DatasetMapper`.
    """

    @configurable
    def __init__(self, *, ignore_value: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.ignore_value = ignore_value

    @classmethod
    def from_config(cls, cfg: CfgNode, is_train: bool = True) -> dict[str, Any]:
        """Detectron2's arguments and `MODEL.SEM_SEG_HEAD.IGNORE_VALUE`."""
        arguments = super().from_config(cfg, is_train)
        return {**arguments, "ignore_value": cfg.MODEL.SEM_SEG_HEAD.IGNORE_VALUE}

    def _labels(self, dataset_dict: dict[str, Any]) -> np.ndarray | None:
        prepared = dataset_dict.get("sem_seg_file_name")
        panoptic = dataset_dict.get("pan_seg_file_name")
        segments = dataset_dict.get("segments_info", [])
        stuff = dataset_dict.get(STUFF)
        super()._labels(dataset_dict)
        if not self.is_train:
            return None
        if stuff is not None:
            labels = np.where(stuff > 0, stuff, np.uint8(self.ignore_value))
            for annotation in dataset_dict["annotations"]:
                labels[annotation["segmentation"]] = 0
            return labels
        if prepared is not None:
            return _read_labels(prepared)
        if panoptic is None:
            raise ValueError(
                f"{dataset_dict['file_name']} has neither a 'sem_seg_file_name' nor a "
                "'pan_seg_file_name': use a panoptic dataset (docs/panoptic.md)"
            )
        return semantic_labels(read_panoptic_png(panoptic), segments, panoptic, self.ignore_value)


def _read_labels(path: str) -> np.ndarray:
    """Labels (H, W), uint8, of a grey or palette image."""
    try:
        with open_image(path) as image:
            mode, labels = image.mode, np.asarray(image)
    except ImageError as error:
        raise ValueError(
            f"{path}: the labels cannot be read: {error.reason} For COCO they are made by "
            "Detectron2's datasets/prepare_panoptic_fpn.py"
        ) from error
    if mode not in ("L", "P"):
        raise ImageError(path, f"expected 8-bit labels, got the mode {mode}")
    return labels
