"""What a model is given: images and ground truth in Detectron2's format, checked."""

from __future__ import annotations

from typing import Any

import torch
from detectron2.structures import BitMasks, Instances, PolygonMasks
from torch import Tensor

__all__ = ["check_image", "check_objects", "check_semantic_labels", "wanted_size"]

Size = tuple[int, int]


def check_image(image: Any, channels: int, *, stored: bool = False) -> None:
    """Check the image of one input.

    Args:
        image: a tensor (channels, H, W) with a pixel, of numbers from 0 to 255.
        channels: of the model.
        stored: it is resized as image files are, for which it must be uint8.

    Raises:
        ValueError: it is none.
    """
    if not isinstance(image, Tensor):
        raise ValueError(
            f'every input needs "image", a tensor ({channels}, H, W) of values from 0 to 255; got '
            f"{type(image).__name__}"
        )
    if image.dim() != 3 or image.shape[0] != channels or 0 in image.shape:
        raise ValueError(
            f'"image" must have the shape ({channels}, H, W), as many channels as '
            f"MODEL.PIXEL_MEAN has values; got {tuple(image.shape)}"
        )
    if stored and image.dtype != torch.uint8:
        raise ValueError(
            f'"image" must be uint8, as it is resized here, got {image.dtype}; round it'
        )
    if image.dtype == torch.bool or image.is_complex():
        raise ValueError(f'"image" must hold numbers from 0 to 255, got {image.dtype}')


def wanted_size(inputs: dict[str, Any], image_size: Size) -> Size:
    """Return (height, width) of the output that is asked for; by default the image's own.

    Raises:
        ValueError: it has no pixel.
    """
    size = int(inputs.get("height", image_size[0])), int(inputs.get("width", image_size[1]))
    if min(size) < 1:
        raise ValueError(f'"height" and "width" of an output must be at least 1, got {size}')
    return size


def check_objects(objects: Any, image_size: Size) -> None:
    """Check the ground truth of one image.

    Args:
        objects: `Instances` with ``gt_classes`` and ``gt_masks``; without objects it may have
            neither.
        image_size: (height, width) of the image.

    Raises:
        ValueError: it has another size, a field is missing, or a field has another type.
    """
    if not isinstance(objects, Instances):
        raise ValueError(f'"instances" must be Instances of Detectron2, got {type(objects)}')
    _compare("instances", tuple(objects.image_size), image_size)
    if not objects.get_fields():
        return
    if not objects.has("gt_classes"):
        raise ValueError('"instances" have no gt_classes; give each object its class, from 0 on')
    labels = objects.gt_classes
    if not isinstance(labels, Tensor) or labels.is_floating_point() or labels.dtype == torch.bool:
        kind = labels.dtype if isinstance(labels, Tensor) else type(labels).__name__
        raise ValueError(f"gt_classes must be a tensor of integers, got {kind}")
    if not objects.has("gt_masks"):
        return  # said where they are needed
    masks = objects.gt_masks
    if not isinstance(masks, BitMasks | PolygonMasks | Tensor):
        raise ValueError(
            f"gt_masks must be BitMasks or PolygonMasks, got {type(masks).__name__}; decode RLEs "
            "with BitMasks(pycocotools.mask.decode(...))"
        )
    if not isinstance(masks, PolygonMasks):
        tensor = masks.tensor if isinstance(masks, BitMasks) else masks
        _compare("gt_masks", tuple(tensor.shape[-2:]), image_size)


def check_semantic_labels(labels: Any, image_size: Size) -> None:
    """Check the semantic labels of one image.

    Args:
        labels: ``sem_seg``, integers (H, W).
        image_size: (height, width) of the image.

    Raises:
        ValueError: they have another size or type.
    """
    if not isinstance(labels, Tensor) or labels.is_floating_point() or labels.dtype == torch.bool:
        kind = labels.dtype if isinstance(labels, Tensor) else type(labels).__name__
        raise ValueError(f'"sem_seg" must be a tensor of integers (H, W), got {kind}')
    _compare('"sem_seg"', tuple(labels.shape), image_size)


def _compare(what: str, size: tuple[int, ...], image_size: Size) -> None:
    if size != tuple(image_size):
        raise ValueError(
            f"{what} of (height, width) {size} do not belong to an image of {tuple(image_size)}; "
            "resize and crop both alike"
        )
