"""Contracts of the parts that other code can add: checks for the tests of their authors.

Every check raises an `AssertionError` that names the rule which does not hold.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from detectron2.config import CfgNode, get_cfg
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.layers import ShapeSpec
from detectron2.modeling import build_model
from detectron2.structures import BitMasks, BoxMode, Instances
from torch import Tensor

from .config import add_solo_config
from .modeling.grid import GridSpec
from .modeling.heads import SOLOHead, build_solo_head
from .modeling.model_config import reset_unused_keys
from .modeling.structures import SOLOPredictions

__all__ = [
    "check_head",
    "check_mask_loss",
    "check_nms",
    "tiny_config",
    "tiny_dataset",
    "tiny_results",
]

_STRIDES = {"p2": 4, "p3": 8, "p4": 16, "p5": 32, "p6": 64}
_SIZE = (16, 24)
"""Masks of an image of 64 x 96 at stride 4."""


def tiny_config(*overrides: Any) -> CfgNode:
    """Return a config of a `SOLO` with random weights that runs in milliseconds on a CPU.

    Args:
        overrides: KEY, VALUE, KEY, VALUE, ...

    Example:
        >>> tiny_config("MODEL.SOLO.NUM_CLASSES", 5).MODEL.SOLO.NUM_CLASSES
        5
    """
    cfg = get_cfg()
    add_solo_config(cfg)
    cfg.MODEL.META_ARCHITECTURE = "SOLO"
    cfg.MODEL.DEVICE = "cpu"
    cfg.MODEL.WEIGHTS = ""
    cfg.MODEL.MASK_ON = True
    cfg.MODEL.BACKBONE.NAME = "build_resnet_fpn_backbone"
    stages = ["res2", "res3", "res4", "res5"]
    # Narrow layers: Detectron2 has none for ResNet-18, which takes four times as long.
    cfg.MODEL.RESNETS.DEPTH = 50
    cfg.MODEL.RESNETS.STEM_OUT_CHANNELS = 8
    cfg.MODEL.RESNETS.RES2_OUT_CHANNELS = 16
    cfg.MODEL.RESNETS.WIDTH_PER_GROUP = 4
    cfg.MODEL.RESNETS.OUT_FEATURES = stages
    cfg.MODEL.FPN.IN_FEATURES = stages
    cfg.MODEL.FPN.OUT_CHANNELS = 32
    node = cfg.MODEL.SOLO
    node.NUM_CLASSES = 3
    node.NUM_GRIDS = [12, 10, 8, 6, 4]
    node.SCALE_RANGES = [[1, 24], [12, 48], [24, 96], [48, 192], [96, 512]]
    node.NUM_CONVS = 1
    node.CONV_DIM = node.KERNEL_DIM = node.MASK_FEATURE.CONV_DIM = 32
    cfg.INPUT.MASK_FORMAT = "bitmask"
    cfg.merge_from_list(list(overrides))
    reset_unused_keys(cfg)  # of those above, what the chosen head and backbone do not use
    cfg.merge_from_list(list(overrides))
    return cfg


def tiny_dataset() -> str:
    """Register a dataset of one image of 64 x 96 pixels with a cup and a spoon.

    The image has the id 1; there is no file of it.

    Returns:
        The name of the dataset, with three classes and COCO's evaluator.

    Example:
        >>> from solo_d2.evaluation import build_evaluator
        >>> type(build_evaluator(tiny_dataset())).__name__
        'COCOInstanceEvaluator'
    """
    name = "solo_d2_tiny"
    if name not in DatasetCatalog:
        DatasetCatalog.register(name, _tiny_records)
        classes = ["cup", "fork", "spoon"]
        metadata = {"thing_classes": classes, "class_frequencies": ["f", "c", "r"]}
        MetadataCatalog.get(name).set(evaluator_type="coco", source="solo_d2.testing", **metadata)
    return name


def tiny_results() -> Instances:
    """Return the instances that a perfect model finds in the image of `tiny_dataset`.

    Example:
        >>> tiny_results().pred_masks.shape
        torch.Size([2, 64, 96])
    """
    truth = _training_input()["instances"]
    return Instances(
        truth.image_size,
        pred_masks=truth.gt_masks.tensor,
        pred_boxes=truth.gt_boxes,
        pred_classes=truth.gt_classes,
        scores=torch.tensor([0.9, 0.8]),
    )


def _tiny_records() -> list[dict[str, Any]]:
    truth = _training_input()["instances"]
    found = zip(truth.gt_boxes.tensor.tolist(), truth.gt_classes.tolist(), strict=True)
    annotations = [
        {
            "bbox": box,
            "bbox_mode": BoxMode.XYXY_ABS,
            "category_id": label,
            "segmentation": [[box[0], box[1], box[2], box[1], box[2], box[3], box[0], box[3]]],
        }
        for box, label in found
    ]
    image = {"file_name": "tiny.png", "image_id": 1, "height": 64, "width": 96}
    return [{**image, "annotations": annotations}]


def check_head(name: str, *overrides: Any) -> None:
    """Check that a registered head keeps the contract of `SOLOHead`.

    Args:
        name: in `SOLO_HEAD_REGISTRY`.
        overrides: config that it needs, KEY, VALUE, ...

    Raises:
        AssertionError: A rule does not hold.

    Example:
        >>> check_head("DynamicSOLOHead", "MODEL.SOLO.KERNEL_SIZE", 3)
    """
    cfg = tiny_config("MODEL.SOLO.HEAD", name, "MODEL.SOLO.PRIOR_PROB", 0.5, *overrides)
    head = _make_head(cfg)
    features = _make_features()
    predictions = head(features)
    _check_predictions(head, predictions)
    _check_some_cells(head, predictions)
    _check_masks_are_its_own(head, predictions)
    _check_images_are_independent(head, features, predictions)
    _check_no_cells(head, predictions)
    _check_training(cfg)


def _make_head(cfg: CfgNode) -> SOLOHead:
    torch.manual_seed(0)
    node = cfg.MODEL.SOLO
    channels = cfg.MODEL.FPN.OUT_CHANNELS
    shapes = {name: ShapeSpec(channels=channels, stride=s) for name, s in _STRIDES.items()}
    strides = [_STRIDES[name] for name in node.IN_FEATURES]
    grid = GridSpec.build(node.NUM_GRIDS, node.SCALE_RANGES, strides)
    head = build_solo_head(cfg, shapes, grid)
    with torch.no_grad():  # far from constant masks, which would hide mistakes
        for parameter in head.parameters():
            parameter.add_(torch.randn(parameter.shape), alpha=0.1 if parameter.dim() > 1 else 0.5)
    return head


def _make_features() -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(1)
    height, width = (4 * side for side in _SIZE)
    return {
        name: torch.randn(2, 32, math.ceil(height / s), math.ceil(width / s), generator=generator)
        for name, s in _STRIDES.items()
    }


def _check_predictions(head: SOLOHead, predictions: SOLOPredictions) -> None:
    shapes = [tuple(logits.shape) for logits in predictions.category_logits]
    expected = [(2, head.num_classes, size, size) for size in head.grid.num_grids]
    assert shapes == expected, f"category logits per level are {expected}, got {shapes}"
    assert len(head.mask_strides) == head.grid.num_levels, "mask_strides has one entry per level"


def _check_some_cells(head: SOLOHead, predictions: SOLOPredictions) -> None:
    count = head.grid.num_cells
    everything = head.mask_probs(predictions, 1, torch.arange(count), size=_SIZE)
    assert everything.shape == (count, *_SIZE), "mask_probs returns (K, *size)"
    assert everything.dtype == torch.float32, "soft masks are float32"
    assert 0 <= everything.min() <= everything.max() <= 1, "soft masks lie in [0, 1]"
    cells = torch.tensor([count - 1, 0, count // 2, 0, 1])  # out of order, one of them twice
    some = head.mask_probs(predictions, 1, cells, size=_SIZE)
    assert torch.allclose(some, everything[cells], atol=1e-5), (
        "a cell's mask does not depend on which other cells are asked for"
    )


def _check_masks_are_its_own(head: SOLOHead, predictions: SOLOPredictions) -> None:
    cells = torch.arange(0, head.grid.num_cells, 7)
    with torch.no_grad():
        probs = head.mask_probs(predictions, 0, cells, size=_SIZE)
        expected = probs.clone()
        assert probs.is_contiguous(), "masks are not expanded: inference overwrites them"
        probs.zero_()
        again = head.mask_probs(predictions, 0, cells, size=_SIZE)
    assert torch.equal(again, expected), "masks are new tensors: inference overwrites them"


def _check_images_are_independent(
    head: SOLOHead, features: dict[str, Tensor], both: SOLOPredictions
) -> None:
    cells = torch.arange(0, head.grid.num_cells, 7)
    for image in range(2):
        alone = head({name: x[image : image + 1] for name, x in features.items()})
        first = head.mask_probs(both, image, cells, size=_SIZE)
        second = head.mask_probs(alone, 0, cells, size=_SIZE)
        assert torch.allclose(first, second, atol=1e-4), "the images of a batch do not mix"


def _check_no_cells(head: SOLOHead, predictions: SOLOPredictions) -> None:
    nothing = torch.zeros(0, dtype=torch.int64)
    probs = head.mask_probs(predictions, 0, nothing, size=_SIZE)
    assert probs.shape == (0, *_SIZE), "no cells have no masks"
    total = probs.sum() + sum(x.sum() for x in predictions.category_logits)
    total.backward()
    missing = [n for n, p in head.named_parameters() if p.requires_grad and p.grad is None]
    assert not missing, f"parameters without a gradient where no cell is positive: {missing}"


def _check_training(cfg: CfgNode) -> None:
    torch.manual_seed(0)
    model = build_model(cfg)
    losses = model([_training_input()])
    total = torch.stack(list(losses.values())).sum()
    assert bool(total.isfinite()), f"losses are finite, got {losses}"
    total.backward()
    missing = [n for n, p in model.named_parameters() if p.requires_grad and p.grad is None]
    assert not missing, f"parameters without a gradient: {missing}"
    with torch.no_grad():
        instances = model.eval()([{"image": _training_input()["image"]}])[0]["instances"]
    assert instances.pred_masks.shape[1:] == (64, 96), "masks have the size of the image"


def _training_input() -> dict[str, Any]:
    masks = torch.zeros(2, 64, 96, dtype=torch.bool)
    masks[0, 8:40, 8:40] = masks[1, 20:60, 50:90] = True
    instances = Instances((64, 96), gt_masks=BitMasks(masks), gt_classes=torch.tensor([0, 2]))
    instances.gt_boxes = instances.gt_masks.get_bounding_boxes()
    image = torch.randint(0, 256, (3, 64, 96), generator=torch.Generator().manual_seed(0))
    return {"image": image.to(torch.uint8), "instances": instances}


def check_nms(nms: Callable[..., Tensor]) -> None:
    """Check that a function keeps the contract of `MASK_NMS`.

    Args:
        nms: called with masks (K, H, W), labels (K,) and scores (K,).

    Raises:
        AssertionError: A rule does not hold.

    Example:
        >>> from solo_d2.layers import matrix_nms
        >>> check_nms(matrix_nms)
    """
    generator = torch.Generator().manual_seed(0)
    masks = torch.rand(30, 8, 8, generator=generator) > 0.5
    masks[1::2] |= masks[::2]
    labels = torch.randint(0, 3, (30,), generator=generator)
    scores = torch.rand(30, generator=generator)
    found = nms(masks, labels, scores)
    assert found.shape == (30,), "one new score for each mask"
    assert bool((found >= 0).all() and (found <= scores).all()), "no score grows or is negative"
    order = torch.randperm(30, generator=generator)
    again = nms(masks[order], labels[order], scores[order])
    assert torch.allclose(again, found[order]), "the order of the input does not matter"
    alone = torch.cat(
        [nms(masks[labels == k], labels[labels == k], scores[labels == k]) for k in range(3)]
    )
    together = torch.cat([found[labels == k] for k in range(3)])
    assert torch.allclose(alone, together), "masks of different classes do not meet"
    apart = torch.zeros(2, 8, 8, dtype=torch.bool)
    apart[0, :4] = apart[1, 4:] = True
    kept = nms(apart, torch.zeros(2, dtype=torch.int64), scores[:2])
    assert torch.equal(kept, scores[:2]), "masks that do not overlap keep their scores"
    empty = nms(apart[:0], torch.zeros(0, dtype=torch.int64), scores[:0])
    assert empty.shape == (0,), "no masks have no scores"


def check_mask_loss(loss: Callable[[Tensor, Tensor], Tensor]) -> None:
    """Check that a function keeps the contract of `MASK_LOSSES`.

    Args:
        loss: called with soft masks (K, H, W) and their targets.

    Raises:
        AssertionError: A rule does not hold.

    Example:
        >>> from solo_d2.layers import dice_loss
        >>> check_mask_loss(dice_loss)
    """
    targets = torch.zeros(3, 16, 16, dtype=torch.bool)
    targets[0, 2:9, 3:12] = targets[1, 8:, 8:] = True  # the third one is empty
    probs = torch.rand(3, 16, 16, generator=torch.Generator().manual_seed(0)).requires_grad_()
    found = loss(probs, targets)
    assert found.shape == (3,), "one loss for each mask"
    assert torch.allclose(found, loss(probs, targets.float())), "boolean targets are 0 and 1"
    found.sum().backward()
    assert probs.grad is not None and bool(probs.grad.isfinite().all()), "gradients are finite"
    perfect, wrong = loss(targets.float(), targets), loss(1 - targets.float(), targets)
    assert bool((perfect[:2] < wrong[:2]).all()), "the true mask has less loss than its complement"
    assert bool(perfect.isfinite().all() and wrong.isfinite().all()), "losses are finite"
    nothing = torch.zeros(0, 16, 16, requires_grad=True)
    assert loss(nothing, targets[:0]).shape == (0,), "no masks have no losses"
