"""Our side of the comparison: the model that another project's state dict converts to."""

from __future__ import annotations

import torch
from detectron2.modeling import build_model
from detectron2.structures import BitMasks, Instances
from torch import Tensor, nn

from solo_d2 import model_zoo
from solo_d2.checkpoint.foreign.convert import convert_state_dict
from solo_d2.modeling.postprocessing import category_scores


def build(state_dict: dict[str, Tensor], source: str = "auto", **overrides: object) -> nn.Module:
    """Our model with converted weights, of the config that the conversion names.

    Args:
        state_dict: of the other project.
        source: see `convert_state_dict`.
        overrides: values of keys in ``MODEL.SOLO``.
    """
    converted = convert_state_dict(state_dict, source)
    cfg = model_zoo.get_config(converted.info.config)
    cfg.merge_from_list([x for pair in converted.overrides.items() for x in pair])
    settings = converted.info.convention.settings
    cfg.merge_from_list([x for pair in settings.items() for x in pair])
    cfg.MODEL.DEVICE = "cpu"
    cfg.MODEL.SOLO.update(overrides)
    model = build_model(cfg).eval()
    model.load_state_dict(converted, strict=True)
    return model


def _inputs(model: nn.Module, image: Tensor, size: tuple[int, int] | None = None) -> dict:
    size = size or tuple(image.shape[1:])
    image = image if model.input_format == "RGB" else image.flip(0)
    return {"image": image, "height": size[0], "width": size[1]}


@torch.no_grad()
def detect(
    model: nn.Module, images: list[Tensor], sizes: list[tuple[int, int]]
) -> list[dict[str, Tensor]]:
    """Scores, labels and masks that our detector finds.

    Args:
        model: of `build`.
        images: RGB (3, h, w), uint8.
        sizes: (height, width) of every image's output.
    """
    results = model([_inputs(model, *pair) for pair in zip(images, sizes, strict=True)])
    return [
        {"scores": x.scores, "labels": x.pred_classes, "masks": x.pred_masks}
        for x in (result["instances"] for result in results)
    ]


def losses(
    model: nn.Module, images: list[Tensor], objects: list[tuple[Tensor, Tensor]]
) -> tuple[dict[str, Tensor], int]:
    """Our training losses, and the number of positive cells that they are divided by.

    Args:
        model: of `build`; in training mode afterwards.
        images: RGB (3, h, w), uint8.
        objects: per image, boolean masks (I, h, w) and classes (I,).
    """
    batch = [_inputs(model, image) for image in images]
    for inputs, (masks, classes) in zip(batch, objects, strict=True):
        inputs["instances"] = instances(masks, classes)
    canvas = tuple(model.preprocess_image(batch).tensor.shape[-2:])
    targets = model.assigner([x["instances"] for x in batch], canvas, torch.device("cpu"))
    return model.train()(batch), len(targets.cells)


def instances(masks: Tensor, classes: Tensor) -> Instances:
    """Ground truth of boolean masks (I, h, w) and classes (I,)."""
    return Instances(tuple(masks.shape[1:]), gt_masks=BitMasks(masks), gt_classes=classes)


@torch.no_grad()
def raw_outputs(model: nn.Module, image: Tensor) -> dict[str, Tensor]:
    """What our head predicts of one image, all levels of the grid in one tensor each.

    Args:
        model: of `build`.
        image: RGB (3, h, w), uint8.

    Returns:
        ``scores`` after point NMS and ``logits`` (T, C) of categories; ``masks``: all soft masks
        (T, H / 4, W / 4); of SOLOv2 also ``kernels`` (T, E) and ``features`` (E, H / 4, W / 4).
    """
    canvas = model.preprocess_image([_inputs(model, image)]).tensor
    predictions = model.head(model.backbone(canvas))
    size = (canvas.shape[-2] // 4, canvas.shape[-1] // 4)
    cells = torch.arange(model.head.grid.num_cells)
    outputs = {
        "scores": category_scores(predictions.category_logits)[0],
        "logits": torch.cat([x[0].flatten(1).T for x in predictions.category_logits]),
        "masks": model.head.mask_probs(predictions, 0, cells, size=size),
    }
    if hasattr(predictions.mask_inputs, "kernels"):
        outputs["kernels"] = predictions.mask_inputs.kernels.all[0]
        outputs["features"] = predictions.mask_inputs.features[0].all[0]
    return outputs
