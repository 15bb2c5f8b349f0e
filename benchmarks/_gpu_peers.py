"""SOLOv2 of AdelaiDet and of mmdetection with our weights: whole inference and training steps.

AdelaiDet comes from the user's checkout, of which only SOLOv2 is imported, and mmdetection from the
installed `mmdet`. Both run unchanged, but for the focal loss of mmdetection on a GPU where `mmcv`
was installed without compiled operations: it is then the one that a CPU uses.
"""

from __future__ import annotations

import copy
import importlib
import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import torch
from _peer import import_adelaidet
from detectron2.modeling import build_model
from detectron2.structures import Instances
from torch import Tensor, nn

from solo_d2 import SOLO
from solo_d2.checkpoint.foreign.convert import convert_state_dict

Inputs = list[dict[str, Any]]


class Peer(NamedTuple):
    """Another implementation.

    Attributes:
        name: of the project.
        model: its module, with our weights.
        predict: from inputs in Detectron2's format to instances at the output's size.
        losses: sum of the losses of such inputs.
    """

    name: str
    model: nn.Module
    predict: Callable[[Inputs], list[Instances]]
    losses: Callable[[Inputs], Tensor]


def share_weights(peer: nn.Module, ours: SOLO) -> None:
    """Give the weights of our model to that of a peer, by the names that a conversion gives."""
    state = peer.state_dict()
    keys = list(state)
    numbers = {key: torch.full_like(state[key], i, dtype=torch.int32) for i, key in enumerate(keys)}
    mine = ours.state_dict()
    with torch.no_grad():
        for name, number in convert_state_dict(numbers).items():
            state[keys[int(number.flatten()[0])]].copy_(mine[name])


def adelaidet(checkout: Path, ours: SOLO, depth: int) -> Peer:
    """Build AdelaiDet's SOLOv2 like ours."""
    import_adelaidet(checkout)
    cfg = importlib.import_module("adet.config").get_cfg()
    head = ours.head
    values: dict[str, Any] = {
        "MODEL.META_ARCHITECTURE": "SOLOv2",
        "MODEL.DEVICE": str(ours.device),
        "MODEL.WEIGHTS": "",
        "MODEL.BACKBONE.NAME": "build_resnet_fpn_backbone",
        "MODEL.RESNETS.OUT_FEATURES": ["res2", "res3", "res4", "res5"],
        "MODEL.RESNETS.DEPTH": depth,
        "MODEL.RESNETS.RES2_OUT_CHANNELS": 256 if depth >= 50 else 64,
        "MODEL.FPN.IN_FEATURES": ["res2", "res3", "res4", "res5"],
        "MODEL.SOLOV2.INSTANCE_CHANNELS": head.kernel_tower.out_channels,
        "MODEL.SOLOV2.NUM_INSTANCE_CONVS": len(head.kernel_tower),
    }
    for key, value in values.items():
        cfg.merge_from_list([key, value])
    torch.manual_seed(0)
    model = build_model(cfg)
    share_weights(model, ours)

    def losses(inputs: Inputs) -> Tensor:
        return torch.stack(list(model(inputs).values())).sum()

    def predict(inputs: Inputs) -> list[Instances]:
        # It answers with a Boxes of zeros; all else is as in Detectron2.
        return [x["instances"] for x in model(inputs)]

    return Peer("AdelaiDet", model, predict, losses)


def mmdetection(ours: SOLO, depth: int) -> Peer:
    """Build mmdetection's SOLOv2 like ours, by the config that lies in the package."""
    _without_compiled_operations()
    config = importlib.import_module("mmengine.config").Config
    registry = importlib.import_module("mmdet.registry").MODELS
    importlib.import_module("mmdet.utils").register_all_modules()
    folder = Path(importlib.import_module("mmdet").__file__).parent
    cfg = config.fromfile(folder / ".mim/configs/solov2/solov2_r50_fpn_1x_coco.py").model
    head = ours.head
    cfg.data_preprocessor.update(
        mean=ours.pixel_mean.flatten().tolist(),
        std=ours.pixel_std.flatten().tolist(),
        bgr_to_rgb=False,
    )
    # Our stages halve in their first 1x1 convolution, as Caffe's do.
    cfg.backbone.update(depth=depth, style="caffe", init_cfg=None)
    shapes = ours.backbone.bottom_up.output_shape()
    cfg.neck.in_channels = [shape.channels for shape in shapes.values()]
    cfg.mask_head.update(
        feat_channels=head.kernel_tower.out_channels, stacked_convs=len(head.kernel_tower)
    )
    if isinstance(sys.modules.get("mmcv._ext"), _MissingOperations):
        losses_module = importlib.import_module("mmdet.models.losses.focal_loss")
        losses_module.sigmoid_focal_loss = _focal_loss(losses_module)
    torch.manual_seed(0)
    model = registry.build(cfg).to(ours.device)
    share_weights(model, ours)

    def losses(inputs: Inputs) -> Tensor:
        data = model.data_preprocessor(_samples(inputs, truth=True), True)
        found = model.loss(data["inputs"], data["data_samples"])
        return torch.stack([torch.as_tensor(x).sum() for x in found.values()]).sum()

    def predict(inputs: Inputs) -> list[Instances]:
        data = model.data_preprocessor(_samples(inputs, truth=False), False)
        return [_instances(x) for x in model.predict(data["inputs"], data["data_samples"])]

    return Peer("mmdetection", model, predict, losses)


def _focal_loss(module: ModuleType) -> Callable[..., Tensor]:
    """Return mmdetection's focal loss in PyTorch, which it uses on a CPU, for a GPU as well."""

    def focal_loss(pred: Tensor, target: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        classes = pred.shape[1]
        one_hot = nn.functional.one_hot(target, num_classes=classes + 1)[:, :classes]
        loss: Tensor = module.py_sigmoid_focal_loss(pred, one_hot, *args, **kwargs)
        return loss

    return focal_loss


class _MissingOperations(ModuleType):
    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)

        def operation(*_: Any, **__: Any) -> None:
            raise NotImplementedError(f"mmcv was installed without its operation {name}")

        return operation


def _without_compiled_operations() -> None:
    """Let `mmcv` be imported whose compiled operations are missing."""
    if "mmcv._ext" not in sys.modules and importlib.util.find_spec("mmcv._ext") is None:
        sys.modules["mmcv._ext"] = _MissingOperations("mmcv._ext")


def _samples(inputs: Inputs, *, truth: bool) -> dict[str, list[Any]]:
    """Inputs as mmdetection's loader hands them on."""
    samples = []
    for x in inputs:
        size = tuple(x["image"].shape[-2:])
        output = (x.get("height", size[0]), x.get("width", size[1]))
        sample = importlib.import_module("mmdet.structures").DetDataSample(
            metainfo={
                "img_shape": size,
                "ori_shape": output,
                "scale_factor": (size[1] / output[1], size[0] / output[0]),
            }
        )
        if truth:
            sample.gt_instances = _ground_truth(x["instances"])
        samples.append(sample)
    return {"inputs": [x["image"] for x in inputs], "data_samples": samples}


def _ground_truth(instances: Instances) -> Any:
    masks = importlib.import_module("mmdet.structures.mask").BitmapMasks
    data = importlib.import_module("mmengine.structures").InstanceData()
    data.bboxes = instances.gt_boxes.tensor.clone()
    data.labels = instances.gt_classes.clone()
    data.masks = masks(instances.gt_masks.tensor.numpy().astype("uint8"), *instances.image_size)
    return data


def _instances(sample: Any) -> Instances:
    found = sample.pred_instances
    instances = Instances(tuple(found.masks.shape[-2:]))
    instances.pred_masks, instances.scores = found.masks, found.scores
    instances.pred_classes = found.labels
    return instances


def copies(inputs: Inputs) -> Inputs:
    """Inputs that a peer may change."""
    return [copy.copy(x) for x in inputs]
