"""mmdetection's own models, built live: its compiled operators are stubs, and torchvision's."""

from __future__ import annotations

import importlib.util
import sys
import types
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.ops import deform_conv2d


def installed() -> bool:
    """The extra "mmdet" of this package is there."""
    return all(importlib.util.find_spec(name) for name in ("mmcv", "mmdet", "mmengine"))


class _NotCompiled(types.ModuleType):
    """Stands in for `mmcv._ext`: any operator can be imported and none can be called."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)

        def operator(*args: Any, **kwargs: Any) -> None:
            raise NotImplementedError(f"mmcv.ops.{name} is compiled and mmcv-lite lacks it")

        return operator


def _modulated_deform_conv2d(
    x: Tensor,
    offset: Tensor,
    mask: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: Any,
    padding: Any,
    dilation: Any,
    groups: int,
    deform_groups: int,
) -> Tensor:
    """Of mmcv's arguments; torchvision reads both numbers of groups from the shapes."""
    return deform_conv2d(x, offset, weight, bias, stride, padding, dilation, mask)


def _deform_conv2d(
    x: Tensor,
    offset: Tensor,
    weight: Tensor,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
    deform_groups: int = 1,
    bias: bool = False,
    im2col_step: int = 32,
) -> Tensor:
    return deform_conv2d(x, offset, weight, None, stride, padding, dilation)


@cache
def import_mmdet() -> types.ModuleType:
    """Import `mmdet` with its models registered, in an environment without compiled operators."""
    if importlib.util.find_spec("mmcv._ext") is None:
        sys.modules["mmcv._ext"] = _NotCompiled("mmcv._ext")
    import mmcv.ops.deform_conv
    import mmcv.ops.modulated_deform_conv
    import mmdet
    from mmdet.utils import register_all_modules

    mmcv.ops.deform_conv.deform_conv2d = _deform_conv2d
    mmcv.ops.modulated_deform_conv.modulated_deform_conv2d = _modulated_deform_conv2d
    register_all_modules(init_default_scope=True)
    return mmdet


def config_names() -> list[str]:
    """Configs of the SOLO family in mmdet's wheel, such as "solov2/solov2_r50_fpn_1x_coco"."""
    folder = _config_folder()
    return [
        str(path.relative_to(folder).with_suffix(""))
        for family in ("solo", "solov2")
        for path in sorted((folder / family).glob("*.py"))
    ]


def _config_folder() -> Path:
    return Path(import_mmdet().__file__).parent / ".mim" / "configs"


def read_config(name: str) -> Any:
    """mmengine's `Config` of a name of `config_names`, with no weights to download."""
    from mmengine.config import Config

    config = Config.fromfile(_config_folder() / f"{name}.py")
    config.model.backbone.init_cfg = None
    return config


def build(config: Any) -> nn.Module:
    """The detector of a config, in eval mode."""
    from mmdet.registry import MODELS

    return MODELS.build(config.model).eval()


def _batch(images: list[Tensor], sizes: list[tuple[int, int]]) -> dict[str, Any]:
    from mmdet.structures import DetDataSample

    samples = []
    for image, size in zip(images, sizes, strict=True):
        height, width = image.shape[1:]
        scale = (size[1] / width, size[0] / height)
        info = {"img_shape": (height, width), "ori_shape": size, "scale_factor": scale}
        samples.append(DetDataSample(metainfo=info))
    return {"inputs": [image.flip(0) for image in images], "data_samples": samples}  # BGR


@torch.no_grad()
def detect(
    model: nn.Module,
    images: list[Tensor],
    sizes: list[tuple[int, int]],
    keys: tuple[str, ...] = ("scores", "labels", "masks"),
) -> list[dict[str, Tensor]]:
    """Scores, labels and masks that mmdet's detector finds.

    Args:
        model: of `build`.
        images: RGB (3, h, w), uint8.
        sizes: (height, width) of every image's output.
        keys: of what is wanted.
    """
    found = [sample.pred_instances for sample in model.test_step(_batch(images, sizes))]
    return [{key: x[key] for key in keys} for x in found]


def _instances(masks: Tensor, classes: Tensor) -> Any:
    from mmdet.structures.mask import BitmapMasks
    from mmengine.structures import InstanceData

    bitmaps = BitmapMasks(list(masks.numpy().astype("uint8")), *masks.shape[1:])
    boxes = bitmaps.get_bboxes("hbox").tensor
    return InstanceData(bboxes=boxes, labels=classes, masks=bitmaps)


def dynamic_targets(
    model: nn.Module, masks: Tensor, classes: Tensor
) -> tuple[Tensor, list[tuple[int, int]]]:
    """Training targets of one image by mmdet's SOLOv2.

    Args:
        model: of `build`.
        masks: boolean (I, H, W), on the canvas.
        classes: (I,).

    Returns:
        Class of every cell (T,), and (level, cell of the level) of every mask that is trained.
    """
    objects = _instances(masks, classes)
    size = (masks.shape[1] // 4, masks.shape[2] // 4)
    _, labels, _, indices = model.mask_head._get_targets_single(objects, featmap_sizes=size)
    pairs = [(level, index) for level, cells in enumerate(indices) for index in cells]
    return torch.cat([level.flatten() for level in labels]), pairs


def losses(
    model: nn.Module, images: list[Tensor], objects: list[tuple[Tensor, Tensor]]
) -> dict[str, Tensor]:
    """Training losses of mmdet's detector, with the running statistics of its norms.

    Args:
        model: of `build`; in training mode afterwards.
        images: RGB (3, h, w), uint8.
        objects: per image, boolean masks (I, h, w) and classes (I,).
    """
    batch = _batch(images, [tuple(image.shape[1:]) for image in images])
    for sample, (masks, classes) in zip(batch["data_samples"], objects, strict=True):
        sample.gt_instances = _instances(masks, classes)
    data = model.train().data_preprocessor(batch, training=True)
    return model.loss(data["inputs"], data["data_samples"])


@torch.no_grad()
def raw_outputs(model: nn.Module, image: Tensor) -> dict[str, Tensor]:
    """What mmdet's head predicts of one image, all levels of the grid in one tensor each.

    Args:
        model: of `build`.
        image: RGB (3, h, w), uint8.

    Returns:
        ``categories``: scores after point NMS (T, C), or logits (T, C) of SOLOv2, whose head
        leaves the sigmoid to the next step. Of SOLOv2 ``kernels`` (T, E) and ``features``
        (E, H / 4, W / 4), of Decoupled SOLO soft masks ``x`` and ``y`` (sum of S, H / 4, W / 4), of
        SOLO soft masks ``masks`` (T, H / 4, W / 4).
    """
    data = model.data_preprocessor(_batch([image], [tuple(image.shape[1:])]), training=False)
    outputs = model.mask_head(model.extract_feat(data["inputs"]))
    if type(model.mask_head).__name__ == "SOLOV2Head":
        kernels, categories, features = outputs
        return {
            "categories": _cells(categories),
            "kernels": _cells(kernels),
            "features": features[0],
        }
    *maps, categories = outputs
    names = ("masks",) if len(maps) == 1 else ("x", "y")
    masks = {
        name: torch.cat([level[0] for level in levels])
        for name, levels in zip(names, maps, strict=True)
    }
    return {"categories": _cells(categories), **masks}


def _cells(levels: list[Tensor]) -> Tensor:
    """One image's predictions (1, C, S, S) of every level as (T, C)."""
    return torch.cat([level[0].flatten(1).T for level in levels])
